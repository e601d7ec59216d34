// Backward blend: one CTA per work unit (256 instances of a tile, from their checkpoint), 2 warps of 8x16 pixels,
// 4 pixels per lane, front to back.
//
// Per pixel it carries T and R = what lies behind, dotted with the cotangents; dL/dalpha = T (c.g) - R / (1 - alpha).
// A lane adds the footprint's sums over its pixels, the warp adds up its lanes by recursive halving
// (12 shuffles for 9 sums), the CTA its two warps in shared memory, in this order always. Each instance's slot is
// then written once: no atomics, and zeros for instances that nobody saw.
#pragma once
#include "blend_tile.cuh"

namespace splat {
namespace gpu {

constexpr int kBackwardRun = 4;
using BackwardPixels = Pixels<kBackwardRun>;
constexpr int kBackwardThreads = BackwardPixels::kThreads, kBackwardWarps = BackwardPixels::kWarps;
constexpr int kPixelStats = 6;  // columns of the statistics that are summed with the moments

// Which of them a kernel sums: absolute gradients have a kernel of their own, they are asked for while training.
enum StatLevel { kNoStats = 0, kAbsStats = 1, kAllStats = 2 };
constexpr int stat_columns(StatLevel level) { return level == kNoStats ? 0 : level == kAbsStats ? 2 : kPixelStats; }

struct BackwardArgs {
  BlendArgs blend;
  splat_images images;       // device pointers
  splat_image_grads grads;   // device pointers
  const float* features;     // [N,feature_count]
  int feature_count;         // with a cotangent; else 0
  int depth_column, feature_column, stride;
  int stat_column[kPixelStats];  // abs x, abs y, abs l2, opacity^2, texture, sensitivity; -1 = not wanted
};

// What a CTA works on.
struct WorkUnit {
  uint32_t tile, tile_begin, begin, end, chunk;
  bool reached;
};

// kWhole: all chunks of tile blockIdx.x one after the other (depth and feature prefixes are not in the checkpoints).
template <bool kWhole> __device__ __forceinline__ bool find_unit(const BlendArgs& a, WorkUnit* u) {
  if (overflowed(a.counters)) return false;
  u->reached = true, u->tile = blockIdx.x, u->chunk = 0;
  if constexpr (kWhole) {
    u->tile_begin = u->begin = a.tile_begin[u->tile], u->end = a.tile_begin[u->tile + 1];
  } else {
    const uint32_t unit = blockIdx.x;
    if (unit >= first_unit(a.tile_begin[a.tiles], a.tiles)) return false;
    const uint32_t word = a.unit_tile[unit];
    u->tile = word & ~kUnreached, u->reached = !(word & kUnreached);
    u->tile_begin = a.tile_begin[u->tile];
    const uint32_t end = a.tile_begin[u->tile + 1];
    u->chunk = unit - first_unit(u->tile_begin, u->tile);
    u->begin = u->tile_begin + u->chunk * kChunk;
    u->end = end - u->begin < kChunk || end < u->begin ? end : u->begin + kChunk;
  }
  return u->begin < u->end;  // some units have no instances
}

// Zeros for instances [first, end).
__device__ __forceinline__ void zero_slots(const BackwardArgs& a, int stride, uint32_t first, uint32_t end) {
  float* const slots = static_cast<float*>(a.grads.slots);
  for (uint32_t e = threadIdx.x; e < (end - first) * stride; e += kBackwardThreads)
    slots[size_t(__ldg(a.blend.instance_slot + first + e / stride)) * stride + e % stride] = 0.0f;
}

// --- a lane's pixels -----------------------------------------------------------------------------------------------
struct PixelState {
  float T[kBackwardRun], R[kBackwardRun], g[kBackwardRun][3];
};

// What only statistics need of a pixel.
struct PixelStatState {
  float inv_alpha[kBackwardRun], weight[kBackwardRun];
  float rest[kBackwardRun][3];  // per channel, what lies behind
};

struct NoPixelStatState {};

__device__ __forceinline__ float4 state_before(const BackwardArgs& a, const BackwardPixels& p, const WorkUnit& u,
                                               int i) {
  if (u.chunk == 0) return make_float4(p.inside(i) ? 1.0f : -1.0f, 0.0f, 0.0f, 0.0f);
  return __ldg(a.blend.states + size_t(u.tile_begin / kChunk + u.chunk - 1) * kPixels + p.in_tile(i));
}

__device__ __forceinline__ void load_pixels(const BackwardArgs& a, const BackwardPixels& p, const WorkUnit& u,
                                            PixelState& s) {
  const int64_t plane = int64_t(p.width) * p.height;
  const float *color = static_cast<const float*>(a.images.color), *grad = static_cast<const float*>(a.grads.color);
  const float* alpha = static_cast<const float*>(a.grads.alpha);
#pragma unroll
  for (int i = 0; i < kBackwardRun; ++i) {
    const float4 before = state_before(a, p, u, i);
    const float prefix[3] = {before.y, before.z, before.w};
    s.T[i] = before.x, s.R[i] = 0.0f;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      s.g[i][c] = p.load(grad + c * plane, i, 0.0f);
      s.R[i] = fma(p.load(color + c * plane, i, 0.0f) - prefix[c], s.g[i][c], s.R[i]);
    }
    if (alpha)
      s.R[i] = nfma(p.load(static_cast<const float*>(a.images.final_T), i, 0.0f), p.load(alpha, i, 0.0f), s.R[i]);
  }
}

__device__ __forceinline__ void load_pixel_stats(const BackwardArgs& a, const BackwardPixels& p, const WorkUnit& u,
                                                 PixelStatState& s) {
  const int64_t plane = int64_t(p.width) * p.height;
#pragma unroll
  for (int i = 0; i < kBackwardRun; ++i) {
    const float4 before = state_before(a, p, u, i);
    const float prefix[3] = {before.y, before.z, before.w};
    const float left = p.load(static_cast<const float*>(a.images.final_T), i, 1.0f);
    s.inv_alpha[i] = rcp_(fmaxf(1.0f - left, 1e-5f));
    s.weight[i] = a.stat_column[4] >= 0 ? p.load(static_cast<const float*>(a.images.weight_maps), i, 0.0f) : 0.0f;
#pragma unroll
    for (int c = 0; c < 3; ++c)
      s.rest[i][c] = p.load(static_cast<const float*>(a.images.color) + c * plane, i, 0.0f) - prefix[c];
  }
}

// Depth and features behind a pixel, dotted with their cotangents.
__device__ __forceinline__ void add_channels_behind(const BackwardArgs& a, const BackwardPixels& p, PixelState& s) {
  const int64_t plane = int64_t(p.width) * p.height;
  const float* g_depth = static_cast<const float*>(a.grads.depth_expected);
#pragma unroll
  for (int i = 0; i < kBackwardRun; ++i) {
    if (g_depth)
      s.R[i] =
          fma(p.load(static_cast<const float*>(a.images.depth_expected), i, 0.0f), p.load(g_depth, i, 0.0f), s.R[i]);
    for (int k = 0; k < a.feature_count; ++k)
      s.R[i] = fma(p.load(static_cast<const float*>(a.images.features) + k * plane, i, 0.0f),
                   p.load(static_cast<const float*>(a.grads.features) + k * plane, i, 0.0f), s.R[i]);
  }
}

// --- depth and features of one splat -------------------------------------------------------------------------------
// Adds their part of c.g to cg[] and writes their own gradients into `row`; `w` is zero where nothing contributes.
__device__ __forceinline__ void add_channels(const BackwardArgs& a, const BackwardPixels& p, uint32_t splat, float z,
                                             const float* w, const bool* crosses, float* cg, float* row) {
  const int64_t plane = int64_t(p.width) * p.height;
  if (a.depth_column >= 0) {
    const float *expected = static_cast<const float*>(a.grads.depth_expected);
    const float *median = static_cast<const float*>(a.grads.depth_median);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kBackwardRun; ++i) {
      const float g = expected ? p.load(expected, i, 0.0f) : 0.0f;
      cg[i] = fma(z, g, cg[i]), sum = fma(w[i], g, sum);
      if (median && crosses[i]) sum += p.load(median, i, 0.0f);
    }
    sum = warp_sum(sum);
    if (p.lane == 0) row[a.depth_column] = sum;
  }
  for (int k = 0; k < a.feature_count; ++k) {
    const float feature = __ldg(a.features + size_t(splat) * a.feature_count + k);
    const float* g_plane = static_cast<const float*>(a.grads.features) + k * plane;
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kBackwardRun; ++i) {
      const float g = p.load(g_plane, i, 0.0f);
      cg[i] = fma(feature, g, cg[i]), sum = fma(w[i], g, sum);
    }
    sum = warp_sum(sum);
    if (p.lane == 0) row[a.feature_column + k] = sum;
  }
}

