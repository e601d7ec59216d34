// EWA projection of a 3D Gaussian and its gradient, written over the number type.
// Kerbl et al. 2023 section 4 with the opacity compensation of Mip-Splatting (Yu et al. 2024).
//
// Where we leave the textbook: both determinants are summed from squares (Cauchy-Binet), so that thin splats do
// not cancel in float32: det(sum_k s_k^2 v_k v_k^T) = sum_{j<k} s_j^2 s_k^2 (v_j x v_k)^2.
#pragma once
#include "real.h"

namespace splat {
inline namespace SPLAT_ISA {

// A view with its constants in the number type of the computation.
template <class S> struct View {
  S R[9], t[3], center[3];
  S fx, fy, cx, cy;
  S limit_x_neg, limit_x_pos, limit_y_neg, limit_y_pos;  // bounds of x/z and y/z inside the Jacobian
  S near_z, far_z, dilation;
  int width, height, tiles_x, tiles_y, sh_degree;
  bool compensate;
};

constexpr double kLog2e = 1.4426950408889634;
constexpr double kLn2 = 0.6931471805599453;
constexpr double kLog2Of255 = 7.994353436858858;
constexpr double kCompensationFloor = 2.5e-5;  // of det / dilated det, under the root

// Raw parameters of one splat.
template <class R> struct GaussianRow {
  R mean[3], quat[4], log_scale[3], logit_opacity, filter3d;
  R shape;  // of footprints that have one
};

template <class R> struct GaussianGrad {
  R mean[3], quat[4], log_scale[3], logit_opacity, shape;
  R camera[12];  // rows of [R|t]
};

// Everything between the raw row and the footprint; the backward pass recomputes it rather than storing it.
template <class R> struct Projection {
  R p[3];            // camera space
  R inv_z, tx, ty;   // clamped x/z, y/z
  R q[4], inv_norm;  // unit quaternion
  R rot[9];          // splat axes in world space, columns
  R s2[3], s2_eff[3], opacity, coef3d;
  R j00, j02, j11, j12;
  R jw[6], v[6];     // J W [2,3], J W R [2,3]
  R xx, xy, yy, a, c, det0, det, ratio, comp;
  R x, y;            // mean in px
  R opacity_eff;
};

template <class R, class S>
SPLAT_HD void quat_to_matrix(const R* q, R* m) {
  const R two = R(S(2)), one = R(S(1));
  const R x = q[1], y = q[2], z = q[3], w = q[0];
  m[0] = one - two * (y * y + z * z), m[1] = two * (x * y - w * z), m[2] = two * (x * z + w * y);
  m[3] = two * (x * y + w * z), m[4] = one - two * (x * x + z * z), m[5] = two * (y * z - w * x);
  m[6] = two * (x * z - w * y), m[7] = two * (y * z + w * x), m[8] = one - two * (x * x + y * y);
}

// Camera-space mean, its pixel, and x/z and y/z as the Jacobian sees them.
template <class R, class S>
SPLAT_HD void project_mean(const GaussianRow<R>& g, const View<S>& view, Projection<R>& o) {
  for (int i = 0; i < 3; ++i)
    o.p[i] = fma(R(view.R[3 * i]), g.mean[0],
                 fma(R(view.R[3 * i + 1]), g.mean[1], fma(R(view.R[3 * i + 2]), g.mean[2], R(view.t[i]))));
  o.inv_z = R(S(1)) / o.p[2];
  const R u = o.p[0] * o.inv_z, w = o.p[1] * o.inv_z;
  o.tx = min_(R(view.limit_x_pos), max_(R(view.limit_x_neg), u));
  o.ty = min_(R(view.limit_y_pos), max_(R(view.limit_y_neg), w));
  o.x = fma(R(view.fx), u, R(view.cx));
  o.y = fma(R(view.fy), w, R(view.cy));
}

// Unit quaternion, rotation, opacity and squared scales, the latter two with the 3D filter.
template <class R, class S>
SPLAT_HD void activate(const GaussianRow<R>& g, bool has_filter3d, Projection<R>& o) {
  const R n2 = g.quat[0] * g.quat[0] + g.quat[1] * g.quat[1] + g.quat[2] * g.quat[2] + g.quat[3] * g.quat[3];
  o.inv_norm = R(S(1)) / sqrt_(n2);
  for (int i = 0; i < 4; ++i) o.q[i] = g.quat[i] * o.inv_norm;
  quat_to_matrix<R, S>(o.q, o.rot);
  o.opacity = R(S(1)) / (R(S(1)) + exp2_(max_(min_(g.logit_opacity * R(S(-kLog2e)), R(S(126))), R(S(-126)))));
  o.coef3d = R(S(1));
  for (int k = 0; k < 3; ++k) {
    // Clamped so that the exponent stays inside float32; e^43 and e^-43 world units are no scales.
    const R e = g.log_scale[k] * R(S(2 * kLog2e));
    o.s2[k] = exp2_(max_(min_(e, R(S(124))), R(S(-124))));
    o.s2_eff[k] = o.s2[k];
  }
  if (has_filter3d) {
    const R f2 = g.filter3d * g.filter3d;
    R ratio = R(S(1));
    for (int k = 0; k < 3; ++k) {
      o.s2_eff[k] = o.s2[k] + f2;
      ratio = ratio * (o.s2[k] / o.s2_eff[k]);
    }
    o.coef3d = sqrt_(ratio);
  }
}

// The splat's axes on the picture: v = (J W) R.
template <class R, class S> SPLAT_HD void project_axes(const View<S>& view, Projection<R>& o) {
  o.j00 = R(view.fx) * o.inv_z, o.j11 = R(view.fy) * o.inv_z;
  o.j02 = -(o.j00 * o.tx), o.j12 = -(o.j11 * o.ty);
  for (int i = 0; i < 3; ++i) {
    o.jw[i] = o.j00 * R(view.R[i]) + o.j02 * R(view.R[6 + i]);
    o.jw[3 + i] = o.j11 * R(view.R[3 + i]) + o.j12 * R(view.R[6 + i]);
  }
  for (int r = 0; r < 2; ++r)
    for (int k = 0; k < 3; ++k)
      o.v[3 * r + k] =
          o.jw[3 * r] * o.rot[k] + o.jw[3 * r + 1] * o.rot[3 + k] + o.jw[3 * r + 2] * o.rot[6 + k];
}

// Covariance on the picture before and after dilation, both determinants, and the opacity that compensates.
template <class R, class S> SPLAT_HD void picture_covariance(const View<S>& view, Projection<R>& o) {
  o.xx = o.xy = o.yy = R(S(0));
  for (int k = 0; k < 3; ++k) {
    o.xx = fma(o.s2_eff[k] * o.v[k], o.v[k], o.xx);
    o.xy = fma(o.s2_eff[k] * o.v[k], o.v[3 + k], o.xy);
    o.yy = fma(o.s2_eff[k] * o.v[3 + k], o.v[3 + k], o.yy);
  }
  o.det0 = R(S(0));
  for (int k = 0; k < 3; ++k) {
    const int j = (k + 1) % 3;
    const R cross = o.v[k] * o.v[3 + j] - o.v[j] * o.v[3 + k];
    o.det0 = fma(o.s2_eff[k] * o.s2_eff[j] * cross, cross, o.det0);
  }
  const R d = R(view.dilation);
  o.a = o.xx + d, o.c = o.yy + d;
  o.det = o.det0 + d * (o.xx + o.yy) + d * d;
  o.ratio = o.det0 / o.det;
  o.comp = view.compensate ? sqrt_(max_(o.ratio, R(S(kCompensationFloor)))) : R(S(1));
  o.opacity_eff = o.opacity * o.coef3d * o.comp;
}

template <class R, class S>
SPLAT_HD Projection<R> project_gaussian(const GaussianRow<R>& g, const View<S>& view, bool has_filter3d) {
  Projection<R> o;
  project_mean<R, S>(g, view, o);
  activate<R, S>(g, has_filter3d, o);
  project_axes<R, S>(view, o);
  picture_covariance<R, S>(view, o);
  return o;
}

// Gradient of the covariance on the picture; the off-diagonal counts once.
template <class R> struct CovarianceGrad {
  R xx, xy, yy;
};

// Gradient of the footprint with respect to what projection made.
template <class R> struct FootprintGrad {
  R x, y;                        // mean, px
  CovarianceGrad<R> covariance;  // dilated
  R opacity;                     // effective opacity
  R z;                           // camera depth (from depth images)
  R shape;                       // raw shape, of footprints that have one
};

// From the gradient of the conic Q, the inverse of [[a, xy], [xy, c]]: dL/dSigma = -Q (dL/dQ) Q, the off-diagonals
// counted once.
template <class R, class S>
SPLAT_HD CovarianceGrad<R> conic_backward(const Projection<R>& o, const R* g_conic, R inv_det) {
  const R half = R(S(0.5));
  const R qa = o.c * inv_det, qb = -(o.xy * inv_det), qc = o.a * inv_det;
  const R ga = g_conic[0], gb = half * g_conic[1], gc = g_conic[2];
  const R h00 = ga * qa + gb * qb, h01 = ga * qb + gb * qc, h10 = gb * qa + gc * qb, h11 = gb * qb + gc * qc;
  CovarianceGrad<R> g;
  g.xx = -(qa * h00 + qb * h10);
  g.xy = -(qa * h01 + qb * h11) - (qb * h00 + qc * h10);
  g.yy = -(qb * h01 + qc * h11);
  return g;
}

// comp = sqrt(det0 / det): d ln comp / dSigma = (Sigma0^-1 - Sigma^-1) / 2, zero at the floor. Written through
// det0 directly: the inverse of a nearly singular Sigma0 never appears.
template <class R, class S>
SPLAT_HD void compensation_backward(const Projection<R>& o, R g_opacity_eff, R inv_det, CovarianceGrad<R>& g) {
  const R g_ratio = select(lt(R(S(kCompensationFloor)), o.ratio),
                           g_opacity_eff * o.opacity * o.coef3d * R(S(0.5)) / o.comp, R(S(0)));
  const R k0 = g_ratio * inv_det, k1 = -(g_ratio * o.ratio * inv_det);
  g.xx = g.xx + k0 * o.yy + k1 * o.c;
  g.yy = g.yy + k0 * o.xx + k1 * o.a;
  g.xy = g.xy - R(S(2)) * o.xy * (k0 + k1);
}

// Sigma2 = sum_k s2_k v_k v_k^T with v = (J W) R: gradients of s2 [3] and v [2,3].
template <class R, class S>
SPLAT_HD void axes_backward(const Projection<R>& o, const CovarianceGrad<R>& g, R* g_s2, R* g_v) {
  const R two = R(S(2)), hxy = R(S(0.5)) * g.xy;
  for (int k = 0; k < 3; ++k) {
    const R vx = o.v[k], vy = o.v[3 + k];
    const R mx = g.xx * vx + hxy * vy, my = hxy * vx + g.yy * vy;
    g_s2[k] = vx * mx + vy * my;
    g_v[k] = two * o.s2_eff[k] * mx;
    g_v[3 + k] = two * o.s2_eff[k] * my;
  }
}

template <class R, class S>
SPLAT_HD void scales_backward(const Projection<R>& o, const R* g_s2, R g_opacity_eff, bool has_filter3d,
                              R* g_log_scale) {
  for (int k = 0; k < 3; ++k) g_log_scale[k] = R(S(2)) * o.s2[k] * g_s2[k];
  if (!has_filter3d) return;
  // coef3d^2 = prod s2 / s2_eff: d ln coef3d / d log_scale_k = 1 - s2/s2_eff.
  const R g_ln_coef = g_opacity_eff * o.opacity_eff;
  for (int k = 0; k < 3; ++k) g_log_scale[k] = g_log_scale[k] + g_ln_coef * (R(S(1)) - o.s2[k] / o.s2_eff[k]);
}

// Quaternion of the rotation, then through its normalisation.
template <class R, class S>
SPLAT_HD void rotation_backward(const Projection<R>& o, const R* g_rot, R* g_quat) {
  const R two = R(S(2));
  const R w = o.q[0], x = o.q[1], y = o.q[2], z = o.q[3];
  R gq[4];
  gq[0] = two * (x * (g_rot[7] - g_rot[5]) + y * (g_rot[2] - g_rot[6]) + z * (g_rot[3] - g_rot[1]));
  gq[1] = two * (y * (g_rot[1] + g_rot[3]) + z * (g_rot[2] + g_rot[6]) + w * (g_rot[7] - g_rot[5]) -
                 two * x * (g_rot[4] + g_rot[8]));
  gq[2] = two * (x * (g_rot[1] + g_rot[3]) + z * (g_rot[5] + g_rot[7]) + w * (g_rot[2] - g_rot[6]) -
                 two * y * (g_rot[0] + g_rot[8]));
  gq[3] = two * (x * (g_rot[2] + g_rot[6]) + y * (g_rot[5] + g_rot[7]) + w * (g_rot[3] - g_rot[1]) -
                 two * z * (g_rot[0] + g_rot[4]));
  const R along = gq[0] * w + gq[1] * x + gq[2] * y + gq[3] * z;
  for (int i = 0; i < 4; ++i) g_quat[i] = (gq[i] - along * o.q[i]) * o.inv_norm;
}

// Gradient of the camera-space mean [3], from that of J W [2,3] with J = [[j00, 0, j02], [0, j11, j12]], and from the
// footprint's.
template <class R, class S>
SPLAT_HD void jacobian_backward(const Projection<R>& o, const R* g_jw, const FootprintGrad<R>& in, const View<S>& view,
                                R* gp) {
  const R one = R(S(1)), zero = R(S(0));
  R g00 = zero, g02 = zero, g11 = zero, g12 = zero;
  for (int i = 0; i < 3; ++i) {
    g00 = g00 + g_jw[i] * R(view.R[i]);
    g02 = g02 + g_jw[i] * R(view.R[6 + i]);
    g11 = g11 + g_jw[3 + i] * R(view.R[3 + i]);
    g12 = g12 + g_jw[3 + i] * R(view.R[6 + i]);
  }
  // j00 = fx/z, j02 = -fx tx / z, x = fx X/z + cx; the clamp of tx stops its own path only.
  const R u = o.p[0] * o.inv_z, w = o.p[1] * o.inv_z;
  const R open_x = select(lt(u, R(view.limit_x_pos)), select(lt(R(view.limit_x_neg), u), one, zero), zero);
  const R open_y = select(lt(w, R(view.limit_y_pos)), select(lt(R(view.limit_y_neg), w), one, zero), zero);
  const R g_u = in.x * R(view.fx) - g02 * o.j00 * open_x;  // with respect to X/z
  const R g_w = in.y * R(view.fy) - g12 * o.j11 * open_y;
  gp[0] = g_u * o.inv_z;
  gp[1] = g_w * o.inv_z;
  gp[2] = in.z - (g_u * u + g_w * w) * o.inv_z -
          (g00 * o.j00 + g02 * o.j02 + g11 * o.j11 + g12 * o.j12) * o.inv_z;
}

// World-space mean and pose, from the gradients of the camera-space mean and of J W.
template <class R, class S>
SPLAT_HD void pose_backward(const GaussianRow<R>& g, const Projection<R>& o, const R* gp, const R* g_jw,
                            const View<S>& view, GaussianGrad<R>& out) {
  for (int i = 0; i < 3; ++i)
    out.mean[i] = gp[0] * R(view.R[i]) + gp[1] * R(view.R[3 + i]) + gp[2] * R(view.R[6 + i]);
  for (int r = 0; r < 3; ++r) {
    for (int i = 0; i < 3; ++i) out.camera[4 * r + i] = gp[r] * g.mean[i];
    out.camera[4 * r + 3] = gp[r];
  }
  for (int i = 0; i < 3; ++i) {  // W inside J W
    out.camera[i] = out.camera[i] + o.j00 * g_jw[i];
    out.camera[4 + i] = out.camera[4 + i] + o.j11 * g_jw[3 + i];
    out.camera[8 + i] = out.camera[8 + i] + o.j02 * g_jw[i] + o.j12 * g_jw[3 + i];
  }
}

// Chains a footprint gradient to the raw row and the pose.
template <class R, class S>
SPLAT_HD GaussianGrad<R> project_gaussian_backward(const GaussianRow<R>& g, const Projection<R>& o,
                                                   const FootprintGrad<R>& in, const View<S>& view,
                                                   bool has_filter3d) {
  GaussianGrad<R> out;
  const R inv_det = R(S(1)) / o.det;
  CovarianceGrad<R> g_cov = in.covariance;
  const R g_opacity = in.opacity * o.coef3d * o.comp;
  if (view.compensate) compensation_backward<R, S>(o, in.opacity, inv_det, g_cov);
  R g_s2[3], g_v[6];
  axes_backward<R, S>(o, g_cov, g_s2, g_v);
  scales_backward<R, S>(o, g_s2, in.opacity, has_filter3d, out.log_scale);
  out.logit_opacity = g_opacity * o.opacity * (R(S(1)) - o.opacity);
  out.shape = in.shape;

  R g_rot[9], g_jw[6], gp[3];
  for (int i = 0; i < 3; ++i)
    for (int k = 0; k < 3; ++k) g_rot[3 * i + k] = o.jw[i] * g_v[k] + o.jw[3 + i] * g_v[3 + k];
  for (int r = 0; r < 2; ++r)
    for (int i = 0; i < 3; ++i)
      g_jw[3 * r + i] = g_v[3 * r] * o.rot[3 * i] + g_v[3 * r + 1] * o.rot[3 * i + 1] +
                        g_v[3 * r + 2] * o.rot[3 * i + 2];
  rotation_backward<R, S>(o, g_rot, out.quat);
  jacobian_backward<R, S>(o, g_jw, in, view, gp);
  pose_backward<R, S>(g, o, gp, g_jw, view, out);
  return out;
}

}  // namespace SPLAT_ISA
}  // namespace splat
