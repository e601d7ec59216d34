#pragma once
#include "kernels.h"

namespace splat {

// See splat_cpu_bin.
int64_t bin(const FootprintKernels& kernels, const splat_rows& rows, const splat_view& view, const splat_projected& projected,
            const splat_bins& bins, int64_t* visible);

}  // namespace splat