// --- statistics of one splat at one pixel --------------------------------------------------------------------------
// Adds to sums[]: abs x, abs y; and with kAllStats abs l2, opacity^2, texture, sensitivity.
template <class F, StatLevel kStats, class State>
__device__ __forceinline__ void add_pixel_stats(const BackwardPixels& p, State& s, int i, const float* record,
                                                const typename F::template Run<float>& run,
                                                const typename F::template Response<float>& response,
                                                const Fragment<float>& f, float T, float w, float dy, float h,
                                                float rcp, float* sums) {
  float gx, gy;
  F::template Sums<float>::pixel_gradient(record, run, response, h, dy, &gx, &gy);
  sums[0] += fabsf(gx), sums[1] += fabsf(gy);
  if constexpr (kStats == kAllStats) {
    const float x = gx * float(p.width), y = gy * float(p.height), length = sqrt_(x * x + y * y);
    sums[2] = fma(length, s.inv_alpha[i], sums[2]);
    const float opacity = record[kOpacity], o = h * rcp_(opacity);
    sums[3] = fma(o, o, sums[3]);
    sums[4] = fma(0.5f * length, s.weight[i], sums[4]);
    float total = 0.0f;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      const float color = record[kColor + c];
      s.rest[i][c] = nfma(w, color, s.rest[i][c]);
      const float d = opacity * (T * color - s.rest[i][c] * rcp);
      total = fma(d, d, total);
    }
    if (f.contributes && f.alpha < float(kAlphaMax)) sums[5] += total;
  }
}

