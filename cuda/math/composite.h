// Front-to-back compositing, the same for every backend: thresholds, one splat at one pixel, and the columns of the
// per-instance rows that blending leaves behind.
//
// A pixel's transmittance T is kept as a signed number: negative means the pixel is finished (it met the 1e-4
// stop, or lies outside the image) and its magnitude is the final value. A finished pixel fails the test
// T(1 - alpha) >= 1e-4 by itself, so the inner loop needs no second mask. Forward and backward evaluate
// the very same expressions in the same order, so they always agree on who contributed.
#pragma once
#include "../include/splat.h"
#include "tiles.h"

namespace splat {
inline namespace SPLAT_ISA {

constexpr int kTile = SPLAT_TILE, kPixels = kTile * kTile;
constexpr double kAlphaMax = 0.99, kTransmittanceStop = 1e-4;

// One splat against one pack of pixels.
template <class P> struct Fragment {
  using S = typename Lanes<P>::Scalar;
  using M = typename Lanes<P>::Mask;
  M contributes, stops;
  P alpha, next_T;
  bool visible;

  template <class Response> SPLAT_HD Fragment(const Response& response, P T) {
    const M valid = response.valid();
    // Worth a branch only when a pack is narrow: the box of the footprint has few empty rows to offer.
    visible = Lanes<P>::width > 4 || any(valid);
    if (!visible) return;
    alpha = min_number(response.alpha(), P(S(kAlphaMax)));
    next_T = nfma(alpha, T, T);
    contributes = valid & ge(next_T, P(S(kTransmittanceStop)));
    stops = and_not(valid, contributes);
  }
  // Only for a visible fragment: then a single pixel that got no contribution has stopped.
  SPLAT_HD P transmittance_after(P T) const {
    if constexpr (Lanes<P>::width == 1) return contributes ? next_T : -abs_(T);
    else return negative_where(stops, select(contributes, next_T, T));
  }
};

// Columns of a forward statistic row, in the order of the enum.
struct ForwardStatColumns {
  int fragments = -1, sum = -1, max = -1, top = -1, center = -1, weighted = -1, stride = 0;
  ForwardStatColumns(int stats, int maps) {
    if (stats & SPLAT_STAT_FRAGMENTS) fragments = stride++;
    if (stats & SPLAT_STAT_BLEND_SUM) sum = stride++;
    if (stats & SPLAT_STAT_BLEND_MAX) max = stride++;
    if (stats & SPLAT_STAT_MAX_CONTRIB) top = stride++;
    if (stats & SPLAT_STAT_CENTER_DIST) center = stride++;
    if (stats & SPLAT_STAT_WEIGHTED) weighted = stride, stride += 2 * maps;
  }
};

// Columns of a backward slot after its `sums`: those of the footprint and the three colours.
struct BackwardColumns {
  int depth = -1, features = -1, abs = -1, abs_l2 = -1, opacity_sq = -1, tex = -1, sensitivity = -1, stride;
  BackwardColumns(const splat_image_grads& g, int sums, int feature_count) {
    stride = sums;
    if (g.depth_expected || g.depth_median) depth = stride++;
    if (g.features) features = stride, stride += feature_count;
    if (g.stats & SPLAT_STAT_ABS_GRAD) abs = stride, stride += 2;
    if (g.stats & SPLAT_STAT_ABS_GRAD_L2) abs_l2 = stride++;
    if (g.stats & SPLAT_STAT_OPACITY_GRAD_SQ) opacity_sq = stride++;
    if (g.stats & SPLAT_STAT_TEXGRAD) tex = stride++;
    if (g.stats & SPLAT_STAT_SENSITIVITY) sensitivity = stride++;
  }
};

}  // namespace SPLAT_ISA
}  // namespace splat
