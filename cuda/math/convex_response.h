// The response of the smooth convex footprint (convex.h): its record, a pixel, the gradient's sums, its tiles.
#pragma once
#include "hull.h"
#include "tiles.h"

namespace splat {
inline namespace SPLAT_ISA {

// Places of a record: sharpness z sigma, the cut of phi / ln2, that of the largest scaled line function, the scale
// A log2 e, number of edges, corners of the hull in order (three bits each), edges (n_x, n_y, e) from the centre.
enum ConvexRecord {
  kSharpness = 2, kPhiCut = 3, kReachCut = 4, kScale = 5, kEdgeCount = 12, kCorners = 14, kEdges = 16
};

SPLAT_HD int as_index(float a) { return int(a); }
SPLAT_HD int as_index(double a) { return int(a); }
template <class S> SPLAT_HD int as_index(S a) { return int(value_of(a)); }

template <class R> SPLAT_HD R log2_of_sum(R a) { return log2_(a); }  // of numbers in [1, kMaxVertices]
#if defined(__CUDA_ARCH__)
template <> SPLAT_HD float log2_of_sum<float>(float a) {
  float r;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(a));
  return r;
}
#endif

// Over the edges of a hull. The device keeps arrays over edges in registers, which takes constant indices; the test is
// the same in all lanes of a warp. Elsewhere the shorter code is the faster.
#if defined(__CUDA_ARCH__)
#define SPLAT_FOR_EDGES(j, count) _Pragma("unroll") for (int j = 0; j < kMaxVertices; ++j) if (j < (count))
#else
#define SPLAT_FOR_EDGES(j, count) for (int j = 0; j < (count); ++j)
#endif

struct Convex {
  static constexpr int kSides = kMaxVertices;
  static constexpr int kRecord = kEdges + 3 * kSides;
  static constexpr int kSums = 3 * kSides + 2;  // per edge of u: dx, dy, 1 (u = h (1-C) w_j); then h; h (1-C) phi/ln2
  static constexpr int kReach = kRecord, kShapes = 0;

  template <class R> struct Response {
    using S = typename Lanes<R>::Scalar;
    typename Lanes<R>::Mask seen;
    R opacity, coverage, phi;      // alpha = opacity coverage; phi / ln2
    R weight[kSides], inv_sum;     // w_j = weight[j] inv_sum, the softmax; unset where nothing is seen
    SPLAT_HD typename Lanes<R>::Mask valid() const { return seen; }
    SPLAT_HD R alpha() const { return opacity * coverage; }
  };

  template <class R> struct Run {
    using S = typename Lanes<R>::Scalar;
    R dx, base[kSides];
    S y;
    const S* record;
    int edges;
    SPLAT_HD Run(const S* r, R px) : dx(px - R(r[0])), y(r[1]), record(r), edges(as_index(r[kEdgeCount])) {
      SPLAT_FOR_EDGES(j, edges) {
        base[j] = fma(R(r[kEdges + 3 * j]), dx, R(r[kEdges + 3 * j + 2]));
      }
    }
    SPLAT_HD Response<R> at(R dy) const {
      Response<R> o;
      R top = R(S(-kUnbounded));
      SPLAT_FOR_EDGES(j, edges) {
        o.weight[j] = fma(R(record[kEdges + 3 * j + 1]), dy, base[j]);
        top = max_(o.weight[j], top);
      }
      o.seen = ge(R(record[kReachCut]), top);
      o.opacity = R(record[kOpacity]);
      o.coverage = o.phi = R(S(0)), o.inv_sum = R(S(1));
      if (!any(o.seen)) return o;
      // Stable: the largest term is 1. Others are kept above 2^-64, nothing to their sum, and subnormal numbers away.
      R sum = R(S(0));
      SPLAT_FOR_EDGES(j, edges) {
        o.weight[j] = exp2_(max_(o.weight[j] - top, R(S(-64))));
        sum = sum + o.weight[j];
      }
      o.phi = top + log2_of_sum(sum);
      o.seen = o.seen & ge(R(record[kPhiCut]), o.phi);
      const R logit = max_(min_(R(record[kSharpness]) * o.phi, R(S(64))), R(S(-64)));
      o.coverage = rcp_(R(S(1)) + exp2_(logit));
      o.inv_sum = rcp_(sum);
      return o;
    }
  };

