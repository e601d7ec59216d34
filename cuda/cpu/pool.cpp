#include "pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif
#if !defined(_WIN32)
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace splat {
namespace {

int usable_processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set) > 0 ? CPU_COUNT(&set) : 1;
#endif
  const unsigned n = std::thread::hardware_concurrency();
  return n ? int(n) : 1;
}

long process_id() {
#if defined(_WIN32)
  return 0;
#else
  return long(getpid());
#endif
}

// Subnormal moments and gradients cost a hundred cycles each and mean nothing; restored when the scope ends.
struct FlushSubnormals {
#if defined(__x86_64__)
  unsigned saved = _mm_getcsr();
  FlushSubnormals() { _mm_setcsr(saved | 0x8040); }
  ~FlushSubnormals() { _mm_setcsr(saved); }
#endif
};

// This thread carries out a task: more threads are not for it.
thread_local bool inside = false;

class Pool {
 public:
  explicit Pool(int workers) : pid_(process_id()) {
    for (int i = 0; i < workers; ++i) threads_.emplace_back([this] { work(); });
  }
  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (auto& t : threads_) t.join();
  }

  bool alive() const { return pid_ == process_id(); }
  int size() const { return int(threads_.size()) + 1; }

  void run(int64_t count, Task task, const void* context) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      task_ = task, context_ = context, count_ = count;
      next_.store(0, std::memory_order_relaxed);
      busy_ = int(threads_.size());
      ++generation_;
    }
    wake_.notify_all();
    drain();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void drain() {
    FlushSubnormals scope;
    inside = true;
    for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) task_(context_, i);
    inside = false;
  }

  void work() {
    uint64_t seen = 0;
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return stop_ || generation_ != seen; });
        if (stop_) return;
        seen = generation_;
      }
      drain();
      std::lock_guard<std::mutex> lock(mutex_);
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::atomic<int64_t> next_{0};
  Task task_ = nullptr;
  const void* context_ = nullptr;
  int64_t count_ = 0;
  int busy_ = 0;
  uint64_t generation_ = 0;
  bool stop_ = false;
  long pid_;
};

std::timed_mutex gate;
// Two threads that draw take turns, operation by operation: milliseconds. Longer waits are no turns (a long operation
// elsewhere, or a fork while the pool was held), and then the caller does its work alone.
constexpr std::chrono::milliseconds kTurn{100};
Pool* pool = nullptr;  // never destroyed at exit: threads may outlive static destructors
std::atomic<int> wanted{0};

}  // namespace

int thread_count() {
  const int n = wanted.load();
  return n > 0 ? n : usable_processors();
}

void set_thread_count(int count) { wanted.store(count > 0 ? count : 0); }

void parallel_for(int64_t count, Task task, const void* context) {
  if (count <= 0) return;
  const int threads = thread_count();
  std::unique_lock<std::timed_mutex> lock(gate, std::defer_lock);
  if (threads <= 1 || count == 1 || inside || !lock.try_lock_for(kTurn)) {
    FlushSubnormals scope;
    for (int64_t i = 0; i < count; ++i) task(context, i);
    return;
  }
  if (pool != nullptr && !pool->alive()) pool = nullptr;  // after fork its threads do not exist here: leak it
  if (pool == nullptr || pool->size() != threads) {
    delete pool;
    pool = new Pool(threads - 1);
  }
  pool->run(count, task, context);
}

}  // namespace splat
