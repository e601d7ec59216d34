// splat_cuda_blend: pictures, statistics and the checkpoints of the backward pass.
#include <type_traits>

#include "blend.cuh"

namespace splat {
namespace gpu {
namespace {

template <class F, bool kPictures, bool kStats> void launch(const ForwardArgs& a, void* stream) {
  const size_t rows = size_t(ForwardBatch<F>::kCount) * kForwardWarps * size_t(a.columns.stride);
  SPLAT_LAUNCH((blend_forward<F, kPictures, kStats>), unsigned(a.blend.tiles), kForwardThreads,
               kStats ? sizeof(float) * rows : 0, stream, a);
}

template <class F> int32_t blend(const ForwardArgs& a, const splat_rows& rows, void* stream) {
  const splat_images& im = a.images;
  const bool stats = a.columns.stride > 0;
  const bool pictures = im.depth_expected || im.depth_median || im.top_id || a.columns.top >= 0;
  if (!stats && !pictures) launch<F, false, false>(a, stream);
  else if constexpr (!kSpecialised<F>) launch<F, true, true>(a, stream);
  else if (stats && pictures) launch<F, true, true>(a, stream);
  else if (stats) launch<F, false, true>(a, stream);
  else launch<F, true, false>(a, stream);
  SPLAT_CHECK(cudaGetLastError());
  if (im.features)
    for (int first = 0; first < rows.feature_count; first += kFeaturesPerPass) {
      SPLAT_LAUNCH(blend_features<F>, unsigned(a.blend.tiles), kForwardThreads, 0, stream, a,
                   static_cast<const float*>(rows.features), rows.feature_count, first);
      SPLAT_CHECK(cudaGetLastError());
    }
  return SPLAT_OK;
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
  return visit_footprint(rows->footprint,
                         [&](auto row) { return blend<FootprintOf<decltype(row)>>(a, *rows, stream); });
}
