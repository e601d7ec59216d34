// A footprint is a policy: a payload (what projection leaves per splat), its response at a pixel, and the
// gradient of that response as a few sums over pixels. Compositing, clamps and stops are written once around it.
//
// A policy has:
//   kPayload            reals at the front of a record
//   kSums               gradient sums per (splat, tile)
//   Run<R>              constants of one splat along a vertical run of pixels: column(payload, px), then
//                       log2_alpha(dy) of its unclamped opacity-weighted response, dx
//   may_reach(payload, x_lo, x_hi, y_lo, y_hi)  false when no pixel centre of a box can pass the 1/255 cut
//   Sums<R>             add(h, dy) with h = alpha dL/dalpha; moments(run, out)
//   gradient(payload, sums) -> FootprintGrad
#pragma once
#include "projection.h"

namespace splat {
inline namespace SPLAT_ISA {

// Places in a projected record after the payload.
enum RecordLayout { kColor = 6, kDepth = 9, kExtentX = 10, kExtentY = 11, kQMax = 12, kOpacity = 13, kRecord = 16 };

struct Gaussian {
  static constexpr int kPayload = 6;  // x, y, A, B, C, log2 opacity; alpha = 2^(A dx^2 + B dx dy + C dy^2 + log2 o)
  static constexpr int kSums = 6;     // of h: 1, dx, dy, dx^2, dx dy, dy^2

  template <class R> struct Run {
    using S = typename Lanes<R>::Scalar;
    R dx, a, b;
    S y, c;
    SPLAT_HD Run(const S* payload, R px) {
      dx = px - R(payload[0]);
      a = fma(R(payload[2]) * dx, dx, R(payload[5]));
      b = R(payload[3]) * dx;
      c = payload[4];
      y = payload[1];
    }
    SPLAT_HD R log2_alpha(R dy) const { return fma(fma(R(c), dy, b), dy, a); }
  };

  template <class R> struct Sums {
    using S = typename Lanes<R>::Scalar;
    R h, hy, hyy;
    SPLAT_HD Sums() : h(S(0)), hy(S(0)), hyy(S(0)) {}
    SPLAT_HD void add(R value, R dy) {
      const R t = value * dy;
      h = h + value;
      hy = hy + t;
      hyy = fma(t, dy, hyy);
    }
    // This run's share of the kSums sums; add them up over runs.
    SPLAT_HD void moments(const Run<R>& run, R* out) const {
      const R hx = h * run.dx;
      out[0] = h, out[1] = hx, out[2] = hy;
      out[3] = hx * run.dx, out[4] = hy * run.dx, out[5] = hyy;
    }
    // x and y gradient of one pixel's term, px: d(ln alpha)/d(mean) * h.
    SPLAT_HD static void pixel_gradient(const S* payload, const Run<R>& run, R value, R dy, R* gx, R* gy) {
      const S k = S(-2 * kLn2);  // natural conic = -2 ln2 A, -ln2 B, -2 ln2 C
      *gx = value * (R(k * payload[2]) * run.dx + R(S(-kLn2) * payload[3]) * dy);
      *gy = value * (R(S(-kLn2) * payload[3]) * run.dx + R(k * payload[4]) * dy);
    }
  };

  template <class R, class S> SPLAT_HD static FootprintGrad<R> gradient(const R* payload, const R* sums, R opacity_eff) {
    FootprintGrad<R> g;
    const R a = payload[2] * R(S(-2 * kLn2)), b = payload[3] * R(S(-kLn2)), c = payload[4] * R(S(-2 * kLn2));
    g.x = a * sums[1] + b * sums[2];
    g.y = b * sums[1] + c * sums[2];
    g.conic[0] = R(S(-0.5)) * sums[3];
    g.conic[1] = -sums[4];
    g.conic[2] = R(S(-0.5)) * sums[5];
    g.opacity = sums[0] / opacity_eff;
    g.z = R(S(0));
    return g;
  }

  // Whether the response may pass 1/255 at a pixel centre of the box [x_lo,x_hi] x [y_lo,y_hi]: the largest value of
  // the exponent there, which lies on an edge that faces the mean. Rounding can only add a splat, never lose one.
  template <class S> SPLAT_HD static bool may_reach(const S* payload, S x_lo, S x_hi, S y_lo, S y_hi) {
    const S A = payload[2], B = payload[3], C = payload[4];
    const S l = x_lo - payload[0], r = x_hi - payload[0], t = y_lo - payload[1], b = y_hi - payload[1];
    const S dx = max_number(l, min_number(r, S(0))), dy = max_number(t, min_number(b, S(0)));  // of the box's nearest column and row
    const S on_column = min_number(max_number(S(-0.5) * B * dx * rcp_(C), t), b);
    const S on_row = min_number(max_number(S(-0.5) * B * dy * rcp_(A), l), r);
    const S v_column = fma(fma(C, on_column, B * dx), on_column, A * dx * dx);
    const S v_row = fma(fma(A, on_row, B * dy), on_row, C * dy * dy);
    const S terms = A * (dx * dx + on_row * on_row) + C * (dy * dy + on_column * on_column);  // <= 0, not cancelling
    return !(max_number(v_column, v_row) + payload[5] < S(-kLog2Of255 - 1e-3) + S(4e-6) * terms);
  }

  template <class R, class S> SPLAT_HD static void payload(const Projection<R>& o, R log2_opacity, R* out) {
    const R inv_det = R(S(1)) / o.det;
    out[0] = o.x, out[1] = o.y;
    out[2] = R(S(-0.5 * kLog2e)) * o.c * inv_det;
    out[3] = R(S(kLog2e)) * o.xy * inv_det;
    out[4] = R(S(-0.5 * kLog2e)) * o.a * inv_det;
    out[5] = log2_opacity;
  }
};

// Added to x-ranges, px: rounding may then only add a tile, never lose one.
constexpr double kTileSlack = 1e-3;

// Tiles of the bounding rectangle; 0 when the footprint misses every pixel centre or is not finite.
template <class S> SPLAT_HD uint32_t rect_tiles(S mx, S my, S ex, S ey, int width, int height) {
  const S slack = S(kTileSlack), half = S(0.5);
  const S x_lo = max_(mx - ex - slack - half, S(0)), x_hi = min_(mx + ex + slack - half, S(width - 1));
  const S y_lo = max_(my - ey - half, S(0)), y_hi = min_(my + ey - half, S(height - 1));
  if (!(x_lo <= x_hi) || !(y_lo <= y_hi)) return 0;
  return uint32_t((int(x_hi) / 16 - int(x_lo) / 16 + 1) * (int(y_hi) / 16 - int(y_lo) / 16 + 1));
}

// The tiles an ellipse {A dx^2 + B dx dy + C dy^2 + log2 o >= -log2 255} meets: rows y0..y1 of tiles, and in each the
// exact range of tile columns: the ellipse cut by a band of rows is convex, so it meets exactly the columns its
// x-interval does. Never more tiles than rect_tiles(). Counting and emitting walk on their own and must agree: every
// product is mul_.
template <class S> struct TileWalk {
  static constexpr int kTileSide = 16;
  S mx, my, ex, A, B, C, ey, inv_2a, disc_a, disc_b, dy_right;
  int y0, y1, x0, x1, width;  // y0 > y1: nothing
  bool boxed;                 // one row or one column of tiles: the box is exact enough

  SPLAT_HD TileWalk(const S* record, int image_width, int height) {
    mx = record[0], my = record[1], ex = record[kExtentX], ey = record[kExtentY];
    A = -record[2], B = record[3], C = -record[4];
    width = image_width, y0 = 0, y1 = -1, x0 = x1 = 0, boxed = false;
    inv_2a = disc_a = disc_b = dy_right = S(0);
    // Pixel rows whose centres the ellipse may reach.
    const S row_lo = max_(my - ey - S(0.5), S(0)), row_hi = min_(my + ey - S(0.5), S(height - 1));
    const S x_lo = max_(mx - ex - S(kTileSlack) - S(0.5), S(0));
    const S x_hi = min_(mx + ex + S(kTileSlack) - S(0.5), S(width - 1));
    if (!(row_lo <= row_hi) || !(x_lo <= x_hi)) return;
    y0 = int(row_lo) / kTileSide, y1 = int(row_hi) / kTileSide;
    x0 = int(x_lo) / kTileSide, x1 = int(x_hi) / kTileSide;
    boxed = x0 == x1 || y0 == y1;
    if (boxed) return;
    inv_2a = S(0.5) / A;
    disc_a = mul_(mul_(S(4), A), record[kQMax]), disc_b = mul_(B, B) - mul_(mul_(S(4), A), C);
    // The rightmost point of the ellipse lies at dy_right, the leftmost at -dy_right.
    dy_right = ex > S(0) ? mul_(B, ex) / mul_(S(2), C) : S(0);
  }

  // Columns of tile row ty: first..last, none when first > last.
  SPLAT_HD void columns(int ty, int* first, int* last) const {
    *first = x0, *last = x1;
    if (boxed) return;
    const S lo = max_(S(ty * kTileSide) + S(0.5) - my, -ey), hi = min_(S(ty * kTileSide) + S(kTileSide - 0.5) - my, ey);
    const S dr = min_(max_(dy_right, lo), hi), dl = min_(max_(-dy_right, lo), hi);
    // A dx^2 - B dx dy + C dy^2 = q (signs of A, B, C as stored above)
    const S sr = sqrt_(max_(disc_a + mul_(mul_(disc_b, dr), dr), S(0)));
    const S sl = sqrt_(max_(disc_a + mul_(mul_(disc_b, dl), dl), S(0)));
    const S slack = S(kTileSlack);
    const S x_hi = min_(mx + min_(mul_(mul_(B, dr) + sr, inv_2a), ex) + slack - S(0.5), S(width - 1));
    const S x_lo = max_(mx + max_(mul_(mul_(B, dl) - sl, inv_2a), -ex) - slack - S(0.5), S(0));
    *first = 1, *last = 0;
    if (!(x_lo <= x_hi)) return;
    *first = (int(x_lo) + (x_lo > S(int(x_lo)) ? 1 : 0)) / kTileSide, *last = int(x_hi) / kTileSide;
  }
};

// Calls emit(tile) in row-major order; returns how many.
template <class S, class Emit>
SPLAT_HD uint32_t walk_tiles(const S* record, int width, int height, int tiles_x, Emit&& emit) {
  const TileWalk<S> walk(record, width, height);
  uint32_t n = 0;
  for (int ty = walk.y0; ty <= walk.y1; ++ty) {
    int tx, last;
    for (walk.columns(ty, &tx, &last); tx <= last; ++tx, ++n) emit(uint32_t(ty * tiles_x + tx));
  }
  return n;
}

}  // namespace SPLAT_ISA
}  // namespace splat
