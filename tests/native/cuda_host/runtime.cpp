// Runs kernels on the host: a block's threads are fibers on one thread of the operating system.
//
// The order in which ready threads run, and the order of the blocks, is drawn from a seed (0: plainly in order). A
// correct kernel gives the same bits for every seed.
#include "fibers.h"
#include "race.h"
#include <sys/mman.h>
#include <unistd.h>
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <numeric>
#include <vector>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace splat_host {
namespace {

constexpr unsigned max_block = 1024;
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t stack_bytes = 256 * 1024;
#else
constexpr size_t stack_bytes = 128 * 1024;
#endif
constexpr size_t default_shared = 48 * 1024, most_shared = 64 * 1024;  // a block's: unasked, and on sm_75
constexpr uint32_t nan_pattern = 0x7fc5adde;  // a quiet NaN; 2143661534 as an integer

enum State { READY, AT_BARRIER, AT_WARP_OP, EXITED };
struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};
struct Thread {
  Fiber fiber;
  std::vector<Copy> copies;  // asynchronous, not yet done
  uint3 index;
  State state;
  WarpOp op;
  unsigned mask;
  int line, argument, width;
  uint64_t value, result;
};
struct Allocation { void* memory; size_t bytes; };

struct Machine {
  std::vector<Thread> threads{max_block};
  unsigned count = 0, live = 0, waiting = 0;
  unsigned current = 0;
  Fiber launcher;
  bool running = false;
  const char* kernel = "";
  const std::function<void()>* body = nullptr;
  std::vector<unsigned> ready;
  size_t head = 0;
  int policy = 0;
  uint64_t seed = 0, random = 1, block = 0;
  BlockOp barrier_op = BARRIER;
  int barrier_line = 0, barrier_count = 0, barrier_result = 0;
  std::vector<Allocation> shared;
  size_t shared_used = 0, shared_limit = 0;  // static and dynamic together
  void* dynamic = nullptr;
  std::map<const void*, int> allowed;
  cudaError_t error = cudaSuccess;
};
Machine& machine() {
  static Machine one = [] {
    Machine made;
    if (const char* text = std::getenv("SPLAT_HOST_CUDA_SEED")) made.seed = std::strtoull(text, nullptr, 0);
    return made;
  }();
  return one;
}

uint64_t draw(Machine& m) {  // xorshift64*
  m.random ^= m.random >> 12, m.random ^= m.random << 25, m.random ^= m.random >> 27;
  return m.random * 0x2545F4914F6CDD1Dull >> 16;
}
template <class T> void shuffle_order(Machine& m, T* items, size_t count) {
  for (size_t i = count; m.seed && i > 1; --i) std::swap(items[i - 1], items[draw(m) % i]);
}

// --- the ready list: threads leave from the front, from the back or from anywhere, by the block's policy -------
void make_ready(Machine& m, unsigned* ids, size_t count) {
  shuffle_order(m, ids, count);
  for (size_t i = 0; i < count; ++i) m.threads[ids[i]].state = READY, m.ready.push_back(ids[i]);
}
unsigned take_ready(Machine& m) {
  if (m.policy == 0) return m.ready[m.head++];
  if (m.policy == 2) std::swap(m.ready[m.head + draw(m) % (m.ready.size() - m.head)], m.ready.back());
  const unsigned id = m.ready.back();
  m.ready.pop_back();
  return id;
}

