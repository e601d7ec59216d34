// Finds data races and reads of uninitialised shared memory. The kernels are compiled with -fsanitize=thread, whose
// calls before every load and store arrive here instead of in libtsan: that library knows threads and locks, this
// file knows blocks, barriers and warps.
//
// Two accesses of one kernel race when at least one writes, not both are atomic, and nothing orders them: the same
// thread, a __syncthreads between them (one block), a __syncwarp with both lanes (one warp), or, across blocks,
// __threadfence and an atomic on the same word on both sides. Shuffles and ballots order nothing.
#include "race.h"
#include <dlfcn.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

extern uint3 threadIdx, blockIdx;

namespace splat_host {
namespace {

using Kind = Access;
constexpr Kind READ = READ_ACCESS, WRITE = WRITE_ACCESS, ATOMIC = ATOMIC_ACCESS;
struct Seen {
  const void* where;  // return address in the kernel
  uint64_t block;
  uint32_t epoch, clock;  // barriers of the block, warp barriers of the lane so far
  uint16_t thread;
  uint8_t bytes;  // mask within the 8-byte granule
  Kind kind;
};
struct Granule {
  Seen seen[4];
  uint8_t used = 0, next = 0;
  uint8_t shared = 0, written = 0;  // masks of bytes, of shared memory
  uint16_t array = 0;
};

struct Detector {
  std::unordered_map<uintptr_t, Granule> granules;
  std::vector<std::string> arrays;
  std::vector<const char*> array_start;
  uint32_t clocks[32][32][32];  // [warp][lane][other lane]: what a lane knows of the others
  uint64_t block = 0;
  uint32_t epoch = 0;
  bool inside = false;
  const char* kernel = "";
  const char* stacks = nullptr;
  size_t stack_bytes = 0;
  std::unordered_map<uint64_t, std::unordered_set<uint64_t>> published;  // word -> blocks that fenced before an atomic
  std::unordered_set<uint64_t> fenced;                                   // blocks with a fence not yet published
  std::unordered_map<uint64_t, std::unordered_set<uint64_t>> acquired;   // block -> blocks it has seen
} detector;

unsigned self() {
  return unsigned(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
}
bool ordered(const Seen& before, unsigned thread) {
  const Detector& d = detector;
  if (before.block != d.block) {
    const auto seen = d.acquired.find(d.block);
    return seen != d.acquired.end() && seen->second.count(before.block);
  }
  if (before.thread == thread || before.epoch < d.epoch) return true;
  return before.thread / 32 == thread / 32 && before.clock <= d.clocks[thread / 32][thread % 32][before.thread % 32];
}

void print_place(const char* word, const void* where) {
  Dl_info info;
  const uintptr_t base = dladdr(where, &info) ? reinterpret_cast<uintptr_t>(info.dli_fbase) : 0;
  std::fprintf(stderr, "splat_host:   %s at +0x%zx\n", word, size_t(reinterpret_cast<uintptr_t>(where) - base - 1));
}
const char* kind_name(Kind kind) {
  return kind == READ ? "read" : kind == WRITE ? "write" : kind == ATOMIC ? "atomic" : "asynchronous write";
}

void print_target(const Granule& g, const void* address) {
  if (g.shared)
    std::fprintf(stderr, " of %s, byte %td", detector.arrays[g.array].c_str(),
                 static_cast<const char*>(address) - detector.array_start[g.array]);
  else
    std::fprintf(stderr, " of global memory %p", address);
}
[[noreturn]] void race(const Granule& g, const Seen& before, const Seen& now, const void* address) {
  std::fprintf(stderr, "splat_host: race in kernel %s, block (%u, %u, %u), thread %u: %s", detector.kernel, blockIdx.x,
               blockIdx.y, blockIdx.z, unsigned(now.thread), kind_name(now.kind));
  print_target(g, address);
  std::fprintf(stderr, " against the %s by thread %u of %s block\n", kind_name(before.kind), unsigned(before.thread),
               before.block == now.block ? "this" : "another");
  print_place("now", now.where), print_place("before", before.where);
  std::abort();
}
[[noreturn]] void unset(const Granule& g, const Seen& now, const void* address) {
  std::fprintf(stderr, "splat_host: read of uninitialised shared memory in kernel %s, ", detector.kernel);
  std::fprintf(stderr, "block (%u, %u, %u), thread %u: read", blockIdx.x, blockIdx.y, blockIdx.z, unsigned(now.thread));
  print_target(g, address);
  std::fprintf(stderr, "\n");
  print_place("now", now.where);
  std::abort();
}

void access_granule(uintptr_t key, uint8_t bytes, Kind kind, const void* where, const void* address) {
  Detector& d = detector;
  Granule& g = d.granules[key];
  const unsigned thread = self();
  const uint32_t clock = d.clocks[thread / 32][thread % 32][thread % 32];
  const Seen now{where, d.block, d.epoch, clock, uint16_t(thread), bytes, kind};
  if ((kind == READ || kind == ATOMIC) && (g.shared & bytes & ~g.written)) unset(g, now, address);
  if (kind == WRITE || kind == ATOMIC) g.written |= bytes;
  int place = -1;
  for (int i = 0; i < g.used; ++i) {
    Seen& before = g.seen[i];
    const bool both_read = before.kind == READ && kind == READ, both_atomic = before.kind == ATOMIC && kind == ATOMIC;
    const bool conflict = (before.bytes & bytes) && !both_read && !both_atomic;
    const bool known = ordered(before, thread);
    if (conflict && !known) race(g, before, now, address);
    const bool replaces = known && !(before.bytes & ~bytes) && (kind != READ || before.kind == READ);
    if (replaces && place < 0) place = i;
  }
  if (place < 0 && g.used < 4) place = g.used++;
  if (place < 0) place = g.next++ & 3;
  g.seen[place] = now;
}

void access(const void* address, size_t bytes, Kind kind, const void* where) {
  Detector& d = detector;
  const char* at = static_cast<const char*>(address);
  if (!d.inside || (at >= d.stacks && at < d.stacks + d.stack_bytes)) return;
  uintptr_t first = reinterpret_cast<uintptr_t>(address);
  const uintptr_t end = first + bytes;
  while (first < end) {
    const uintptr_t key = first >> 3, stop = end < (key + 1) << 3 ? end : (key + 1) << 3;
    const uint8_t mask = uint8_t(((1u << (stop - first)) - 1u) << (first & 7));
    access_granule(key, mask, kind, where, address);
    first = stop;
  }
}

}  // namespace

void race_launch(const char* kernel) {
  Detector& d = detector;
  d.kernel = kernel;
  d.granules.clear(), d.published.clear(), d.fenced.clear(), d.acquired.clear();
  d.inside = true;
}
void race_end() { detector.inside = false; }
void race_block(uint64_t block) {
  Detector& d = detector;
  d.block = block, d.epoch = 0;
  d.arrays.clear(), d.array_start.clear();
  std::memset(d.clocks, 0, sizeof(d.clocks));
  for (auto& warp : d.clocks)
    for (int lane = 0; lane < 32; ++lane) warp[lane][lane] = 1;
}
void race_barrier() { ++detector.epoch; }
void race_warp_barrier(unsigned base, unsigned members) {
  auto& warp = detector.clocks[base / 32];
  uint32_t joined[32] = {};
  for (int lane = 0; lane < 32; ++lane)
    for (int other = 0; members >> lane & 1u && other < 32; ++other)
      if (warp[lane][other] > joined[other]) joined[other] = warp[lane][other];
  for (int lane = 0; lane < 32; ++lane)
    if (members >> lane & 1u) std::memcpy(warp[lane], joined, sizeof(joined)), ++warp[lane][lane];
}
void race_access(const void* memory, size_t bytes, Access kind, const void* where) {
  access(memory, bytes, kind, where);
}
void race_stacks(const void* memory, size_t bytes) {
  detector.stacks = static_cast<const char*>(memory), detector.stack_bytes = bytes;
}
void race_shared(const void* memory, size_t bytes, const char* name) {
  Detector& d = detector;
  d.arrays.push_back(name), d.array_start.push_back(static_cast<const char*>(memory));
  for (size_t i = 0; i < bytes; ++i) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(memory) + i;
    Granule& g = d.granules[at >> 3];
    if (i == 0 || (at & 7) == 0) g = Granule{};
    g.shared |= uint8_t(1u << (at & 7)), g.array = uint16_t(d.arrays.size() - 1);
  }
}
void race_free(const void* memory, size_t bytes) {
  const uintptr_t first = reinterpret_cast<uintptr_t>(memory), end = first + bytes;
  for (uintptr_t key = first >> 3; key < (end + 7) >> 3; ++key) detector.granules.erase(key);
}

// An atomic after a fence publishes what the block did; one that follows it in another block has seen that.
void atomic_access(const void* address, size_t bytes) {
  Detector& d = detector;
  if (!d.inside) return;
  access(address, bytes, ATOMIC, __builtin_return_address(0));
  const uint64_t word = reinterpret_cast<uintptr_t>(address);
  auto& writers = d.published[word];
  for (uint64_t block : writers)
    if (block != d.block) d.acquired[d.block].insert(block);
  if (d.fenced.count(d.block)) writers.insert(d.block);
}
void fence() { detector.fenced.insert(detector.block); }

}  // namespace splat_host

