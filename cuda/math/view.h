// What projection shares between the backends besides the footprint: the view's constants, the viewing direction of
// a splat, and the bits it is sorted by.
#pragma once
#include "../include/splat.h"
#include "projection.h"

namespace splat {
inline namespace SPLAT_ISA {

template <class S> View<S> make_view(const splat_view& v) {
  View<S> o;
  for (int r = 0; r < 3; ++r) {
    for (int i = 0; i < 3; ++i) o.R[3 * r + i] = S(v.camera_from_world[4 * r + i]);
    o.t[r] = S(v.camera_from_world[4 * r + 3]);
  }
  for (int i = 0; i < 3; ++i)
    o.center[i] = -(o.R[i] * o.t[0] + o.R[3 + i] * o.t[1] + o.R[6 + i] * o.t[2]);
  o.fx = S(v.fx), o.fy = S(v.fy), o.cx = S(v.cx), o.cy = S(v.cy);
  // The linearisation is kept within 15 % of the picture beyond its borders, off-centre lenses included.
  const double tan_x = v.width / (2 * v.fx), tan_y = v.height / (2 * v.fy);
  o.limit_x_pos = S((v.width - v.cx) / v.fx + 0.3 * tan_x), o.limit_x_neg = S(-(v.cx / v.fx + 0.3 * tan_x));
  o.limit_y_pos = S((v.height - v.cy) / v.fy + 0.3 * tan_y), o.limit_y_neg = S(-(v.cy / v.fy + 0.3 * tan_y));
  const double* own = v.tan_limits;
  if (own[0] < own[1] && own[2] < own[3])
    o.limit_x_neg = S(own[0]), o.limit_x_pos = S(own[1]), o.limit_y_neg = S(own[2]), o.limit_y_pos = S(own[3]);
  o.near_z = S(v.near_z), o.far_z = S(v.far_z), o.dilation = S(v.dilation);
  o.width = v.width, o.height = v.height;
  o.tiles_x = (v.width + SPLAT_TILE - 1) / SPLAT_TILE, o.tiles_y = (v.height + SPLAT_TILE - 1) / SPLAT_TILE;
  o.sh_degree = v.sh_degree, o.compensate = v.compensate != 0;
  return o;
}

inline int bands_in(const splat_rows& rows) {
  return rows.sh_rest_count >= 15 ? 3 : rows.sh_rest_count >= 8 ? 2 : rows.sh_rest_count >= 3 ? 1 : 0;
}

template <class P>
SPLAT_HD void direction(const P* mean, const View<typename Lanes<P>::Scalar>& view, P* d, P* inv_length) {
  using S = typename Lanes<P>::Scalar;
  P v[3];
  for (int i = 0; i < 3; ++i) v[i] = mean[i] - P(view.center[i]);
  *inv_length = P(S(1)) / sqrt_(max_(v[0] * v[0] + v[1] * v[1] + v[2] * v[2], P(S(1e-24))));
  for (int i = 0; i < 3; ++i) d[i] = v[i] * *inv_length;
}

// Depth as an unsigned key whose order is that of the floats (all are positive here).
SPLAT_HD uint32_t depth_key(float z) {
  uint32_t bits;
  std::memcpy(&bits, &z, sizeof bits);
  return bits;
}

// Features of one row that can be drawn: a NaN or an infinity hides the splat.
template <class S> SPLAT_HD bool finite_features(const splat_rows& rows, int64_t row) {
  const S* f = (const S*)rows.features;
  for (int k = 0; f && k < rows.feature_count; ++k)
    if (!(abs_(f[row * rows.feature_count + k]) < S(1e30))) return false;
  return true;
}

}  // namespace SPLAT_ISA
}  // namespace splat
