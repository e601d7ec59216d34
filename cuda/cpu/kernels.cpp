// Compiled once per instruction set: SPLAT_ISA names the namespace, SPLAT_TABLE the function that returns the table.
// Nothing here may instantiate standard-library templates: the linker would merge them with the other builds'.
#include <type_traits>

#include "../math/pack.h"
// pack.h first: templates below find its operations by argument-dependent lookup.
#include "blend_backward.h"
#include "blend_forward.h"
#include "photometric.h"
#include "project.h"
#include "walk.h"

namespace splat {
inline namespace SPLAT_ISA {

template <class P> constexpr Kernels table(const char* isa) {
  using S = typename Lanes<P>::Scalar;
  return Kernels{isa,
                 project_chunk<Gaussian, P>,
                 walk_chunk<S>,
                 blend_tile<Gaussian, P>,
                 blend_backward_tile<Gaussian, P>,
                 project_backward_chunk<Gaussian, P>,
                 photometric_statistics_band<P>,
                 photometric_gradient_band<P>,
                 adam_chunk<P>};
}

}  // namespace SPLAT_ISA

#define SPLAT_STRING_(x) #x
#define SPLAT_STRING(x) SPLAT_STRING_(x)

const Kernels* SPLAT_TABLE() {
  static constexpr Kernels kernels = table<Pack>(SPLAT_STRING(SPLAT_ISA));
  return &kernels;
}

#ifdef SPLAT_WITH_DOUBLE
const Kernels* kernels_double() {
  static constexpr Kernels kernels = table<double>("float64");
  return &kernels;
}
#endif

}  // namespace splat
