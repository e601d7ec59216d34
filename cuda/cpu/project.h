// Projection tasks: kRowChunk splats, a pack at a time.
#pragma once
#include "../math/footprint.h"
#include "../math/sh.h"
#include "../math/view.h"
#include "kernels.h"

namespace splat {
inline namespace SPLAT_ISA {

// Fewer columns than this are moved one by one: a transposition handles a full block whatever it holds.
constexpr int kWorthTransposing = 6;

// Columns of a row-major table for `width` consecutive rows starting at `first`, transposed into packs; rows past
// the end repeat the last one.
template <class P, class S = typename Lanes<P>::Scalar>
SPLAT_HD void load_columns(const S* table, int columns, int64_t first, int64_t count, P* out) {
  constexpr int W = Lanes<P>::width;
  auto row = [&](int l) { return table + (first + l < count ? first + l : count - 1) * columns; };
  int c = 0;
  if constexpr (Lanes<P>::transposes)
    for (; columns - c >= kWorthTransposing; c += W) {
      const int n = columns - c < W ? columns - c : W;
      P block[W];
      if (n == W)
        for (int l = 0; l < W; ++l) block[l] = Lanes<P>::load(row(l) + c);
      else
        for (int l = 0; l < W; ++l) block[l] = Lanes<P>::load_first(row(l) + c, n);
      Lanes<P>::transpose(block);
      for (int k = 0; k < n; ++k) out[c + k] = block[k];
    }
  if (c < columns) {
    alignas(64) S lanes[48 * W];
    for (int l = 0; l < W; ++l)
      for (int k = c; k < columns; ++k) lanes[k * W + l] = row(l)[k];
    for (int k = c; k < columns; ++k) out[k] = Lanes<P>::load(lanes + k * W);
  }
}

template <class P, class S = typename Lanes<P>::Scalar>
SPLAT_HD void store_columns(S* table, int columns, int64_t first, int lanes_used, const P* in, bool accumulate) {
  constexpr int W = Lanes<P>::width;
  int c = 0;
  if constexpr (Lanes<P>::transposes)
    for (; columns - c >= kWorthTransposing; c += W) {
      const int n = columns - c < W ? columns - c : W;
      P block[W];
      for (int k = 0; k < W; ++k) block[k] = k < n ? in[c + k] : P(S(0));
      Lanes<P>::transpose(block);
      for (int l = 0; l < lanes_used; ++l) {
        S* to = table + (first + l) * columns + c;
        if (accumulate) block[l] = block[l] + (n == W ? Lanes<P>::load(to) : Lanes<P>::load_first(to, n));
        if (n == W)
          Lanes<P>::store(to, block[l]);
        else
          Lanes<P>::store_first(to, n, block[l]);
      }
    }
  if (c < columns) {
    alignas(64) S lanes[48 * W];
    for (int k = c; k < columns; ++k) Lanes<P>::store(lanes + k * W, in[k]);
    for (int l = 0; l < lanes_used; ++l) {
      S* row = table + (first + l) * columns;
      for (int k = c; k < columns; ++k) row[k] = accumulate ? row[k] + lanes[k * W + l] : lanes[k * W + l];
    }
  }
}

template <class P> SPLAT_HD GaussianRow<P> load_row(const splat_rows& rows, int64_t first) {
  using S = typename Lanes<P>::Scalar;
  GaussianRow<P> g;
  load_columns<P>((const S*)rows.means, 3, first, rows.count, g.mean);
  load_columns<P>((const S*)rows.quats, 4, first, rows.count, g.quat);
  load_columns<P>((const S*)rows.log_scales, 3, first, rows.count, g.log_scale);
  load_columns<P>((const S*)rows.logit_opacities, 1, first, rows.count, &g.logit_opacity);
  g.filter3d = P(S(0));
  if (rows.filter3d) load_columns<P>((const S*)rows.filter3d, 1, first, rows.count, &g.filter3d);
  return g;
}

template <class F, class P> void project_chunk(const ProjectTask& task, int64_t chunk) {
  using S = typename Lanes<P>::Scalar;
  constexpr int W = Lanes<P>::width;
  const splat_rows& rows = *task.rows;
  const View<S> view = make_view<S>(*task.view);
  const int degree = view.sh_degree < bands_in(rows) ? view.sh_degree : bands_in(rows);
  const int rest = (degree + 1) * (degree + 1) - 1;
  S* records = (S*)task.projected->records;
  const int64_t end = (chunk + 1) * kRowChunk < rows.count ? (chunk + 1) * kRowChunk : rows.count;
  for (int64_t first = chunk * kRowChunk; first < end; first += W) {
    const int used = int(end - first < W ? end - first : W);
    const GaussianRow<P> g = load_row<P>(rows, first);
    const Projection<P> o = project_gaussian<P, S>(g, view, rows.filter3d != nullptr);
    // Phrased so that a NaN anywhere fails.
    auto ok = lt(P(view.near_z), o.p[2]) & lt(o.p[2], P(view.far_z)) & lt(P(S(0)), o.det) &
              lt(o.det, P(S(1e30))) & ge(o.opacity_eff, P(S(1.0 / 255)));
    const P log2_opacity = log2_(max_(o.opacity_eff, P(S(1e-30))));
    const P q = max_(log2_opacity + P(S(kLog2Of255)), P(S(0)));
    const P ex = sqrt_(P(S(2 * kLn2)) * q * o.a), ey = sqrt_(P(S(2 * kLn2)) * q * o.c);
    P record[kRecord];
    F::template payload<P, S>(o, log2_opacity, record);
    record[kDepth] = o.p[2], record[kExtentX] = ex, record[kExtentY] = ey, record[kQMax] = q;
    record[13] = o.opacity_eff, record[14] = P(S(0)), record[15] = P(S(0));
    record[kColor] = record[kColor + 1] = record[kColor + 2] = P(S(0));
    // Colour before the verdict: a row with a NaN coefficient is not drawn either.
    if (any(ok)) {
      P d[3], inv_length, basis[16], sh[48], color[3];
      direction<P>(g, view, d, &inv_length);
      sh_basis<P, S>(degree, d, basis);
      load_columns<P>((const S*)rows.sh0, 3, first, rows.count, sh);
      for (int c = 0; c < 3; ++c) color[c] = fma(basis[0], sh[c], P(S(0.5)));
      if (rest > 0) {
        load_columns<P>((const S*)rows.sh_rest, 3 * rows.sh_rest_count, first, rows.count, sh);
        for (int k = 0; k < rest; ++k)
          for (int c = 0; c < 3; ++c) color[c] = fma(basis[k + 1], sh[3 * k + c], color[c]);
      }
      for (int c = 0; c < 3; ++c) {
        ok = ok & lt(abs_(color[c]), P(S(1e30)));
        record[kColor + c] = max_(color[c], P(S(0)));
      }
    }
    // Integer tiles are decided on scalars.
    alignas(64) S lane_x[W], lane_y[W], lane_ex[W], lane_ey[W], lane_z[W], lane_ok[W];
    Lanes<P>::store(lane_x, o.x), Lanes<P>::store(lane_y, o.y);
    Lanes<P>::store(lane_ex, ex), Lanes<P>::store(lane_ey, ey), Lanes<P>::store(lane_z, o.p[2]);
    Lanes<P>::store(lane_ok, select(ok, P(S(1)), P(S(0))));
    for (int l = 0; l < used; ++l) {
      const bool drawn = lane_ok[l] > S(0) && finite_features<S>(rows, first + l);
      const uint32_t tiles =
          drawn ? rect_tiles(lane_x[l], lane_y[l], lane_ex[l], lane_ey[l], view.width, view.height) : 0;
      task.projected->rect_tiles[first + l] = tiles;
      task.projected->depth_keys[first + l] = tiles ? depth_key(float(value_of(lane_z[l]))) : 0xffffffffu;
    }
    store_columns<P>(records, kRecord, first, used, record, false);
  }
}

// Sums of a splat's contiguous slots, column by column, for `W` splats.
template <class S, int W>
void gather_slots(const ProjectTask& task, int64_t first, int used, S* sums /* [stride, W] */) {
  const int stride = task.slots->slot_stride;
  const S* slots = (const S*)task.slots->slots;
  for (int i = 0; i < stride * W; ++i) sums[i] = S(0);
  for (int l = 0; l < used; ++l) {
    const S* slot = slots + int64_t(task.bins->slot_begin[first + l]) * stride;
    S total[SPLAT_SLOT + 1 + SPLAT_MAX_CHANNELS + 8];
    uint32_t n = task.bins->slot_count[first + l];
    if (n == 0) continue;
    for (int c = 0; c < stride; ++c) total[c] = slot[c];
    for (; n > 1; --n) {
      slot += stride;
      for (int c = 0; c < stride; ++c) total[c] = total[c] + slot[c];
    }
    for (int c = 0; c < stride; ++c) sums[c * W + l] = total[c];
  }
}

template <class P, class S>
SPLAT_HD void zero_or_keep(void* table, int columns, int64_t first, int used, bool accumulate) {
  if (table == nullptr || accumulate) return;
  S* row = (S*)table + first * columns;
  for (int64_t i = 0; i < int64_t(used) * columns; ++i) row[i] = S(0);
}

// Gradients of rows none of which was drawn.
template <class P, class S>
SPLAT_HD void zero_rows(const splat_rows& rows, const splat_row_grads& out, int64_t first, int used) {
  const bool acc = out.accumulate != 0;
  zero_or_keep<P, S>(out.means, 3, first, used, acc), zero_or_keep<P, S>(out.quats, 4, first, used, acc);
  zero_or_keep<P, S>(out.log_scales, 3, first, used, acc);
  zero_or_keep<P, S>(out.logit_opacities, 1, first, used, acc);
  zero_or_keep<P, S>(out.sh0, 3, first, used, acc);
  zero_or_keep<P, S>(out.sh_rest, 3 * rows.sh_rest_count, first, used, acc);
  zero_or_keep<P, S>(out.features, rows.feature_count, first, used, acc);
  zero_or_keep<P, S>(out.mean2d, 2, first, used, acc), zero_or_keep<P, S>(out.color, 3, first, used, acc);
  zero_or_keep<P, S>(out.opacity, 1, first, used, acc);
}

// The viewing direction d with its gradient, into mean and pose.
template <class P, class S>
SPLAT_HD void direction_backward(const View<S>& view, const P* d, P inv_length, const P* g_dir, GaussianGrad<P>& grad) {
  const P along = g_dir[0] * d[0] + g_dir[1] * d[1] + g_dir[2] * d[2];
  P g_v[3];
  for (int i = 0; i < 3; ++i) {
    g_v[i] = (g_dir[i] - along * d[i]) * inv_length;
    grad.mean[i] = grad.mean[i] + g_v[i];
  }
  // The camera centre is -R^T t: its gradient is -g_v.
  for (int r = 0; r < 3; ++r) {
    for (int i = 0; i < 3; ++i) grad.camera[4 * r + i] = grad.camera[4 * r + i] + P(view.t[r]) * g_v[i];
    grad.camera[4 * r + 3] = grad.camera[4 * r + 3] + P(view.R[3 * r]) * g_v[0] + P(view.R[3 * r + 1]) * g_v[1] +
                             P(view.R[3 * r + 2]) * g_v[2];
  }
}

// Gradient of the unclamped colour through the SH basis, into the coefficients' tables, and through the direction.
template <class P, class S, class Mask>
SPLAT_HD void color_backward(const ProjectTask& task, const View<S>& view, const GaussianRow<P>& g, const P* g_color,
                             Mask live, int64_t first, int used, GaussianGrad<P>& grad) {
  const splat_rows& rows = *task.rows;
  const splat_row_grads& out = *task.out;
  const int degree = view.sh_degree < bands_in(rows) ? view.sh_degree : bands_in(rows);
  const int rest = (degree + 1) * (degree + 1) - 1, stored = rows.sh_rest_count;
  const bool acc = out.accumulate != 0;
  P sh[48], d[3], inv_length, basis[16], g_sh[48];
  direction<P>(g, view, d, &inv_length);
  sh_basis<P, S>(degree, d, basis);
  for (int c = 0; c < 3; ++c) g_sh[c] = basis[0] * g_color[c];
  for (int c = 0; c < 3; ++c) g_sh[c] = select(live, g_sh[c], P(S(0)));
  if (out.sh0) store_columns<P>((S*)out.sh0, 3, first, used, g_sh, acc);
  if (stored == 0) return;
  if (rest > 0) {
    load_columns<P>((const S*)rows.sh_rest, 3 * stored, first, rows.count, sh);
    P g_basis[16], g_dir[3];
    for (int k = 0; k < rest; ++k) {
      g_basis[k + 1] = g_color[0] * sh[3 * k] + g_color[1] * sh[3 * k + 1] + g_color[2] * sh[3 * k + 2];
      for (int c = 0; c < 3; ++c) g_sh[3 * k + c] = select(live, basis[k + 1] * g_color[c], P(S(0)));
    }
    sh_basis_backward<P, S>(degree, d, g_basis, g_dir);
    direction_backward<P, S>(view, d, inv_length, g_dir, grad);
  }
  for (int k = 3 * rest; k < 3 * stored; ++k) g_sh[k] = P(S(0));
  if (out.sh_rest) store_columns<P>((S*)out.sh_rest, 3 * stored, first, used, g_sh, acc);
}

// Geometry and opacity, to their tables. Rows that were not drawn may hold anything: NaN times zero must not reach
// them.
template <class P, class Mask, class S = typename Lanes<P>::Scalar>
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
}

// What statistics want on the picture: gradients of the mean in px, of the clamped colour (g_color) and the opacity.
template <class P, class Mask, class S = typename Lanes<P>::Scalar>
SPLAT_HD void store_footprint(const splat_row_grads& out, const FootprintGrad<P>& fg, const S* g_color /* [3, W] */,
                              Mask live, int64_t first, int used) {
  const bool acc = out.accumulate != 0;
  const P zero = P(S(0));
  if (out.mean2d) {
    const P m[2] = {select(live, fg.x, zero), select(live, fg.y, zero)};
    store_columns<P>((S*)out.mean2d, 2, first, used, m, acc);
  }
  if (out.color) {
    P m[3];
    for (int c = 0; c < 3; ++c) m[c] = select(live, Lanes<P>::load(g_color + c * Lanes<P>::width), zero);
    store_columns<P>((S*)out.color, 3, first, used, m, acc);
  }
  if (out.opacity) {
    const P m = select(live, fg.opacity, zero);
    store_columns<P>((S*)out.opacity, 1, first, used, &m, acc);
  }
}

template <class S, int W>
SPLAT_HD void store_features(const splat_row_grads& out, int count, const S* sums /* [count, W] */, int64_t first,
                             int used) {
  for (int l = 0; l < used; ++l)
    for (int k = 0; k < count; ++k) {
      S* cell = (S*)out.features + (first + l) * count + k;
      const S value = sums[k * W + l];
      *cell = out.accumulate ? *cell + value : value;
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
    alignas(64) S sums[(SPLAT_SLOT + 1 + SPLAT_MAX_CHANNELS + 8) * W];
    gather_slots<S, W>(task, first, used, sums);
    const S* color_sums = sums + F::kSums * W;
    const S* extra_sums = sums + SPLAT_SLOT * W;

    const GaussianRow<P> g = load_row<P>(rows, first);
    const Projection<P> o = project_gaussian<P, S>(g, view, rows.filter3d != nullptr);
    P record[kRecord];
    load_columns<P>(records, kRecord, first, rows.count, record);
    P moments[F::kSums], g_color[3];
    for (int i = 0; i < F::kSums; ++i) moments[i] = Lanes<P>::load(sums + i * W);
    FootprintGrad<P> fg = F::template gradient<P, S>(record, moments, record[13]);
    if (has_depth) fg.z = Lanes<P>::load(extra_sums), extra_sums += W;
    GaussianGrad<P> grad = project_gaussian_backward<P, S>(g, o, fg, view, rows.filter3d != nullptr);
    for (int c = 0; c < 3; ++c)  // through the clamp at zero
      g_color[c] = select(lt(P(S(0)), record[kColor + c]), Lanes<P>::load(color_sums + c * W), P(S(0)));
    color_backward<P, S>(task, view, g, g_color, live, first, used, grad);
    store_gaussian<P>(out, grad, live, first, used);
    store_footprint<P>(out, fg, color_sums, live, first, used);
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
