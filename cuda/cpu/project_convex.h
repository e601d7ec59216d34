// Projection tasks of smooth convexes: kRowChunk splats, one at a time: a hull has branches.
#pragma once
#include "../math/convex.h"
#include "rows.h"

namespace splat {
inline namespace SPLAT_ISA {

// The rows' tables: shape = vertices [N,3K], log_deltas [N], log_sigmas [N]; constants = reference focal length in px,
// 1 for the published gradients.
template <class S> SPLAT_HD ConvexRow<S> load_convex(const splat_rows& rows, int64_t row) {
  ConvexRow<S> g;
  const int columns = rows.shape_columns[0];
  g.vertices = columns / 3;
  for (int i = 0; i < 3; ++i) g.mean[i] = ((const S*)rows.means)[3 * row + i];
  for (int i = 0; i < columns; ++i) g.vertex[i] = ((const S*)rows.shape[0])[row * columns + i];
  g.log_delta = ((const S*)rows.shape[1])[row], g.log_sigma = ((const S*)rows.shape[2])[row];
  g.logit_opacity = ((const S*)rows.logit_opacities)[row];
  return g;
}

template <class S> SPLAT_HD ConvexSettings<S> convex_settings(const splat_rows& rows) {
  return {S(rows.constants[0]), rows.constants[1] != 0};
}

template <class S> void project_convex_chunk(const ProjectTask& task, int64_t chunk) {
  const splat_rows& rows = *task.rows;
  const View<S> view = make_view<S>(*task.view);
  const ConvexSettings<S> settings = convex_settings<S>(rows);
  const int64_t end = (chunk + 1) * kRowChunk < rows.count ? (chunk + 1) * kRowChunk : rows.count;
  for (int64_t row = chunk * kRowChunk; row < end; ++row) {
    const ConvexRow<S> g = load_convex<S>(rows, row);
    S* record = (S*)task.projected->records + row * Convex::kRecord;
    bool drawn = convex_record(g, view, project_convex(g, view, settings), record);
    uint32_t tiles = 0;
    if (drawn) tiles = rect_tiles(record[0], record[1], record[kExtentX], record[kExtentY], view.width, view.height);
    if (tiles) {
      S color[3];
      row_colors<S>(rows, view, g.mean, row, color);
      drawn = finite_features<S>(rows, row);
      for (int c = 0; c < 3; ++c) {
        drawn = drawn && abs_(color[c]) < S(1e30);
        record[kColor + c] = max_(color[c], S(0));
      }
      if (!drawn) tiles = 0;
    }
    task.projected->rect_tiles[row] = tiles;
    task.projected->depth_keys[row] = tiles ? depth_key(float(value_of(record[kDepth]))) : 0xffffffffu;
  }
}

template <class S> SPLAT_HD void store_values(void* table, int columns, int64_t row, const S* values, bool accumulate) {
  S* to = (S*)table + row * columns;
  for (int i = 0; table && i < columns; ++i) to[i] = accumulate ? to[i] + values[i] : values[i];
}

template <class S> void project_convex_backward_chunk(const ProjectTask& task, int64_t chunk) {
  const splat_rows& rows = *task.rows;
  const splat_row_grads& out = *task.out;
  const bool acc = out.accumulate != 0, has_depth = task.slots->depth_expected || task.slots->depth_median;
  const View<S> view = make_view<S>(*task.view);
  const ConvexSettings<S> settings = convex_settings<S>(rows);
  double camera[SPLAT_CAMERA_GRAD] = {};
  const int64_t end = (chunk + 1) * kRowChunk < rows.count ? (chunk + 1) * kRowChunk : rows.count;
  for (int64_t row = chunk * kRowChunk; row < end; ++row) {
    if (task.bins->slot_count[row] == 0) {
      zero_rows<S, S>(rows, out, row, 1);
      continue;
    }
    S sums[kWidestSlot], g_color[3];
    gather_slots<S, 1>(task, row, 1, sums);
    const S* color_sums = sums + Convex::kSums;
    const S* extra_sums = color_sums + 3;
    const S g_z = has_depth ? *extra_sums++ : S(0);
    const ConvexRow<S> g = load_convex<S>(rows, row);
    const S* record = (const S*)task.projected->records + row * Convex::kRecord;
    ConvexGrad<S> grad = project_convex_backward(g, view, settings, record, sums, g_z);
    for (int c = 0; c < 3; ++c) g_color[c] = record[kColor + c] > S(0) ? color_sums[c] : S(0);  // clamped at zero
    color_backward<S, S>(task, view, g.mean, g_color, true, row, 1, grad.mean, grad.camera);
    store_values(out.means, 3, row, grad.mean, acc), store_values(out.shape[0], 3 * g.vertices, row, grad.vertex, acc);
    store_values(out.shape[1], 1, row, &grad.log_delta, acc), store_values(out.shape[2], 1, row, &grad.log_sigma, acc);
    store_values(out.logit_opacities, 1, row, &grad.logit_opacity, acc);
    store_footprint<S>(out, grad.x, grad.y, grad.opacity, color_sums, true, row, 1);
    if (out.features && task.slots->features) store_features<S, 1>(out, rows.feature_count, extra_sums, row, 1);
    for (int i = 0; i < SPLAT_CAMERA_GRAD; ++i) camera[i] += double(value_of(grad.camera[i]));
  }
  if (out.camera)
    for (int i = 0; i < SPLAT_CAMERA_GRAD; ++i) out.camera_scratch[chunk * SPLAT_CAMERA_GRAD + i] = camera[i];
}

}  // namespace SPLAT_ISA
}  // namespace splat