const char* op_name(WarpOp op) {
  static const char* const names[] = {
      "__syncwarp",        "__shfl_sync",       "__shfl_up_sync",    "__shfl_down_sync",  "__shfl_xor_sync",
      "__ballot_sync",     "__any_sync",        "__all_sync",        "__reduce_add_sync", "__reduce_min_sync",
      "__reduce_max_sync", "__reduce_and_sync", "__reduce_or_sync",  "__reduce_xor_sync", "__match_any_sync"};
  return names[op];
}
void describe(const Machine& m, unsigned id) {
  const Thread& t = m.threads[id];
  std::fprintf(stderr, "splat_host:   thread (%u, %u, %u) ", t.index.x, t.index.y, t.index.z);
  if (t.state == EXITED) std::fprintf(stderr, "has returned\n");
  else if (t.state == AT_BARRIER) std::fprintf(stderr, "waits at __syncthreads, line %d\n", t.line);
  else if (t.state == AT_WARP_OP) std::fprintf(stderr, "waits at %s(0x%08x), line %d\n", op_name(t.op), t.mask, t.line);
  else std::fprintf(stderr, "is ready\n");
}
// Nobody can run on: says who waits for what, one thread of each kind.
[[noreturn]] void stuck(const Machine& m) {
  unsigned first_waiting = 0;
  while (m.threads[first_waiting].state == EXITED) ++first_waiting;
  const bool barrier = m.threads[first_waiting].state == AT_BARRIER;
  std::fprintf(stderr, "splat_host: divergent %s in kernel %s, block (%u, %u, %u):\n",
               barrier ? "barrier" : "warp intrinsic", m.kernel, blockIdx.x, blockIdx.y, blockIdx.z);
  std::vector<unsigned> shown;
  for (unsigned id = 0; id < m.count && shown.size() < 8; ++id) {
    const Thread& t = m.threads[id];
    const bool known = std::any_of(shown.begin(), shown.end(), [&](unsigned other) {
      const Thread& o = m.threads[other];
      if (o.state != t.state) return false;
      const bool same_op = o.line == t.line && (t.state == AT_BARRIER || (o.mask == t.mask && o.op == t.op));
      return t.state == EXITED || same_op;
    });
    if (!known) shown.push_back(id), describe(m, id);
  }
  std::abort();
}

// Puts the current thread aside and runs another; returns when it is this one's turn again.
void run_next(Machine& m, bool for_ever) {
  if (m.head == m.ready.size()) stuck(m);
  const unsigned from = m.current, to = take_ready(m);
  if (m.head == m.ready.size()) m.ready.clear(), m.head = 0;
  m.current = to;
  if (from != to) {
    change(m.threads[from].fiber, m.threads[to].fiber, for_ever);
    arrived(m.threads[m.current].fiber, m.launcher);
  }
  threadIdx = m.threads[m.current].index;
}

// --- warps -----------------------------------------------------------------------------------------------------
uint64_t shuffled(const Machine& m, unsigned base, unsigned lane, unsigned members) {
  const Thread& t = m.threads[base + lane];
  const int width = t.width, first = int(lane) & ~(width - 1), last = first + width - 1;
  int from = int(lane);
  if (t.op == SHUFFLE) from = first | (t.argument & (width - 1));
  else if (t.op == UP) from = int(lane) - t.argument < first ? int(lane) : int(lane) - t.argument;
  else if (t.op == DOWN) from = int(lane) + t.argument > last ? int(lane) : int(lane) + t.argument;
  else from = (int(lane) ^ t.argument) > last ? int(lane) : int(lane) ^ t.argument;
  // What a lane outside the mask holds is undefined: something no kernel may rely on.
  return members >> from & 1u ? m.threads[base + unsigned(from)].value : uint64_t(nan_pattern) << 32 | nan_pattern;
}
uint64_t reduced(const Machine& m, unsigned base, WarpOp op, unsigned members) {
  uint64_t total = 0;
  bool first = true;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if (!(members >> lane & 1u)) continue;
    const uint64_t value = m.threads[base + lane].value;
    switch (op) {
      case BALLOT: total |= value << lane; break;
      case ANY: case OR: total |= value; break;
      case ALL: case AND: total = first ? value : total & value; break;
      case ADD: total += value; break;
      case BITXOR: total ^= value; break;
      case MIN: total = first || int64_t(value) < int64_t(total) ? value : total; break;
      case MAX: total = first || int64_t(value) > int64_t(total) ? value : total; break;
      default: break;
    }
    first = false;
  }
  return total;
}
uint64_t matching(const Machine& m, unsigned base, unsigned lane, unsigned members) {
  unsigned same = 0;
  for (unsigned other = 0; other < 32; ++other)
    if (members >> other & 1u && m.threads[base + other].value == m.threads[base + lane].value) same |= 1u << other;
  return same;
}

