// SSIM of Wang et al. 2004 with the field's window: 11 x 11 Gaussian, sigma 1.5, zero padding, C1 = 0.01^2,
// C2 = 0.03^2. One pixel of it, from its five windowed means.
#pragma once
#include "real.h"

namespace splat {
inline namespace SPLAT_ISA {

constexpr int kRadius = 5, kTaps = 11;
// The window at a distance from its middle.
SPLAT_HD constexpr double window_at(int distance) {
  return distance == 0   ? 0.26601172486179436
         : distance == 1 ? 0.21300553771125369
         : distance == 2 ? 0.10936068950970002
         : distance == 3 ? 0.03600077212843083
         : distance == 4 ? 0.00759875813523919
                         : 0.00102838008447911;
}
constexpr double kWindow[kTaps] = {window_at(5), window_at(4), window_at(3), window_at(2), window_at(1), window_at(0),
                                   window_at(1), window_at(2), window_at(3), window_at(4), window_at(5)};
constexpr double kC1 = 0.01 * 0.01, kC2 = 0.03 * 0.03;

// The index and its derivatives with respect to the windowed means of x, x^2 and x y.
template <class P> struct SsimPixel {
  using S = typename Lanes<P>::Scalar;
  P value, d_x, d_xx, d_xy;

  SPLAT_HD static P inverse(P a) {
#if defined(__CUDA_ARCH__)
    return rcp_(a);
#else
    return P(S(1)) / a;
#endif
  }
  SPLAT_HD SsimPixel(P mx, P my, P exx, P eyy, P exy) {
    const P two = P(S(2));
    const P a1 = fma(two * mx, my, P(S(kC1))), a2 = fma(two, nfma(mx, my, exy), P(S(kC2)));
    const P b1 = fma(mx, mx, fma(my, my, P(S(kC1))));
    const P b2 = nfma(mx, mx, exx) + nfma(my, my, eyy) + P(S(kC2));
    const P ib1 = inverse(b1), ib2 = inverse(b2), ib = ib1 * ib2;
    value = a1 * a2 * ib;
    d_x = two * (my * (a2 - a1) * ib - value * mx * (ib1 - ib2));
    d_xx = -(value * ib2);
    d_xy = two * a1 * ib;
  }
};

}  // namespace SPLAT_ISA
}  // namespace splat
