// Compiled once per instruction set: SPLAT_ISA names the namespace, SPLAT_TABLE the function that returns the table.
// Nothing here may instantiate standard-library templates: the linker would merge them with the other builds'.
#include <type_traits>

#include "../math/pack.h"
// pack.h first: templates below find its operations by argument-dependent lookup.
#include "../math/analytic.h"
#include "../math/convex.h"
#include "../math/gaussian.h"
#include "../math/gef.h"
#include "blend_backward.h"
#include "blend_forward.h"
#include "grid_sort.h"
#include "nearest.h"
#include "photometric.h"
#include "project.h"
#include "project_convex.h"
#include "walk.h"

namespace splat {
inline namespace SPLAT_ISA {

using ProjectChunk = void (*)(const ProjectTask&, int64_t);

template <class F, class P>
constexpr FootprintKernels footprint(const char* name, int tables, ProjectChunk project, ProjectChunk backward) {
  return {name,
          F::kRecord,
          F::kSums,
          tables,
          project,
          walk_chunk<F, typename Lanes<P>::Scalar>,
          blend_tile<F, P>,
          blend_backward_tile<F, P>,
          backward};
}

template <class F, class P> constexpr FootprintKernels ewa_footprint(const char* name) {
  return footprint<F, P>(name, F::kShapes, project_chunk<F, P>, project_backward_chunk<F, P>);
}

// The footprints, in the order of their indices: every one is a row.
template <class P> struct Footprints {
  using S = typename Lanes<P>::Scalar;
  static constexpr FootprintKernels rows[] = {
      ewa_footprint<Gaussian, P>("gaussian"),
      ewa_footprint<Analytic, P>("analytic"),
      ewa_footprint<Gef, P>("gef"),
      footprint<Convex, P>("convex", 3, project_convex_chunk<S>, project_convex_backward_chunk<S>),
  };
};

template <class P> constexpr Kernels table(const char* isa) {
  return Kernels{isa,
                 int(sizeof(Footprints<P>::rows) / sizeof(FootprintKernels)),
                 Footprints<P>::rows,
                 photometric_statistics_band<P>,
                 photometric_gradient_band<P>,
                 adam_chunk<P>,
                 grid_group<P>,
                 nearest_rows<P>};
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
