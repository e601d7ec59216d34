// Depth sort of the visible splats and the list of splats of every tile. The host never learns a count here: launches
// and sorts cover what could be (N rows, `capacity` instances) and threads beyond the counters on the device stop.
#include "sort.h"

#include "footprints.cuh"
#include "rows.cuh"
#include "scratch.h"

namespace splat {
namespace gpu {
namespace {

constexpr int kRowsPerThread = 8, kScanThreads = 256, kRowBlock = kRowsPerThread * kScanThreads;
constexpr int kWalkWarps = 4;
constexpr int kTallRows = 12;        // from here on a warp walks a splat's rows of tiles together
constexpr uint32_t kWideSplat = 32;  // more instances than this are emitted by the whole warp
constexpr int kTileBits = 20;        // 16384 x 16384 pixels are 2^20 tiles
constexpr int kChunk = 256;          // instances per checkpoint of the blend
constexpr uint32_t kHidden = 0xffffffffu;

// Everything binning needs besides its outputs; the same code counts the bytes.
struct BinMemory {
  uint2* chunk_sums;       // [ceil(N / kRowBlock)] visible rows, slots; then their exclusive sums
  uint32_t *rows, *keys;   // [N] row numbers to be sorted; sorted depth keys, never read
  uint32_t* rank_begin;    // [N+1] instances of a rank, then the exclusive sum
  void* tile_keys[2];      // [capacity] 16 or 32 bits
  uint32_t* slots;         // [capacity] second place of instance_slot
  uint32_t* splat_of_slot; // [capacity]
  void* sort;
  size_t sort_bytes;

