// The hot part of vector quantisation: the two nearest of a block of centroids, for four points at a time.
#pragma once
#include "../math/real.h"
#include "kernels.h"

namespace splat {
inline namespace SPLAT_ISA {

// Keeps the two least of what a row has seen, the earlier index where two are equal.
template <class S> SPLAT_HD void nearest_keep(S score, int32_t index, S* best, int32_t* indices) {
  if (score < best[0] || (score == best[0] && index < indices[0])) {
    best[1] = best[0], indices[1] = indices[0];
    best[0] = score, indices[0] = index;
  } else if (score < best[1] || (score == best[1] && index < indices[1])) {
    best[1] = score, indices[1] = index;
  }
}

// |x - c|^2 is least where |c|^2 / 2 - x.c is. Every product is added in the order of the dimensions, so that the
// result depends on neither tile nor thread.
template <class P> void nearest_rows(const NearestTask& t, int64_t first_row) {
  using L = Lanes<P>;
  using S = typename L::Scalar;
  constexpr int W = L::width, R = kNearestRows, C = 2, step = W * C < kNearestColumns ? W * C : kNearestColumns;
  const S* x[R];
  for (int r = 0; r < R; ++r) {
    const int64_t row = first_row + r < t.rows ? first_row + r : t.rows - 1;
    x[r] = (const S*)t.points + row * t.dim;
  }
  const P infinity = P(S(__builtin_inff()));
  P best[R], second[R], at[R], second_at[R];
  for (int r = 0; r < R; ++r) best[r] = second[r] = infinity, at[r] = second_at[r] = P(S(-1));
  for (int column = 0; column < t.columns; column += step) {
    const S* c = (const S*)t.packed + int64_t(column / kNearestColumns) * kNearestColumns * t.dim + column % kNearestColumns;
    P dot[R][C];
    for (int r = 0; r < R; ++r)
      for (int k = 0; k < C; ++k) dot[r][k] = P(S(0));
    for (int d = 0; d < t.dim; ++d, c += kNearestColumns) {
      const P c0 = L::load(c), c1 = L::load(c + W);
      for (int r = 0; r < R; ++r) {
        const P xd = P(x[r][d]);
        dot[r][0] = fma(xd, c0, dot[r][0]), dot[r][1] = fma(xd, c1, dot[r][1]);
      }
    }
    for (int k = 0; k < C; ++k) {
      const P half = L::load((const S*)t.half_norms + column + k * W), index = L::iota() + P(S(column + k * W));
      for (int r = 0; r < R; ++r) {
        const P score = half - dot[r][k];
        const auto less = lt(score, best[r]), less2 = lt(score, second[r]);
        second_at[r] = select(less, at[r], select(less2, index, second_at[r]));
        second[r] = select(less, best[r], select(less2, score, second[r]));
        at[r] = select(less, index, at[r]), best[r] = select(less, score, best[r]);
      }
    }
  }
  for (int r = 0; r < R && first_row + r < t.rows; ++r) {
    S* kept = (S*)t.best + 2 * (first_row + r);
    int32_t* indices = t.indices + 2 * (first_row + r);
    if (!any(lt(best[r], P(kept[1])))) continue;  // earlier columns win where scores are equal
    S values[2][W], places[2][W];
    L::store(values[0], best[r]), L::store(values[1], second[r]);
    L::store(places[0], at[r]), L::store(places[1], second_at[r]);
    for (int i = 0; i < 2; ++i)
      for (int l = 0; l < W; ++l)
        if (values[i][l] < S(__builtin_inff())) nearest_keep(values[i][l], t.first_column + int32_t(places[i][l]), kept, indices);
  }
}

}  // namespace SPLAT_ISA
}  // namespace splat
