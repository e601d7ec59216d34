// The pixel integral of a Gaussian (Analytic-Splatting, Liang et al. 2024): alpha = o 2 pi F(s1, u) F(s2, w), where
// u, w are px from the centre along the axes of the ellipse, s1, s2 its deviations there and
//   F(s, u) = s (S((u + 1/2) / s) - S((u - 1/2) / s)),  S(x) = 1 / (1 + exp(-2 g(x))),  g(x) = 0.8 x + 0.035 x^3:
// the pixel is turned to the axes of the ellipse, and S stands for the normal distribution.
//
// Where we leave the paper: the axes come from half angles, which no covariance makes 0/0; where the ellipse is round
// they are those of the picture and do not turn; and the bound below holds for S.
//
// Bound. f = S' is even, decreasing from 0, log-concave ((ln f)'' <= -0.97), and f(x) / f(0) <= E exp(-x^2 / 2) with
// E = kLogisticExcess: the ratio is largest, 1.005553, at x = 2.341; beyond x = 2.8 the tail of S is the thinner one.
// (a) With x = (|u| - 1/2) / s >= 0: f(x + y) f(0) <= f(x) f(y) for y >= 0, so that
//     F(s, u) = int_0^1 f(x + t / s) dt <= f(x) / f(0) int_0^1 f(t / s) dt <= f(x) / f(0) F(s, 0);
//     for |u| < 1/2 that holds with x = 0.
// (b) With y = u / (2 s^2), and sinh(y) / y <= exp(y^2 / 6):
//     F(s, u) <= f(0) E int_-1/2^1/2 exp(-(u + t)^2 / (2 s^2)) dt <= f(0) E exp(-u^2 / (2 s^2)) sinh(y) / y
//             <= f(0) E exp(-u^2 / (2 v)), v = s^2 / (1 - 1 / (12 s^2)), where s^2 > 1/12.
// (b) is the closer one from about s = 1/2 on. Either way F(s, u) <= C E exp(-max(|u| - margin, 0)^2 / (2 v)), and what
// passes 1/255 lies in the ellipse of radius k = sqrt(2 ln(255 o 2 pi C1 C2 E^2)) over v1, v2, widened by a box of the
// two margins along its axes. The walk takes the octagon of its supports along the axes and, with the ellipse made
// round, at 45 degrees. A splat with 255 o 2 pi F(s1, 0) F(s2, 0) < 1 passes nowhere.
#pragma once
#include "tiles.h"

