// Gradients of a tile: near to far once more, per-instance sums into slots.
#pragma once
#include "blend_tile.h"

namespace splat {
inline namespace SPLAT_ISA {

// State and sums that only some backward passes want.
template <class F, class P> struct BackwardExtras {
  using S = typename Lanes<P>::Scalar;
  static constexpr int kCommon = F::kSums + 3;
  const BackwardColumns col;
  const splat_image_grads& grads;
  int features, width, height;
  alignas(64) S g_depth[kPixels], g_median[kPixels], inv_alpha[kPixels], weight[kPixels];
  alignas(64) S rest[3 * kPixels];  // per channel, what lies behind (for sensitivity)
  alignas(64) S g_feature[SPLAT_MAX_CHANNELS * kPixels];
  S sum[SPLAT_MAX_CHANNELS + 8];

  BackwardExtras(const BlendTask& task, const TileGeometry<P>& g, S* R)
      : col(*task.grads, kCommon, task.rows->feature_count),
        grads(*task.grads),
        features(task.grads->features ? task.rows->feature_count : 0),
        width(g.width),
        height(g.height) {
    const splat_images& im = *task.images;
    const int64_t plane = int64_t(g.width) * g.height;
    alignas(64) S image[kPixels];
    if (grads.depth_expected) {
      g.load(grads.depth_expected, g_depth, S(0)), g.load(im.depth_expected, image, S(0));
      for (int i = 0; i < kPixels; ++i) R[i] = fma(image[i], g_depth[i], R[i]);
    }
    if (grads.depth_median) g.load(grads.depth_median, g_median, S(0));
    for (int k = 0; k < features; ++k) {
      S* gf = g_feature + k * kPixels;
      g.load((const S*)grads.features + k * plane, gf, S(0)), g.load((const S*)im.features + k * plane, image, S(0));
      for (int i = 0; i < kPixels; ++i) R[i] = fma(image[i], gf[i], R[i]);
    }
    if (col.abs_l2 >= 0) {
      g.load(im.final_T, image, S(1));
      for (int i = 0; i < kPixels; ++i) inv_alpha[i] = S(1) / max_(S(1) - image[i], S(1e-5));
    }
    if (col.tex >= 0) g.load(im.weight_maps, weight, S(0));
    if (col.sensitivity >= 0)
      for (int c = 0; c < 3; ++c) g.load((const S*)im.color + c * plane, rest + c * kPixels, S(0));
  }

  void begin_splat() {
    for (int c = 0; c < col.stride - kCommon; ++c) sum[c] = S(0);
  }
  S& at_column(int column) { return sum[column - kCommon]; }

  // Adds depth and features to c.g of one fragment, and their own gradients to the sums.
  P channels(const Fragment<P>& f, P T, P w, S z, const S* feature_row, int at) {
    P cg = P(S(0));
    if (grads.depth_expected) {
      const P g = Lanes<P>::load(g_depth + at);
      cg = P(z) * g;
      at_column(col.depth) = at_column(col.depth) + reduce_add(w * g);
    }
    if (grads.depth_median) {
      const auto cross = and_not(f.contributes & lt(P(S(0.5)), T), lt(P(S(0.5)), f.next_T));
      at_column(col.depth) =
          at_column(col.depth) + reduce_add(select(cross, Lanes<P>::load(g_median + at), P(S(0))));
    }
    for (int k = 0; k < features; ++k) {
      const P g = Lanes<P>::load(g_feature + k * kPixels + at);
      cg = fma(P(feature_row[k]), g, cg);
      at_column(col.features + k) = at_column(col.features + k) + reduce_add(w * g);
    }
    return cg;
  }
  void statistics(const Fragment<P>& f, const S* record, const typename F::template Run<P>& run,
                  const typename F::template Response<P>& response, P T, P w, P dy, P h, P rcp, int at) {
    P gx, gy;
    F::template Sums<P>::pixel_gradient(record, run, response, h, dy, &gx, &gy);
    if (col.abs >= 0) {
      at_column(col.abs) = at_column(col.abs) + reduce_add(abs_(gx));
      at_column(col.abs + 1) = at_column(col.abs + 1) + reduce_add(abs_(gy));
    }
    if (col.abs_l2 >= 0) {
      const P x = gx * P(S(width)), y = gy * P(S(height));
      at_column(col.abs_l2) =
          at_column(col.abs_l2) + reduce_add(sqrt_(x * x + y * y) * Lanes<P>::load(inv_alpha + at));
    }
    if (col.opacity_sq >= 0) {
      const P o = h * P(S(1) / record[kOpacity]);
      at_column(col.opacity_sq) = at_column(col.opacity_sq) + reduce_add(o * o);
    }
    if (col.tex >= 0) {
      const P x = gx * P(S(0.5 * width)), y = gy * P(S(0.5 * height));
      at_column(col.tex) = at_column(col.tex) + reduce_add(sqrt_(x * x + y * y) * Lanes<P>::load(weight + at));
    }
    if (col.sensitivity >= 0) {
      P total = P(S(0));
      for (int c = 0; c < 3; ++c) {
        S* cell = rest + c * kPixels + at;
        const P color = P(record[kColor + c]);
        const P behind = nfma(w, color, Lanes<P>::load(cell));
        Lanes<P>::store(cell, behind);
        const P d = P(record[kOpacity]) * (T * color - behind * rcp);
        total = fma(d, d, total);
      }
      const auto smooth = f.contributes & lt(f.alpha, P(S(kAlphaMax)));
      at_column(col.sensitivity) = at_column(col.sensitivity) + reduce_add(select(smooth, total, P(S(0))));
    }
  }
  void end_splat(S* slot) const {
    for (int c = 0; c < col.stride - kCommon; ++c) slot[kCommon + c] = sum[c];
  }
};

// Sums of one splat over a tile: of the footprint (F::kSums) and of the colour.
template <class F, class P> struct SlotSums {
  using S = typename Lanes<P>::Scalar;
  static constexpr int kCount = F::kSums + 3;
  static_assert(kCount <= SPLAT_MAX_SLOT, "slot layout");
  P total[kCount];

  SPLAT_HD SlotSums() {
    for (int i = 0; i < kCount; ++i) total[i] = P(S(0));
  }
  SPLAT_HD void add_color(P w, P g0, P g1, P g2) {
    P* rgb = total + F::kSums;
    rgb[0] = fma(w, g0, rgb[0]), rgb[1] = fma(w, g1, rgb[1]), rgb[2] = fma(w, g2, rgb[2]);
  }
  SPLAT_HD void store(S* slot) const {
    constexpr int kFours = kCount / 4 * 4;
    for (int i = 0; i < kFours; i += 4) reduce_add4(total[i], total[i + 1], total[i + 2], total[i + 3], slot + i);
    for (int i = kFours; i < kCount; ++i) slot[i] = reduce_add(total[i]);
  }
};

// Cotangents G of the colour, and R = what lies behind, dotted with the cotangents; starts as the whole pixel. Inlined
// for speed: the compiler then sees that nothing else points into the tile's arrays.
template <class P, class S = typename Lanes<P>::Scalar>
SPLAT_HD void load_cotangents(const BlendTask& task, const TileGeometry<P>& g, S* R, S* G0, S* G1, S* G2) {
  const splat_image_grads& grads = *task.grads;
  const int64_t plane = int64_t(g.width) * g.height;
  alignas(64) S image[kPixels];
  S* G[3] = {G0, G1, G2};
  for (int i = 0; i < kPixels; ++i) R[i] = S(0);
  for (int c = 0; c < 3; ++c) {
    g.load((const S*)grads.color + c * plane, G[c], S(0));
    g.load((const S*)task.images->color + c * plane, image, S(0));
    for (int i = 0; i < kPixels; ++i) R[i] = fma(image[i], G[c][i], R[i]);
  }
  if (grads.alpha) {
    alignas(64) S g_alpha[kPixels];
    g.load(grads.alpha, g_alpha, S(0)), g.load(task.images->final_T, image, S(0));
    for (int i = 0; i < kPixels; ++i) R[i] = nfma(image[i], g_alpha[i], R[i]);
  }
}

template <class F, class P, bool kExtra> void blend_backward_tile_as(const BlendTask& task, int64_t tile) {
  using S = typename Lanes<P>::Scalar;
  constexpr int W = Lanes<P>::width, kBlocks = kTile / W;
  const TileGeometry<P> g(task, tile);
  const int stride = task.grads->slot_stride;
  alignas(64) S T[kPixels], R[kPixels], G0[kPixels], G1[kPixels], G2[kPixels];
  if (g.begin != g.end) load_cotangents<P>(task, g, R, G0, G1, G2);
  std::conditional_t<kExtra, BackwardExtras<F, P>, NoExtras> extra(task, g, R);
  g.start_transmittance(T);
  const S* records = (const S*)task.projected->records;
  uint32_t alive = (1u << g.rows) - 1;
  for (uint32_t i = g.begin; i < g.end; ++i) {
    if ((i - g.begin) % kAliveEvery == 0 && i != g.begin) alive = g.alive_rows(T);
    S* slot = (S*)task.grads->slots + int64_t(task.bins->instance_slot[i]) * stride;
    const S* record = records + int64_t(task.bins->instance_splat[i]) * F::kRecord;
    __builtin_prefetch(records + int64_t(task.bins->instance_splat[i + 4 < g.end ? i + 4 : i]) * F::kRecord);
    int first, last;
    if (!alive || !g.row_range(record, &first, &last)) {
      for (int c = 0; c < stride; ++c) slot[c] = S(0);
      continue;
    }
    const S* features = kExtra ? feature_row<S>(*task.rows, task.bins->instance_splat[i]) : nullptr;
    if constexpr (kExtra) extra.begin_splat();
    const P c0 = P(record[kColor]), c1 = P(record[kColor + 1]), c2 = P(record[kColor + 2]);
    SlotSums<F, P> slot_sums;
    for (int b = 0; b < kBlocks; ++b) {
      if (g.block_missed(record, b)) continue;
      const typename F::template Run<P> run(record, g.px[b]);
      typename F::template Sums<P> sums;
      for (int r = first; r <= last; ++r) {
        if (!(alive >> r & 1)) continue;
        const int at = r * kTile + b * W;
        const P dy = P(S(g.y0 + r + 0.5) - run.y);
        const P before = Lanes<P>::load(T + at);
        const auto response = run.at(dy);
        const Fragment<P> f(response, before);
        if (!f.visible) continue;
        const P w = select(f.contributes, f.alpha * before, P(S(0)));
        const P g0 = Lanes<P>::load(G0 + at), g1 = Lanes<P>::load(G1 + at), g2 = Lanes<P>::load(G2 + at);
        P cg = fma(c0, g0, fma(c1, g1, c2 * g2));
        if constexpr (kExtra) cg = cg + extra.channels(f, before, w, record[kDepth], features, at);
        const P behind = nfma(w, cg, Lanes<P>::load(R + at));
        Lanes<P>::store(R + at, behind);
        const P rcp = rcp_(P(S(1)) - f.alpha);
        const P d_alpha = nfma(behind, rcp, before * cg);
        // At the 0.99 clamp alpha no longer follows the response.
        const auto smooth = f.contributes & lt(f.alpha, P(S(kAlphaMax)));
        const P h = select(smooth, f.alpha * d_alpha, P(S(0)));
        sums.add(run, response, h, dy);
        slot_sums.add_color(w, g0, g1, g2);
        Lanes<P>::store(T + at, f.transmittance_after(before));
        if constexpr (kExtra) extra.statistics(f, record, run, response, before, w, dy, h, rcp, at);
      }
      sums.add_to(run, slot_sums.total);
    }
    slot_sums.store(slot);
    if constexpr (kExtra) extra.end_splat(slot);
  }
}

template <class F, class P> void blend_backward_tile(const BlendTask& task, int64_t tile) {
  if (task.grads->slot_stride > F::kSums + 3)
    blend_backward_tile_as<F, P, true>(task, tile);
  else
    blend_backward_tile_as<F, P, false>(task, tile);
}

}  // namespace SPLAT_ISA
}  // namespace splat
