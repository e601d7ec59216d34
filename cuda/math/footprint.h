// A footprint is a policy: a payload (what projection leaves per splat), its response at a pixel, and the
// gradient of that response as a few sums over pixels. Compositing, clamps and stops are written once around it.
//
// A policy has:
//   kPayload            reals at the front of a record
//   kSums               gradient sums per (splat, tile)
//   Run<R>              constants of one splat along a vertical run of pixels: column(payload, px), then
//                       log2_alpha(dy) of its unclamped opacity-weighted response, dx
//   Sums<R>             add(h, dy) with h = alpha dL/dalpha; finish(run, out) reduces over lanes
//   gradient(payload, sums) -> FootprintGrad
#pragma once
#include "projection.h"

namespace splat {
inline namespace SPLAT_ISA {

// Places in a projected record after the payload.
enum RecordLayout { kColor = 6, kDepth = 9, kExtentX = 10, kExtentY = 11, kQMax = 12, kRecord = 16 };

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

// Rows of tiles met by the ellipse {A dx^2 + B dx dy + C dy^2 + log2 o >= -log2 255}, and in each the exact range
// of tile columns: the ellipse cut by a band of rows is convex, so it meets exactly the columns its x-interval does.
// Calls emit(tile) in row-major order; returns how many, never more than rect_tiles().
template <class S, class Emit>
SPLAT_HD uint32_t walk_tiles(const S* record, int width, int height, int tiles_x, Emit&& emit) {
  const S mx = record[0], my = record[1], ex = record[kExtentX], ey = record[kExtentY];
  const S A = -record[2], B = record[3], C = -record[4], q = record[kQMax];
  const int tile = 16;
  // Pixel rows whose centres the ellipse may reach.
  const S row_lo = max_(my - ey - S(0.5), S(0)), row_hi = min_(my + ey - S(0.5), S(height - 1));
  if (!(row_lo <= row_hi)) return 0;
  const int y0 = int(row_lo) / tile, y1 = int(row_hi) / tile;
  // One row or one column of tiles: the box is exact enough.
  {
    const S x_lo = max_(mx - ex - S(kTileSlack) - S(0.5), S(0));
    const S x_hi = min_(mx + ex + S(kTileSlack) - S(0.5), S(width - 1));
    if (!(x_lo <= x_hi)) return 0;
    const int x0 = int(x_lo) / tile, x1 = int(x_hi) / tile;
    if (x0 == x1 || y0 == y1) {
      for (int ty = y0; ty <= y1; ++ty)
        for (int tx = x0; tx <= x1; ++tx) emit(uint32_t(ty * tiles_x + tx));
      return uint32_t((y1 - y0 + 1) * (x1 - x0 + 1));
    }
  }
  const S inv_2a = S(0.5) / A;
  const S disc_a = S(4) * A * q, disc_b = B * B - S(4) * A * C;
  // The rightmost point of the ellipse lies at dy_right, the leftmost at -dy_right.
  const S dy_right = ex > S(0) ? (B * ex) / (S(2) * C) : S(0);
  uint32_t n = 0;
  for (int ty = y0; ty <= y1; ++ty) {
    const S lo = max_(S(ty * tile) + S(0.5) - my, -ey), hi = min_(S(ty * tile) + S(tile - 0.5) - my, ey);
    const S dr = min_(max_(dy_right, lo), hi), dl = min_(max_(-dy_right, lo), hi);
    // A dx^2 - B dx dy + C dy^2 = q (signs of A, B, C as stored above)
    const S sr = sqrt_(max_(disc_a + disc_b * dr * dr, S(0))), sl = sqrt_(max_(disc_a + disc_b * dl * dl, S(0)));
    const S slack = S(kTileSlack);
    const S x_hi = min_(mx + min_((B * dr + sr) * inv_2a, ex) + slack - S(0.5), S(width - 1));
    const S x_lo = max_(mx + max_((B * dl - sl) * inv_2a, -ex) - slack - S(0.5), S(0));
    if (!(x_lo <= x_hi)) continue;
    const int c1 = int(x_hi) / tile;
    for (int tx = (int(x_lo) + (x_lo > S(int(x_lo)) ? 1 : 0)) / tile; tx <= c1; ++tx, ++n) emit(uint32_t(ty * tiles_x + tx));
  }
  return n;
}

}  // namespace SPLAT_ISA
}  // namespace splat