// --- what -fsanitize=thread calls ------------------------------------------------------------------------------
#define SPLAT_HOST_HOOK(name, kind, bytes) \
  void __tsan_##name(void* p) { splat_host::access(p, bytes, splat_host::kind, __builtin_return_address(0)); }
#define SPLAT_HOST_HOOKS(bytes)                                 \
  SPLAT_HOST_HOOK(read##bytes, READ_ACCESS, bytes)              \
  SPLAT_HOST_HOOK(write##bytes, WRITE_ACCESS, bytes)            \
  SPLAT_HOST_HOOK(unaligned_read##bytes, READ_ACCESS, bytes)    \
  SPLAT_HOST_HOOK(unaligned_write##bytes, WRITE_ACCESS, bytes)  \
  SPLAT_HOST_HOOK(volatile_read##bytes, READ_ACCESS, bytes)     \
  SPLAT_HOST_HOOK(volatile_write##bytes, WRITE_ACCESS, bytes)
extern "C" {
SPLAT_HOST_HOOKS(1)
SPLAT_HOST_HOOKS(2)
SPLAT_HOST_HOOKS(4)
SPLAT_HOST_HOOKS(8)
SPLAT_HOST_HOOKS(16)
void __tsan_read_range(void* p, size_t bytes) {
  splat_host::access(p, bytes, splat_host::READ_ACCESS, __builtin_return_address(0));
}
void __tsan_write_range(void* p, size_t bytes) {
  splat_host::access(p, bytes, splat_host::WRITE_ACCESS, __builtin_return_address(0));
}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
// Guards of function-local statics on the host side.
uint8_t __tsan_atomic8_load(const volatile uint8_t* p, int) { return *p; }
void __tsan_atomic8_store(volatile uint8_t* p, uint8_t value, int) { *p = value; }
}