  BinMemory(Scratch& from, int64_t n, int64_t capacity, bool wide) {
    const size_t key = wide ? 4 : 2;
    chunk_sums = from.take<uint2>((n + kRowBlock - 1) / kRowBlock + 1);
    rows = from.take<uint32_t>(n), keys = from.take<uint32_t>(n);
    rank_begin = from.take<uint32_t>(n + 1);
    tile_keys[0] = from.take_bytes(size_t(capacity) * key), tile_keys[1] = from.take_bytes(size_t(capacity) * key);
    slots = from.take<uint32_t>(capacity), splat_of_slot = from.take<uint32_t>(capacity);
    const size_t tile_sort = wide ? sort_pairs_scratch<uint32_t, uint32_t>(capacity)
                                  : sort_pairs_scratch<uint16_t, uint32_t>(capacity);
    const size_t sizes[3] = {sort_pairs_into_scratch<uint32_t, uint32_t>(n), exclusive_sum_scratch(n + 1), tile_sort};
    sort_bytes = 0;
    for (size_t size : sizes) sort_bytes = size > sort_bytes ? size : sort_bytes;
    sort = from.take_bytes(sort_bytes);
  }
};

struct BinTask {
  splat_bins bins;
  int64_t rows;
  int width, height, tiles_x, tiles;
  const float* records;
  const uint32_t* rect_tiles;
  splat_counters* counters;
  uint32_t *rank_begin, *splat_of_slot;
};

// Sum over the lanes before this one; the last lane leaves the sum over all of them in *total, if given.
template <class T> __device__ T lanes_before(T value, T* total = nullptr) {
  const int lane = int(threadIdx.x) & 31;
  T sum = value;
#pragma unroll
  for (int d = 1; d < 32; d <<= 1) {
    const T other = __shfl_up_sync(kFullWarp, sum, unsigned(d));
    if (lane >= d) sum += other;
  }
  if (total != nullptr && lane == 31) *total = sum;
  return sum - value;
}

// Visible rows and slots of kRowBlock rows. Budget: 4 bytes per row in.
__global__ void __launch_bounds__(kScanThreads) count_rows(BinTask task, uint2* chunk_sums) {
  SPLAT_SHARED(uint2, parts, kScanThreads / 32);
  uint32_t visible = 0, slots = 0;
  for (int j = 0; j < kRowsPerThread; ++j) {
    const int64_t row = int64_t(blockIdx.x) * kRowBlock + j * kScanThreads + threadIdx.x;
    const uint32_t tiles = row < task.rows ? task.rect_tiles[row] : 0u;
    visible += tiles != 0, slots += tiles;
  }
  visible = warp_sum_u32(visible), slots = warp_sum_u32(slots);
  if ((threadIdx.x & 31) == 0) parts[threadIdx.x / 32] = make_uint2(visible, slots);
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kScanThreads / 32; ++w) visible += parts[w].x, slots += parts[w].y;
  chunk_sums[blockIdx.x] = make_uint2(visible, slots);
}

// Exclusive sums over the chunks and the verdict on the capacity, by one block. Slots are summed in 64 bits: a count
// that does not fit 32 must not look small. Budget: 16 bytes per 2048 rows.
__global__ void __launch_bounds__(kScanThreads) scan_chunks(BinTask task, int64_t chunks, uint2* chunk_sums) {
  using Count = unsigned long long;
  SPLAT_SHARED(uint32_t, visible_of, kScanThreads / 32);
  SPLAT_SHARED(Count, slots_of, kScanThreads / 32);
  const int warp = int(threadIdx.x) / 32;
  const int64_t each = (chunks + kScanThreads - 1) / kScanThreads, first = each * threadIdx.x;
  uint32_t visible = 0;
  Count slots = 0;
  for (int64_t c = first; c < first + each && c < chunks; ++c) visible += chunk_sums[c].x, slots += chunk_sums[c].y;
  visible = lanes_before(visible, &visible_of[warp]), slots = lanes_before(slots, &slots_of[warp]);
  __syncthreads();
  for (int w = 0; w < warp; ++w) visible += visible_of[w], slots += slots_of[w];
  for (int64_t c = first; c < first + each && c < chunks; ++c) {
    const uint2 sums = chunk_sums[c];
    chunk_sums[c] = make_uint2(visible, uint32_t(slots));
    visible += sums.x, slots += sums.y;
  }
  if (threadIdx.x != kScanThreads - 1) return;
  splat_counters& out = *task.counters;
  out.visible = visible, out.slots = slots < kHidden ? uint32_t(slots) : kHidden;
  out.overflow = slots > Count(task.bins.capacity);
  out.instances = out.chunks = out.reserved[0] = out.reserved[1] = out.reserved[2] = 0;
  task.bins.slot_begin[task.rows] = out.slots;
}

// First slot of every row, and the row numbers that the depth sort carries. Budget: 4 bytes per row in, 8 out.
__global__ void __launch_bounds__(kScanThreads) place_rows(BinTask task, const uint2* chunk_sums, uint32_t* rows) {
  SPLAT_SHARED(uint32_t, parts, kScanThreads / 32);
  const int warp = int(threadIdx.x) / 32;
  uint32_t begin = chunk_sums[blockIdx.x].y;
  for (int j = 0; j < kRowsPerThread; ++j) {
    const int64_t row = int64_t(blockIdx.x) * kRowBlock + j * kScanThreads + threadIdx.x;
    const uint32_t tiles = row < task.rows ? task.rect_tiles[row] : 0u;
    const uint32_t before = lanes_before(tiles, &parts[warp]);
    __syncthreads();
    uint32_t at = begin + before;
    for (int w = 0; w < kScanThreads / 32; ++w) {
      if (w < warp) at += parts[w];
      begin += parts[w];
    }
    __syncthreads();
    if (row < task.rows) task.bins.slot_begin[row] = at, rows[row] = uint32_t(row);
  }
}

// The walk over a splat's tiles, and how it gets its record. Footprints of one walk and one size of record share their
// kernels. Common records are read at once, wide ones where they lie: not all of them is looked at.
template <class W, int kReals> struct Walked {
  template <class S> using Walk = W;

  template <class Use>
  static __device__ __forceinline__ void with_record(const float* records, uint32_t row, Use&& use) {
    if constexpr (kReals > kCommonRecord) {
      use(records + size_t(row) * kReals);
    } else {
      const float4* from = reinterpret_cast<const float4*>(records) + kReals / 4 * size_t(row);
      float record[kReals];
#pragma unroll
      for (int i = 0; i < kReals / 4; ++i) {
        const float4 r = from[i];
        record[4 * i] = r.x, record[4 * i + 1] = r.y, record[4 * i + 2] = r.z, record[4 * i + 3] = r.w;
      }
      use(record);
    }
  }
};
template <class F> using WalkedOf = Walked<typename F::template Walk<float>, F::kRecord>;

// Exact number of tiles per splat, in depth order. Budget: 64 bytes of record in per drawn splat (a gather of whole
// sectors), 12 per row besides; 40 instructions per row of tiles. Tall splats are walked by the whole warp.
template <class T> __global__ void __launch_bounds__(32 * kWalkWarps) count_instances(BinTask task) {
  using Walk = typename T::template Walk<float>;
  const int lane = int(threadIdx.x) & 31;
  const int64_t rank = (int64_t(blockIdx.x) * kWalkWarps + threadIdx.x / 32) * 32 + lane;
  const bool here = rank < task.rows, binned = task.counters->overflow == 0;
  const bool drawn = here && binned && rank < task.counters->visible;
  const uint32_t row = here ? task.bins.order[rank] : 0u;
  uint32_t count = 0;
  int height = 0;
  if (drawn) {
    T::with_record(task.records, row, [&](const float* record) {
      const Walk walk(record, task.width, task.height);
      height = walk.y1 - walk.y0 + 1;
      int first, last;
      if (height < kTallRows)
        for (int ty = walk.y0; ty <= walk.y1; ++ty)
          if (walk.columns(ty, &first, &last), first <= last) count += uint32_t(last - first + 1);
    });
  }
  for (uint32_t rest = __ballot_sync(kFullWarp, height >= kTallRows); rest; rest &= rest - 1) {
    const int owner = __ffs(int(rest)) - 1;
    uint32_t part = 0;
    T::with_record(task.records, __shfl_sync(kFullWarp, row, owner), [&](const float* record) {
      const Walk walk(record, task.width, task.height);
      int first, last;
      for (int ty = walk.y0 + lane; ty <= walk.y1; ty += 32)
        if (walk.columns(ty, &first, &last), first <= last) part += uint32_t(last - first + 1);
    });
    part = warp_sum_u32(part);
    if (lane == owner) count = part;
  }
  if (here) task.bins.slot_count[row] = count, task.rank_begin[rank] = count;
  if (rank == 0) task.rank_begin[task.rows] = 0;
}

template <class Key> struct EmitTask {
  BinTask bin;
  Key* keys;
  uint32_t* slots;

  __device__ void put(uint32_t at, uint32_t tile, uint32_t slot, uint32_t row) const {
    keys[at] = Key(tile), slots[at] = slot, bin.splat_of_slot[slot] = row;
  }
};

// One splat by the whole warp: a lane walks a row of tiles, then all lanes write the rows one after another.
template <class T, class Key>
__device__ void emit_wide(const EmitTask<Key>& task, uint32_t row, uint32_t at, uint32_t slot) {
  const int lane = int(threadIdx.x) & 31;
  T::with_record(task.bin.records, row, [&](const float* record) {
    const typename T::template Walk<float> walk(record, task.bin.width, task.bin.height);
    for (int from = walk.y0; from <= walk.y1; from += 32) {
      int first = 0, last = -1;
      if (from + lane <= walk.y1) walk.columns(from + lane, &first, &last);
      const uint32_t n = first <= last ? uint32_t(last - first + 1) : 0u, before = lanes_before(n);
      for (int r = 0; r < 32 && from + r <= walk.y1; ++r) {
        const uint32_t n_r = __shfl_sync(kFullWarp, n, r), before_r = __shfl_sync(kFullWarp, before, r);
        const uint32_t tile_r = uint32_t((from + r) * task.bin.tiles_x + __shfl_sync(kFullWarp, first, r));
        for (uint32_t i = uint32_t(lane); i < n_r; i += 32)
          task.put(at + before_r + i, tile_r + i, slot + before_r + i, row);
      }
      const uint32_t total = __shfl_sync(kFullWarp, before + n, 31);
      at += total, slot += total;
    }
  });
}

// Instances in depth order: key = tile, value = slot, and the splat of every slot. Unused keys become all ones, which
// sort behind every tile. Budget: 64 bytes of record in per drawn splat, 10 out per instance (12 with 32-bit keys) and
// 2 (4) per unused place. Small splats are staged in shared memory so that the warp's writes are contiguous.
template <class T, class Key> __global__ void __launch_bounds__(32 * kWalkWarps) emit_instances(EmitTask<Key> task) {
  SPLAT_SHARED_2D(uint32_t, stages, kWalkWarps, 32 * kWideSplat);
  const BinTask& bin = task.bin;
  const uint32_t instances = bin.rank_begin[bin.rows];
  const int64_t threads = int64_t(gridDim.x) * blockDim.x, thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  for (int64_t i = instances + thread; i < bin.bins.capacity; i += threads) task.keys[i] = Key(~Key(0));
  if (instances == 0) return;
  const int lane = int(threadIdx.x) & 31;
  const int64_t rank = thread;  // of this lane
  const bool here = rank < bin.rows;
  const uint32_t at = here ? bin.rank_begin[rank] : 0u, count = here ? bin.rank_begin[rank + 1] - at : 0u;
  const uint32_t row = count ? bin.bins.order[rank] : 0u, slot = count ? bin.bins.slot_begin[row] : 0u;
  const bool wide = count > kWideSplat;
  const uint32_t small = wide ? 0u : count, before = lanes_before(small);
  uint32_t* stage = stages[threadIdx.x / 32];
  if (small) {
    uint32_t* to = stage + before;
    T::with_record(bin.records, row, [&](const float* record) {
      walk_tiles<T, float>(record, bin.width, bin.height, bin.tiles_x,
                           [&](uint32_t tile) { *to++ = tile | uint32_t(lane) << kTileBits; });
    });
  }
  __syncwarp();
  const uint32_t staged = __shfl_sync(kFullWarp, before + small, 31);
  for (uint32_t from = 0; from < staged; from += 32) {
    const uint32_t i = from + uint32_t(lane), entry = i < staged ? stage[i] : 0u;
    const int owner = int(entry >> kTileBits);
    const uint32_t to = __shfl_sync(kFullWarp, at - before, owner) + i;
    const uint32_t s = __shfl_sync(kFullWarp, slot - before, owner) + i;
    const uint32_t r = __shfl_sync(kFullWarp, row, owner);
    if (i < staged) task.put(to, entry & ((1u << kTileBits) - 1), s, r);
  }
  for (uint32_t rest = __ballot_sync(kFullWarp, wide); rest; rest &= rest - 1) {
    const int owner = __ffs(int(rest)) - 1;
    const uint32_t wide_row = __shfl_sync(kFullWarp, row, owner), wide_at = __shfl_sync(kFullWarp, at, owner);
    emit_wide<T>(task, wide_row, wide_at, __shfl_sync(kFullWarp, slot, owner));
  }
}

template <class Key> __device__ uint32_t first_not_below(const Key* keys, uint32_t count, uint32_t tile) {
  uint32_t low = 0;
  while (count) {
    const uint32_t half = count / 2;
    if (uint32_t(keys[low + half]) < tile) low += half + 1, count -= half + 1;
    else count = half;
  }
  return low;
}

// tile_begin by binary search in the sorted keys: no tile is slow because its neighbours are empty. Budget: 22
// dependent loads per tile, mostly from the L2 cache; 4 bytes out.
template <class Key> __global__ void __launch_bounds__(256) find_tiles(BinTask task, const Key* keys) {
  SPLAT_SHARED(uint32_t, begins, 257);
  const uint32_t instances = task.rows ? task.rank_begin[task.rows] : 0u;
  const int tile = int(blockIdx.x) * 256 + int(threadIdx.x);
  begins[threadIdx.x] = tile <= task.tiles ? first_not_below(keys, instances, uint32_t(tile)) : instances;
  if (threadIdx.x == 255) begins[256] = first_not_below(keys, instances, uint32_t(tile) + 1);
  __syncthreads();
  const uint32_t begin = begins[threadIdx.x], end = tile < task.tiles ? begins[threadIdx.x + 1] : begin;
  if (tile <= task.tiles) task.bins.tile_begin[tile] = begin;
  const uint32_t chunks = warp_sum_u32((end - begin + kChunk - 1) / kChunk);
  if ((threadIdx.x & 31) == 0 && chunks) atomicAdd(&task.counters->chunks, chunks);
  if (tile == 0) task.counters->instances = instances;
}

// Splat and slot of every sorted instance. Budget: 8 bytes out, 4 in and a random 4 from a map that fits the L2 cache.
__global__ void __launch_bounds__(256) link_instances(BinTask task, const uint32_t* slots) {
  const int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x;
  if (i >= task.rank_begin[task.rows]) return;
  const uint32_t slot = slots[i];
  if (slots != task.bins.instance_slot) task.bins.instance_slot[i] = slot;
  task.bins.instance_splat[i] = task.splat_of_slot[slot];
}

unsigned blocks(int64_t count, int64_t per_block) { return unsigned((count + per_block - 1) / per_block); }

template <class T> int32_t count_tiles(const BinTask& task, cudaStream_t stream) {
  SPLAT_LAUNCH(count_instances<T>, blocks(task.rows, 32 * kWalkWarps), 32 * kWalkWarps, 0, stream, task);
  SPLAT_CHECK(cudaGetLastError());
  return SPLAT_OK;
}

template <class T, class Key> int32_t emit_tiles(const EmitTask<Key>& task, cudaStream_t stream) {
  SPLAT_LAUNCH((emit_instances<T, Key>), blocks(task.bin.rows, 32 * kWalkWarps), 32 * kWalkWarps, 0, stream, task);
  SPLAT_CHECK(cudaGetLastError());
  return SPLAT_OK;
}

template <class Key>
int32_t bin_tiles(int footprint, const BinTask& task, const BinMemory& memory, cudaStream_t stream) {
  SortBuffers<Key, uint32_t> pairs{{static_cast<Key*>(memory.tile_keys[0]), static_cast<Key*>(memory.tile_keys[1])},
                                   {task.bins.instance_slot, memory.slots}, 0};
  if (task.rows) {
    const EmitTask<Key> emit{task, pairs.keys[0], pairs.values[0]};
    const int32_t status = visit_footprint(
        footprint, [&](auto row) { return emit_tiles<WalkedOf<FootprintOf<decltype(row)>>>(emit, stream); });
    if (status) return status;
    int end_bit = 1;  // one value above the last tile must fit: the unused places
    while (task.tiles >> end_bit) ++end_bit;
    SPLAT_CHECK(sort_pairs(memory.sort, memory.sort_bytes, pairs, task.bins.capacity, 0, end_bit, stream));
  }
  SPLAT_LAUNCH(find_tiles<Key>, blocks(task.tiles + 1, 256), 256, 0, stream, task, pairs.keys[pairs.current]);
  SPLAT_CHECK(cudaGetLastError());
  if (task.rows == 0 || task.bins.capacity == 0) return SPLAT_OK;
  SPLAT_LAUNCH(link_instances, blocks(task.bins.capacity, 256), 256, 0, stream, task, pairs.values[pairs.current]);
  SPLAT_CHECK(cudaGetLastError());
  return SPLAT_OK;
}

int tiles_across(int pixels) { return (pixels + SPLAT_TILE - 1) / SPLAT_TILE; }

// 65535 tiles leave the key 0xffff to the unused places.
bool wide_keys(int width, int height) { return tiles_across(width) * tiles_across(height) > 65535; }

}  // namespace
}  // namespace gpu
}  // namespace splat

