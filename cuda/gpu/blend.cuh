// Forward blend: one CTA per 16x16 tile, 4 warps of 8x8 pixels, 2 pixels per lane.
#pragma once
#include "blend_tile.cuh"

namespace splat {
namespace gpu {

constexpr int kForwardRun = 2;
using ForwardPixels = Pixels<kForwardRun>;
constexpr int kForwardThreads = ForwardPixels::kThreads, kForwardWarps = ForwardPixels::kWarps;
constexpr int kFeaturesPerPass = 8;

struct ForwardArgs {
  BlendArgs blend;
  splat_images images;  // device pointers
  ForwardStatColumns columns;
};

// Marks the units of a tile for the backward pass; `done` is the first instance that was not drawn.
__device__ __forceinline__ void write_units(const BlendArgs& a, uint32_t tile, uint32_t begin, uint32_t end,
                                            uint32_t done) {
  const uint32_t first = first_unit(begin, tile), count = first_unit(end, tile + 1) - first;
  for (uint32_t k = threadIdx.x; k < count; k += blockDim.x)
    a.unit_tile[first + k] = begin + kChunk * k < done ? tile : tile | kUnreached;
}

// --- depth and the strongest splat of a pixel ----------------------------------------------------------------------
struct NoPictures {
  __device__ __forceinline__ void add(int, const Fragment<float>&, float, float, float, int) {}
};

struct Pictures {
  float depth[kForwardRun] = {}, median[kForwardRun] = {}, best[kForwardRun] = {};
  int best_index[kForwardRun];  // within the tile, -1 = none
  __device__ __forceinline__ Pictures() {
    for (int i = 0; i < kForwardRun; ++i) best_index[i] = -1;
  }
  __device__ __forceinline__ void add(int i, const Fragment<float>& f, float T, float w, float z, int index) {
    depth[i] = fma(w, z, depth[i]);
    if (f.contributes && T > 0.5f && !(f.next_T > 0.5f)) median[i] = z;
    if (w > best[i]) best[i] = w, best_index[i] = index;
  }
  __device__ __forceinline__ void store(const ForwardArgs& a, const ForwardPixels& p, uint32_t begin) const {
    for (int i = 0; i < kForwardRun; ++i) {
      if (!p.inside(i)) continue;
      const int64_t at = p.at(i);
      if (a.images.depth_expected) static_cast<float*>(a.images.depth_expected)[at] = depth[i];
      if (a.images.depth_median) static_cast<float*>(a.images.depth_median)[at] = median[i];
      if (a.images.top_id)
        a.images.top_id[at] = best_index[i] < 0 ? -1 : int32_t(a.blend.instance_splat[begin + uint32_t(best_index[i])]);
    }
  }
};

// --- per-instance statistics ---------------------------------------------------------------------------------------
struct NoStats {
  __device__ __forceinline__ void add(int, const Fragment<float>&, float, float, float) {}
  __device__ __forceinline__ void end_splat(const ForwardArgs&, const ForwardPixels&, float*) {}
};

// One splat's sums over a lane's pixels.
struct LaneStats {
  float fragments = 0, sum = 0, max = 0, center = 0;
  float weighted[2 * SPLAT_MAX_WEIGHT_MAPS] = {};
  const float* maps;
  int64_t plane, at[kForwardRun];
  int map_count;

