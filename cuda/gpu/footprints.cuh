// The footprints of this backend and what of a kernel depends on which. A footprint is a header in math/ and a row
// here; footprints that are not of the EWA family bring the kernels of their projection besides.
#pragma once
#include <tuple>
#include <type_traits>

#include "../math/analytic.h"
#include "../math/composite.h"
#include "../math/convex.h"
#include "../math/gaussian.h"
#include "../math/gef.h"
#include "launch.h"

namespace splat {
namespace gpu {

template <class F> struct FootprintRow {
  using Footprint = F;
  const char* name;
};

// In the order of their indices, which is that of cpu/kernels.cpp.
constexpr auto kFootprints = std::make_tuple(FootprintRow<Gaussian>{"gaussian"}, FootprintRow<Analytic>{"analytic"},
                                             FootprintRow<Gef>{"gef"}, FootprintRow<Convex>{"convex"});
constexpr int kFootprintCount = int(std::tuple_size<decltype(kFootprints)>::value);

// --- what a footprint is given -------------------------------------------------------------------------------------
// A Gaussian projected to a covariance, whatever is made of it: these share the kernels of their projection.
template <class F, class = void> struct InEwaFamily : std::false_type {};
template <class F>
struct InEwaFamily<F, std::void_t<decltype(&F::template gradient<float, float>)>> : std::true_type {};
// Adam within the backward pass knows the six row arrays and no others.
template <class F> using TakesAdam = std::bool_constant<InEwaFamily<F>::value && F::kShapes == 0>;
// The Gaussian has a kernel for every way it is used; the others make do with plain and general ones, so that four
// footprints take a third more to build than one.
template <class F> constexpr bool kSpecialised = std::is_same<F, Gaussian>::value;
// Reals at the front of a record that a pixel looks at; those of statistics may lie behind.
template <class F> constexpr int kPixelReals = F::kRecord;
template <> constexpr int kPixelReals<Gaussian> = 12;

// --- launches ------------------------------------------------------------------------------------------------------
template <class Visit, size_t... I> int32_t visit_footprint(int footprint, Visit&& visit, std::index_sequence<I...>) {
  int32_t status = SPLAT_OK;
  const bool found = ((footprint == int(I) && ((status = visit(std::get<I>(kFootprints))), true)) || ...);
  return found ? status : refuse(SPLAT_BAD_ARGUMENT, "footprint %d; there are %d", footprint, kFootprintCount);
}
// Calls visit(row) -> status with the row of that index.
template <class Visit> int32_t visit_footprint(int footprint, Visit&& visit) {
  return visit_footprint(footprint, visit, std::make_index_sequence<size_t(kFootprintCount)>());
}
template <class Row> using FootprintOf = typename std::decay_t<Row>::Footprint;

}  // namespace gpu
}  // namespace splat
