// Which tiles a footprint meets: by its box, and exactly.
#pragma once
#include "footprint.h"

namespace splat {
inline namespace SPLAT_ISA {

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

// A walk has rows y0..y1 of tiles and columns(ty, &first, &last), the contiguous columns of one row.
//
// The tiles an ellipse {A dx^2 + B dx dy + C dy^2 + kQMax >= 0}, A B C = record[2..4], meets: rows y0..y1 of tiles, and in each the
// exact range of tile columns: the ellipse cut by a band of rows is convex, so it meets exactly the columns its
// x-interval does. Never more tiles than rect_tiles(). Counting and emitting walk on their own and must agree: every
// product is mul_.
template <class S> struct EllipseWalk {
  static constexpr int kTileSide = 16;
  S mx, my, ex, A, B, C, ey, inv_2a, disc_a, disc_b, dy_right;
  int y0, y1, x0, x1, width;  // y0 > y1: nothing
  bool boxed;                 // one row or one column of tiles: the box is exact enough

  SPLAT_HD EllipseWalk(const S* record, int image_width, int height) {
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

// Whether that ellipse reaches a pixel centre of the box [x_lo,x_hi] x [y_lo,y_hi]: the largest value of the form
// there lies on an edge that faces the centre. Rounding can only add a splat, never lose one.
template <class S> SPLAT_HD bool ellipse_may_reach(const S* record, S q_max, S x_lo, S x_hi, S y_lo, S y_hi) {
  const S A = record[2], B = record[3], C = record[4];
  const S l = x_lo - record[0], r = x_hi - record[0], t = y_lo - record[1], b = y_hi - record[1];
  const S dx = max_number(l, min_number(r, S(0))), dy = max_number(t, min_number(b, S(0)));  // of the box's nearest column and row
  const S on_column = min_number(max_number(S(-0.5) * B * dx * rcp_(C), t), b);
  const S on_row = min_number(max_number(S(-0.5) * B * dy * rcp_(A), l), r);
  const S v_column = fma(fma(C, on_column, B * dx), on_column, A * dx * dx);
  const S v_row = fma(fma(A, on_row, B * dy), on_row, C * dy * dy);
  const S terms = A * (dx * dx + on_row * on_row) + C * (dy * dy + on_column * on_column);  // <= 0, not cancelling
  return !(max_number(v_column, v_row) < -(q_max + S(1e-3)) + S(4e-6) * terms);
}

// The tiles of a convex polygon {n_j . p <= c_j} inside the box of the extents, px from the centre. In a band of rows
// every half-plane leaves an interval of columns; their intersection holds the polygon's part of the band, and at its
// corners a little more. F::sides(record, n_x, n_y, c) fills at most kSides half-planes.
template <class S, class F, int kSides> struct PolygonWalk {
  static constexpr int kTileSide = 16;
  S mx, my, ex, ey, n_x[kSides], n_y[kSides], c[kSides];
  int sides, y0, y1, x0, x1, width;
  bool boxed;

  SPLAT_HD PolygonWalk(const S* record, int image_width, int height) {
    mx = record[0], my = record[1], ex = record[kExtentX], ey = record[kExtentY];
    width = image_width, y0 = 0, y1 = -1, x0 = x1 = sides = 0, boxed = false;
    const S row_lo = max_(my - ey - S(0.5), S(0)), row_hi = min_(my + ey - S(0.5), S(height - 1));
    const S x_lo = max_(mx - ex - S(kTileSlack) - S(0.5), S(0));
    const S x_hi = min_(mx + ex + S(kTileSlack) - S(0.5), S(width - 1));
    if (!(row_lo <= row_hi) || !(x_lo <= x_hi)) return;
    y0 = int(row_lo) / kTileSide, y1 = int(row_hi) / kTileSide;
    x0 = int(x_lo) / kTileSide, x1 = int(x_hi) / kTileSide;
    boxed = x0 == x1 || y0 == y1;
    if (!boxed) sides = F::template sides<S>(record, n_x, n_y, c);
  }

  SPLAT_HD void columns(int ty, int* first, int* last) const {
    *first = x0, *last = x1;
    if (boxed) return;
    const S lo = max_(S(ty * kTileSide) + S(0.5) - my, -ey), hi = min_(S(ty * kTileSide) + S(kTileSide - 0.5) - my, ey);
    S left = -ex, right = ex;
    bool empty = false;
    for (int j = 0; j < sides; ++j) {
      // Widest where n_y y is smallest. Slack covers the rounding of terms that cancel.
      const S y = n_y[j] > S(0) ? lo : hi, room = c[j] - mul_(n_y[j], y);
      const S slack = S(4e-6) * (abs_(c[j]) + abs_(mul_(n_y[j], y)));
      if (n_x[j] > S(0)) right = min_(right, (room + slack) / n_x[j]);
      else if (n_x[j] < S(0)) left = max_(left, (room + slack) / n_x[j]);
      else empty = empty || room + slack < S(0);
    }
    *first = 1, *last = 0;
    const S x_hi = min_(mx + right + S(kTileSlack) - S(0.5), S(width - 1));
    const S x_lo = max_(mx + left - S(kTileSlack) - S(0.5), S(0));
    if (empty || !(x_lo <= x_hi)) return;
    *first = (int(x_lo) + (x_lo > S(int(x_lo)) ? 1 : 0)) / kTileSide, *last = int(x_hi) / kTileSide;
  }
};

// Calls emit(tile) in row-major order; returns how many.
template <class F, class S, class Emit>
SPLAT_HD uint32_t walk_tiles(const S* record, int width, int height, int tiles_x, Emit&& emit) {
  const typename F::template Walk<S> walk(record, width, height);
  uint32_t n = 0;
  for (int ty = walk.y0; ty <= walk.y1; ++ty) {
    int tx, last;
    for (walk.columns(ty, &tx, &last); tx <= last; ++tx, ++n) emit(uint32_t(ty * tiles_x + tx));
  }
  return n;
}

}  // namespace SPLAT_ISA
}  // namespace splat