  __device__ __forceinline__ LaneStats(const ForwardArgs& a, const ForwardPixels& p) {
    maps = static_cast<const float*>(a.images.weight_maps);
    map_count = a.columns.weighted >= 0 ? a.images.weight_map_count : 0;
    plane = int64_t(p.width) * p.height;
    for (int i = 0; i < kForwardRun; ++i) at[i] = p.at(i);
  }
  __device__ __forceinline__ void add(int i, const Fragment<float>& f, float w, float dx, float dy) {
    if (!f.contributes) return;
    fragments += 1, sum += w, max = fmaxf(max, w);
    center += sqrt_(dx * dx + dy * dy);
#pragma unroll
    for (int m = 0; m < SPLAT_MAX_WEIGHT_MAPS; ++m)
      if (m < map_count) {
        const float map = __ldg(maps + m * plane + at[i]);
        weighted[2 * m] += map, weighted[2 * m + 1] = fma(map, w, weighted[2 * m + 1]);
      }
  }
  // Adds up the warp into `row` and starts over.
  __device__ __forceinline__ void end_splat(const ForwardArgs& a, const ForwardPixels& p, float* row) {
    const ForwardStatColumns& c = a.columns;
    auto put = [&](int column, float total) {
      if (p.lane == 0) row[column] = total;
    };
    if (c.fragments >= 0) put(c.fragments, warp_sum(fragments));
    if (c.sum >= 0) put(c.sum, warp_sum(sum));
    if (c.max >= 0) put(c.max, warp_max(max));
    if (c.center >= 0) put(c.center, warp_sum(center));
#pragma unroll
    for (int m = 0; m < 2 * SPLAT_MAX_WEIGHT_MAPS; ++m)
      if (m < 2 * map_count) put(c.weighted + m, warp_sum(weighted[m]));
    fragments = sum = max = center = 0;
#pragma unroll
    for (int m = 0; m < 2 * SPLAT_MAX_WEIGHT_MAPS; ++m) weighted[m] = 0;
  }
};

__device__ __forceinline__ float* stat_row(const ForwardArgs& a, uint32_t instance) {
  return static_cast<float*>(a.images.slot_stats) + size_t(a.blend.instance_slot[instance]) * a.columns.stride;
}

__device__ __forceinline__ void clear(float* values, int count) {
  for (int e = threadIdx.x; e < count; e += blockDim.x) values[e] = 0;
}

// The warps' rows [kForwardWarps, kBatch, stride] of a batch into its slots; leaves zeros.
template <int kBatch>
__device__ __forceinline__ void flush_stats(const ForwardArgs& a, float* rows, uint32_t first, uint32_t count) {
  const int stride = a.columns.stride;
  __syncthreads();
  for (uint32_t e = threadIdx.x; e < count * stride; e += blockDim.x) {
    const uint32_t n = e / stride, column = e % stride;
    float total = 0;
    for (int w = 0; w < kForwardWarps; ++w) {
      float& cell = rows[w * kBatch * stride + e];
      total = int(column) == a.columns.max ? fmaxf(total, cell) : total + cell;
      cell = 0;
    }
    stat_row(a, first + n)[column] = total;
  }
}

// Zeros for the instances that were not drawn.
__device__ __forceinline__ void zero_stats(const ForwardArgs& a, uint32_t first, uint32_t end) {
  const int stride = a.columns.stride;
  for (uint32_t e = threadIdx.x; e < (end - first) * stride; e += blockDim.x)
    stat_row(a, first + e / stride)[e % stride] = 0;
}

// In how many pixels an instance is the strongest; the first of these pixels in tile order writes it.
__device__ __forceinline__ void store_top_counts(const ForwardArgs& a, const ForwardPixels& p, const Pictures& pictures,
                                                 int* best, uint32_t begin) {
#pragma unroll
  for (int i = 0; i < kForwardRun; ++i) best[p.in_tile(i)] = p.inside(i) ? pictures.best_index[i] : -1;
  __syncthreads();  // also: the rows' zeros are written
#pragma unroll
  for (int i = 0; i < kForwardRun; ++i) {
    const int me = p.in_tile(i), index = best[me];
    if (index < 0) continue;
    int count = 0;
    bool is_first = true;
    for (int other = 0; other < kPixels; ++other)
      if (best[other] == index) ++count, is_first = is_first && other >= me;
    if (is_first) stat_row(a, begin + uint32_t(index))[a.columns.top] = float(count);
  }
}

// --- the kernels ---------------------------------------------------------------------------------------------------
__device__ __forceinline__ void store_color(const ForwardArgs& a, const ForwardPixels& p, const float* T,
                                            const float (*C)[3]) {
  const float* background = static_cast<const float*>(a.images.background);
  const int64_t plane = int64_t(p.width) * p.height;
  float* const color = static_cast<float*>(a.images.color);
#pragma unroll
  for (int i = 0; i < kForwardRun; ++i) {
    if (!p.inside(i)) continue;
    const float left = fabsf(T[i]);
#pragma unroll
    for (int c = 0; c < 3; ++c) color[c * plane + p.at(i)] = fma(left, __ldg(background + c), C[i][c]);
    static_cast<float*>(a.images.final_T)[p.at(i)] = left;
  }
}

// CTAs an SM should hold, to bound registers by: all its threads with the Gaussian's plain kernel.
template <class F> constexpr int forward_blocks(bool extras) {
  return extras || !kSpecialised<F> ? 1 : kThreadsPerSm / kForwardThreads;
}

template <class F> using ForwardBatch = Batch<F, kForwardThreads>;

// Dynamic shared memory: with kStats, rows [kForwardWarps, ForwardBatch::kCount, columns.stride].
template <class F, bool kPictures, bool kStats>
__global__ void __launch_bounds__(kForwardThreads, forward_blocks<F>(kPictures || kStats))
    blend_forward(ForwardArgs a) {
  using Staged = ForwardBatch<F>;
  SPLAT_SHARED(float4, stage, 2 * Staged::kPlaces);
  SPLAT_SHARED(uint32_t, queue, kForwardThreads);
  SPLAT_DYNAMIC_SHARED(float, rows);
  const uint32_t tile = blockIdx.x;
  const bool empty = overflowed(a.blend.counters);
  const uint32_t begin = empty ? 0 : a.blend.tile_begin[tile], end = empty ? 0 : a.blend.tile_begin[tile + 1];
  const ForwardPixels p(a.blend, tile);
  const float px = p.center_x();
  float T[kForwardRun], C[kForwardRun][3] = {}, py[kForwardRun];
#pragma unroll
  for (int i = 0; i < kForwardRun; ++i) T[i] = p.inside(i) ? 1.0f : -1.0f, py[i] = p.center_y(i);
  std::conditional_t<kPictures, Pictures, NoPictures> pictures;
  auto stats = [&] {
    if constexpr (kStats) return LaneStats(a, p);
    else return NoStats{};
  }();
  const int stride = a.columns.stride;
  if constexpr (kStats) clear(rows, kForwardWarps * Staged::kCount * stride);
  auto begin_batch = [&](uint32_t first) {
    if ((first - begin) % kChunk != 0 || first == begin) return;
    float4* const state = a.blend.states + size_t(begin / kChunk + (first - begin) / kChunk - 1) * kPixels;
#pragma unroll
    for (int i = 0; i < kForwardRun; ++i) state[p.in_tile(i)] = make_float4(T[i], C[i][0], C[i][1], C[i][2]);
  };
  uint32_t batch = begin;
  auto hit = [&](const float4* place, auto&& n) {
    const StagedRecord<Staged> record(place);
    const typename F::template Run<float> run(record.value, px);
#pragma unroll
    for (int i = 0; i < kForwardRun; ++i) {
      const float dy = py[i] - run.y, before = T[i];
      const Fragment<float> f(run.at(dy), before);
      if (!f.visible) continue;
      const float w = f.contributes ? f.alpha * before : 0.0f;
#pragma unroll
      for (int c = 0; c < 3; ++c) C[i][c] = fma(w, record.value[kColor + c], C[i][c]);
      T[i] = f.transmittance_after(before);
      pictures.add(i, f, before, w, record.value[kDepth], int(batch - begin + n()));
      stats.add(i, f, w, run.dx, dy);
    }
    stats.end_splat(a, p, rows + (p.warp * Staged::kCount + n()) * stride);
  };
  auto end_batch = [&](uint32_t first, uint32_t count) {
    batch = first + Staged::kCount;
    if constexpr (kStats) flush_stats<Staged::kCount>(a, rows, first, count);
  };
  const uint32_t done = walk<Staged>(a.blend, p, begin, end, T, stage, queue, begin_batch, hit, end_batch);
  if (!empty) write_units(a.blend, tile, begin, end, done);
  store_color(a, p, T, C);
  if constexpr (kPictures) pictures.store(a, p, begin);
  if constexpr (kStats) zero_stats(a, done, end);
  if constexpr (kPictures && kStats) {
    SPLAT_SHARED(int, best, kPixels);
    if (a.columns.top >= 0) store_top_counts(a, p, pictures, best, begin);
  }
}

// Blends channels [first, first + kFeaturesPerPass) of the features; the weights are computed anew.
template <class F>
__global__ void __launch_bounds__(kForwardThreads)
    blend_features(ForwardArgs a, const float* features, int channels, int first_channel) {
  using Staged = ForwardBatch<F>;
  SPLAT_SHARED(float4, stage, 2 * Staged::kPlaces);
  SPLAT_SHARED(uint32_t, queue, kForwardThreads);
  const uint32_t tile = blockIdx.x;
  const bool empty = overflowed(a.blend.counters);
  const uint32_t begin = empty ? 0 : a.blend.tile_begin[tile], end = empty ? 0 : a.blend.tile_begin[tile + 1];
  const ForwardPixels p(a.blend, tile);
  const float px = p.center_x();
  float T[kForwardRun], sums[kForwardRun][kFeaturesPerPass] = {};
#pragma unroll
  for (int i = 0; i < kForwardRun; ++i) T[i] = p.inside(i) ? 1.0f : -1.0f;
  uint32_t batch = begin;
  auto hit = [&](const float4* place, auto&& n) {
    const StagedRecord<Staged> record(place);
    const typename F::template Run<float> run(record.value, px);
    const float* row = features + size_t(__ldg(a.blend.instance_splat + batch + n())) * channels + first_channel;
    float feature[kFeaturesPerPass];
#pragma unroll
    for (int k = 0; k < kFeaturesPerPass; ++k) feature[k] = first_channel + k < channels ? __ldg(row + k) : 0.0f;
#pragma unroll
    for (int i = 0; i < kForwardRun; ++i) {
      const float before = T[i];
      const Fragment<float> f(run.at(p.center_y(i) - run.y), before);
      if (!f.visible) continue;
      const float w = f.contributes ? f.alpha * before : 0.0f;
#pragma unroll
      for (int k = 0; k < kFeaturesPerPass; ++k) sums[i][k] = fma(w, feature[k], sums[i][k]);
      T[i] = f.transmittance_after(before);
    }
  };
  auto end_batch = [&](uint32_t first, uint32_t) { batch = first + Staged::kCount; };
  walk<Staged>(a.blend, p, begin, end, T, stage, queue, [](uint32_t) {}, hit, end_batch);
  const int64_t plane = int64_t(p.width) * p.height;
#pragma unroll
  for (int i = 0; i < kForwardRun; ++i)
#pragma unroll
    for (int k = 0; k < kFeaturesPerPass; ++k)
      if (p.inside(i) && first_channel + k < channels)
        static_cast<float*>(a.images.features)[(first_channel + k) * plane + p.at(i)] = sums[i][k];
}

}  // namespace gpu
}  // namespace splat
