// Projection of raw rows: activations, covariance, exact bounds, colour; one thread per splat.
#pragma once
#include "footprints.cuh"
#include "rows.cuh"

namespace splat {
namespace gpu {

struct ProjectTask {
  splat_rows rows;
  View<float> view;
  int degree;  // highest band read
  bool aligned_quats;
  float* records;
  uint32_t *depth_keys, *rect_tiles;
};

// Mean, record (but for the colour) and bounds of one row; returns the tiles of its bounding rectangle, 0 = not drawn.
// For footprints outside the EWA family: a specialisation.
template <class F> struct RowProjection {
  static __device__ uint32_t run(const ProjectTask& task, int64_t row, float* mean, float* record) {
    const View<float>& view = task.view;
    GaussianRow<float> g;
    load_mean(task.rows, row, mean);
    const float z = fma(view.R[6], mean[0], fma(view.R[7], mean[1], fma(view.R[8], mean[2], view.t[2])));
    // Phrased so that a NaN anywhere fails.
    if (!(view.near_z < z && z < view.far_z)) return 0;
    for (int i = 0; i < 3; ++i) g.mean[i] = mean[i];
    load_shape<F::kShapes>(task.rows, task.aligned_quats, row, &g);
    const Projection<float> o = project_gaussian<float, float>(g, view, task.rows.filter3d != nullptr);
    if (!(0.0f < o.det && o.det < 1e30f && o.opacity_eff >= float(1.0 / 255))) return 0;
    for (int i = 0; i < F::kRecord; ++i) record[i] = 0.0f;
    F::template record<float, float>(o, log2_(max_(o.opacity_eff, 1e-30f)), &g.shape, record);
    record[kDepth] = z, record[kOpacity] = o.opacity_eff;
    if (!finite_features<float>(task.rows, row)) return 0;
    return rect_tiles(o.x, o.y, record[kExtentX], record[kExtentY], view.width, view.height);
  }
};

// Spherical harmonics of one row, clamped at zero; false when a coefficient is no number.
template <int kRest>
__device__ bool color_row(const ProjectTask& task, int64_t row, const float* mean, const float* sh, float* record) {
  float d[3], inv_length, basis[16] = {};
  direction<float>(mean, task.view, d, &inv_length);
  sh_basis<float, float>(task.degree, d, basis);
  const int rest = (task.degree + 1) * (task.degree + 1) - 1;
  const float* sh0 = static_cast<const float*>(task.rows.sh0) + 3 * row;
  float color[3];
  for (int c = 0; c < 3; ++c) color[c] = fma(basis[0], sh0[c], 0.5f);
#pragma unroll
  for (int k = 0; k < kMostRest<kRest>; ++k)
    if (k < rest)
      for (int c = 0; c < 3; ++c) color[c] = fma(basis[k + 1], sh[3 * k + c], color[c]);
  bool ok = true;
  for (int c = 0; c < 3; ++c) {
    ok = ok && abs_(color[c]) < 1e30f;
    record[kColor + c] = max_(color[c], 0.0f);
  }
  return ok;
}

// Budget (performance.md 1.3): 152 MB at 1 M splats of which half are drawn, 0.035 ms on an H200: 44 bytes in for
// every row, 192 bytes of SH in and 64 bytes of record out for drawn rows, 8 bytes of keys out; about 600 instructions
// per row and 200 more per drawn row, below the memory time.
template <class F, int kRest> __global__ void __launch_bounds__(32 * kRowWarps) project_kernel(ProjectTask task) {
  SPLAT_SHARED_2D(float, stage, kRowWarps, kRest ? 96 * kMostRest<kRest> : 1);
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) / 32;
  const int64_t base = (int64_t(blockIdx.x) * kRowWarps + warp) * 32, row = base + lane;
  float mean[3], record[F::kRecord];
  uint32_t tiles = row < task.rows.count ? RowProjection<F>::run(task, row, mean, record) : 0u;
  const uint32_t drawn = __ballot_sync(kFullWarp, tiles != 0);
  if (kRest && drawn) {
    const int used = 3 * ((task.degree + 1) * (task.degree + 1) - 1);
    stage_rest<kRest>(task.rows, base, drawn, used, stage[warp]);
    __syncwarp();
  }
  // Colour before the verdict: a row with a NaN coefficient is not drawn either.
  const float* sh = stage[warp] + 3 * stored_rest<kRest>(task.rows) * lane;
  if (tiles && !color_row<kRest>(task, row, mean, sh, record)) tiles = 0;
  if (tiles) {
    float4* to = reinterpret_cast<float4*>(task.records) + F::kRecord / 4 * row;
#pragma unroll
    for (int i = 0; i < F::kRecord / 4; ++i)
      to[i] = make_float4(record[4 * i], record[4 * i + 1], record[4 * i + 2], record[4 * i + 3]);
  }
  if (row >= task.rows.count) return;
  task.rect_tiles[row] = tiles;
  task.depth_keys[row] = tiles ? depth_key(record[kDepth]) : 0xffffffffu;
}

template <class F, int kRest> void launch_projection(const ProjectTask& task, void* stream) {
  const unsigned grid = unsigned((task.rows.count + 32 * kRowWarps - 1) / (32 * kRowWarps));
  SPLAT_LAUNCH((project_kernel<F, kRest>), grid, 32 * kRowWarps, 0, stream, task);
}

template <class F> void launch_projection(const ProjectTask& task, void* stream) {
  if constexpr (!kSpecialised<F>) launch_projection<F, kAnyRest>(task, stream);
  else switch (task.rows.sh_rest_count) {
      case 0: return launch_projection<F, 0>(task, stream);
      case 3: return launch_projection<F, 3>(task, stream);
      case 8: return launch_projection<F, 8>(task, stream);
      default: launch_projection<F, 15>(task, stream);
    }
}

}  // namespace gpu
}  // namespace splat