namespace splat {
inline namespace SPLAT_ISA {

constexpr double kLogisticExcess = 1.00556;
constexpr double kLinear = 0.8, kCubic = 0.035, kTwoPi = 6.283185307179586;
// Variances, px^2. Below the floor nothing can pass 1/255; a splat at the ceiling is flat over any picture.
constexpr double kVarianceFloor = 1e-6, kVarianceCeiling = 1e12;
constexpr double kRoundRelative = 1e-4, kRoundAbsolute = 1e-6;  // difference of variances without a direction, px^2
constexpr double kBroadVariance = 0.25;  // px^2, from which (b) bounds an axis
constexpr double kWindowLimit = 31;  // of exponents of 2: out there D < 2^-30 and four factors still fit a float
constexpr double kWide = 4;          // px: the deviation from which float32 would cancel

// The principal axes of the covariance on the picture.
template <class R> struct PrincipalAxes {
  R cos, sin, variance[2];  // of the first axis' angle; along the first axis and across it
  R gap;                    // variance[0] - variance[1] before the limits; 0 where the ellipse is round
  typename Lanes<R>::Mask moves[2];  // the variance is inside its limits

  template <class S> SPLAT_HD static PrincipalAxes of(const Projection<R>& o) {
    PrincipalAxes e;
    const R half = R(S(0.5)), zero = R(S(0)), one = R(S(1));
    const R mean = half * (o.a + o.c), d = half * (o.a - o.c);
    const R radius = sqrt_(d * d + o.xy * o.xy), gap = radius + radius;
    const auto has_axes = ge(gap, R(S(2 * kRoundRelative)) * mean + R(S(kRoundAbsolute)));
    const R inv = one / select(has_axes, radius, one);
    // Half-angle formulas from the side that does not cancel; which of the two signs makes no difference.
    const R large = sqrt_(half * (one + abs_(d) * inv)), small = half * o.xy * inv / large;
    const auto flat = ge(d, zero);
    e.cos = select(has_axes, select(flat, large, small), one);
    e.sin = select(has_axes, select(flat, small, large), zero);
    e.gap = select(has_axes, gap, zero);
    const R larger = mean + radius;
    const R raw[2] = {select(has_axes, larger, o.a), select(has_axes, o.det / larger, o.c)};
    const R floor = R(S(kVarianceFloor)), ceiling = R(S(kVarianceCeiling));
    for (int i = 0; i < 2; ++i) {
      e.variance[i] = min_(ceiling, max_(floor, raw[i]));
      e.moves[i] = lt(floor, raw[i]) & lt(raw[i], ceiling);
    }
    return e;
  }
};

// F / s = D = lift / base for one axis at one pixel, and d ln D = slope / base du, -stretch / base d ln s.
template <class R> struct Window {
  R lift, base, slope, stretch;
};

// One axis of a splat. With p, n = (u +- 1/2) / s, P = exp(-2 g(p)), N = exp(2 g(n)):
//   D = S(p) - S(n) = (1 - P N) / ((1 + P) (1 + N)).
// For wide splats, in float32, P N = exp(-2 Delta) is too near 1: with Delta = g(p) - g(n), T = g(p) + g(n)
//   D = sinh Delta / (cosh T + cosh Delta),
// and Delta <= 1 wherever anything is visible, so that two short series do. No abs, no sign: p, n and T change places.
template <class S> struct WindowAxis {
  S inv, half;  // 1 / s, 1 / (2 s)
  S delta[2], sum[2];  // Delta = delta[0] + delta[1] u^2, T = u (sum[0] + sum[1] u^2); only where wide
  bool wide;

  SPLAT_HD explicit WindowAxis(S inv_deviation) : inv(inv_deviation), half(S(0.5) * inv_deviation) {
    // float64 has digits to spare
    wide = sizeof(S) == sizeof(float) && inv <= S(1 / kWide);
    const S cube = inv * inv * inv;
    delta[0] = fma(S(kCubic / 4), cube, S(kLinear) * inv), delta[1] = S(3 * kCubic) * cube;
    sum[0] = fma(S(1.5 * kCubic), cube, S(2 * kLinear) * inv), sum[1] = S(2 * kCubic) * cube;
  }

  template <class R> SPLAT_HD static R clamped_exp2(R x) {
    return exp2_(min_number(max_number(x, R(S(-126))), R(S(kWindowLimit))));
  }

  template <class R> SPLAT_HD Window<R> narrow_at(R u) const {
    const R one = R(S(1)), p = fma(u, R(inv), R(half)), n = fma(u, R(inv), R(-half)), p2 = p * p, n2 = n * n;
    constexpr double k1 = 2 * kLinear * kLog2e, k3 = 2 * kCubic * kLog2e;
    const R P = clamped_exp2(p * fma(R(S(-k3)), p2, R(S(-k1)))), N = clamped_exp2(n * fma(R(S(k3)), n2, R(S(k1))));
    const R PN = P * N, top = nfma(P, N, one), oneP = one + P, oneN = one + N;
    Window<R> f;
    f.base = top * (oneP * oneN);
    f.lift = top * top;
    const R tp = fma(R(S(6 * kCubic)), p2, R(S(2 * kLinear))) * ((P + PN) * oneN);  // base dlnD/dp
    const R tn = fma(R(S(6 * kCubic)), n2, R(S(2 * kLinear))) * ((N + PN) * oneP);  // -base dlnD/dn
    f.slope = (tp - tn) * R(inv);
    f.stretch = p * tp - n * tn;
    return f;
  }

  template <class R> SPLAT_HD Window<R> wide_at(R u) const {
    const R one = R(S(1)), two = R(S(2)), three = R(S(3)), u2 = u * u;
    const R d = min_number(fma(R(delta[1]), u2, R(delta[0])), one), d2 = d * d;
    const R T = u * fma(R(sum[1]), u2, R(sum[0]));
    const R X = exp2_(min_number(max_number(T * R(S(-kLog2e)), R(S(-kWindowLimit))), R(S(kWindowLimit))));  // exp(-T)
    const R sinh = d * fma(d2 * R(S(1.0 / 6)), fma(d2 * R(S(1.0 / 20)), fma(d2, R(S(1.0 / 42)), one), one), one);
    const R cosh = fma(d2 * R(S(0.5)), fma(d2 * R(S(1.0 / 12)), fma(d2, R(S(1.0 / 30)), one), one), one);
    const R XX = X * X, X2 = X + X;
    Window<R> f;
    f.base = sinh * (fma(X2, cosh, XX) + one);
    f.lift = X2 * (sinh * sinh);
    const R by_d = fma(cosh, XX + one, X2), by_t = (XX - one) * sinh;  // base dlnD/dDelta, base dlnD/dT
    f.slope = by_d * (two * R(delta[1]) * u) + by_t * fma(three * R(sum[1]), u2, R(sum[0]));
    f.stretch = by_d * fma(three, d, R(S(-2 * kLinear) * inv)) + by_t * fma(three, T, R(S(-4 * kLinear) * inv) * u);
    return f;
  }

  template <class R> SPLAT_HD Window<R> at(R u) const { return wide ? wide_at(u) : narrow_at(u); }
};

struct Analytic {
  // x, y, cos, sin, supports of the bound along the two axes; [12] o 2 pi s1 s2, [14] 1 / s1, [15] 1 / s2.
  static constexpr int kRecord = kCommonRecord;
  static constexpr int kSums = 6;  // of h: 1, dlnD1/du, dlnD2/dw, their turn, dlnD1/dlns1, dlnD2/dlns2
  static constexpr int kReach = 8, kShapes = 0;
  static constexpr int kSides = 8, kScale = kQMax;
  template <class S> using Walk = PolygonWalk<S, Analytic, kSides>;

  template <class R> struct Response {
    using S = typename Lanes<R>::Scalar;
    R value, u, w, inv[2];  // 1 / base of each window
    Window<R> window[2];
    SPLAT_HD typename Lanes<R>::Mask valid() const { return ge(value, R(S(1.0 / 255))); }
    SPLAT_HD R alpha() const { return value; }
  };

  template <class R> struct Run {
    using S = typename Lanes<R>::Scalar;
    R dx, u, w;
    S y, cos, sin, scale;
    WindowAxis<S> first, second;
    SPLAT_HD Run(const S* record, R px) : first(record[14]), second(record[15]) {
      dx = px - R(record[0]);
      y = record[1], cos = record[2], sin = record[3], scale = record[kScale];
      u = R(cos) * dx, w = R(-sin) * dx;
    }
    SPLAT_HD Response<R> at(R dy) const {
      Response<R> f;
      f.u = fma(R(sin), dy, u), f.w = fma(R(cos), dy, w);
      f.window[0] = first.at(f.u), f.window[1] = second.at(f.w);
      const R inv = rcp_(f.window[0].base * f.window[1].base);
      f.inv[0] = inv * f.window[1].base, f.inv[1] = inv * f.window[0].base;
      f.value = R(scale) * (f.window[0].lift * f.window[1].lift) * inv;
      return f;
    }
  };

  // Everything a pixel adds is finite (exponents are limited, bases positive): a term with h = 0 adds nothing.
  template <class R> struct Sums {
    using S = typename Lanes<R>::Scalar;
    R h, hu, hw, turn, stretch[2];
    SPLAT_HD Sums() : h(S(0)), hu(S(0)), hw(S(0)), turn(S(0)), stretch{R(S(0)), R(S(0))} {}
    SPLAT_HD void add(const Run<R>&, const Response<R>& f, R value, R) {
      const R a = value * f.inv[0], b = value * f.inv[1];
      const R u = a * f.window[0].slope, w = b * f.window[1].slope;
      h = h + value;
      hu = hu + u;
      hw = hw + w;
      turn = nfma(w, f.u, fma(u, f.w, turn));
      stretch[0] = nfma(a, f.window[0].stretch, stretch[0]);
      stretch[1] = nfma(b, f.window[1].stretch, stretch[1]);
    }
    SPLAT_HD void add_to(const Run<R>&, R* totals) const {
      const R own[kSums] = {h, hu, hw, turn, stretch[0], stretch[1]};
      for (int i = 0; i < kSums; ++i) totals[i] = totals[i] + own[i];
    }
    SPLAT_HD static void pixel_gradient(const S* record, const Run<R>&, const Response<R>& f, R value, R, R* gx,
                                        R* gy) {
      const R u = value * f.inv[0] * f.window[0].slope, w = value * f.inv[1] * f.window[1].slope;
      *gx = R(record[3]) * w - R(record[2]) * u;
      *gy = -(R(record[3]) * u + R(record[2]) * w);
    }
  };

  // d ln(lambda) = 2 d ln(s); the axes turn by v1' dSigma v2 / (lambda1 - lambda2), which moves u by w and w by -u.
  template <class R, class S>
  SPLAT_HD static FootprintGrad<R> gradient(const R* record, const R* sums, const Projection<R>& o) {
    FootprintGrad<R> g;
    const PrincipalAxes<R> e = PrincipalAxes<R>::template of<S>(o);
    const R zero = R(S(0)), c = e.cos, s = e.sin, cs = c * s;
    g.x = s * sums[2] - c * sums[1];
    g.y = -(s * sums[1] + c * sums[2]);
    R l[2];
    for (int i = 0; i < 2; ++i)
      l[i] = select(e.moves[i], R(S(0.5)) * (sums[0] + sums[4 + i]) / e.variance[i], zero);
    const auto turns = lt(zero, e.gap);
    const R turn = select(turns, sums[3] / select(turns, e.gap, R(S(1))), zero);
    g.covariance.xx = c * c * l[0] + s * s * l[1] - cs * turn;
    g.covariance.yy = s * s * l[0] + c * c * l[1] + cs * turn;
    g.covariance.xy = R(S(2)) * cs * (l[0] - l[1]) + (c * c - s * s) * turn;
    g.opacity = sums[0] / record[kOpacity];
    g.z = g.shape = zero;
    return g;
  }

  // The four pairs of the octagon's sides: normal and support, px. The diagonal ones take every margin for 1/2, which
  // is the larger support when the sum of margin and radius is known.
  template <class S> SPLAT_HD static void side_pair(const S* record, int i, S* n_x, S* n_y, S* support) {
    const S cos = record[2], sin = record[3], first = record[4], second = record[5];
    S along = S(i == 0 ? 1 : 0), across = S(1) - along, c = i == 0 ? first : second;
    if (i >= 2) {
      const S scale = S(1) / (first + second), k1 = max_(first - S(0.5), S(0)), k2 = max_(second - S(0.5), S(0));
      along = second * scale, across = first * scale;
      const S e1 = mul_(along, k1), e2 = mul_(across, k2);
      c = sqrt_(mul_(e1, e1) + mul_(e2, e2)) + mul_(S(0.5), along + across);
      if (i == 3) across = -across;
    }
    *n_x = mul_(along, cos) - mul_(across, sin), *n_y = mul_(along, sin) + mul_(across, cos), *support = c;
  }

  template <class S> SPLAT_HD static int sides(const S* record, S* n_x, S* n_y, S* c) {
    for (int i = 0; i < 4; ++i) {
      side_pair(record, i, n_x + i, n_y + i, c + i);
      n_x[4 + i] = -n_x[i], n_y[4 + i] = -n_y[i], c[4 + i] = c[i];
    }
    return kSides;
  }

  // Whether no side of the octagon has the box beyond it. Slack for the terms that cancel.
  template <class S> SPLAT_HD static bool may_reach(const S* record, S x_lo, S x_hi, S y_lo, S y_hi) {
    const S half = S(0.5), x = half * (x_lo + x_hi) - record[0], y = half * (y_lo + y_hi) - record[1];
    const S half_x = half * (x_hi - x_lo), half_y = half * (y_hi - y_lo);
    bool reaches = true;
    for (int i = 0; i < 4; ++i) {
      S n_x, n_y, c;
      side_pair(record, i, &n_x, &n_y, &c);
      const S gap = abs_(n_x * x + n_y * y) - abs_(n_x) * half_x - abs_(n_y) * half_y;
      reaches = reaches && !(gap > c + S(1e-3) + S(4e-6) * (c + abs_(n_x * x) + abs_(n_y * y)));
    }
    return reaches;
  }

  template <class R, class S>
  SPLAT_HD static void record(const Projection<R>& o, R, const R*, R* out) {
    const PrincipalAxes<R> e = PrincipalAxes<R>::template of<S>(o);
    const R zero = R(S(0)), one = R(S(1)), half = R(S(0.5)), slack = R(S(1e-3));
    const R scale = R(S(kTwoPi)) * o.opacity_eff;
    R deviation[2], radius[2], margin[2], peak = R(S(255 * 1.00001)) * scale, outer = peak;  // rounded up
    for (int i = 0; i < 2; ++i) {
      deviation[i] = sqrt_(e.variance[i]);
      out[14 + i] = one / deviation[i];
      // F(s, 0) = s tanh(g(1 / (2 s))), from above
      const R x = half * out[14 + i], y = x * fma(R(S(kCubic)) * x, x, R(S(kLinear)));
      const R t = exp2_(max_(R(S(-60)), y * R(S(-2 * kLog2e))));
      const R top = deviation[i] * select(lt(y, R(S(0.1))), y, (one - t) / (one + t));
      const auto broad = ge(e.variance[i], R(S(kBroadVariance)));
      const R wider = e.variance[i] / (one - R(S(1.0 / 12)) / max_(R(S(kBroadVariance)), e.variance[i]));
      radius[i] = sqrt_(select(broad, wider, e.variance[i]));
      margin[i] = select(broad, zero, half);
      peak = peak * top, outer = outer * select(broad, R(S(0.5 * kLinear)), top);
    }
    const R k = sqrt_(R(S(2 * kLn2)) * log2_(max_(one, R(S(kLogisticExcess * kLogisticExcess)) * outer)));
    for (int i = 0; i < 2; ++i) radius[i] = radius[i] * k;
    const auto drawn = ge(peak, one);
    out[0] = o.x, out[1] = o.y, out[2] = e.cos, out[3] = e.sin;
    out[4] = radius[0] + margin[0] + slack, out[5] = radius[1] + margin[1] + slack;
    out[kScale] = scale * deviation[0] * deviation[1];
    const R cos = abs_(e.cos), sin = abs_(e.sin);
    const R c1 = radius[0] * cos, s1 = radius[0] * sin, c2 = radius[1] * cos, s2 = radius[1] * sin;
    const R ex = sqrt_(c1 * c1 + s2 * s2) + cos * margin[0] + sin * margin[1] + slack;
    const R ey = sqrt_(s1 * s1 + c2 * c2) + sin * margin[0] + cos * margin[1] + slack;
    out[kExtentX] = select(drawn, ex, R(S(-1))), out[kExtentY] = select(drawn, ey, R(S(-1)));
  }
};

}  // namespace SPLAT_ISA
}  // namespace splat
