// Tables of rows: packs in and out of them, and what the projections of all footprints share.
#pragma once
#include "../math/sh.h"
#include "../math/tiles.h"
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

// Colours [3] before the clamp at zero. `first`: the first of the pack's rows, of mean `mean`.
template <class P, class S = typename Lanes<P>::Scalar>
SPLAT_HD void row_colors(const splat_rows& rows, const View<S>& view, const P* mean, int64_t first, P* color) {
  const int degree = view.sh_degree < bands_in(rows) ? view.sh_degree : bands_in(rows);
  const int rest = (degree + 1) * (degree + 1) - 1;
  P d[3], inv_length, basis[16], sh[48];
  direction<P>(mean, view, d, &inv_length);
  sh_basis<P, S>(degree, d, basis);
  load_columns<P>((const S*)rows.sh0, 3, first, rows.count, sh);
  for (int c = 0; c < 3; ++c) color[c] = fma(basis[0], sh[c], P(S(0.5)));
  if (rest == 0) return;
  load_columns<P>((const S*)rows.sh_rest, 3 * rows.sh_rest_count, first, rows.count, sh);
  for (int k = 0; k < rest; ++k)
    for (int c = 0; c < 3; ++c) color[c] = fma(basis[k + 1], sh[3 * k + c], color[c]);
}

// Sums, depth, features and statistics of a slot.
constexpr int kWidestSlot = SPLAT_MAX_SLOT + 1 + SPLAT_MAX_CHANNELS + 8;

// Sums of a splat's contiguous slots, column by column, for `W` splats.
template <class S, int W>
void gather_slots(const ProjectTask& task, int64_t first, int used, S* sums /* [stride, W] */) {
  const int stride = task.slots->slot_stride;
  const S* slots = (const S*)task.slots->slots;
  for (int i = 0; i < stride * W; ++i) sums[i] = S(0);
  for (int l = 0; l < used; ++l) {
    const S* slot = slots + int64_t(task.bins->slot_begin[first + l]) * stride;
    S total[kWidestSlot];
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
  for (int i = 0; i < SPLAT_SHAPES; ++i) zero_or_keep<P, S>(out.shape[i], rows.shape_columns[i], first, used, acc);
  zero_or_keep<P, S>(out.sh0, 3, first, used, acc);
  zero_or_keep<P, S>(out.sh_rest, 3 * rows.sh_rest_count, first, used, acc);
  zero_or_keep<P, S>(out.features, rows.feature_count, first, used, acc);
  zero_or_keep<P, S>(out.mean2d, 2, first, used, acc), zero_or_keep<P, S>(out.color, 3, first, used, acc);
  zero_or_keep<P, S>(out.opacity, 1, first, used, acc);
}

// The viewing direction d with its gradient, added to those of the mean [3] and the pose [12].
template <class P, class S>
SPLAT_HD void direction_backward(const View<S>& view, const P* d, P inv_length, const P* g_dir, P* g_mean,
                                 P* g_camera) {
  const P along = g_dir[0] * d[0] + g_dir[1] * d[1] + g_dir[2] * d[2];
  P g_v[3];
  for (int i = 0; i < 3; ++i) {
    g_v[i] = (g_dir[i] - along * d[i]) * inv_length;
    g_mean[i] = g_mean[i] + g_v[i];
  }
  // The camera centre is -R^T t: its gradient is -g_v.
  for (int r = 0; r < 3; ++r) {
    for (int i = 0; i < 3; ++i) g_camera[4 * r + i] = g_camera[4 * r + i] + P(view.t[r]) * g_v[i];
    g_camera[4 * r + 3] = g_camera[4 * r + 3] + P(view.R[3 * r]) * g_v[0] + P(view.R[3 * r + 1]) * g_v[1] +
                          P(view.R[3 * r + 2]) * g_v[2];
  }
}

// Gradient of the unclamped colour through the SH basis, into the coefficients' tables, and through the direction.
template <class P, class S, class Mask>
SPLAT_HD void color_backward(const ProjectTask& task, const View<S>& view, const P* mean, const P* g_color, Mask live,
                             int64_t first, int used, P* g_mean, P* g_camera) {
  const splat_rows& rows = *task.rows;
  const splat_row_grads& out = *task.out;
  const int degree = view.sh_degree < bands_in(rows) ? view.sh_degree : bands_in(rows);
  const int rest = (degree + 1) * (degree + 1) - 1, stored = rows.sh_rest_count;
  const bool acc = out.accumulate != 0;
  P sh[48], d[3], inv_length, basis[16], g_sh[48];
  direction<P>(mean, view, d, &inv_length);
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
    direction_backward<P, S>(view, d, inv_length, g_dir, g_mean, g_camera);
  }
  for (int k = 3 * rest; k < 3 * stored; ++k) g_sh[k] = P(S(0));
  if (out.sh_rest) store_columns<P>((S*)out.sh_rest, 3 * stored, first, used, g_sh, acc);
}

// What statistics want on the picture: gradients of the mean in px, of the opacity and of the clamped colour.
template <class P, class Mask, class S = typename Lanes<P>::Scalar>
SPLAT_HD void store_footprint(const splat_row_grads& out, P x, P y, P opacity, const S* g_color /* [3, W] */, Mask live,
                              int64_t first, int used) {
  const bool acc = out.accumulate != 0;
  const P zero = P(S(0));
  if (out.mean2d) {
    const P m[2] = {select(live, x, zero), select(live, y, zero)};
    store_columns<P>((S*)out.mean2d, 2, first, used, m, acc);
  }
  if (out.color) {
    P m[3];
    for (int c = 0; c < 3; ++c) m[c] = select(live, Lanes<P>::load(g_color + c * Lanes<P>::width), zero);
    store_columns<P>((S*)out.color, 3, first, used, m, acc);
  }
  if (out.opacity) {
    const P m = select(live, opacity, zero);
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

}  // namespace SPLAT_ISA
}  // namespace splat
