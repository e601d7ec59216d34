// Gradient of the projection, into gradient arrays or straight into Adam; one thread per splat. The slots of a splat
// are summed by its warp (slots.cuh), so every sum has one fixed order.
#include "rows.cuh"

namespace splat {
namespace gpu {
namespace {

constexpr int kCameraRows = 1024;                // rows per partial sum of the pose gradient
constexpr int kBlockRows = 32 * kRowWarps;
constexpr int kSmall = 14;                       // reals of a row outside sh_rest: 3 + 4 + 3 + 1 + 3

enum Array { kMeans, kQuats, kLogScales, kOpacities, kSh0Array, kShRest, kArrays };

template <class Sink> struct BackwardTask {
  splat_rows rows;
  View<float> view;
  int degree, stride, depth_column;  // column of the depth gradient in a slot, 0 = none
  bool aligned_quats, accumulate;
  const float *records, *slots;
  const uint32_t *slot_begin, *slot_count;
  const splat_counters* counters;  // or nullptr
  Sink sinks[kArrays];
  float *mean2d, *color, *opacity;  // or nullptr
  double* camera_scratch;           // [ceil(N / kCameraRows), 12]
};

__device__ inline void put_value(float* to, bool accumulate, float value) { *to = accumulate ? *to + value : value; }

// Gradient of the colour: of the SH coefficients (sh_rest in place of the coefficients in `sh`), and through the
// viewing direction of mean and camera.
template <int kRest, class Sink>
__device__ void color_backward(const BackwardTask<Sink>& task, const GaussianRow<float>& g, const float* g_color,
                               float* sh, float* g_sh0, GaussianGrad<float>* grad) {
  const View<float>& view = task.view;
  float d[3], inv_length, basis[16] = {};
  direction<float>(g, view, d, &inv_length);
  sh_basis<float, float>(task.degree, d, basis);
  for (int c = 0; c < 3; ++c) g_sh0[c] = basis[0] * g_color[c];
  const int rest = (task.degree + 1) * (task.degree + 1) - 1;
  if (kRest == 0) return;
  float g_basis[16] = {}, g_dir[3], g_v[3];
#pragma unroll
  for (int k = 0; k < kRest; ++k) {
    float* at = sh + 3 * k;
    if (k < rest) g_basis[k + 1] = g_color[0] * at[0] + g_color[1] * at[1] + g_color[2] * at[2];
    for (int c = 0; c < 3; ++c) at[c] = k < rest ? basis[k + 1] * g_color[c] : 0.0f;
  }
  if (rest == 0) return;
  sh_basis_backward<float, float>(task.degree, d, g_basis, g_dir);
  const float along = g_dir[0] * d[0] + g_dir[1] * d[1] + g_dir[2] * d[2];
  for (int i = 0; i < 3; ++i) {
    g_v[i] = (g_dir[i] - along * d[i]) * inv_length;
    grad->mean[i] = grad->mean[i] + g_v[i];
  }
  // The camera centre is -R^T t: its gradient is -g_v.
  for (int r = 0; r < 3; ++r) {
    for (int i = 0; i < 3; ++i) grad->camera[4 * r + i] = grad->camera[4 * r + i] + view.t[r] * g_v[i];
    grad->camera[4 * r + 3] =
        grad->camera[4 * r + 3] + view.R[3 * r] * g_v[0] + view.R[3 * r + 1] * g_v[1] + view.R[3 * r + 2] * g_v[2];
  }
}

// One drawn row: `sums` are its slots' columns; small[kSmall] gets the gradients outside sh_rest.
template <class F, int kRest, class Sink>
__device__ void row_backward(const BackwardTask<Sink>& task, int64_t row, const float* sums, float g_depth, float* sh,
                             float* small, float* camera) {
  GaussianRow<float> g;
  load_mean(task.rows, row, &g);
  load_shape(task.rows, task.aligned_quats, row, &g);
  const bool has_filter3d = task.rows.filter3d != nullptr;
  const Projection<float> o = project_gaussian<float, float>(g, task.view, has_filter3d);
  float record[kRecord];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float4 r = reinterpret_cast<const float4*>(task.records)[4 * row + i];
    record[4 * i] = r.x, record[4 * i + 1] = r.y, record[4 * i + 2] = r.z, record[4 * i + 3] = r.w;
  }
  FootprintGrad<float> fg = F::template gradient<float, float>(record, sums, record[13]);
  fg.z = g_depth;
  GaussianGrad<float> grad = project_gaussian_backward<float, float>(g, o, fg, task.view, has_filter3d);
  float g_color[3];
  for (int c = 0; c < 3; ++c) g_color[c] = record[kColor + c] > 0.0f ? sums[F::kSums + c] : 0.0f;
  color_backward<kRest>(task, g, g_color, sh, small + 11, &grad);
  for (int i = 0; i < 3; ++i) small[i] = grad.mean[i], small[7 + i] = grad.log_scale[i];
  for (int i = 0; i < 4; ++i) small[3 + i] = grad.quat[i];
  small[10] = grad.logit_opacity;
  for (int i = 0; i < SPLAT_CAMERA_GRAD; ++i) camera[i] = grad.camera[i];
  if (task.mean2d) {
    put_value(task.mean2d + 2 * row, task.accumulate, fg.x);
    put_value(task.mean2d + 2 * row + 1, task.accumulate, fg.y);
  }
  if (task.color)
    for (int c = 0; c < 3; ++c) put_value(task.color + 3 * row + c, task.accumulate, sums[F::kSums + c]);
  if (task.opacity) put_value(task.opacity + row, task.accumulate, fg.opacity);
}

// Per-row outputs of a row that was not drawn.
template <class Sink> __device__ void row_absent(const BackwardTask<Sink>& task, int64_t row) {
  if (task.accumulate) return;
  if (task.mean2d) task.mean2d[2 * row] = task.mean2d[2 * row + 1] = 0.0f;
  if (task.color) task.color[3 * row] = task.color[3 * row + 1] = task.color[3 * row + 2] = 0.0f;
  if (task.opacity) task.opacity[row] = 0.0f;
}

// Columns of an array outside sh_rest, and where its 32 rows lie in the stage (in multiples of 32).
__device__ inline int small_columns(int array) { return 0x31343 >> 4 * array & 15; }
__device__ inline int small_place(int array) { return 0xba730 >> 4 * array & 15; }

// All arrays to their sinks, sh_rest first: its gradients are in the stage already. One loop, so that the code of a
// sink stands there once: 72 KB of instructions with Adam, 96 unrolled.
template <int kRest, class Sink>
__device__ void put_arrays(const BackwardTask<Sink>& task, const float* small, float* stage, bool zero, int64_t base) {
  const int lane = int(threadIdx.x) & 31;
#pragma unroll 1
  for (int array = kRest ? int(kShRest) : int(kSh0Array); array >= 0; --array) {
    const bool is_rest = kRest != 0 && array == kShRest;
    if (array == kSh0Array && !zero) {
      __syncwarp();
      for (int i = 0; i < 3; ++i) {
        stage[3 * lane + i] = small[i];
        stage[32 * 7 + 3 * lane + i] = small[7 + i];
        stage[32 * 11 + 3 * lane + i] = small[11 + i];
      }
      for (int i = 0; i < 4; ++i) stage[32 * 3 + 4 * lane + i] = small[3 + i];
      stage[32 * 10 + lane] = small[10];
      __syncwarp();
    }
    const int place = is_rest ? 0 : 32 * small_place(array), columns = is_rest ? 3 * kRest : small_columns(array);
    put_rows(task.sinks[array], stage + place, columns, zero, base, task.rows.count);
  }
}

// 32 rows of one warp. camera_sums [12] of the warp take the pose gradient of these rows.
template <class F, int kRest, class Sink, bool kCamera>
__device__ void warp_rows(const BackwardTask<Sink>& task, int64_t base, bool overflow, float* stage,
                          double* camera_sums) {
  const int lane = int(threadIdx.x) & 31;
  const int64_t row = base + lane;
  const bool here = row < task.rows.count;
  const uint32_t count = here && !overflow ? task.slot_count[row] : 0u, begin = here ? task.slot_begin[row] : 0u;
  const uint32_t drawn = __ballot_sync(kFullWarp, count > 0);
  float small[kSmall] = {}, camera[SPLAT_CAMERA_GRAD] = {};
  if (drawn) {
    float sums[SPLAT_SLOT] = {}, g_depth = 0.0f;
    SlotSums<SPLAT_SLOT>(task.slots, task.stride, SPLAT_SLOT, -1).of_rows(begin, count, stage);
    if (task.depth_column)
      SlotSums<1>(task.slots + task.depth_column, task.stride, 1, -1).of_rows(begin, count, stage + 32 * SPLAT_SLOT);
    __syncwarp();
    if (count) {
      for (int i = 0; i < SPLAT_SLOT; ++i) sums[i] = stage[SPLAT_SLOT * lane + i];
      if (task.depth_column) g_depth = stage[32 * SPLAT_SLOT + lane];
    }
    __syncwarp();
    const int used = 3 * ((task.degree + 1) * (task.degree + 1) - 1);
    if (kRest)
      stage_rows<kRest ? 3 * kRest : 1>(static_cast<const float*>(task.rows.sh_rest), base, drawn, used, stage);
    __syncwarp();
    float* sh = stage + 3 * kRest * lane;
    if (count)
      row_backward<F, kRest>(task, row, sums, g_depth, sh, small, camera);
    else
      for (int i = 0; i < 3 * kRest; ++i) sh[i] = 0.0f;
    __syncwarp();
  }
  if (here && !count) row_absent(task, row);
  put_arrays<kRest>(task, small, stage, drawn == 0, base);
  if (kCamera && drawn)
    for (int i = 0; i < SPLAT_CAMERA_GRAD; ++i) {
      float sum = camera[i];
      for (int d = 16; d; d >>= 1) sum += __shfl_xor_sync(kFullWarp, sum, d);
      if (lane == 0) camera_sums[i] += double(sum);
    }
  __syncwarp();
}

// Budget (performance.md 1.3), 1 M splats, half drawn, 4 M slots: 144 MB of slots and 150 MB of rows in; 236 MB of
// gradients out, 0.12 ms on an H200; or with Adam 1,416 bytes per row (p, m, v of 59 reals in and out), 1.6 GB in all,
// 0.37 ms (half of that while the higher SH bands rest). About 1,500 instructions per row, below the memory time.
template <class F, int kRest, class Sink, bool kCamera>
__global__ void __launch_bounds__(32 * kRowWarps, kCamera ? 4 : 5) project_backward_kernel(BackwardTask<Sink> task) {
  constexpr int kColumns = 3 * kRest > kSmall ? 3 * kRest : kSmall;
  SPLAT_SHARED_2D(float4, stages, kRowWarps, 8 * kColumns);
  SPLAT_SHARED_2D(double, camera, kRowWarps, SPLAT_CAMERA_GRAD);
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) / 32;
  const bool overflow = task.counters != nullptr && task.counters->overflow != 0;
  if (Sink::kSteps && !kCamera && overflow) return;  // with a camera its sums still have to say zero
  float* stage = reinterpret_cast<float*>(stages[warp]);
  if (!kCamera) {
    warp_rows<F, kRest, Sink, false>(task, (int64_t(blockIdx.x) * kRowWarps + warp) * 32, overflow, stage, nullptr);
    return;
  }
  if (lane < SPLAT_CAMERA_GRAD) camera[warp][lane] = 0.0;
  __syncwarp();
  const int64_t first = int64_t(blockIdx.x) * kCameraRows;
  for (int64_t base = first + 32 * warp; base < first + kCameraRows && base < task.rows.count; base += kBlockRows)
    if (!(Sink::kSteps && overflow)) warp_rows<F, kRest, Sink, kCamera>(task, base, overflow, stage, camera[warp]);
  __syncthreads();
  if (threadIdx.x < SPLAT_CAMERA_GRAD) {
    double sum = 0;
    for (int w = 0; w < kRowWarps; ++w) sum += camera[w][threadIdx.x];
    task.camera_scratch[int64_t(blockIdx.x) * SPLAT_CAMERA_GRAD + threadIdx.x] = sum;
  }
}

// A warp per real of the pose gradient: lanes sum every 32nd partial sum, lane 0 adds the lanes up in order.
// Budget: 96 bytes per 1024 rows.
__global__ void __launch_bounds__(32 * SPLAT_CAMERA_GRAD)
    camera_kernel(int64_t blocks, const double* scratch, double* camera) {
  SPLAT_SHARED_2D(double, sums, SPLAT_CAMERA_GRAD, 32);
  const int lane = int(threadIdx.x) & 31, i = int(threadIdx.x) / 32;
  double sum = 0;
  for (int64_t b = lane; b < blocks; b += 32) sum += scratch[b * SPLAT_CAMERA_GRAD + i];
  sums[i][lane] = sum;
  __syncwarp();
  if (lane != 0) return;
  sum = 0;
  for (int l = 0; l < 32; ++l) sum += sums[i][l];
  camera[i] = sum;
}

template <int kRest, class Sink> void launch_backward(const BackwardTask<Sink>& task, void* stream) {
  const int64_t per_block = task.camera_scratch ? kCameraRows : kBlockRows;
  const unsigned grid = unsigned((task.rows.count + per_block - 1) / per_block);
  if (task.camera_scratch)
    SPLAT_LAUNCH((project_backward_kernel<Gaussian, kRest, Sink, true>), grid, kBlockRows, 0, stream, task);
  else
    SPLAT_LAUNCH((project_backward_kernel<Gaussian, kRest, Sink, false>), grid, kBlockRows, 0, stream, task);
}

template <class Sink>
int32_t backward(BackwardTask<Sink>& task, const splat_view& view, const splat_projected& projected,
                 const splat_bins& bins, const splat_counters* counters, const splat_image_grads& slots,
                 const splat_row_grads& out, void* stream) {
  const splat_rows& rows = task.rows;
  const int bands = bands_in(rows);
  if (out.camera != nullptr && out.camera_scratch == nullptr)
    return refuse(SPLAT_BAD_ARGUMENT, "camera_scratch missing");
  if (!aligned16(projected.records)) return refuse(SPLAT_BAD_ARGUMENT, "records must be aligned to 16 bytes");
  if (rows.count == 0) {
    const size_t bytes = SPLAT_CAMERA_GRAD * sizeof(double);
    if (out.camera) SPLAT_CHECK(cudaMemsetAsync(out.camera, 0, bytes, static_cast<cudaStream_t>(stream)));
    return SPLAT_OK;
  }
  const bool has_depth = slots.depth_expected || slots.depth_median;
  task.view = make_view<float>(view);
  task.degree = view.sh_degree < bands ? view.sh_degree : bands;
  task.stride = slots.slot_stride, task.depth_column = has_depth ? int(SPLAT_SLOT) : 0;
  task.aligned_quats = aligned16(rows.quats), task.accumulate = out.accumulate != 0;
  task.records = static_cast<const float*>(projected.records), task.slots = static_cast<const float*>(slots.slots);
  task.slot_begin = bins.slot_begin, task.slot_count = bins.slot_count, task.counters = counters;
  task.mean2d = static_cast<float*>(out.mean2d), task.color = static_cast<float*>(out.color);
  task.opacity = static_cast<float*>(out.opacity);
  task.camera_scratch = out.camera ? out.camera_scratch : nullptr;
  switch (rows.sh_rest_count) {
    case 0: launch_backward<0>(task, stream); break;
    case 3: launch_backward<3>(task, stream); break;
    case 8: launch_backward<8>(task, stream); break;
    default: launch_backward<15>(task, stream);
  }
  SPLAT_CHECK(cudaGetLastError());
  if (out.camera) {
    SPLAT_LAUNCH(camera_kernel, 1, 32 * SPLAT_CAMERA_GRAD, 0, stream, (rows.count + kCameraRows - 1) / kCameraRows,
                 out.camera_scratch, out.camera);
    SPLAT_CHECK(cudaGetLastError());
  }
  if (out.features && slots.features)
    return gather_slots(rows, bins, slots.slots, slots.slot_stride, SPLAT_SLOT + has_depth, rows.feature_count, -1,
                        out.features, task.accumulate, stream);
  return SPLAT_OK;
}

}  // namespace
}  // namespace gpu
}  // namespace splat

