// Blending tasks: one 16x16 tile each, splats near to far, a row of pixels per pack.
// The arithmetic of a fragment is in math/composite.h.
#pragma once
#include "../math/composite.h"
#include "kernels.h"

namespace splat {
inline namespace SPLAT_ISA {

constexpr int kAliveEvery = 8;  // splats between two looks for finished rows

// Where a tile lies and which of its pixels exist.
template <class P> struct TileGeometry {
  using S = typename Lanes<P>::Scalar;
  static constexpr int W = Lanes<P>::width, kBlocks = kTile / W;
  int x0, y0, width, height, columns, rows;
  uint32_t begin, end;
  P px[kBlocks];

  TileGeometry(const BlendTask& task, int64_t tile) {
    width = task.view->width, height = task.view->height;
    const int tiles_x = (width + kTile - 1) / kTile;
    x0 = int(tile % tiles_x) * kTile, y0 = int(tile / tiles_x) * kTile;
    columns = width - x0 < kTile ? width - x0 : kTile;
    rows = height - y0 < kTile ? height - y0 : kTile;
    begin = task.bins->tile_begin[tile], end = task.bins->tile_begin[tile + 1];
    for (int b = 0; b < kBlocks; ++b) px[b] = Lanes<P>::iota() + P(S(x0 + b * W + 0.5));
  }

  int64_t pixel(int row) const { return int64_t(y0 + row) * width + x0; }

  void load(const void* plane, S* out, S outside) const {
    for (int r = 0; r < kTile; ++r)
      for (int c = 0; c < kTile; ++c)
        out[r * kTile + c] = r < rows && c < columns ? ((const S*)plane)[pixel(r) + c] : outside;
  }
  void store(void* plane, const S* in) const {
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < columns; ++c) ((S*)plane)[pixel(r) + c] = in[r * kTile + c];
  }
  void start_transmittance(S* T) const {
    for (int r = 0; r < kTile; ++r)
      for (int c = 0; c < kTile; ++c) T[r * kTile + c] = r < rows && c < columns ? S(1) : S(-1);
  }

  // Rows of the tile whose centres the footprint reaches; false when none.
  bool row_range(const S* record, int* first, int* last) const {
    const S lo = record[1] - record[kExtentY] - S(y0 + 0.5), hi = record[1] + record[kExtentY] - S(y0 + 0.5);
    if (hi < S(0) || lo > S(kTile - 1)) return false;
    int l = 0;
    if (lo > S(0)) l = int(lo), l += S(l) < lo ? 1 : 0;
    *first = l;
    *last = hi >= S(rows - 1) ? rows - 1 : int(hi);
    return *first <= *last;
  }
  bool block_missed(const S* record, int b) const {
    if (kBlocks == 1) return false;
    const S left = S(x0 + b * W) + S(0.5), right = left + S(W - 1);
    return record[0] + record[kExtentX] < left || record[0] - record[kExtentX] > right;
  }
  // Bit r is set while some pixel of row r is unfinished.
  uint32_t alive_rows(const S* T) const {
    uint32_t alive = 0;
    for (int r = 0; r < rows; ++r) {
      bool open = false;
      for (int b = 0; b < kBlocks; ++b) open |= any(lt(P(S(0)), Lanes<P>::load(T + r * kTile + b * W)));
      alive |= uint32_t(open) << r;
    }
    return alive;
  }
};

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

struct NoExtras {};

template <class F, class P, bool kExtra> void blend_tile_as(const BlendTask& task, int64_t tile) {
  using S = typename Lanes<P>::Scalar;
  constexpr int W = Lanes<P>::width, kBlocks = kTile / W;
  const TileGeometry<P> g(task, tile);
  alignas(64) S T[kPixels], C0[kPixels], C1[kPixels], C2[kPixels];
  g.start_transmittance(T);
  for (int i = 0; i < kPixels; ++i) C0[i] = C1[i] = C2[i] = S(0);
  std::conditional_t<kExtra, ForwardExtras<P>, NoExtras> extra = [&] {
    if constexpr (kExtra) return ForwardExtras<P>(task, g);
    else return NoExtras{};
  }();
  const S* records = (const S*)task.projected->records;
  uint32_t alive = (1u << g.rows) - 1;
  for (uint32_t i = g.begin; i < g.end; ++i) {
    if ((i - g.begin) % kAliveEvery == 0 && i != g.begin) alive = g.alive_rows(T);
    if constexpr (kExtra) extra.begin_splat();
    const S* record = records + int64_t(task.bins->instance_splat[i]) * kRecord;
    __builtin_prefetch(records + int64_t(task.bins->instance_splat[i + 4 < g.end ? i + 4 : i]) * kRecord);
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
          const Fragment<P> f(run.log2_alpha(dy), before);
          if (!f.visible) continue;
          const P w = select(f.contributes, f.alpha * before, P(S(0)));
          Lanes<P>::store(C0 + at, fma(w, c0, Lanes<P>::load(C0 + at)));
          Lanes<P>::store(C1 + at, fma(w, c1, Lanes<P>::load(C1 + at)));
          Lanes<P>::store(C2 + at, fma(w, c2, Lanes<P>::load(C2 + at)));
          Lanes<P>::store(T + at, f.transmittance_after(before));
          if constexpr (kExtra) {
            const S* row = task.rows->features
                               ? (const S*)task.rows->features +
                                     int64_t(task.bins->instance_splat[i]) * task.rows->feature_count
                               : nullptr;
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

// State and sums that only some backward passes want.
template <class F, class P> struct BackwardExtras {
  using S = typename Lanes<P>::Scalar;
  const BackwardColumns col;
  const splat_image_grads& grads;
  int features, width, height;
  alignas(64) S g_depth[kPixels], g_median[kPixels], inv_alpha[kPixels], weight[kPixels];
  alignas(64) S rest[3 * kPixels];  // per channel, what lies behind (for sensitivity)
  alignas(64) S g_feature[SPLAT_MAX_CHANNELS * kPixels];
  S sum[SPLAT_MAX_CHANNELS + 8];

  BackwardExtras(const BlendTask& task, const TileGeometry<P>& g, S* R)
      : col(*task.grads, task.rows->feature_count),
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
    for (int c = 0; c < col.stride - SPLAT_SLOT; ++c) sum[c] = S(0);
  }
  S& at_column(int column) { return sum[column - SPLAT_SLOT]; }

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
  void statistics(const Fragment<P>& f, const S* record, const typename F::template Run<P>& run, P T, P w, P dy, P h,
                  P rcp, int at) {
    P gx, gy;
    F::template Sums<P>::pixel_gradient(record, run, h, dy, &gx, &gy);
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
      const P o = h * P(S(1) / record[13]);
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
        const P d = P(record[13]) * (T * color - behind * rcp);
        total = fma(d, d, total);
      }
      const auto smooth = f.contributes & lt(f.alpha, P(S(kAlphaMax)));
      at_column(col.sensitivity) = at_column(col.sensitivity) + reduce_add(select(smooth, total, P(S(0))));
    }
  }
  void end_splat(S* slot) const {
    for (int c = 0; c < col.stride - SPLAT_SLOT; ++c) slot[SPLAT_SLOT + c] = sum[c];
  }
};

template <class F, class P, bool kExtra> void blend_backward_tile_as(const BlendTask& task, int64_t tile) {
  using S = typename Lanes<P>::Scalar;
  constexpr int W = Lanes<P>::width, kBlocks = kTile / W;
  static_assert(F::kSums + 3 == SPLAT_SLOT, "slot layout");
  const TileGeometry<P> g(task, tile);
  const splat_image_grads& grads = *task.grads;
  const int64_t plane = int64_t(g.width) * g.height;
  const int stride = grads.slot_stride;
  alignas(64) S T[kPixels], R[kPixels], G0[kPixels], G1[kPixels], G2[kPixels];
  if (g.begin != g.end) {
    alignas(64) S image[kPixels];
    S* G[3] = {G0, G1, G2};
    for (int i = 0; i < kPixels; ++i) R[i] = S(0);
    // R = what lies behind, dotted with the cotangents; starts as the whole pixel.
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
  std::conditional_t<kExtra, BackwardExtras<F, P>, NoExtras> extra = [&] {
    if constexpr (kExtra) return BackwardExtras<F, P>(task, g, R);
    else return NoExtras{};
  }();
  g.start_transmittance(T);
  const S* records = (const S*)task.projected->records;
  uint32_t alive = (1u << g.rows) - 1;
  for (uint32_t i = g.begin; i < g.end; ++i) {
    if ((i - g.begin) % kAliveEvery == 0 && i != g.begin) alive = g.alive_rows(T);
    S* slot = (S*)grads.slots + int64_t(task.bins->instance_slot[i]) * stride;
    const S* record = records + int64_t(task.bins->instance_splat[i]) * kRecord;
    __builtin_prefetch(records + int64_t(task.bins->instance_splat[i + 4 < g.end ? i + 4 : i]) * kRecord);
    int first, last;
    if (!alive || !g.row_range(record, &first, &last)) {
      for (int c = 0; c < stride; ++c) slot[c] = S(0);
      continue;
    }
    if constexpr (kExtra) extra.begin_splat();
    const P c0 = P(record[kColor]), c1 = P(record[kColor + 1]), c2 = P(record[kColor + 2]);
    P s0 = P(S(0)), sx = s0, sy = s0, sxx = s0, sxy = s0, syy = s0, r0 = s0, r1 = s0, r2 = s0;
    for (int b = 0; b < kBlocks; ++b) {
      if (g.block_missed(record, b)) continue;
      const typename F::template Run<P> run(record, g.px[b]);
      typename F::template Sums<P> sums;
      for (int r = first; r <= last; ++r) {
        if (!(alive >> r & 1)) continue;
        const int at = r * kTile + b * W;
        const P dy = P(S(g.y0 + r + 0.5) - run.y);
        const P before = Lanes<P>::load(T + at);
        const Fragment<P> f(run.log2_alpha(dy), before);
        if (!f.visible) continue;
        const P w = select(f.contributes, f.alpha * before, P(S(0)));
        const P g0 = Lanes<P>::load(G0 + at), g1 = Lanes<P>::load(G1 + at), g2 = Lanes<P>::load(G2 + at);
        P cg = fma(c0, g0, fma(c1, g1, c2 * g2));
        if constexpr (kExtra) {
          const S* row = task.rows->features ? (const S*)task.rows->features +
                                                   int64_t(task.bins->instance_splat[i]) * task.rows->feature_count
                                             : nullptr;
          cg = cg + extra.channels(f, before, w, record[kDepth], row, at);
        }
        const P behind = nfma(w, cg, Lanes<P>::load(R + at));
        Lanes<P>::store(R + at, behind);
        const P rcp = rcp_(P(S(1)) - f.alpha);
        const P d_alpha = nfma(behind, rcp, before * cg);
        // At the 0.99 clamp alpha no longer follows the response.
        const auto smooth = f.contributes & lt(f.alpha, P(S(kAlphaMax)));
        const P h = select(smooth, f.alpha * d_alpha, P(S(0)));
        sums.add(h, dy);
        r0 = fma(w, g0, r0), r1 = fma(w, g1, r1), r2 = fma(w, g2, r2);
        Lanes<P>::store(T + at, f.transmittance_after(before));
        if constexpr (kExtra) extra.statistics(f, record, run, before, w, dy, h, rcp, at);
      }
      s0 = s0 + sums.h, sy = sy + sums.hy, syy = syy + sums.hyy;
      const P hx = sums.h * run.dx;
      sx = sx + hx, sxx = fma(hx, run.dx, sxx), sxy = fma(sums.hy, run.dx, sxy);
    }
    reduce_add4(s0, sx, sy, sxx, slot);
    reduce_add4(sxy, syy, r0, r1, slot + 4);
    slot[8] = reduce_add(r2);
    if constexpr (kExtra) extra.end_splat(slot);
  }
}

template <class F, class P> void blend_backward_tile(const BlendTask& task, int64_t tile) {
  if (task.grads->slot_stride > SPLAT_SLOT)
    blend_backward_tile_as<F, P, true>(task, tile);
  else
    blend_backward_tile_as<F, P, false>(task, tile);
}

// Tiles of the splats of one chunk of rows, into their slots.
template <class S> void walk_chunk(const BinTask& task, int64_t chunk) {
  const S* records = (const S*)task.projected->records;
  const splat_bins& bins = *task.bins;
  const int tiles_x = (task.view->width + kTile - 1) / kTile;
  for (int64_t row = chunk * kRowChunk; row < task.rows->count && row < (chunk + 1) * kRowChunk; ++row) {
    bins.slot_count[row] = 0;
    if (task.projected->rect_tiles[row] == 0) continue;
    uint32_t* out = task.tile_of_slot + bins.slot_begin[row];
    bins.slot_count[row] = walk_tiles<S>(records + row * kRecord, task.view->width, task.view->height, tiles_x,
                                         [&](uint32_t tile) { *out++ = tile; });
  }
}

}  // namespace SPLAT_ISA
}  // namespace splat