  // d ln alpha / d phi' = -ln2 z sigma (1-C), phi' = phi / ln2; d phi' / d l_j = w_j with l_j the scaled line function.
  template <class R> struct Sums {
    using S = typename Lanes<R>::Scalar;
    R u[kSides], uy[kSides], h, h_phi;
    SPLAT_HD Sums() : h(S(0)), h_phi(S(0)) {
      for (int j = 0; j < kSides; ++j) u[j] = uy[j] = R(S(0));
    }
    SPLAT_HD void add(const Run<R>& run, const Response<R>& response, R value, R dy) {
      if (!any(response.seen)) return;  // then the weights are set, in every lane
      const R steep = value - value * response.coverage;
      const R scale = select(response.seen, steep * response.inv_sum, R(S(0)));
      h = h + value;
      h_phi = h_phi + select(response.seen, steep * response.phi, R(S(0)));
      SPLAT_FOR_EDGES(j, run.edges) {
        const R t = scale * response.weight[j];
        u[j] = u[j] + t;
        uy[j] = fma(t, dy, uy[j]);
      }
    }
    SPLAT_HD void add_to(const Run<R>& run, R* totals) const {
      SPLAT_FOR_EDGES(j, run.edges) {
        totals[3 * j] = fma(u[j], run.dx, totals[3 * j]);
        totals[3 * j + 1] = totals[3 * j + 1] + uy[j];
        totals[3 * j + 2] = totals[3 * j + 2] + u[j];
      }
      totals[3 * kSides] = totals[3 * kSides] + h;
      totals[3 * kSides + 1] = totals[3 * kSides + 1] + h_phi;
    }
    // Of moving the whole footprint: its line functions move against it.
    SPLAT_HD static void pixel_gradient(const S* record, const Run<R>& run, const Response<R>& response, R value, R,
                                        R* gx, R* gy) {
      *gx = *gy = R(S(0));
      if (!any(response.seen)) return;
      const R steep = (value - value * response.coverage) * response.inv_sum * R(S(kLn2) * record[kSharpness]);
      const R scale = select(response.seen, steep, R(S(0)));
      SPLAT_FOR_EDGES(j, run.edges) {
        const R t = scale * response.weight[j];
        *gx = fma(t, R(record[kEdges + 3 * j]), *gx);
        *gy = fma(t, R(record[kEdges + 3 * j + 1]), *gy);
      }
    }
  };

  // Every line function must come below the cut somewhere in the box (each at a corner of its own).
  template <class S> SPLAT_HD static bool may_reach(const S* record, S x_lo, S x_hi, S y_lo, S y_hi) {
    const S l = x_lo - record[0], r = x_hi - record[0], t = y_lo - record[1], b = y_hi - record[1];
    const S cut = record[kReachCut] + S(1e-6) * abs_(record[kReachCut]);
    const int edges = as_index(record[kEdgeCount]);
    bool reached = true;
    SPLAT_FOR_EDGES(j, edges) {
      const S* edge = record + kEdges + 3 * j;
      const S x = edge[0] * (edge[0] > S(0) ? l : r), y = edge[1] * (edge[1] > S(0) ? t : b);
      // Slack covers the rounding of terms that cancel.
      reached = reached && !(x + y + edge[2] > cut + S(1e-6) * (abs_(x) + abs_(y) + abs_(edge[2])));
    }
    return reached;
  }

  // Half-planes {n . p <= c}, px from the centre, in units of L: scaled ones could leave float32 in products.
  template <class S> SPLAT_HD static int sides(const S* record, S* n_x, S* n_y, S* c) {
    const int edges = as_index(record[kEdgeCount]);
    const S inv = S(1) / record[kScale];
    for (int j = 0; j < edges; ++j) {
      const S* edge = record + kEdges + 3 * j;
      n_x[j] = mul_(edge[0], inv), n_y[j] = mul_(edge[1], inv), c[j] = mul_(record[kReachCut] - edge[2], inv);
    }
    return edges;
  }
  template <class S> using Walk = PolygonWalk<S, Convex, kSides>;
};

#undef SPLAT_FOR_EDGES

}  // namespace SPLAT_ISA
}  // namespace splat
