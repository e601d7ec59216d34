// Gradient of the projection, into gradient arrays or straight into Adam; one thread per splat. The slots of a splat
// are summed by its warp (slots.cuh), so every sum has one fixed order.
#pragma once
#include "footprints.cuh"
#include "rows.cuh"

namespace splat {
namespace gpu {

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
  float* shape[SPLAT_SHAPES];       // of footprints with tables of their own; or nullptr, as these:
  float *mean2d, *color, *opacity;
  double* camera_scratch;           // [ceil(N / kCameraRows), 12]
};

__device__ inline void put_value(float* to, bool accumulate, float value) { *to = accumulate ? *to + value : value; }

// Gradient of the colour: of the SH coefficients (sh_rest in place of the coefficients in `sh`), and through the
// viewing direction of mean and camera.
template <int kRest, class Sink>
__device__ void color_backward(const BackwardTask<Sink>& task, const float* mean, const float* g_color, float* sh,
                               float* g_sh0, GaussianGrad<float>* grad) {
  const View<float>& view = task.view;
  float d[3], inv_length, basis[16] = {};
  direction<float>(mean, view, d, &inv_length);
  sh_basis<float, float>(task.degree, d, basis);
  for (int c = 0; c < 3; ++c) g_sh0[c] = basis[0] * g_color[c];
  const int rest = (task.degree + 1) * (task.degree + 1) - 1;
  if (kRest == 0) return;
  float g_basis[16] = {}, g_dir[3], g_v[3];
#pragma unroll
  for (int k = 0; k < kMostRest<kRest>; ++k) {
    if (kRest == kAnyRest && k >= task.rows.sh_rest_count) break;
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

// What statistics want of a row on the picture: gradients of the mean in px and of the effective opacity.
struct PictureGrad {
  float x, y, opacity;
};

// One drawn row from the sums of its slots and the gradient of its depth: fills `mean` and the gradients of the arrays
// and the pose in *grad, and puts those of its own tables. For footprints outside the EWA family: a specialisation.
template <class F> struct RowBackward {
  template <class Sink>
  static __device__ PictureGrad run(const BackwardTask<Sink>& task, int64_t row, const float* record,
                                    const float* sums, float g_depth, float* mean, GaussianGrad<float>* grad) {
    GaussianRow<float> g;
    load_mean(task.rows, row, g.mean);
    load_shape<F::kShapes>(task.rows, task.aligned_quats, row, &g);
    const bool has_filter3d = task.rows.filter3d != nullptr;
    const Projection<float> o = project_gaussian<float, float>(g, task.view, has_filter3d);
    FootprintGrad<float> fg = F::template gradient<float, float>(record, sums, o);
    fg.z = g_depth;
    *grad = project_gaussian_backward<float, float>(g, o, fg, task.view, has_filter3d);
    if (F::kShapes && task.shape[0]) put_value(task.shape[0] + row, task.accumulate, grad->shape);
    for (int i = 0; i < 3; ++i) mean[i] = g.mean[i];
    return {fg.x, fg.y, fg.opacity};
  }
};

// One drawn row: `sums` are its slots' columns; small[kSmall] gets the gradients outside sh_rest.
template <class F, int kRest, class Sink>
__device__ void row_backward(const BackwardTask<Sink>& task, int64_t row, const float* sums, float g_depth, float* sh,
                             float* small, float* camera) {
  float record[F::kRecord], mean[3], g_color[3];
#pragma unroll
  for (int i = 0; i < F::kRecord / 4; ++i) {
    const float4 r = reinterpret_cast<const float4*>(task.records)[F::kRecord / 4 * row + i];
    record[4 * i] = r.x, record[4 * i + 1] = r.y, record[4 * i + 2] = r.z, record[4 * i + 3] = r.w;
  }
  GaussianGrad<float> grad;
  const PictureGrad picture = RowBackward<F>::run(task, row, record, sums, g_depth, mean, &grad);
  for (int c = 0; c < 3; ++c) g_color[c] = record[kColor + c] > 0.0f ? sums[F::kSums + c] : 0.0f;
  color_backward<kRest>(task, mean, g_color, sh, small + 11, &grad);
  for (int i = 0; i < 3; ++i) small[i] = grad.mean[i], small[7 + i] = grad.log_scale[i];
  for (int i = 0; i < 4; ++i) small[3 + i] = grad.quat[i];
  small[10] = grad.logit_opacity;
  for (int i = 0; i < SPLAT_CAMERA_GRAD; ++i) camera[i] = grad.camera[i];
  if (task.mean2d) {
    put_value(task.mean2d + 2 * row, task.accumulate, picture.x);
    put_value(task.mean2d + 2 * row + 1, task.accumulate, picture.y);
  }
  if (task.color)
    for (int c = 0; c < 3; ++c) put_value(task.color + 3 * row + c, task.accumulate, sums[F::kSums + c]);
  if (task.opacity) put_value(task.opacity + row, task.accumulate, picture.opacity);
}

// Per-row outputs of a row that was not drawn.
template <class F, class Sink> __device__ void row_absent(const BackwardTask<Sink>& task, int64_t row) {
  if (task.accumulate) return;
  if constexpr (!TakesAdam<F>::value)
    for (int i = 0; i < SPLAT_SHAPES; ++i)
      for (int c = 0; task.shape[i] && c < task.rows.shape_columns[i]; ++c)
        task.shape[i][row * task.rows.shape_columns[i] + c] = 0.0f;
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
    const int place = is_rest ? 0 : 32 * small_place(array);
    const int columns = is_rest ? 3 * stored_rest<kRest>(task.rows) : small_columns(array);
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
    constexpr int kSlot = F::kSums + 3;
    float sums[kSlot] = {}, g_depth = 0.0f;
    SlotSums<kSlot>(task.slots, task.stride, kSlot, -1).of_rows(begin, count, stage);
    if (task.depth_column)
      SlotSums<1>(task.slots + task.depth_column, task.stride, 1, -1).of_rows(begin, count, stage + 32 * kSlot);
    __syncwarp();
    if (count) {
      for (int i = 0; i < kSlot; ++i) sums[i] = stage[kSlot * lane + i];
      if (task.depth_column) g_depth = stage[32 * kSlot + lane];
    }
    __syncwarp();
    const int used = 3 * ((task.degree + 1) * (task.degree + 1) - 1), stored = stored_rest<kRest>(task.rows);
    if (kRest) stage_rest<kRest>(task.rows, base, drawn, used, stage);
    __syncwarp();
    float* sh = stage + 3 * stored * lane;
    if (count)
      row_backward<F, kRest>(task, row, sums, g_depth, sh, small, camera);
    else
      for (int i = 0; i < 3 * stored; ++i) sh[i] = 0.0f;
    __syncwarp();
  }
  if (here && !count) row_absent<F>(task, row);
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
  constexpr int kSums = F::kSums + 3 + 1 > kSmall ? F::kSums + 3 + 1 : kSmall;  // the last: of the depth
  constexpr int kColumns = 3 * kMostRest<kRest> > kSums ? 3 * kMostRest<kRest> : kSums;
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

template <class F, int kRest, class Sink> void launch_rows(const BackwardTask<Sink>& task, void* stream) {
  const int64_t per_block = task.camera_scratch ? kCameraRows : kBlockRows;
  const unsigned grid = unsigned((task.rows.count + per_block - 1) / per_block);
  if (task.camera_scratch)
    SPLAT_LAUNCH((project_backward_kernel<F, kRest, Sink, true>), grid, kBlockRows, 0, stream, task);
  else
    SPLAT_LAUNCH((project_backward_kernel<F, kRest, Sink, false>), grid, kBlockRows, 0, stream, task);
}

template <class F, class Sink> void launch_rows(const BackwardTask<Sink>& task, void* stream) {
  if constexpr (!kSpecialised<F>) launch_rows<F, kAnyRest>(task, stream);
  else switch (task.rows.sh_rest_count) {
      case 0: return launch_rows<F, 0>(task, stream);
      case 3: return launch_rows<F, 3>(task, stream);
      case 8: return launch_rows<F, 8>(task, stream);
      default: launch_rows<F, 15>(task, stream);
    }
}

}  // namespace gpu
}  // namespace splat