extern "C" int32_t splat_cuda_project_backward(const splat_rows* rows, const splat_view* view,
                                               const splat_projected* projected, const splat_bins* bins,
                                               const splat_counters* counters, const splat_image_grads* slots,
                                               const splat_row_grads* out, void* stream) {
  using namespace splat;
  using namespace splat::gpu;
  if (const int32_t status = check_rows(rows, view)) return status;
  BackwardTask<GradSink> task{};
  task.rows = *rows;
  void* const arrays[kArrays] = {out->means, out->quats, out->log_scales, out->logit_opacities, out->sh0, out->sh_rest};
  for (int a = 0; a < kArrays; ++a)
    task.sinks[a] = GradSink{static_cast<float*>(arrays[a]), out->accumulate != 0, aligned16(arrays[a])};
  return backward(task, *view, *projected, *bins, counters, *slots, *out, stream);
}

extern "C" int32_t splat_cuda_project_backward_adam(const splat_rows* rows, const splat_view* view,
                                                    const splat_projected* projected, const splat_bins* bins,
                                                    const splat_counters* counters, const splat_image_grads* slots,
                                                    const splat_row_grads* extra, const splat_adam_rows* adam,
                                                    void* stream) {
  using namespace splat;
  using namespace splat::gpu;
  if (const int32_t status = check_rows(rows, view)) return status;
  const void* const given[kArrays] = {rows->means, rows->quats, rows->log_scales, rows->logit_opacities,
                                      rows->sh0, rows->sh_rest};
  BackwardTask<AdamSink> task{};
  task.rows = *rows;
  for (int a = 0; a < kArrays; ++a) {
    if (adam->param[a] == nullptr || adam->m[a] == nullptr) continue;  // this array rests
    if (adam->param[a] != given[a] || adam->v[a] == nullptr || adam->step[a] < 1)
      return refuse(SPLAT_BAD_ARGUMENT, "Adam's array %d is not the rows' own, lacks a moment, or counts from 0", a);
    float *p = static_cast<float*>(adam->param[a]), *m = static_cast<float*>(adam->m[a]);
    float* v = static_cast<float*>(adam->v[a]);
    task.sinks[a] = AdamSink{p, m, v, AdamStep::at(adam->lr[a], adam->beta1, adam->beta2, adam->eps, adam->step[a]),
                             aligned16(p) && aligned16(m) && aligned16(v)};
  }
  const splat_row_grads none{};
  return backward(task, *view, *projected, *bins, counters, *slots, extra ? *extra : none, stream);
}
