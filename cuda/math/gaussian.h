// The Gaussian footprint (Kerbl et al. 2023): alpha = 2^(A dx^2 + B dx dy + C dy^2 + log2 o), the inverse covariance
// scaled so that one exp2 is all a pixel costs.
#pragma once
#include "tiles.h"

namespace splat {
inline namespace SPLAT_ISA {

struct Gaussian {
  static constexpr int kRecord = kCommonRecord;  // x, y, A, B, C, log2 opacity
  static constexpr int kSums = 6;                // of h: 1, dx, dy, dx^2, dx dy, dy^2
  static constexpr int kReach = 8, kShapes = 0;
  template <class S> using Walk = EllipseWalk<S>;

  template <class R> struct Response {
    using S = typename Lanes<R>::Scalar;
    R log2_alpha;
    SPLAT_HD typename Lanes<R>::Mask valid() const { return ge(log2_alpha, R(S(-kLog2Of255))); }
    SPLAT_HD R alpha() const { return exp2_(log2_alpha); }
  };

  template <class R> struct Run {
    using S = typename Lanes<R>::Scalar;
    R dx, a, b;
    S y, c;
    SPLAT_HD Run(const S* record, R px) {
      dx = px - R(record[0]);
      a = fma(R(record[2]) * dx, dx, R(record[5]));
      b = R(record[3]) * dx;
      c = record[4];
      y = record[1];
    }
    SPLAT_HD Response<R> at(R dy) const { return {fma(fma(R(c), dy, b), dy, a)}; }
  };

  template <class R> struct Sums {
    using S = typename Lanes<R>::Scalar;
    R h, hy, hyy;
    SPLAT_HD Sums() : h(S(0)), hy(S(0)), hyy(S(0)) {}
    SPLAT_HD void add(const Run<R>&, const Response<R>&, R value, R dy) {
      const R t = value * dy;
      h = h + value;
      hy = hy + t;
      hyy = fma(t, dy, hyy);
    }
    SPLAT_HD void add_to(const Run<R>& run, R* totals) const {
      const R hx = h * run.dx;
      totals[0] = totals[0] + h, totals[1] = totals[1] + hx, totals[2] = totals[2] + hy;
      totals[3] = fma(hx, run.dx, totals[3]), totals[4] = fma(hy, run.dx, totals[4]), totals[5] = totals[5] + hyy;
    }
    // x and y gradient of one pixel's term, px: d(ln alpha)/d(mean) * h.
    SPLAT_HD static void pixel_gradient(const S* record, const Run<R>& run, const Response<R>&, R value, R dy, R* gx,
                                        R* gy) {
      const S k = S(-2 * kLn2);  // natural conic = -2 ln2 A, -ln2 B, -2 ln2 C
      *gx = value * (R(k * record[2]) * run.dx + R(S(-kLn2) * record[3]) * dy);
      *gy = value * (R(S(-kLn2) * record[3]) * run.dx + R(k * record[4]) * dy);
    }
  };

  template <class R, class S>
  SPLAT_HD static FootprintGrad<R> gradient(const R* record, const R* sums, const Projection<R>& o) {
    FootprintGrad<R> g;
    const R a = record[2] * R(S(-2 * kLn2)), b = record[3] * R(S(-kLn2)), c = record[4] * R(S(-2 * kLn2));
    g.x = a * sums[1] + b * sums[2];
    g.y = b * sums[1] + c * sums[2];
    const R conic[3] = {R(S(-0.5)) * sums[3], -sums[4], R(S(-0.5)) * sums[5]};
    g.covariance = conic_backward<R, S>(o, conic, R(S(1)) / o.det);
    g.opacity = sums[0] / record[kOpacity];
    g.z = g.shape = R(S(0));
    return g;
  }

  template <class S> SPLAT_HD static bool may_reach(const S* record, S x_lo, S x_hi, S y_lo, S y_hi) {
    return ellipse_may_reach(record, record[5] + S(kLog2Of255), x_lo, x_hi, y_lo, y_hi);
  }

  template <class R, class S>
  SPLAT_HD static void record(const Projection<R>& o, R log2_opacity, const R*, R* out) {
    const R inv_det = R(S(1)) / o.det;
    out[0] = o.x, out[1] = o.y;
    out[2] = R(S(-0.5 * kLog2e)) * o.c * inv_det;
    out[3] = R(S(kLog2e)) * o.xy * inv_det;
    out[4] = R(S(-0.5 * kLog2e)) * o.a * inv_det;
    out[5] = log2_opacity;
    const R q = max_(log2_opacity + R(S(kLog2Of255)), R(S(0)));
    out[kExtentX] = sqrt_(R(S(2 * kLn2)) * q * o.a), out[kExtentY] = sqrt_(R(S(2 * kLn2)) * q * o.c);
    out[kQMax] = q;
  }
};

}  // namespace SPLAT_ISA
}  // namespace splat
