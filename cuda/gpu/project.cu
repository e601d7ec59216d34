// splat_cuda_project: one record per row.
#include "project_convex.cuh"

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
  return visit_footprint(rows->footprint, [&](auto row) -> int32_t {
    launch_projection<FootprintOf<decltype(row)>>(task, stream);
    SPLAT_CHECK(cudaGetLastError());
    return SPLAT_OK;
  });
}