extern "C" size_t splat_cuda_bin_scratch(int64_t count, int64_t capacity, int32_t width, int32_t height) {
  using namespace splat;
  using namespace splat::gpu;
  Scratch counting;
  const BinMemory memory(counting, count, capacity, wide_keys(width, height));
  return counting.used();
}

extern "C" int32_t splat_cuda_bin(const splat_rows* rows, const splat_view* view, const splat_projected* projected,
                                  const splat_bins* bins, splat_counters* counters, splat_scratch scratch,
                                  void* stream_) {
  using namespace splat;
  using namespace splat::gpu;
  if (const int32_t status = check_rows(rows, view)) return status;
  if (bins->capacity < 0 || bins->capacity >= int64_t(1) << 31)
    return refuse(SPLAT_OVERFLOW, "%lld instances; at most 2^31 - 1", (long long)bins->capacity);
  if (!aligned16(projected->records)) return refuse(SPLAT_BAD_ARGUMENT, "records must be aligned to 16 bytes");
  const bool wide = wide_keys(view->width, view->height);
  Scratch carve(scratch);
  const BinMemory memory(carve, rows->count, bins->capacity, wide);
  if (!carve.enough())
    return refuse(SPLAT_BAD_ARGUMENT, "bin: %zu bytes of scratch given, %zu needed", scratch.bytes, carve.used());
  cudaStream_t stream = static_cast<cudaStream_t>(stream_);
  const int tiles_x = tiles_across(view->width);
  const BinTask task{*bins, rows->count, view->width, view->height, tiles_x, tiles_x * tiles_across(view->height),
                     static_cast<const float*>(projected->records), projected->rect_tiles, counters, memory.rank_begin,
                     memory.splat_of_slot};
  const int64_t n = rows->count, chunks = (n + kRowBlock - 1) / kRowBlock;
  if (n) SPLAT_LAUNCH(count_rows, unsigned(chunks), kScanThreads, 0, stream, task, memory.chunk_sums);
  SPLAT_LAUNCH(scan_chunks, 1, kScanThreads, 0, stream, task, chunks, memory.chunk_sums);
  SPLAT_CHECK(cudaGetLastError());
  if (n) {
    SPLAT_LAUNCH(place_rows, unsigned(chunks), kScanThreads, 0, stream, task, memory.chunk_sums, memory.rows);
    SPLAT_CHECK(cudaGetLastError());
    // Hidden rows have the largest key: the visible ones come first, equal depths in the order of their rows.
    const uint32_t *keys = projected->depth_keys, *numbers = memory.rows;
    SPLAT_CHECK(sort_pairs_into(memory.sort, memory.sort_bytes, keys, memory.keys, numbers, bins->order, n, 0, 32,
                                stream));
    const int32_t status = visit_footprint(
        rows->footprint, [&](auto row) { return count_tiles<WalkedOf<FootprintOf<decltype(row)>>>(task, stream); });
    if (status) return status;
    SPLAT_CHECK(exclusive_sum(memory.sort, memory.sort_bytes, memory.rank_begin, memory.rank_begin, n + 1, stream));
  }
  return wide ? bin_tiles<uint32_t>(rows->footprint, task, memory, stream)
              : bin_tiles<uint16_t>(rows->footprint, task, memory, stream);
}
