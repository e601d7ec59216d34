// How a warp's 32 rows of splats move between memory and its threads. Wide rows pass through shared memory, so that
// neighbouring lanes touch neighbouring addresses; a stride of 45, 9 or 3 floats meets every bank once.
#pragma once
#include "../math/sh.h"
#include "../math/view.h"
#include "adam.cuh"
#include "slots.cuh"

namespace splat {
namespace gpu {

constexpr int kRowWarps = 4;  // warps per block of the projection kernels; each works alone

// What the CUDA calls accept; the text of a refusal names the value.
inline int32_t check_rows(const splat_rows* r, const splat_view* v) {
  if (r == nullptr || v == nullptr) return refuse(SPLAT_BAD_ARGUMENT, "rows or view missing");
  if (r->dtype != SPLAT_F32) return refuse(SPLAT_BAD_ARGUMENT, "the CUDA backend computes in float32 only");
  if (r->count < 0 || r->count >= int64_t(1) << 31)
    return refuse(SPLAT_BAD_ARGUMENT, "%lld splats", (long long)r->count);
  if (v->width < 1 || v->height < 1 || v->width > 16384 || v->height > 16384)
    return refuse(SPLAT_BAD_ARGUMENT, "an image of %d x %d pixels; 1 to 16384 each", v->width, v->height);
  if (r->feature_count < 0 || r->feature_count > SPLAT_MAX_CHANNELS)
    return refuse(SPLAT_BAD_ARGUMENT, "%d feature channels; at most %d", r->feature_count, int(SPLAT_MAX_CHANNELS));
  if (r->sh_rest_count != 0 && r->sh_rest_count != 3 && r->sh_rest_count != 8 && r->sh_rest_count != 15)
    return refuse(SPLAT_BAD_ARGUMENT, "%d SH coefficients after the first; 0, 3, 8 or 15", r->sh_rest_count);
  return SPLAT_OK;
}

// SH coefficients after the first that a kernel is made for: a number, or as many as the rows hold, at most 15.
constexpr int kAnyRest = -1;
template <int kRest> constexpr int kMostRest = kRest == kAnyRest ? 15 : kRest;
template <int kRest> __device__ __forceinline__ int stored_rest(const splat_rows& rows) {
  return kRest == kAnyRest ? rows.sh_rest_count : kRest;
}

__device__ inline float4 load4(const float* p, bool aligned) {
  return aligned ? *reinterpret_cast<const float4*>(p) : make_float4(p[0], p[1], p[2], p[3]);
}

// Everything of a row but its mean; kShapes: columns of the first shape table.
template <int kShapes>
__device__ void load_shape(const splat_rows& rows, bool aligned_quats, int64_t row, GaussianRow<float>* g) {
  const float4 q = load4(static_cast<const float*>(rows.quats) + 4 * row, aligned_quats);
  g->quat[0] = q.x, g->quat[1] = q.y, g->quat[2] = q.z, g->quat[3] = q.w;
  const float* s = static_cast<const float*>(rows.log_scales) + 3 * row;
  g->log_scale[0] = s[0], g->log_scale[1] = s[1], g->log_scale[2] = s[2];
  g->logit_opacity = static_cast<const float*>(rows.logit_opacities)[row];
  g->filter3d = rows.filter3d ? static_cast<const float*>(rows.filter3d)[row] : 0.0f;
  if (kShapes) g->shape = static_cast<const float*>(rows.shape[0])[row];
}

__device__ inline void load_mean(const splat_rows& rows, int64_t row, float* mean) {
  const float* m = static_cast<const float*>(rows.means) + 3 * row;
  mean[0] = m[0], mean[1] = m[1], mean[2] = m[2];
}

// The first `used` of the columns of sh_rest of the rows in `live`, into stage [32, columns].
template <int kRest>
__device__ void stage_rest(const splat_rows& rows, int64_t base, uint32_t live, int used, float* stage) {
  const int columns = 3 * stored_rest<kRest>(rows);
  const float* from = static_cast<const float*>(rows.sh_rest) + base * columns;
#pragma unroll 9
  for (int j = 0; j < columns; ++j) {
    const int i = int(threadIdx.x & 31u) + 32 * j, row = i / columns;
    if (live >> row & 1u && i - row * columns < used) stage[i] = from[i];
  }
}

// Where the gradient of an array goes: to memory ...
struct GradSink {
  static constexpr bool kSteps = false;
  float* out;  // nullptr = not wanted
  bool accumulate, aligned;

  bool __device__ wanted(bool zero) const { return out != nullptr && !(zero && accumulate); }
  void __device__ put(int64_t i, float g) const { out[i] = accumulate ? out[i] + g : g; }
  void __device__ put4(int64_t i, float4 g) const {
    float4* to = reinterpret_cast<float4*>(out) + i;
    if (accumulate) {
      const float4 old = *to;
      g = make_float4(old.x + g.x, old.y + g.y, old.z + g.z, old.w + g.w);
    }
    *to = g;
  }
};

// ... or straight into Adam.
struct AdamSink {
  static constexpr bool kSteps = true;
  float *p, *m, *v;  // nullptr = this array takes no step
  AdamStep step;
  bool aligned;

  bool __device__ wanted(bool) const { return p != nullptr; }
  void __device__ put(int64_t i, float g) const {
    float mm = m[i], vv = v[i];
    if (AdamStep::idle(g, mm, vv)) return;
    step.update(g, p[i], mm, vv);
    m[i] = mm, v[i] = vv;
  }
  void __device__ put4(int64_t i, float4 g) const {
    float4 mm = reinterpret_cast<const float4*>(m)[i], vv = reinterpret_cast<const float4*>(v)[i];
    if (AdamStep::idle(g.x, mm.x, vv.x) && AdamStep::idle(g.y, mm.y, vv.y) && AdamStep::idle(g.z, mm.z, vv.z) &&
        AdamStep::idle(g.w, mm.w, vv.w))
      return;
    float4 pp = reinterpret_cast<const float4*>(p)[i];
    step.update(g.x, pp.x, mm.x, vv.x), step.update(g.y, pp.y, mm.y, vv.y);
    step.update(g.z, pp.z, mm.z, vv.z), step.update(g.w, pp.w, mm.w, vv.w);
    reinterpret_cast<float4*>(p)[i] = pp;
    reinterpret_cast<float4*>(m)[i] = mm, reinterpret_cast<float4*>(v)[i] = vv;
  }
};

// Gradients of 32 rows from stage [32, columns] to a sink; `zero`: all of them are, and stage is not read.
template <class Sink>
__device__ void put_rows(const Sink& sink, const float* stage, int columns, bool zero, int64_t base, int64_t rows) {
  if (!sink.wanted(zero)) return;
  const int lane = int(threadIdx.x & 31u);
  if (sink.aligned && base + 32 <= rows) {
    const int64_t first = base / 4 * columns;
#pragma unroll 2
    for (int i = lane; i < 8 * columns; i += 32)
      sink.put4(first + i, zero ? make_float4(0.0f, 0.0f, 0.0f, 0.0f) : reinterpret_cast<const float4*>(stage)[i]);
    return;
  }
#pragma unroll 1
  for (int i = lane; i < 32 * columns && base * columns + i < rows * columns; i += 32)
    sink.put(base * columns + i, zero ? 0.0f : stage[i]);
}

}  // namespace gpu
}  // namespace splat