// Lets the lanes of `id`'s group go once every lane of its mask that has not returned waits at the same intrinsic.
bool complete_warp_op(Machine& m, unsigned id) {
  const Thread& t = m.threads[id];
  const unsigned base = id & ~31u, mask = t.mask;
  const WarpOp op = t.op;
  const int line = t.line;
  unsigned members = 0, ids[32];
  size_t count = 0;
  for (unsigned lane = 0; lane < 32 && base + lane < m.count; ++lane) {
    const Thread& other = m.threads[base + lane];
    if (!(mask >> lane & 1u) || other.state == EXITED) continue;
    if (other.state != AT_WARP_OP || other.mask != mask || other.op != op || other.line != line) return false;
    members |= 1u << lane, ids[count++] = base + lane;
  }
  const bool moves = op == SHUFFLE || op == UP || op == DOWN || op == XOR;
  const uint64_t total = moves || op == MATCH ? 0 : reduced(m, base, op, members);
  for (size_t i = 0; i < count; ++i) {
    const unsigned lane = ids[i] & 31u;
    uint64_t& result = m.threads[ids[i]].result;
    result = moves ? shuffled(m, base, lane, members) : op == MATCH ? matching(m, base, lane, members) : total;
  }
  if (op == SYNC) race_warp_barrier(base, members);
  make_ready(m, ids, count);
  return true;
}

