// What the forward and the backward blend share: the tile, its pixels, checkpoints, and the walk over its splats.
//
// A tile is 8 blocks of 8x4 pixels, one pixel per lane; a warp owns a column of kRun blocks, so that a footprint's
// Run serves kRun pixels of a lane. Splats come in batches through shared memory, the next batch on its way while this
// one is drawn. Each warp tests 32 splats at once against its part of the tile (the footprint's may_reach), queues the
// few that reach it and draws only those.
#pragma once
#include "footprints.cuh"
#include "warp.cuh"

namespace splat {
namespace gpu {

constexpr int kChunk = 256;  // instances between two checkpoints
constexpr int kBlockWidth = 8, kBlockHeight = 4, kBlocks = kPixels / kWarp;
constexpr uint32_t kUnreached = 0x80000000u;
constexpr int kBackgroundBlocks = 256;

// Threads an SM can hold at least (Turing: 1024, all others of ours: 1536 or more), to bound registers by.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr int kThreadsPerSm = 1024;
#else
constexpr int kThreadsPerSm = 1536;
#endif

struct BlendArgs {
  const float* records;
  const uint32_t *tile_begin, *instance_splat, *instance_slot;
  const splat_counters* counters;
  uint32_t* unit_tile;
  double* background_sums;  // [kBackgroundBlocks,3]
  float4* states;
  int width, height, tiles_x, tiles;
};

// --- checkpoints ---------------------------------------------------------------------------------------------------
// Chunk k of tile t is work unit tile_begin[t] / kChunk + t + k: distinct for all chunks, and below
// capacity / kChunk + tiles, so neither a scan nor the host has to know the numbers of chunks. unit_tile[] holds the
// tile, or tile | kUnreached when all its pixels were finished before. The state (T, C) of the 256 pixels before chunk
// k >= 1 lies in place tile_begin[t] / kChunk + k - 1. All divisions round down.
SPLAT_HD uint32_t first_unit(uint32_t tile_begin, uint32_t tile) { return tile_begin / kChunk + tile; }

struct CheckpointLayout {
  size_t units, background_at, states_at, bytes;
  CheckpointLayout(int64_t capacity, int64_t tiles) {
    units = size_t(capacity) / kChunk + size_t(tiles);
    background_at = (units * sizeof(uint32_t) + 255) / 256 * 256;
    states_at = background_at + kBackgroundBlocks * 3 * sizeof(double);
    bytes = states_at + (size_t(capacity) / kChunk + 1) * kPixels * sizeof(float4);
  }
};

inline int tiles_across(int pixels) { return (pixels + kTile - 1) / kTile; }

inline BlendArgs blend_args(const splat_view& view, const splat_projected& projected, const splat_bins& bins,
                            const splat_counters* counters, void* checkpoints) {
  BlendArgs a;
  a.records = static_cast<const float*>(projected.records);
  a.tile_begin = bins.tile_begin, a.instance_splat = bins.instance_splat, a.instance_slot = bins.instance_slot;
  a.counters = counters;
  a.width = view.width, a.height = view.height;
  a.tiles_x = tiles_across(view.width), a.tiles = a.tiles_x * tiles_across(view.height);
  const CheckpointLayout layout(bins.capacity, a.tiles);
  char* memory = static_cast<char*>(checkpoints);
  a.unit_tile = reinterpret_cast<uint32_t*>(memory);
  a.background_sums = reinterpret_cast<double*>(memory + layout.background_at);
  a.states = reinterpret_cast<float4*>(memory + layout.states_at);
  return a;
}

__device__ __forceinline__ bool overflowed(const splat_counters* counters) {
  return counters != nullptr && counters->overflow != 0;
}

// --- a lane's pixels -----------------------------------------------------------------------------------------------
template <int kRun> struct Pixels {
  static constexpr int kThreads = kPixels / kRun, kWarps = kThreads / kWarp;
  int lane, warp, x, y;   // of block 0; block i lies kBlockHeight * i lower
  int first_block;        // block i is first_block + 2 i of the tile
  int width, height;
  float left, top;        // centre of the first pixel of the warp's part

  __device__ __forceinline__ Pixels(const BlendArgs& a, uint32_t tile) {
    lane = kept(threadIdx.x % kWarp), warp = threadIdx.x / kWarp;
    width = a.width, height = a.height;
    const int column = warp % 2, row = warp / 2 * kRun;
    first_block = 2 * row + column;
    const int x0 = int(tile) % a.tiles_x * kTile + column * kBlockWidth;
    const int y0 = int(tile) / a.tiles_x * kTile + row * kBlockHeight;
    x = x0 + lane % kBlockWidth, y = y0 + lane / kBlockWidth;
    left = x0 + 0.5f, top = y0 + 0.5f;
  }
  __device__ __forceinline__ bool inside(int i) const { return x < width && y + kBlockHeight * i < height; }
  __device__ __forceinline__ int64_t at(int i) const { return int64_t(y + kBlockHeight * i) * width + x; }
  __device__ __forceinline__ int in_tile(int i) const { return (first_block + 2 * i) * kWarp + lane; }
  __device__ __forceinline__ float center_x() const { return x + 0.5f; }
  __device__ __forceinline__ float center_y(int i) const { return (y + kBlockHeight * i) + 0.5f; }
  __device__ __forceinline__ float load(const float* plane, int i, float outside) const {
    return inside(i) ? __ldg(plane + at(i)) : outside;
  }
};

template <int kRun> __device__ __forceinline__ bool any_open(const float (&T)[kRun]) {
  bool open = false;
#pragma unroll
  for (int i = 0; i < kRun; ++i) open |= T[i] > 0.0f;
  return open;
}

// --- records in shared memory --------------------------------------------------------------------------------------
// A batch of splats, of which the first kReals of a record are staged. Common records: one splat per thread, row k of
// splat n at k * kCount + n, so that neighbouring lanes meet neighbouring banks; a splat that is drawn is copied to
// registers. Wide records: half as many splats (shared memory), each in one piece and read where it lies.
template <class F, int kThreads, int kReals = kPixelReals<F>> struct Batch {
  using Footprint = F;
  static constexpr bool kWide = F::kRecord > kCommonRecord;
  static constexpr int kRows = kReals / 4, kCount = kWide ? kThreads / 2 : kThreads, kPlaces = kRows * kCount;
  static constexpr int kRowStep = kWide ? 1 : kCount, kSplatStep = kWide ? kRows : 1;
  static_assert(kReals % 4 == 0 && F::kReach % 4 == 0 && F::kReach <= kReals && kChunk % kCount == 0, "staging");

  // Whether this thread copies a splat of the batch.
  static __device__ __forceinline__ bool copies() { return kCount == kThreads || threadIdx.x < kCount; }
  static __device__ __forceinline__ void stage(const BlendArgs& a, uint32_t splat, float4* batch) {
    const float4* record = reinterpret_cast<const float4*>(a.records + size_t(splat) * F::kRecord);
    float4* const to = batch + threadIdx.x * kSplatStep;
#pragma unroll
    for (int k = 0; k < kRows; ++k) copy_async(to + k * kRowStep, record + k);
  }
};

// The first kReals of a staged record: `value`.
template <class B, int kReals = 4 * B::kRows, bool kWide = B::kWide> struct StagedRecord {
  float value[kReals];
  __device__ __forceinline__ explicit StagedRecord(const float4* from) {
#pragma unroll
    for (int k = 0; k < kReals / 4; ++k) {
      const float4 q = from[k * B::kRowStep];
      value[4 * k] = q.x, value[4 * k + 1] = q.y, value[4 * k + 2] = q.z, value[4 * k + 3] = q.w;
    }
  }
};
template <class B, int kReals> struct StagedRecord<B, kReals, true> {
  const float* value;
  __device__ __forceinline__ explicit StagedRecord(const float4* from)
      : value(reinterpret_cast<const float*>(from)) {}
};

// Draws instances [begin, end) until every pixel of the tile is finished; returns the first one that was not drawn.
// begin_batch(first) and end_batch(first, count) are called by all threads together, hit(place, n) by a warp for a
// splat of the batch: its record lies at `place`, and n() is its number in the batch.
// stage: [2, B::kPlaces]; queue: [threads].
template <class B, int kRun, class BeginBatch, class Hit, class EndBatch>
__device__ __forceinline__ uint32_t walk(const BlendArgs& a, const Pixels<kRun>& p, uint32_t begin, uint32_t end,
                                         const float (&T)[kRun], float4* stage, uint32_t* queue,
                                         BeginBatch&& begin_batch, Hit&& hit, EndBatch&& end_batch) {
  using F = typename B::Footprint;
  const float right = p.left + (kBlockWidth - 1), bottom = p.top + (kBlockHeight * kRun - 1);
  auto splat_at = [&](uint32_t instance) { return instance < end ? __ldg(a.instance_splat + instance) : 0; };
  uint32_t splat = splat_at(begin + threadIdx.x);  // the one this thread stages next
  if (B::copies() && begin + threadIdx.x < end) B::stage(a, splat, stage);
  splat = splat_at(begin + B::kCount + threadIdx.x);
  uint32_t* const my_queue = queue + p.warp * kWarp;
  uint32_t first = begin;
  for (int buffer = 0; first < end; first += B::kCount, buffer = B::kPlaces - buffer) {
    copies_done();
    if (!__syncthreads_or(any_open(T))) break;
    // The other buffer was read before the barrier.
    if (B::copies() && first + B::kCount + threadIdx.x < end) B::stage(a, splat, stage + (B::kPlaces - buffer));
    splat = splat_at(first + 2 * B::kCount + threadIdx.x);
    begin_batch(first);
    const uint32_t count = end - first < B::kCount ? end - first : B::kCount;
    for (uint32_t group = 0; group < count; group += kWarp) {
      if (!__any_sync(kFullWarp, any_open(T))) break;
      const uint32_t n = group + p.lane;
      bool reached = n < count;
      if (reached) {
        const StagedRecord<B, F::kReach> record(stage + buffer + n * B::kSplatStep);
        reached = F::may_reach(record.value, p.left, right, p.top, bottom);
      }
      const uint32_t ballot = __ballot_sync(kFullWarp, reached);
      if (reached)
        my_queue[__popc(ballot & ((1u << p.lane) - 1))] = (buffer + n * B::kSplatStep) * uint32_t(sizeof(float4));
      __syncwarp();
      const uint32_t* const queue_end = my_queue + __popc(ballot);
#pragma unroll 1
      for (const uint32_t* q = my_queue; q != queue_end; ++q) {
        const uint32_t offset = *q;
        hit(reinterpret_cast<const float4*>(reinterpret_cast<const char*>(stage) + offset),
            [&] { return (offset / uint32_t(sizeof(float4)) - buffer) / B::kSplatStep; });
      }
      __syncwarp();
    }
    end_batch(first, count);
  }
  return first < end ? first : end;
}

}  // namespace gpu
}  // namespace splat