// --- the kernel ----------------------------------------------------------------------------------------------------
// The warps' rows of a batch into its slots; leaves zeros. rows: [kBackwardWarps, kBatch, stride].
template <int kBatch>
__device__ __forceinline__ void flush_slots(const BackwardArgs& a, float* rows, const uint32_t* slot_of, int stride,
                                            uint32_t count) {
  float* const slots = static_cast<float*>(a.grads.slots);
  for (uint32_t e = threadIdx.x; e < count * stride; e += kBackwardThreads) {
    float total = 0.0f;
#pragma unroll
    for (int w = 0; w < kBackwardWarps; ++w) {
      float& cell = rows[w * kBatch * stride + e];
      total += cell, cell = 0.0f;
    }
    slots[size_t(slot_of[e / stride]) * stride + e % stride] = total;
  }
}

// Depth and features of one splat, before it moves the pixels on: their part of c.g, their gradients into `row`.
template <class F>
__device__ __forceinline__ void channels_of_splat(const BackwardArgs& a, const BackwardPixels& p, const PixelState& s,
                                                  const typename F::template Run<float>& run, uint32_t splat, float z,
                                                  float (&cg)[kBackwardRun], float* row) {
  float w[kBackwardRun];
  bool crosses[kBackwardRun];
#pragma unroll
  for (int i = 0; i < kBackwardRun; ++i) {
    const Fragment<float> f(run.at(p.center_y(i) - run.y), s.T[i]);
    const bool contributes = f.visible && f.contributes;
    w[i] = contributes ? f.alpha * s.T[i] : 0.0f;
    crosses[i] = contributes && s.T[i] > 0.5f && !(f.next_T > 0.5f);
  }
  add_channels(a, p, splat, z, w, crosses, cg, row);
}

