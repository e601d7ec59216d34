// Rows of smooth convexes in the kernels of the projection: a hull per thread.
#pragma once
#include "project.cuh"
#include "project_backward.cuh"

namespace splat {
namespace gpu {

// The rows' tables: shape = vertices [N,3K], log_deltas [N], log_sigmas [N]; constants = reference focal length in px,
// 1 for the published gradients.
__device__ inline void load_convex(const splat_rows& rows, int64_t row, ConvexRow<float>* g) {
  const int columns = rows.shape_columns[0];
  const float* vertices = static_cast<const float*>(rows.shape[0]) + row * columns;
  load_mean(rows, row, g->mean);
  g->vertices = columns / 3;
  for (int i = 0; i < columns; ++i) g->vertex[i] = vertices[i];
  g->log_delta = static_cast<const float*>(rows.shape[1])[row];
  g->log_sigma = static_cast<const float*>(rows.shape[2])[row];
  g->logit_opacity = static_cast<const float*>(rows.logit_opacities)[row];
}

__device__ inline ConvexSettings<float> convex_settings(const splat_rows& rows) {
  return {float(rows.constants[0]), rows.constants[1] != 0};
}

template <> struct RowProjection<Convex> {
  static __device__ uint32_t run(const ProjectTask& task, int64_t row, float* mean, float* record) {
    ConvexRow<float> g;
    load_convex(task.rows, row, &g);
    for (int i = 0; i < 3; ++i) mean[i] = g.mean[i];
    const ConvexProjection<float> o = project_convex(g, task.view, convex_settings(task.rows));
    if (!convex_record(g, task.view, o, record) || !finite_features<float>(task.rows, row)) return 0;
    return rect_tiles(record[0], record[1], record[kExtentX], record[kExtentY], task.view.width, task.view.height);
  }
};

template <> struct RowBackward<Convex> {
  template <class Sink>
  static __device__ PictureGrad run(const BackwardTask<Sink>& task, int64_t row, const float* record,
                                    const float* sums, float g_depth, float* mean, GaussianGrad<float>* grad) {
    ConvexRow<float> g;
    load_convex(task.rows, row, &g);
    const ConvexGrad<float> found =
        project_convex_backward(g, task.view, convex_settings(task.rows), record, sums, g_depth);
    *grad = GaussianGrad<float>{};
    for (int i = 0; i < 3; ++i) mean[i] = g.mean[i], grad->mean[i] = found.mean[i];
    for (int i = 0; i < SPLAT_CAMERA_GRAD; ++i) grad->camera[i] = found.camera[i];
    grad->logit_opacity = found.logit_opacity;
    if (task.shape[0])
      for (int i = 0; i < 3 * g.vertices; ++i)
        put_value(task.shape[0] + row * (3 * g.vertices) + i, task.accumulate, found.vertex[i]);
    if (task.shape[1]) put_value(task.shape[1] + row, task.accumulate, found.log_delta);
    if (task.shape[2]) put_value(task.shape[2] + row, task.accumulate, found.log_sigma);
    return {found.x, found.y, found.opacity};
  }
};

}  // namespace gpu
}  // namespace splat
