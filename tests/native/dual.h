// A dual number: a value and its derivative along one direction, under the names of math/real.h. The kernels run over
// it as they are, so that their forward pass yields exact derivatives for the backward pass to meet.
#pragma once
#include "../../cuda/math/real.h"

namespace splat {
inline namespace SPLAT_ISA {

struct Dual {
  double v = 0, d = 0;
  Dual() = default;
  Dual(double value, double derivative = 0) : v(value), d(derivative) {}
  explicit operator int() const { return int(v); }
};

inline Dual operator+(Dual a, Dual b) { return {a.v + b.v, a.d + b.d}; }
inline Dual operator-(Dual a, Dual b) { return {a.v - b.v, a.d - b.d}; }
inline Dual operator-(Dual a) { return {-a.v, -a.d}; }
inline Dual operator*(Dual a, Dual b) { return {a.v * b.v, a.d * b.v + a.v * b.d}; }
inline Dual operator/(Dual a, Dual b) { return {a.v / b.v, (a.d - a.v / b.v * b.d) / b.v}; }
inline bool operator<(Dual a, Dual b) { return a.v < b.v; }
inline bool operator>(Dual a, Dual b) { return a.v > b.v; }
inline bool operator<=(Dual a, Dual b) { return a.v <= b.v; }
inline bool operator>=(Dual a, Dual b) { return a.v >= b.v; }

// Values round as those of double do: both number types then take the same branches.
inline Dual fma(Dual a, Dual b, Dual c) { return {std::fma(a.v, b.v, c.v), a.d * b.v + a.v * b.d + c.d}; }
inline Dual nfma(Dual a, Dual b, Dual c) { return {std::fma(-a.v, b.v, c.v), c.d - a.d * b.v - a.v * b.d}; }
inline Dual mul_(Dual a, Dual b) { return {a.v * b.v, a.d * b.v + a.v * b.d}; }
inline Dual rcp_(Dual a) { return {1 / a.v, -a.d / (a.v * a.v)}; }
// At 0 the derivative is infinite; only tile bounds get there, and they have none.
inline Dual sqrt_(Dual a) {
  const double s = std::sqrt(a.v);
  return {s, s > 0 ? a.d / (2 * s) : 0};
}
inline Dual exp2_(Dual a) {
  const double e = std::exp2(a.v);
  return {e, e * 0.693147180559945309417 * a.d};
}
inline Dual log2_(Dual a) { return {std::log2(a.v), a.d / (a.v * 0.693147180559945309417)}; }
inline Dual abs_(Dual a) { return std::signbit(a.v) ? -a : a; }
inline Dual min_(Dual a, Dual b) { return a.v < b.v ? a : b; }
inline Dual max_(Dual a, Dual b) { return a.v > b.v ? a : b; }
inline bool lt(Dual a, Dual b) { return a.v < b.v; }
inline bool ge(Dual a, Dual b) { return a.v >= b.v; }
inline Dual reduce_add(Dual a) { return a; }
inline Dual reduce_max(Dual a) { return a; }
inline Dual negative_where(bool m, Dual a) { return m ? -abs_(a) : a; }
inline double value_of(Dual a) { return a.v; }

}  // namespace SPLAT_ISA
}  // namespace splat