// Takes the pixels past one splat; sums[] receives this lane's share of its slot (statistics not yet in their columns).
template <class F, StatLevel kStats, class State>
__device__ __forceinline__ void pass_splat(const BackwardPixels& p, PixelState& s, State& stats, const float* record,
                                           const typename F::template Run<float>& run,
                                           const float (&cg_channels)[kBackwardRun], float* sums) {
  const float* const color = record + kColor;
  typename F::template Sums<float> moments;
#pragma unroll
  for (int i = 0; i < kBackwardRun; ++i) {
    const float dy = p.center_y(i) - run.y, before = s.T[i];
    const auto response = run.at(dy);
    const Fragment<float> f(response, before);
    if (!f.visible) continue;
    const float w = f.contributes ? f.alpha * before : 0.0f;
    const float cg = fma(color[0], s.g[i][0], fma(color[1], s.g[i][1], fma(color[2], s.g[i][2], cg_channels[i])));
    const float behind = nfma(w, cg, s.R[i]);
    s.R[i] = behind;
    const float rcp = rcp_(1.0f - f.alpha);
    const float d_alpha = nfma(behind, rcp, before * cg);
    // At the 0.99 clamp alpha no longer follows the response.
    const float h = f.contributes && f.alpha < float(kAlphaMax) ? f.alpha * d_alpha : 0.0f;
    moments.add(run, response, h, dy);
#pragma unroll
    for (int c = 0; c < 3; ++c) sums[F::kSums + c] = fma(w, s.g[i][c], sums[F::kSums + c]);
    s.T[i] = f.transmittance_after(before);
    if constexpr (kStats != kNoStats)
      add_pixel_stats<F, kStats>(p, stats, i, record, run, response, f, before, w, dy, h, rcp, sums + F::kSums + 3);
  }
  moments.add_to(run, sums);
}

// CTAs an SM should hold, to bound registers by: 32 warps of the Gaussian's plain kernel.
template <class F> constexpr int backward_blocks(StatLevel stats, bool channels) {
  constexpr int kPlain = kThreadsPerSm * 2 / 3 / kBackwardThreads;
  if (channels || stats == kAllStats || !kSpecialised<F>) return 1;
  return stats == kAbsStats ? kPlain * 7 / 8 : kPlain;
}

// All statistics look at the opacity, which lies behind what a pixel needs.
template <class F, StatLevel kStats>
using BackwardBatch = Batch<F, kBackwardThreads, kStats == kAllStats ? F::kRecord : kPixelReals<F>>;

// The sums of a splat over the lanes of a warp: at most 32 of them in one halving, statistics in a second one where
// both together are more.
template <class F, StatLevel kStats> struct LaneSums {
  static constexpr int kSlot = F::kSums + 3, kAll = kSlot + stat_columns(kStats);
  static constexpr int kFirst = kAll <= kWarp ? kAll : kSlot, kSecond = kAll - kFirst;
  static_assert(kFirst <= kWarp && kSecond <= kWarp, "a lane ends with one sum of each halving");
  int first, second;  // columns of the slot whose sums this lane ends with; -1 = none

  __device__ __forceinline__ LaneSums(const BackwardArgs& a, int lane) {
    first = placed(a, halved_column<kFirst>(lane)), second = -1;
    if constexpr (kSecond > 0) {
      second = halved_column<kSecond>(lane);
      if (second >= 0) second = placed(a, kFirst + second);
    }
  }
  static __device__ __forceinline__ int placed(const BackwardArgs& a, int column) {
    if constexpr (kStats != kNoStats)
      if (column >= kSlot) return a.stat_column[column - kSlot];
    return column;
  }
  __device__ __forceinline__ void put(float (&sums)[kAll], int lane, float* row) const {
    Halving<kFirst>::run(sums, lane);
    if (first >= 0) row[first] = sums[0];
    if constexpr (kSecond > 0) {
      Halving<kSecond>::run(sums + kFirst, lane);
      if (second >= 0) row[second] = sums[kFirst];
    }
  }
};

