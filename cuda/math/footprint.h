// A footprint is a policy: a record (what projection leaves per splat), its response at a pixel, and the gradient of
// that response as a few sums over pixels. Compositing, clamps and stops are written once around it; each footprint is
// one header beside this one, and one row of the tables in cpu/kernels.cpp and gpu/footprints.cuh.
//
// A policy F has:
//   kRecord             reals of a record, a multiple of 4: the common places below, the rest is the footprint's
//   kSums               gradient sums per (splat, tile), before the three colours
//   Run<R>              constants of one splat along a vertical run of pixels, from (record, px); members dx = px - x
//                       and y, the centre's row; at(dy) -> Response<R>
//   Response<R>         what a pixel sees: valid() where the unclamped alpha may pass 1/255 (NaN fails), alpha(); and
//                       whatever the gradient wants again
//   Sums<R>             over one run: add(run, response, h, dy) with h = alpha dL/dalpha (0 where nothing contributes,
//                       whatever the response holds there), then add_to(run, totals [kSums]);
//                       pixel_gradient(record, run, response, h, dy, &gx, &gy): of the centre, px, by one pixel
//   kReach              reals at the front of a record that may_reach looks at, a multiple of 4
//   may_reach(record, x_lo, x_hi, y_lo, y_hi)  false only when no pixel centre of the box can pass the 1/255 cut
//   Walk<S>             the tiles of a splat (tiles.h)
// Those of the EWA family (a Gaussian projected to a covariance, whatever is made of it) besides:
//   kShapes             columns of the rows' first shape table, 0 or 1
//   record(projection, log2 opacity, shape, out)  its own places, kExtentX, kExtentY, kQMax
//   gradient(record, sums, projection) -> FootprintGrad
#pragma once
#include "projection.h"

namespace splat {
inline namespace SPLAT_ISA {

// Common places of a record. 0 and 1 are the centre; up to kColor, 14, 15 and above are the footprint's own.
enum RecordLayout { kColor = 6, kDepth = 9, kExtentX = 10, kExtentY = 11, kQMax = 12, kOpacity = 13, kCommonRecord = 16 };

}  // namespace SPLAT_ISA
}  // namespace splat