[[noreturn]] void die(const Machine& m, const char* what) {
  std::fprintf(stderr, "splat_host: %s in kernel %s, block (%u, %u, %u), thread (%u, %u, %u)\n", what, m.kernel,
               blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
  std::abort();
}

// --- blocks ----------------------------------------------------------------------------------------------------
void* shared_memory(Machine& m, size_t bytes, const char* name) {
  m.shared_used += bytes;
  if (m.shared_used > m.shared_limit) die(m, "more static and dynamic shared memory than a launch may have,");
  uint32_t* words = static_cast<uint32_t*>(std::malloc(bytes ? bytes : 1));
  const size_t whole = bytes / 4;
  for (size_t i = 0; i < whole; ++i) words[i] = nan_pattern;
  std::memset(words + whole, 0xde, bytes - 4 * whole);
  m.shared.push_back({words, bytes});
  race_shared(words, bytes, name);
  return words;
}

void thread_entry() {
  Machine& m = machine();
  arrived(m.threads[m.current].fiber, m.launcher);
  threadIdx = m.threads[m.current].index;
  (*m.body)();
  const unsigned self = m.current;
  m.threads[self].state = EXITED;
  if (--m.live == 0) change(m.threads[self].fiber, m.launcher, true);
  for (unsigned id = self & ~31u; id < (self | 31u) + 1 && id < m.count; ++id)
    if (m.threads[id].state == AT_WARP_OP && m.threads[id].mask >> (self & 31u) & 1u) complete_warp_op(m, id);
  run_next(m, true);
  std::abort();
}

void make_stacks(Machine& m) {
  if (m.threads[0].fiber.bottom) return;
  const size_t guard = size_t(sysconf(_SC_PAGESIZE)), each = stack_bytes + guard;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* const mapped = mmap(nullptr, each * max_block, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (mapped == MAP_FAILED) std::fprintf(stderr, "splat_host: no memory for stacks\n"), std::abort();
  char* memory = static_cast<char*>(mapped);
  race_stacks(memory, each * max_block);
  for (unsigned i = 0; i < max_block; ++i) {
    mprotect(memory + i * each, guard, PROT_NONE);
    m.threads[i].fiber.bottom = memory + i * each + guard;
    m.threads[i].fiber.bytes = stack_bytes;
  }
}

void run_block(Machine& m, size_t shared_bytes) {
  ++m.block;
  race_block(m.block);
  m.policy = m.seed ? int(draw(m) % 3) : 0;
  m.live = m.count, m.waiting = 0, m.head = 0, m.ready.clear();
  m.shared_used = 0;
  m.dynamic = shared_memory(m, shared_bytes, "dynamic shared memory");
  std::vector<unsigned> ids(m.count);
  std::iota(ids.begin(), ids.end(), 0u);
  for (unsigned id : ids) {
    Thread& t = m.threads[id];
    t.index = {id % blockDim.x, id / blockDim.x % blockDim.y, id / (blockDim.x * blockDim.y)};
    t.copies.clear();
    prepare(t.fiber, thread_entry);
  }
  make_ready(m, ids.data(), ids.size());
  m.running = true;
  m.launcher.bottom = nullptr;  // learnt anew: any thread of the process may launch
  m.current = take_ready(m);
  change(m.launcher, m.threads[m.current].fiber, false);
  arrived(m.launcher, m.launcher);
  m.running = false;
  for (const Allocation& a : m.shared) race_free(a.memory, a.bytes), std::free(a.memory);
  m.shared.clear();
}

}  // namespace

uint64_t warp_op(WarpOp op, unsigned mask, uint64_t value, int argument, int width, int line) {
  Machine& m = machine();
  Thread& t = m.threads[m.current];
  if (!(mask >> (m.current & 31u) & 1u)) die(m, "a lane calls a warp intrinsic whose mask leaves it out");
  t.op = op, t.mask = mask, t.value = value, t.argument = argument, t.width = width, t.line = line;
  t.state = AT_WARP_OP;
  complete_warp_op(m, m.current);
  run_next(m, false);
  return t.result;
}

int block_barrier(BlockOp op, int value, int line) {
  Machine& m = machine();
  Thread& t = m.threads[m.current];
  if (m.waiting == 0) m.barrier_op = op, m.barrier_line = line, m.barrier_count = 0;
  t.state = AT_BARRIER, t.line = line;
  if (m.barrier_op != op || m.barrier_line != line) stuck(m);
  m.barrier_count += value != 0;
  if (++m.waiting == m.count) {
    m.waiting = 0;
    const int all = int(m.count);
    const int true_ones = m.barrier_count;
    m.barrier_result = op == COUNT_TRUE ? true_ones : op == ALL_TRUE ? true_ones == all : true_ones > 0;
    race_barrier();
    std::vector<unsigned> ids(m.count);
    std::iota(ids.begin(), ids.end(), 0u);
    make_ready(m, ids.data(), ids.size());
  }
  // The result is read before anyone can reach the next barrier's last arrival: that needs this thread.
  run_next(m, false);
  return m.barrier_result;
}

void* SharedArray::get(size_t bytes) {
  Machine& m = machine();
  if (block != m.block) memory = shared_memory(m, bytes, name), block = m.block;
  return memory;
}
void copy_async(void* shared, const void* global, size_t bytes) {
  Machine& m = machine();
  race_access(global, bytes, READ_ACCESS, __builtin_return_address(0));
  race_access(shared, bytes, COPY_ACCESS, __builtin_return_address(0));
  if (m.seed & 1 && draw(m) & 1) std::memcpy(shared, global, bytes);
  m.threads[m.current].copies.push_back({shared, global, bytes});
}
void copies_done() {
  std::vector<Copy>& copies = machine().threads[machine().current].copies;
  for (const Copy& copy : copies) {
    std::memcpy(copy.to, copy.from, copy.bytes);
    race_access(copy.to, copy.bytes, WRITE_ACCESS, __builtin_return_address(0));
  }
  copies.clear();
}
void* dynamic_shared() { return machine().dynamic; }

cudaError_t allow_shared(const void* kernel, int bytes) {
  if (bytes > int(most_shared)) return cudaErrorInvalidValue;
  machine().allowed[kernel] = bytes;
  return cudaSuccess;
}

void run(const char* name, const void* kernel, dim3 grid, dim3 block, size_t shared_bytes,
         const std::function<void()>& body) {
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  Machine& m = machine();
  const auto known = m.allowed.find(kernel);
  const size_t limit = known == m.allowed.end() ? default_shared : size_t(known->second);
  m.shared_limit = known == m.allowed.end() ? default_shared : most_shared;
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z, size = uint64_t(block.x) * block.y * block.z;
  const bool grid_fits = blocks > 0 && grid.x <= 0x7fffffffu && grid.y <= 65535 && grid.z <= 65535;
  if (!grid_fits || size == 0 || size > max_block || shared_bytes > limit) {
    m.error = cudaErrorInvalidConfiguration;
    return;
  }
  make_stacks(m);
  m.kernel = name, m.body = &body, m.count = unsigned(size);
  blockDim = block, gridDim = grid;
  m.random = m.seed * 0x9E3779B97F4A7C15ull + 0x1234567ull;
  race_launch(name);
  std::vector<uint64_t> order(blocks);
  std::iota(order.begin(), order.end(), uint64_t(0));
  shuffle_order(m, order.data(), order.size());
  for (uint64_t i : order) {
    blockIdx = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / (uint64_t(grid.x) * grid.y))};
    run_block(m, shared_bytes);
  }
  race_end();
}

#if !SPLAT_HOST_RACE
void atomic_access(const void*, size_t) {}
void fence() {}
#endif

uint64_t host_seed() { return machine().seed; }
void set_host_seed(uint64_t seed) { machine().seed = seed; }
cudaError_t& last_error() { return machine().error; }

}  // namespace splat_host

extern "C" __attribute__((visibility("default"))) void splat_host_cuda_seed(uint64_t seed) {
  splat_host::set_host_seed(seed);
}
