// splat_cuda_blend: pictures, statistics and the checkpoints of the backward pass.
#include <type_traits>

#include "blend.cuh"

namespace splat {
namespace gpu {
namespace {

template <class F> cudaError_t launch_forward(const ForwardArgs& a, void* stream) {
  const splat_images& im = a.images;
  const bool stats = a.columns.stride > 0;
  const bool pictures = im.depth_expected || im.depth_median || im.top_id || a.columns.top >= 0;
  const size_t shared = sizeof(float) * size_t(kForwardThreads) * kForwardWarps * size_t(a.columns.stride);
  const unsigned grid = unsigned(a.blend.tiles);
  if (stats && pictures)
    SPLAT_LAUNCH((blend_forward<F, true, true>), grid, kForwardThreads, shared, stream, a);
  else if (stats)
    SPLAT_LAUNCH((blend_forward<F, false, true>), grid, kForwardThreads, shared, stream, a);
  else if (pictures)
    SPLAT_LAUNCH((blend_forward<F, true, false>), grid, kForwardThreads, 0, stream, a);
  else
    SPLAT_LAUNCH((blend_forward<F, false, false>), grid, kForwardThreads, 0, stream, a);
  return cudaGetLastError();
}

bool bad(const splat_rows* rows, const splat_view* view, const splat_images* images) {
  return rows == nullptr || view == nullptr || images == nullptr || rows->dtype != SPLAT_F32 || rows->count < 0 ||
         view->width < 1 || view->height < 1 || view->width > 16384 || view->height > 16384 ||
         rows->feature_count < 0 || rows->feature_count > SPLAT_MAX_CHANNELS || images->weight_map_count < 0 ||
         images->weight_map_count > SPLAT_MAX_WEIGHT_MAPS;
}

}  // namespace
}  // namespace gpu
}  // namespace splat

using namespace splat;
using namespace splat::gpu;

size_t splat_cuda_checkpoint_bytes(int64_t capacity, int32_t width, int32_t height) {
  return CheckpointLayout(capacity, int64_t(tiles_across(width)) * tiles_across(height)).bytes;
}

int32_t splat_cuda_blend(const splat_rows* rows, const splat_view* view, const splat_projected* projected,
                         const splat_bins* bins, const splat_counters* counters, const splat_images* images,
                         void* checkpoints, void* stream) {
  if (bad(rows, view, images)) return refuse(SPLAT_BAD_ARGUMENT, "blend: sizes or number type out of range");
  const ForwardArgs a{blend_args(*view, *projected, *bins, counters, checkpoints), *images,
                      ForwardStatColumns(images->stats, images->weight_map_count)};
  SPLAT_CHECK(launch_forward<Gaussian>(a, stream));
  if (images->features)
    for (int first = 0; first < rows->feature_count; first += kFeaturesPerPass) {
      SPLAT_LAUNCH(blend_features<Gaussian>, unsigned(a.blend.tiles), kForwardThreads, 0, stream, a,
                   static_cast<const float*>(rows->features), rows->feature_count, first);
      SPLAT_CHECK(cudaGetLastError());
    }
  return SPLAT_OK;
}
