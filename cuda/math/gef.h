// The generalized exponential footprint: alpha = o exp(-4.5 v^h), v = q / 9 with q the squared Mahalanobis distance on
// the picture and h = 4^tanh(shape) in (1/4, 4). h = 1 is the Gaussian exp(-q/2), and every h passes exp(-4.5) at three
// deviations, so that the shape changes the profile and hardly the size. Ours: the kernel that GES (Hamdi et al. 2024)
// argues from but does not draw.
//
// Below h = 1 the slope at the centre is infinite: v stays above kGefCore, and inside that core (3/1000 of a deviation)
// the response is flat, without a gradient of place or covariance.
#pragma once
#include "tiles.h"

namespace splat {
inline namespace SPLAT_ISA {

constexpr double kGefCore = 1e-6, kGefFar = 1 << 20;  // of v; beyond kGefFar nothing is visible and powers overflow
constexpr double kGefExponent = 4.5, kGefRadius2 = 9;
constexpr double kLog2GefExponent = 2.69869137438721;  // log2(4.5 log2 e): 2^-(e) is the kernel at e = 2^(this) v^h

// h and its derivative by the raw shape. A NaN stays one and hides the splat.
template <class R, class S> SPLAT_HD void gef_power(R shape, R* h, R* slope) {
  const R one = R(S(1)), s = max_(R(S(-20)), min_(R(S(20)), shape));  // float32's tanh is 1 from 9 on
  const R e = exp2_(s * R(S(2 * kLog2e))), inv = one / (e + one);
  *h = exp2_(R(S(2)) * (e - one) * inv);
  *slope = R(S(8 * kLn2)) * *h * e * inv * inv;  // ln 4 h (1 - tanh^2), without the cancellation
}

struct Gef {
  // x, y, A, B, C, v at the cut, [14] h, [15] dh/dshape; v = -(A dx^2 + B dx dy + C dy^2).
  static constexpr int kRecord = kCommonRecord;
  static constexpr int kSums = 7;  // of m = -h dln(alpha)/dv, not of h: dx, dy, dx^2, dx dy, dy^2; first h, last power
  static constexpr int kReach = 8, kShapes = 1;
  template <class S> using Walk = EllipseWalk<S>;

  template <class R> struct Response {
    using S = typename Lanes<R>::Scalar;
    R form, v, log2_v, e;  // form = v before its clamps; alpha = o 2^-e
    S cut, opacity;
    SPLAT_HD typename Lanes<R>::Mask valid() const { return ge(R(cut), form); }
    SPLAT_HD R alpha() const { return R(opacity) * exp2_(-e); }
  };

  template <class R> struct Run {
    using S = typename Lanes<R>::Scalar;
    R dx, a, b;
    S y, c, cut, opacity, power;
    SPLAT_HD Run(const S* record, R px) {
      dx = px - R(record[0]);
      a = R(-record[2]) * dx * dx;
      b = R(-record[3]) * dx;
      c = -record[4];
      y = record[1], cut = record[5], opacity = record[kOpacity], power = record[14];
    }
    SPLAT_HD Response<R> at(R dy) const {
      Response<R> f;
      f.form = fma(fma(R(c), dy, b), dy, a);
      f.v = min_(R(S(kGefFar)), max_(R(S(kGefCore)), f.form));
      f.log2_v = log2_(f.v);
      f.e = exp2_(fma(R(power), f.log2_v, R(S(kLog2GefExponent))));
      f.cut = cut, f.opacity = opacity;
      return f;
    }
  };

  // -dln(alpha)/dv; zero in the core. Finite wherever v is, so that a term with h = 0 adds nothing.
  template <class R, class S = typename Lanes<R>::Scalar>
  SPLAT_HD static R steepness(const Run<R>& run, const Response<R>& f) {
    return select(lt(R(S(kGefCore)), f.v), R(S(kLn2) * run.power) * f.e * rcp_(f.v), R(S(0)));
  }

  template <class R> struct Sums {
    using S = typename Lanes<R>::Scalar;
    R h, m, my, myy, p;
    SPLAT_HD Sums() : h(S(0)), m(S(0)), my(S(0)), myy(S(0)), p(S(0)) {}
    SPLAT_HD void add(const Run<R>& run, const Response<R>& f, R value, R dy) {
      const R t = value * steepness(run, f), ty = t * dy;
      h = h + value;
      m = m + t;
      my = my + ty;
      myy = fma(ty, dy, myy);
      p = nfma(value * f.e, f.log2_v, p);
    }
    SPLAT_HD void add_to(const Run<R>& run, R* totals) const {
      const R mx = m * run.dx;
      totals[0] = totals[0] + h, totals[1] = totals[1] + mx, totals[2] = totals[2] + my;
      totals[3] = fma(mx, run.dx, totals[3]), totals[4] = fma(my, run.dx, totals[4]), totals[5] = totals[5] + myy;
      totals[6] = fma(p, R(S(kLn2 * kLn2)), totals[6]);
    }
    SPLAT_HD static void pixel_gradient(const S* record, const Run<R>& run, const Response<R>& f, R value, R dy, R* gx,
                                        R* gy) {
      const R t = value * steepness(run, f), b = R(record[3]);
      *gx = -(t * (R(S(2) * record[2]) * run.dx + b * dy));
      *gy = -(t * (b * run.dx + R(S(2) * record[4]) * dy));
    }
  };

  template <class R, class S>
  SPLAT_HD static FootprintGrad<R> gradient(const R* record, const R* sums, const Projection<R>& o) {
    FootprintGrad<R> g;
    const R two = R(S(2)), ninth = R(S(-1 / kGefRadius2));
    g.x = -(two * record[2] * sums[1] + record[3] * sums[2]);
    g.y = -(record[3] * sums[1] + two * record[4] * sums[2]);
    const R conic[3] = {ninth * sums[3], two * ninth * sums[4], ninth * sums[5]};
    g.covariance = conic_backward<R, S>(o, conic, R(S(1)) / o.det);
    g.opacity = sums[0] / record[kOpacity];
    g.shape = sums[6] * record[15];
    g.z = R(S(0));
    return g;
  }

  template <class S> SPLAT_HD static bool may_reach(const S* record, S x_lo, S x_hi, S y_lo, S y_hi) {
    return ellipse_may_reach(record, record[5], x_lo, x_hi, y_lo, y_hi);
  }

  // The cut: 4.5 v^h <= ln(255 o). Where even the core stays below 1/255 the splat is not drawn: its extents are
  // negative.
  template <class R, class S>
  SPLAT_HD static void record(const Projection<R>& o, R log2_opacity, const R* shape, R* out) {
    const R k = R(S(1 / kGefRadius2)) / o.det, slack = R(S(1 + 1e-5));
    out[0] = o.x, out[1] = o.y;
    out[2] = -(k * o.c), out[3] = k * R(S(2)) * o.xy, out[4] = -(k * o.a);
    gef_power<R, S>(*shape, out + 14, out + 15);
    const R exponent = (log2_opacity + R(S(kLog2Of255))) * R(S(kLn2 / kGefExponent));
    const R log2_cut = log2_(max_(R(S(1e-30)), exponent)) / out[14];
    const R cut = exp2_(max_(R(S(-126)), log2_cut));
    const auto drawn = ge(cut, R(S(kGefCore)));
    out[5] = out[kQMax] = select(drawn, cut, R(S(-1e30)));
    out[kExtentX] = select(drawn, sqrt_(R(S(kGefRadius2)) * cut * o.a) * slack, R(S(-1)));
    out[kExtentY] = select(drawn, sqrt_(R(S(kGefRadius2)) * cut * o.c) * slack, R(S(-1)));
  }
};

}  // namespace SPLAT_ISA
}  // namespace splat
