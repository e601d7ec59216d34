// Projection tasks of the EWA family: kRowChunk splats, a pack at a time.
#pragma once
#include "rows.h"

namespace splat {
inline namespace SPLAT_ISA {

template <class F, class P> SPLAT_HD GaussianRow<P> load_row(const splat_rows& rows, int64_t first) {
  using S = typename Lanes<P>::Scalar;
  GaussianRow<P> g;
  load_columns<P>((const S*)rows.means, 3, first, rows.count, g.mean);
  load_columns<P>((const S*)rows.quats, 4, first, rows.count, g.quat);
  load_columns<P>((const S*)rows.log_scales, 3, first, rows.count, g.log_scale);
  load_columns<P>((const S*)rows.logit_opacities, 1, first, rows.count, &g.logit_opacity);
  if (F::kShapes) load_columns<P>((const S*)rows.shape[0], 1, first, rows.count, &g.shape);
  g.filter3d = P(S(0));
  if (rows.filter3d) load_columns<P>((const S*)rows.filter3d, 1, first, rows.count, &g.filter3d);
  return g;
}

template <class F, class P> void project_chunk(const ProjectTask& task, int64_t chunk) {
  using S = typename Lanes<P>::Scalar;
  constexpr int W = Lanes<P>::width;
  const splat_rows& rows = *task.rows;
  const View<S> view = make_view<S>(*task.view);
  S* records = (S*)task.projected->records;
  const int64_t end = (chunk + 1) * kRowChunk < rows.count ? (chunk + 1) * kRowChunk : rows.count;
  for (int64_t first = chunk * kRowChunk; first < end; first += W) {
    const int used = int(end - first < W ? end - first : W);
    const GaussianRow<P> g = load_row<F, P>(rows, first);
    const Projection<P> o = project_gaussian<P, S>(g, view, rows.filter3d != nullptr);
    // Phrased so that a NaN anywhere fails.
    auto ok = lt(P(view.near_z), o.p[2]) & lt(o.p[2], P(view.far_z)) & lt(P(S(0)), o.det) &
              lt(o.det, P(S(1e30))) & ge(o.opacity_eff, P(S(1.0 / 255)));
    const P log2_opacity = log2_(max_(o.opacity_eff, P(S(1e-30))));
    P record[F::kRecord];
    for (int i = 0; i < F::kRecord; ++i) record[i] = P(S(0));
    F::template record<P, S>(o, log2_opacity, &g.shape, record);
    record[kDepth] = o.p[2], record[kOpacity] = o.opacity_eff;
    // Colour before the verdict: a row with a NaN coefficient is not drawn either.
    if (any(ok)) {
      P color[3];
      row_colors<P>(rows, view, g.mean, first, color);
      for (int c = 0; c < 3; ++c) {
        ok = ok & lt(abs_(color[c]), P(S(1e30)));
        record[kColor + c] = max_(color[c], P(S(0)));
      }
    }
    // Integer tiles are decided on scalars.
    alignas(64) S lane_x[W], lane_y[W], lane_ex[W], lane_ey[W], lane_z[W], lane_ok[W];
    Lanes<P>::store(lane_x, o.x), Lanes<P>::store(lane_y, o.y);
    Lanes<P>::store(lane_ex, record[kExtentX]), Lanes<P>::store(lane_ey, record[kExtentY]);
    Lanes<P>::store(lane_z, o.p[2]);
    Lanes<P>::store(lane_ok, select(ok, P(S(1)), P(S(0))));
    for (int l = 0; l < used; ++l) {
      const bool drawn = lane_ok[l] > S(0) && finite_features<S>(rows, first + l);
      const uint32_t tiles =
          drawn ? rect_tiles(lane_x[l], lane_y[l], lane_ex[l], lane_ey[l], view.width, view.height) : 0;
      task.projected->rect_tiles[first + l] = tiles;
      task.projected->depth_keys[first + l] = tiles ? depth_key(float(value_of(lane_z[l]))) : 0xffffffffu;
    }
    store_columns<P>(records, F::kRecord, first, used, record, false);
  }
}

// Geometry and opacity, to their tables. Rows that were not drawn may hold anything: NaN times zero must not reach
// them.
template <class F, class P, class Mask, class S = typename Lanes<P>::Scalar>
SPLAT_HD void store_gaussian(const splat_row_grads& out, GaussianGrad<P>& grad, Mask live, int64_t first, int used) {
  const bool acc = out.accumulate != 0;
  const P zero = P(S(0));
  for (int i = 0; i < 3; ++i) {
    grad.mean[i] = select(live, grad.mean[i], zero);
    grad.log_scale[i] = select(live, grad.log_scale[i], zero);
  }
  for (int i = 0; i < 4; ++i) grad.quat[i] = select(live, grad.quat[i], zero);
  grad.logit_opacity = select(live, grad.logit_opacity, zero);
  if (out.means) store_columns<P>((S*)out.means, 3, first, used, grad.mean, acc);
  if (out.quats) store_columns<P>((S*)out.quats, 4, first, used, grad.quat, acc);
  if (out.log_scales) store_columns<P>((S*)out.log_scales, 3, first, used, grad.log_scale, acc);
  if (out.logit_opacities) store_columns<P>((S*)out.logit_opacities, 1, first, used, &grad.logit_opacity, acc);
  if (F::kShapes && out.shape[0]) {
    grad.shape = select(live, grad.shape, zero);
    store_columns<P>((S*)out.shape[0], 1, first, used, &grad.shape, acc);
  }
}

template <class F, class P> void project_backward_chunk(const ProjectTask& task, int64_t chunk) {
  using S = typename Lanes<P>::Scalar;
  constexpr int W = Lanes<P>::width;
  const splat_rows& rows = *task.rows;
  const splat_row_grads& out = *task.out;
  const View<S> view = make_view<S>(*task.view);
  const bool has_depth = task.slots->depth_expected || task.slots->depth_median;
  const S* records = (const S*)task.projected->records;
  double camera[SPLAT_CAMERA_GRAD] = {};
  const int64_t end = (chunk + 1) * kRowChunk < rows.count ? (chunk + 1) * kRowChunk : rows.count;
  for (int64_t first = chunk * kRowChunk; first < end; first += W) {
    const int used = int(end - first < W ? end - first : W);
    alignas(64) S drawn_lane[W];
    bool drawn = false;
    for (int l = 0; l < W; ++l) {
      const bool here = l < used && task.bins->slot_count[first + l] != 0;
      drawn |= here, drawn_lane[l] = here ? S(1) : S(0);
    }
    if (!drawn) {
      zero_rows<P, S>(rows, out, first, used);
      continue;
    }
    const auto live = lt(P(S(0.5)), Lanes<P>::load(drawn_lane));
    alignas(64) S sums[kWidestSlot * W];
    gather_slots<S, W>(task, first, used, sums);
    const S* color_sums = sums + F::kSums * W;
    const S* extra_sums = color_sums + 3 * W;

    const GaussianRow<P> g = load_row<F, P>(rows, first);
    const Projection<P> o = project_gaussian<P, S>(g, view, rows.filter3d != nullptr);
    P record[F::kRecord];
    load_columns<P>(records, F::kRecord, first, rows.count, record);
    P moments[F::kSums], g_color[3];
    for (int i = 0; i < F::kSums; ++i) moments[i] = Lanes<P>::load(sums + i * W);
    FootprintGrad<P> fg = F::template gradient<P, S>(record, moments, o);
    if (has_depth) fg.z = Lanes<P>::load(extra_sums), extra_sums += W;
    GaussianGrad<P> grad = project_gaussian_backward<P, S>(g, o, fg, view, rows.filter3d != nullptr);
    for (int c = 0; c < 3; ++c)  // through the clamp at zero
      g_color[c] = select(lt(P(S(0)), record[kColor + c]), Lanes<P>::load(color_sums + c * W), P(S(0)));
    color_backward<P, S>(task, view, g.mean, g_color, live, first, used, grad.mean, grad.camera);
    store_gaussian<F, P>(out, grad, live, first, used);
    store_footprint<P>(out, fg.x, fg.y, fg.opacity, color_sums, live, first, used);
    if (out.features && task.slots->features) store_features<S, W>(out, rows.feature_count, extra_sums, first, used);
    if (out.camera)
      for (int i = 0; i < SPLAT_CAMERA_GRAD; ++i)
        camera[i] += double(value_of(reduce_add(select(live, grad.camera[i], P(S(0))))));
  }
  if (out.camera)
    for (int i = 0; i < SPLAT_CAMERA_GRAD; ++i) out.camera_scratch[chunk * SPLAT_CAMERA_GRAD + i] = camera[i];
}

}  // namespace SPLAT_ISA
}  // namespace splat
