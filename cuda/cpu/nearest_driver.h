#pragma once
#include "kernels.h"

namespace splat {

// See splat_cpu_nearest.
void nearest(const Kernels& kernels, const splat_nearest& task, int32_t* labels, float* sq_distances);

}  // namespace splat
