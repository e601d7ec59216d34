// splat_cuda_blend_backward: gradients of the pictures with respect to the projected splats, into their slots.
#include <type_traits>

#include "blend_backward.cuh"

namespace splat {
namespace gpu {
namespace {

template <class F, StatLevel kStats, bool kChannels>
cudaError_t launch(const BackwardArgs& a, unsigned grid, void* stream) {
  const size_t shared = sizeof(float) * size_t(BackwardBatch<F, kStats>::kCount) * kBackwardWarps * size_t(a.stride);
  if (shared > (32u << 10)) {  // above 48 KiB with the static arrays; every GPU of ours has 64
    const cudaError_t error = cudaFuncSetAttribute(blend_backward<F, kStats, kChannels>,
                                                   cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared));
    if (error != cudaSuccess) return error;
  }
  SPLAT_LAUNCH((blend_backward<F, kStats, kChannels>), grid, kBackwardThreads, shared, stream, a);
  return cudaGetLastError();
}

template <class F> cudaError_t launch_backward(const BackwardArgs& a, int64_t capacity, void* stream) {
  StatLevel level = kNoStats;
  for (int i = 0; i < kPixelStats; ++i)
    if (a.stat_column[i] >= 0) level = i < stat_columns(kAbsStats) && level != kAllStats ? kAbsStats : kAllStats;
  const unsigned tiles = unsigned(a.blend.tiles), units = unsigned(CheckpointLayout(capacity, a.blend.tiles).units);
  const bool channels = a.depth_column >= 0 || a.feature_count > 0;
  if constexpr (kSpecialised<F>) {
    if (channels && level == kNoStats) return launch<F, kNoStats, true>(a, tiles, stream);
    if (!channels && level == kAbsStats) return launch<F, kAbsStats, false>(a, units, stream);
  }
  if (channels) return launch<F, kAllStats, true>(a, tiles, stream);
  if (level != kNoStats) return launch<F, kAllStats, false>(a, units, stream);
  return launch<F, kNoStats, false>(a, units, stream);
}

BackwardArgs backward_args(const splat_rows& rows, const BlendArgs& blend, const splat_images& images,
                           const splat_image_grads& grads, int sums) {
  const BackwardColumns c(grads, sums + 3, rows.feature_count);
  BackwardArgs a;
  a.blend = blend, a.images = images, a.grads = grads;
  a.features = static_cast<const float*>(rows.features);
  a.feature_count = grads.features ? rows.feature_count : 0;
  a.depth_column = c.depth, a.feature_column = c.features, a.stride = c.stride;
  const int columns[kPixelStats] = {c.abs, c.abs < 0 ? -1 : c.abs + 1, c.abs_l2, c.opacity_sq, c.tex, c.sensitivity};
  for (int i = 0; i < kPixelStats; ++i) a.stat_column[i] = columns[i];
  return a;
}

bool bad(const splat_rows* rows, const splat_view* view, const splat_image_grads* grads) {
  return rows == nullptr || view == nullptr || grads == nullptr || rows->dtype != SPLAT_F32 || view->width < 1 ||
         view->height < 1 || view->width > 16384 || view->height > 16384 || rows->feature_count < 0 ||
         rows->feature_count > SPLAT_MAX_CHANNELS ||
         grads->slot_stride !=
             BackwardColumns(*grads, splat_footprint_sums(rows->footprint) + 3, rows->feature_count).stride;
}

}  // namespace
}  // namespace gpu
}  // namespace splat

using namespace splat;
using namespace splat::gpu;

int32_t splat_cuda_blend_backward(const splat_rows* rows, const splat_view* view, const splat_projected* projected,
                                  const splat_bins* bins, const splat_counters* counters, const splat_images* images,
                                  const splat_image_grads* grads, const void* checkpoints, void* stream) {
  if (bad(rows, view, grads))
    return refuse(SPLAT_BAD_ARGUMENT, "blend_backward: sizes, number type or slot_stride wrong");
  // The head of the checkpoint memory is scratch of the background's sums; the checkpoints are only read.
  const BlendArgs blend = blend_args(*view, *projected, *bins, counters, const_cast<void*>(checkpoints));
  const BackwardArgs a = backward_args(*rows, blend, *images, *grads, splat_footprint_sums(rows->footprint));
  const int32_t status = visit_footprint(rows->footprint, [&](auto row) -> int32_t {
    SPLAT_CHECK(launch_backward<FootprintOf<decltype(row)>>(a, bins->capacity, stream));
    return SPLAT_OK;
  });
  if (status) return status;
  if (grads->background) {
    SPLAT_LAUNCH(background_partial, kBackgroundBlocks, 256, 0, stream, a);
    SPLAT_LAUNCH(background_total, 1, 3 * kWarp, 0, stream, a);
    SPLAT_CHECK(cudaGetLastError());
  }
  return SPLAT_OK;
}
