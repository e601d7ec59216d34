// The convex hull of a few points, and the box of a few half-planes. One splat at a time, no trigonometry.
#pragma once
#include "real.h"

namespace splat {
inline namespace SPLAT_ISA {

constexpr int kMaxVertices = 8;
constexpr double kCollinear = 4e-7;   // of the terms of a cross product: their rounding in float32
constexpr double kUnbounded = 1e30;   // px

// Whether a -> b -> c turns to the side of growing angle by more than rounding. points [n,2].
template <class S> SPLAT_HD bool turns(const S* points, int a, int b, int c) {
  const S ux = points[2 * b] - points[2 * a], uy = points[2 * b + 1] - points[2 * a + 1];
  const S vx = points[2 * c] - points[2 * a], vy = points[2 * c + 1] - points[2 * a + 1];
  const S p = mul_(ux, vy), q = mul_(uy, vx);
  return p - q > S(kCollinear) * (abs_(p) + abs_(q));
}

// Adds `next` to a chain that may not shrink below `base`, dropping what no longer turns.
template <class S> SPLAT_HD int extend_chain(const S* points, int* chain, int length, int base, int next) {
  while (length >= base + 2 && !turns(points, chain[length - 2], chain[length - 1], next)) --length;
  chain[length] = next;
  return length + 1;
}

// Corners of the hull of points [count,2], count <= kMaxVertices, in the order of growing angle (x to y), the least x
// first: monotone chains (Andrew 1979). Duplicates and collinear points are dropped. Returns how many; below 3 there
// is no hull. NaN gives some answer within bounds.
template <class S> SPLAT_HD int convex_hull(const S* points, int count, int* corners) {
  int sorted[kMaxVertices], chain[2 * kMaxVertices + 1];
  for (int i = 0; i < count; ++i) {
    int at = i;
    for (; at > 0; --at) {
      const int before = sorted[at - 1];
      const bool less = points[2 * i] < points[2 * before] ||
                        (!(points[2 * before] < points[2 * i]) && points[2 * i + 1] < points[2 * before + 1]);
      if (!less) break;
      sorted[at] = before;
    }
    sorted[at] = i;
  }
  int length = 0;
  for (int i = 0; i < count; ++i) length = extend_chain(points, chain, length, 0, sorted[i]);
  const int base = length - 1;
  for (int i = count - 2; i >= 0; --i) length = extend_chain(points, chain, length, base, sorted[i]);
  --length;  // the first point again
  if (length > kMaxVertices) length = 0;
  for (int i = 0; i < length; ++i) corners[i] = chain[i];
  return length;
}

// Half sizes of a box about the origin that holds {n_j . p <= c_j, j < count}. Every pair of half-planes whose normals
// hold an axis between them bounds it: (1, 0) = a n_i + b n_j with a, b >= 0 gives x <= a c_i + b c_j. The least of
// these is exact (linear programming duality), and any of them is a bound, so that pairs too near to parallel to be
// computed can be left out.
template <class S>
SPLAT_HD void half_planes_box(int count, const S* n_x, const S* n_y, const S* c, S* half_x, S* half_y) {
  S x_lo = S(-kUnbounded), x_hi = S(kUnbounded), y_lo = S(-kUnbounded), y_hi = S(kUnbounded);
  auto narrow = [](S a, S b, S c_a, S c_b, S rounding, S& lo, S& hi) {
    const S bound = a * c_a + b * c_b, slack = rounding * (abs_(a * c_a) + abs_(b * c_b));
    if (a >= S(0) && b >= S(0)) hi = min_(hi, bound + slack);
    if (a <= S(0) && b <= S(0)) lo = max_(lo, bound - slack);
  };
  for (int j = 1; j < count; ++j)
    for (int i = 0; i < j; ++i) {
      const S p = n_x[i] * n_y[j], q = n_y[i] * n_x[j], det = p - q, terms = abs_(p) + abs_(q);
      if (!(abs_(det) > S(1e-6) * terms)) continue;
      const S inv = S(1) / det, rounding = S(kCollinear) * (S(1) + terms * abs_(inv));
      narrow(n_y[j] * inv, -n_y[i] * inv, c[i], c[j], rounding, x_lo, x_hi);
      narrow(-n_x[j] * inv, n_x[i] * inv, c[i], c[j], rounding, y_lo, y_hi);
    }
  *half_x = max_(x_hi, -x_lo), *half_y = max_(y_hi, -y_lo);
}

}  // namespace SPLAT_ISA
}  // namespace splat
