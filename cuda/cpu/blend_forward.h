// Blending a tile: colour, transmittance, and what else a render wants.
#pragma once
#include "blend_tile.h"

namespace splat {
inline namespace SPLAT_ISA {

// What only some renders want: depth, features, the strongest splat of a pixel, per-instance statistics.
template <class P> struct ForwardExtras {
  using S = typename Lanes<P>::Scalar;
  static constexpr int W = Lanes<P>::width;
  const splat_images& im;
  const ForwardStatColumns col;
  int features;
  alignas(64) S depth[kPixels], median[kPixels], best[kPixels], best_index[kPixels];
  alignas(64) S feature[SPLAT_MAX_CHANNELS * kPixels];
  alignas(64) S weight[SPLAT_MAX_WEIGHT_MAPS * kPixels];
  S stat[8 + 2 * SPLAT_MAX_WEIGHT_MAPS];
  bool want_best;

  ForwardExtras(const BlendTask& task, const TileGeometry<P>& g)
      : im(*task.images), col(im.stats, im.weight_map_count), features(im.features ? task.rows->feature_count : 0) {
    want_best = im.top_id || col.top >= 0;
    for (int i = 0; i < kPixels; ++i) depth[i] = median[i] = best[i] = S(0), best_index[i] = S(-1);
    for (int i = 0; i < features * kPixels; ++i) feature[i] = S(0);
    if (col.weighted >= 0)
      for (int m = 0; m < im.weight_map_count; ++m)
        g.load((const S*)im.weight_maps + int64_t(m) * g.width * g.height, weight + m * kPixels, S(0));
  }

  void begin_splat() {
    for (int c = 0; c < col.stride; ++c) stat[c] = S(0);
  }
  void add(const Fragment<P>& f, P T, P w, P dx, P dy, S z, const S* feature_row, S index, int at) {
    if (im.depth_expected) Lanes<P>::store(depth + at, fma(w, P(z), Lanes<P>::load(depth + at)));
    if (im.depth_median) {
      const auto cross = and_not(f.contributes & lt(P(S(0.5)), T), lt(P(S(0.5)), f.next_T));
      Lanes<P>::store(median + at, select(cross, P(z), Lanes<P>::load(median + at)));
    }
    for (int k = 0; k < features; ++k) {
      S* cell = feature + k * kPixels + at;
      Lanes<P>::store(cell, fma(w, P(feature_row[k]), Lanes<P>::load(cell)));
    }
    if (want_best) {
      const P before = Lanes<P>::load(best + at);
      const auto better = lt(before, w);
      Lanes<P>::store(best + at, select(better, w, before));
      Lanes<P>::store(best_index + at, select(better, P(index), Lanes<P>::load(best_index + at)));
    }
    if (col.fragments >= 0) stat[col.fragments] = stat[col.fragments] + S(count(f.contributes));
    if (col.sum >= 0) stat[col.sum] = stat[col.sum] + reduce_add(w);
    if (col.max >= 0) stat[col.max] = max_(stat[col.max], reduce_max(w));
    if (col.center >= 0)
      stat[col.center] = stat[col.center] + reduce_add(select(f.contributes, sqrt_(dx * dx + dy * dy), P(S(0))));
    if (col.weighted >= 0)
      for (int m = 0; m < im.weight_map_count; ++m) {
        const P map = Lanes<P>::load(weight + m * kPixels + at);
        S* cell = stat + col.weighted + 2 * m;
        cell[0] = cell[0] + reduce_add(select(f.contributes, map, P(S(0))));
        cell[1] = cell[1] + reduce_add(map * w);
      }
  }
  void end_splat(uint32_t slot) const {
    if (col.stride == 0) return;
    S* row = (S*)im.slot_stats + int64_t(slot) * col.stride;
    for (int c = 0; c < col.stride; ++c) row[c] = stat[c];
  }
  void finish(const BlendTask& task, const TileGeometry<P>& g) {
    if (im.depth_expected) g.store(im.depth_expected, depth);
    if (im.depth_median) g.store(im.depth_median, median);
    for (int k = 0; k < features; ++k)
      g.store((S*)im.features + int64_t(k) * g.width * g.height, feature + k * kPixels);
    if (!want_best) return;
    for (int r = 0; r < g.rows; ++r)
      for (int c = 0; c < g.columns; ++c) {
        const int index = int(value_of(best_index[r * kTile + c]));
        if (im.top_id) im.top_id[g.pixel(r) + c] = index < 0 ? -1 : int32_t(task.bins->instance_splat[g.begin + index]);
        if (col.top >= 0 && index >= 0) {
          S* cell = (S*)im.slot_stats + int64_t(task.bins->instance_slot[g.begin + index]) * col.stride + col.top;
          *cell = *cell + S(1);
        }
      }
  }
};

template <class F, class P, bool kExtra> void blend_tile_as(const BlendTask& task, int64_t tile) {
  using S = typename Lanes<P>::Scalar;
  constexpr int W = Lanes<P>::width, kBlocks = kTile / W;
  const TileGeometry<P> g(task, tile);
  alignas(64) S T[kPixels], C0[kPixels], C1[kPixels], C2[kPixels];
  g.start_transmittance(T);
  for (int i = 0; i < kPixels; ++i) C0[i] = C1[i] = C2[i] = S(0);
  std::conditional_t<kExtra, ForwardExtras<P>, NoExtras> extra(task, g);
  const S* records = (const S*)task.projected->records;
  uint32_t alive = (1u << g.rows) - 1;
  for (uint32_t i = g.begin; i < g.end; ++i) {
    if ((i - g.begin) % kAliveEvery == 0 && i != g.begin) alive = g.alive_rows(T);
    if constexpr (kExtra) extra.begin_splat();
    const S* record = records + int64_t(task.bins->instance_splat[i]) * F::kRecord;
    __builtin_prefetch(records + int64_t(task.bins->instance_splat[i + 4 < g.end ? i + 4 : i]) * F::kRecord);
    int first, last;
    if (alive && g.row_range(record, &first, &last)) {
      const P c0 = P(record[kColor]), c1 = P(record[kColor + 1]), c2 = P(record[kColor + 2]);
      for (int b = 0; b < kBlocks; ++b) {
        if (g.block_missed(record, b)) continue;
        const typename F::template Run<P> run(record, g.px[b]);
        for (int r = first; r <= last; ++r) {
          if (!(alive >> r & 1)) continue;
          const int at = r * kTile + b * W;
          const P dy = P(S(g.y0 + r + 0.5) - run.y);
          const P before = Lanes<P>::load(T + at);
          const Fragment<P> f(run.at(dy), before);
          if (!f.visible) continue;
          const P w = select(f.contributes, f.alpha * before, P(S(0)));
          Lanes<P>::store(C0 + at, fma(w, c0, Lanes<P>::load(C0 + at)));
          Lanes<P>::store(C1 + at, fma(w, c1, Lanes<P>::load(C1 + at)));
          Lanes<P>::store(C2 + at, fma(w, c2, Lanes<P>::load(C2 + at)));
          Lanes<P>::store(T + at, f.transmittance_after(before));
          if constexpr (kExtra) {
            const S* row = feature_row<S>(*task.rows, task.bins->instance_splat[i]);
            extra.add(f, before, w, run.dx, dy, record[kDepth], row, S(i - g.begin), at);
          }
        }
      }
    }
    if constexpr (kExtra) extra.end_splat(task.bins->instance_slot[i]);
    if (!kExtra && !alive) break;
  }
  for (int i = 0; i < kPixels; ++i) T[i] = abs_(T[i]);
  const S* background = (const S*)task.images->background;
  S* planes[3] = {C0, C1, C2};
  for (int c = 0; c < 3; ++c) {
    for (int i = 0; i < kPixels; ++i) planes[c][i] = fma(T[i], background[c], planes[c][i]);
    g.store((S*)task.images->color + int64_t(c) * g.width * g.height, planes[c]);
  }
  g.store(task.images->final_T, T);
  if constexpr (kExtra) extra.finish(task, g);
}

template <class F, class P> void blend_tile(const BlendTask& task, int64_t tile) {
  const splat_images& im = *task.images;
  if (im.depth_expected || im.depth_median || im.features || im.top_id || im.stats)
    blend_tile_as<F, P, true>(task, tile);
  else
    blend_tile_as<F, P, false>(task, tile);
}

}  // namespace SPLAT_ISA
}  // namespace splat
