// One step of Adam, the same expressions as the CPU's adam_chunk.
#pragma once
#include <cmath>

#include "../math/real.h"
#include "launch.h"

namespace splat {
namespace gpu {

// Whether arrays can be read four floats at a time.
inline bool aligned16(const void* p) { return (reinterpret_cast<uintptr_t>(p) & 15) == 0; }

// Kingma and Ba 2015, algorithm 1, bias corrections folded into two factors.
struct AdamStep {
  float b1, a1, b2, a2, step, root, eps;

  static AdamStep at(double lr, double beta1, double beta2, double eps, int64_t step_count) {
    const double correction1 = 1 - std::pow(beta1, double(step_count));
    const double correction2 = 1 - std::pow(beta2, double(step_count));
    return {float(beta1), float(1 - beta1), float(beta2), float(1 - beta2),
            float(lr / correction1), float(1 / correction2), float(eps)};
  }

  // A value that never had a gradient (m = v = g = 0) would be left as it is: callers skip its memory.
  __device__ static bool idle(float g, float m, float v) { return g == 0.0f && m == 0.0f && v == 0.0f; }

  __device__ void update(float g, float& p, float& m, float& v) const {
    m = fma(b1, m, a1 * g);
    v = fma(b2, v, a2 * g * g);
    p = nfma(step, m / (sqrt_(v * root) + eps), p);
  }
};

}  // namespace gpu
}  // namespace splat
