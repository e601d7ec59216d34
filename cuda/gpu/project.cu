// Projection of raw rows: activations, covariance, exact bounds, colour; one thread per splat.
#include "rows.cuh"

namespace splat {
namespace gpu {
namespace {

struct ProjectTask {
  splat_rows rows;
  View<float> view;
  int degree;  // highest band read
  bool aligned_quats;
  float* records;
  uint32_t *depth_keys, *rect_tiles;
};

// Footprint and bounds of one row; returns the tiles of its bounding rectangle, 0 = not drawn.
template <class F>
__device__ uint32_t project_row(const ProjectTask& task, int64_t row, GaussianRow<float>* g, float* record) {
  const View<float>& view = task.view;
  load_mean(task.rows, row, g);
  const float z = fma(view.R[6], g->mean[0], fma(view.R[7], g->mean[1], fma(view.R[8], g->mean[2], view.t[2])));
  // Phrased so that a NaN anywhere fails.
  if (!(view.near_z < z && z < view.far_z)) return 0;
  load_shape(task.rows, task.aligned_quats, row, g);
  const Projection<float> o = project_gaussian<float, float>(*g, view, task.rows.filter3d != nullptr);
  if (!(0.0f < o.det && o.det < 1e30f && o.opacity_eff >= float(1.0 / 255))) return 0;
  const float log2_opacity = log2_(max_(o.opacity_eff, 1e-30f));
  const float q = max_(log2_opacity + float(kLog2Of255), 0.0f);
  const float ex = sqrt_(float(2 * kLn2) * q * o.a), ey = sqrt_(float(2 * kLn2) * q * o.c);
  F::template payload<float, float>(o, log2_opacity, record);
  record[kDepth] = z, record[kExtentX] = ex, record[kExtentY] = ey, record[kQMax] = q;
  record[13] = o.opacity_eff, record[14] = 0.0f, record[15] = 0.0f;
  return finite_features<float>(task.rows, row) ? rect_tiles(o.x, o.y, ex, ey, view.width, view.height) : 0u;
}

// Spherical harmonics of one row, clamped at zero; false when a coefficient is no number.
template <int kRest>
__device__ bool color_row(const ProjectTask& task, int64_t row, const GaussianRow<float>& g, const float* sh,
                          float* record) {
  float d[3], inv_length, basis[16] = {};
  direction<float>(g, task.view, d, &inv_length);
  sh_basis<float, float>(task.degree, d, basis);
  const int rest = (task.degree + 1) * (task.degree + 1) - 1;
  const float* sh0 = static_cast<const float*>(task.rows.sh0) + 3 * row;
  float color[3];
  for (int c = 0; c < 3; ++c) color[c] = fma(basis[0], sh0[c], 0.5f);
#pragma unroll
  for (int k = 0; k < kRest; ++k)
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
  SPLAT_SHARED_2D(float, stage, kRowWarps, kRest ? 96 * kRest : 1);
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) / 32;
  const int64_t base = (int64_t(blockIdx.x) * kRowWarps + warp) * 32, row = base + lane;
  GaussianRow<float> g;
  float record[kRecord];
  uint32_t tiles = row < task.rows.count ? project_row<F>(task, row, &g, record) : 0u;
  const uint32_t drawn = __ballot_sync(kFullWarp, tiles != 0);
  if (kRest && drawn) {
    const int used = 3 * ((task.degree + 1) * (task.degree + 1) - 1);
    stage_rows<kRest ? 3 * kRest : 1>(static_cast<const float*>(task.rows.sh_rest), base, drawn, used, stage[warp]);
    __syncwarp();
  }
  // Colour before the verdict: a row with a NaN coefficient is not drawn either.
  if (tiles && !color_row<kRest>(task, row, g, stage[warp] + 3 * kRest * lane, record)) tiles = 0;
  if (tiles) {
    float4* to = reinterpret_cast<float4*>(task.records) + 4 * row;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      to[i] = make_float4(record[4 * i], record[4 * i + 1], record[4 * i + 2], record[4 * i + 3]);
  }
  if (row >= task.rows.count) return;
  task.rect_tiles[row] = tiles;
  task.depth_keys[row] = tiles ? depth_key(record[kDepth]) : 0xffffffffu;
}

}  // namespace
}  // namespace gpu
}  // namespace splat

extern "C" int32_t splat_cuda_project(const splat_rows* rows, const splat_view* view, const splat_projected* out,
                                      void* stream) {
  using namespace splat;
  using namespace splat::gpu;
  if (const int32_t status = check_rows(rows, view)) return status;
  if (!aligned16(out->records)) return refuse(SPLAT_BAD_ARGUMENT, "records must be aligned to 16 bytes");
  if (rows->count == 0) return SPLAT_OK;
  ProjectTask task{*rows, make_view<float>(*view), 0, aligned16(rows->quats), static_cast<float*>(out->records),
                   out->depth_keys, out->rect_tiles};
  const int bands = bands_in(*rows);
  task.degree = view->sh_degree < bands ? view->sh_degree : bands;
  const unsigned grid = unsigned((rows->count + 32 * kRowWarps - 1) / (32 * kRowWarps));
  switch (rows->sh_rest_count) {
    case 0: SPLAT_LAUNCH((project_kernel<Gaussian, 0>), grid, 32 * kRowWarps, 0, stream, task); break;
    case 3: SPLAT_LAUNCH((project_kernel<Gaussian, 3>), grid, 32 * kRowWarps, 0, stream, task); break;
    case 8: SPLAT_LAUNCH((project_kernel<Gaussian, 8>), grid, 32 * kRowWarps, 0, stream, task); break;
    default: SPLAT_LAUNCH((project_kernel<Gaussian, 15>), grid, 32 * kRowWarps, 0, stream, task);
  }
  SPLAT_CHECK(cudaGetLastError());
  return SPLAT_OK;
}
