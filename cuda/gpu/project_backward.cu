// splat_cuda_project_backward, splat_cuda_project_backward_adam: from slots to gradients of rows and pose.
#include "project_convex.cuh"

namespace splat {
namespace gpu {
namespace {

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
  const int sums = splat_footprint_sums(rows.footprint) + 3;
  const bool has_depth = slots.depth_expected || slots.depth_median;
  task.view = make_view<float>(view);
  task.degree = view.sh_degree < bands ? view.sh_degree : bands;
  task.stride = slots.slot_stride, task.depth_column = has_depth ? sums : 0;
  task.aligned_quats = aligned16(rows.quats), task.accumulate = out.accumulate != 0;
  task.records = static_cast<const float*>(projected.records), task.slots = static_cast<const float*>(slots.slots);
  task.slot_begin = bins.slot_begin, task.slot_count = bins.slot_count, task.counters = counters;
  task.mean2d = static_cast<float*>(out.mean2d), task.color = static_cast<float*>(out.color);
  task.opacity = static_cast<float*>(out.opacity);
  for (int i = 0; i < SPLAT_SHAPES; ++i) task.shape[i] = static_cast<float*>(out.shape[i]);
  task.camera_scratch = out.camera ? out.camera_scratch : nullptr;
  const int32_t status = visit_footprint(rows.footprint, [&](auto row) -> int32_t {
    using F = FootprintOf<decltype(row)>;
    if constexpr (!Sink::kSteps || TakesAdam<F>::value) launch_rows<F>(task, stream);
    else return refuse(SPLAT_BAD_ARGUMENT, "'%s' splats have tables that Adam's six arrays leave out", row.name);
    return SPLAT_OK;
  });
  if (status) return status;
  SPLAT_CHECK(cudaGetLastError());
  if (out.camera) {
    SPLAT_LAUNCH(camera_kernel, 1, 32 * SPLAT_CAMERA_GRAD, 0, stream, (rows.count + kCameraRows - 1) / kCameraRows,
                 out.camera_scratch, out.camera);
    SPLAT_CHECK(cudaGetLastError());
  }
  if (out.features && slots.features)
    return gather_slots(rows, bins, slots.slots, slots.slot_stride, sums + has_depth, rows.feature_count, -1,
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