// kChannels: depth and features. Dynamic shared memory: the rows of flush_slots().
template <class F, StatLevel kStats, bool kChannels>
__global__ void __launch_bounds__(kBackwardThreads, backward_blocks<F>(kStats, kChannels))
    blend_backward(BackwardArgs a) {
  using Staged = BackwardBatch<F, kStats>;
  using Sums = LaneSums<F, kStats>;
  SPLAT_SHARED(float4, stage, 2 * Staged::kPlaces);
  SPLAT_SHARED(uint32_t, queue, kBackwardThreads);
  SPLAT_SHARED(uint32_t, slot_of, Staged::kCount);
  SPLAT_DYNAMIC_SHARED(float, rows);
  WorkUnit u;
  if (!find_unit<kChannels>(a.blend, &u)) return;
  const int stride = kStats != kNoStats || kChannels ? a.stride : Sums::kSlot;
  if (!u.reached) return zero_slots(a, stride, u.begin, u.end);
  const BackwardPixels p(a.blend, u.tile);
  PixelState s;
  load_pixels(a, p, u, s);
  if constexpr (kChannels) add_channels_behind(a, p, s);
  std::conditional_t<kStats == kAllStats, PixelStatState, NoPixelStatState> stats;
  if constexpr (kStats == kAllStats) load_pixel_stats(a, p, u, stats);
  for (int e = threadIdx.x; e < kBackwardWarps * Staged::kCount * stride; e += kBackwardThreads) rows[e] = 0.0f;
  const Sums columns(a, p.lane);
  const float px = p.center_x();
  float* const my_rows = rows + p.warp * Staged::kCount * stride;
  uint32_t batch = u.begin;
  auto begin_batch = [&](uint32_t first) {
    batch = first;
    if (Staged::copies() && first + threadIdx.x < u.end)
      copy_async(slot_of + threadIdx.x, a.blend.instance_slot + first + threadIdx.x);
  };
  auto hit = [&](const float4* place, auto&& n) {
    const StagedRecord<Staged> record(place);
    const typename F::template Run<float> run(record.value, px);
    float sums[Sums::kAll] = {}, cg_channels[kBackwardRun] = {};
#pragma unroll
    for (int i = 0; i < F::kSums; ++i) sums[i] = -0.0f;  // x + -0 is x to the bit: adding to it costs nothing
    if constexpr (kChannels)
      channels_of_splat<F>(a, p, s, run, __ldg(a.blend.instance_splat + batch + n()), record.value[kDepth], cg_channels,
                           my_rows + n() * stride);
    pass_splat<F, kStats>(p, s, stats, record.value, run, cg_channels, sums);
    columns.put(sums, p.lane, my_rows + n() * stride);
  };
  auto end_batch = [&](uint32_t, uint32_t count) {
    copies_done();
    __syncthreads();
    flush_slots<Staged::kCount>(a, rows, slot_of, stride, count);
  };
  const uint32_t done = walk<Staged>(a.blend, p, u.begin, u.end, s.T, stage, queue, begin_batch, hit, end_batch);
  zero_slots(a, stride, done, u.end);
}

// --- the background's gradient -------------------------------------------------------------------------------------
// Partial sums of g_c T over pixels; pixels are dealt out by number, so the order is always the same.
static __global__ void __launch_bounds__(256) background_partial(BackwardArgs a) {
  SPLAT_SHARED(double, warps, 8 * 3);
  const int64_t plane = int64_t(a.blend.width) * a.blend.height;
  const float *grad = static_cast<const float*>(a.grads.color), *T = static_cast<const float*>(a.images.final_T);
  double sums[3] = {};
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < plane;
       i += int64_t(kBackgroundBlocks) * blockDim.x)
    for (int c = 0; c < 3; ++c) sums[c] += double(__ldg(grad + c * plane + i) * __ldg(T + i));
  for (int c = 0; c < 3; ++c) {
    const double total = warp_sum(sums[c]);
    if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp * 3 + c] = total;
  }
  __syncthreads();
  if (threadIdx.x < 3) {
    double total = 0;
    for (int w = 0; w < 8; ++w) total += warps[3 * w + threadIdx.x];
    a.blend.background_sums[blockIdx.x * 3 + threadIdx.x] = total;
  }
}

static __global__ void __launch_bounds__(3 * kWarp) background_total(BackwardArgs a) {
  const int channel = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  double sum = 0;
  for (int b = lane; b < kBackgroundBlocks; b += kWarp) sum += a.blend.background_sums[3 * b + channel];
  sum = warp_sum(sum);
  if (lane == 0) a.grads.background[channel] = sum;
}

}  // namespace gpu
}  // namespace splat
