#pragma once
#include "kernels.h"

namespace splat {

// See splat_cpu_grid_sort.
void grid_sort(const Kernels& kernels, const splat_grid& grid, int32_t* order, double* distances);

}  // namespace splat
