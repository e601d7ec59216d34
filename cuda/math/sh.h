// Real spherical harmonics to degree 3 in the field's order and signs, and their gradient.
#pragma once
#include "real.h"

namespace splat {
inline namespace SPLAT_ISA {

constexpr double kSh0 = 0.28209479177387814;  // 1 / (2 sqrt(pi))
constexpr double kSh1 = 0.4886025119029199;
// Single constants, not arrays: device code cannot read an array of the host.
constexpr double kSh2_0 = 1.0925484305920792, kSh2_1 = -1.0925484305920792, kSh2_2 = 0.31539156525252005;
constexpr double kSh2_3 = -1.0925484305920792, kSh2_4 = 0.5462742152960396;
constexpr double kSh3_0 = -0.5900435899266435, kSh3_1 = 2.890611442640554, kSh3_2 = -0.4570457994644658;
constexpr double kSh3_3 = 0.3731763325901154, kSh3_4 = -0.4570457994644658, kSh3_5 = 1.445305721320277;
constexpr double kSh3_6 = -0.5900435899266435;

// basis[1..] of the unit direction d; basis[0] is the constant kSh0.
template <class R, class S> SPLAT_HD void sh_basis(int degree, const R* d, R* basis) {
  const R x = d[0], y = d[1], z = d[2];
  basis[0] = R(S(kSh0));
  if (degree < 1) return;
  basis[1] = R(S(-kSh1)) * y, basis[2] = R(S(kSh1)) * z, basis[3] = R(S(-kSh1)) * x;
  if (degree < 2) return;
  const R xx = x * x, yy = y * y, zz = z * z;
  basis[4] = R(S(kSh2_0)) * x * y;
  basis[5] = R(S(kSh2_1)) * y * z;
  basis[6] = R(S(kSh2_2)) * (zz + zz - xx - yy);
  basis[7] = R(S(kSh2_3)) * x * z;
  basis[8] = R(S(kSh2_4)) * (xx - yy);
  if (degree < 3) return;
  const R four = R(S(4)), three = R(S(3)), two = R(S(2));
  basis[9] = R(S(kSh3_0)) * y * (three * xx - yy);
  basis[10] = R(S(kSh3_1)) * x * y * z;
  basis[11] = R(S(kSh3_2)) * y * (four * zz - xx - yy);
  basis[12] = R(S(kSh3_3)) * z * (two * zz - three * (xx + yy));
  basis[13] = R(S(kSh3_4)) * x * (four * zz - xx - yy);
  basis[14] = R(S(kSh3_5)) * z * (xx - yy);
  basis[15] = R(S(kSh3_6)) * x * (xx - three * yy);
}

// Direction gradient out[3] from the basis gradient g[1..].
template <class R, class S> SPLAT_HD void sh_basis_backward(int degree, const R* d, const R* g, R* out) {
  const R x = d[0], y = d[1], z = d[2];
  out[0] = out[1] = out[2] = R(S(0));
  if (degree < 1) return;
  out[0] = R(S(-kSh1)) * g[3], out[1] = R(S(-kSh1)) * g[1], out[2] = R(S(kSh1)) * g[2];
  if (degree < 2) return;
  const R two = R(S(2)), four = R(S(4)), three = R(S(3)), six = R(S(6)), eight = R(S(8));
  const R h4 = R(S(kSh2_0)) * g[4], h5 = R(S(kSh2_1)) * g[5], h6 = R(S(kSh2_2)) * g[6];
  const R h7 = R(S(kSh2_3)) * g[7], h8 = R(S(kSh2_4)) * g[8];
  out[0] = out[0] + h4 * y - two * h6 * x + h7 * z + two * h8 * x;
  out[1] = out[1] + h4 * x + h5 * z - two * h6 * y - two * h8 * y;
  out[2] = out[2] + h5 * y + four * h6 * z + h7 * x;
  if (degree < 3) return;
  const R xx = x * x, yy = y * y, zz = z * z;
  const R h9 = R(S(kSh3_0)) * g[9], h10 = R(S(kSh3_1)) * g[10], h11 = R(S(kSh3_2)) * g[11];
  const R h12 = R(S(kSh3_3)) * g[12], h13 = R(S(kSh3_4)) * g[13], h14 = R(S(kSh3_5)) * g[14];
  const R h15 = R(S(kSh3_6)) * g[15];
  out[0] = out[0] + h9 * six * x * y + h10 * y * z - h11 * two * x * y - h12 * six * x * z +
           h13 * (four * zz - three * xx - yy) + h14 * two * x * z + h15 * three * (xx - yy);
  out[1] = out[1] + h9 * three * (xx - yy) + h10 * x * z + h11 * (four * zz - xx - three * yy) -
           h12 * six * y * z - h13 * two * x * y - h14 * two * y * z - h15 * six * x * y;
  out[2] = out[2] + h10 * x * y + h11 * eight * y * z + h12 * three * (two * zz - xx - yy) +
           h13 * eight * x * z + h14 * (xx - yy);
}

}  // namespace SPLAT_ISA
}  // namespace splat
