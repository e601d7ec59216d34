// The smooth convex footprint (3D Convex Splatting, Held et al. 2025). K vertices, offsets from the mean that are
// centred where they are used; the 2D hull of their pixels; for each of its edges a -> b the line function
//   L(p) = (b_y - a_y) (p_x - a_x) - (b_x - a_x) (p_y - a_y)     px^2, positive outside
// and with z the camera depth of the mean
//   A = z delta f_ref^2 / (fx fy),  phi = ln sum_j exp(A L_j),  C = 1 / (1 + exp(z sigma phi)),  alpha = o C.
//
// Where we leave the publication:
// - L grows with the square of the resolution, so A is measured in pixels of a reference focal length f_ref; f_ref <= 0
//   leaves the factor out, as published.
// - A convex with any vertex at or behind the near plane is not drawn (the publication looks at its centre only).
// - The footprint ends where alpha < 1/255, not at C = 0.11.
// - It also ends kSkirt times the hull's breadth beyond an edge, see there.
// - Gradients are the true ones; `published` gives those of the publication: without the factor between NDC and
//   pixels in the vertices' path, and without the depth inside A and z sigma.
//
// In the record edges are scaled by A log2 e, so that exp(A L) is one exp2 of a line function.
#pragma once
#include "convex_response.h"

namespace splat {
inline namespace SPLAT_ISA {

// How far a footprint may reach beyond the hull: alpha counts as zero where the largest line function exceeds kSkirt
// times the hull's area (of a rectangle: kSkirt times its breadth beyond each edge). Sharp convexes end long before, at
// 1/255. Early in training and far from the camera they do not: where z sigma A area is far below 1, C is still about
// 1/2 tens of breadths away, and a speck would be blended into hundreds of tiles. Like the cuts at 1/255 and 1e-4 this
// is part of the picture, the same in both passes and in the bound, and has no gradient; it scales with the resolution.
constexpr double kSkirt = 4;
constexpr double kVertexReach = 1e4;   // px from the projected mean; farther vertices graze the camera's plane
constexpr double kThinnest = 1e-5;     // twice the hull's area over its squared radius: float32 knows no thinner hull
constexpr double kSmallest = 1e-12;    // twice the area, px^2
constexpr double kSteepest = 1e20;     // of A radius^2 and z sigma A radius^2: keeps float32 finite

// Raw parameters of one convex.
template <class S> struct ConvexRow {
  S mean[3], vertex[3 * kMaxVertices], log_delta, log_sigma, logit_opacity;
  int vertices;  // 3 to kMaxVertices
};

// What the rows' constants say.
template <class S> struct ConvexSettings {
  S reference_focal;  // px; <= 0: none
  bool published;     // gradients as published
};

template <class S> struct ConvexGrad {
  S mean[3], vertex[3 * kMaxVertices], log_delta, log_sigma, logit_opacity;
  S camera[12];      // rows of [R|t]
  S x, y, opacity;   // of the projected mean with its hull, px; of the activated opacity
};

// Everything between the raw row and the record; the backward pass recomputes it.
template <class S> struct ConvexProjection {
  S p[3], x, y;                      // mean: camera space, px
  S slope[2];                        // p_x / z, p_y / z
  S offset[3 * kMaxVertices];        // vertex - mean, world
  S d[3 * kMaxVertices];             // the same in camera space
  S inv_z[kMaxVertices];             // 1 / z of each vertex
  S pixel[2 * kMaxVertices];         // vertices, px from the projected mean
  S scale, sharpness, opacity;       // A log2 e, z sigma
};

// From the mean and the differences to it, so that far-away small convexes do not cancel: with the mean at (X, Y, Z)
// and a vertex at (X + dx, ., Z + dz), x - x_mean = fx (dx - dz X/Z) / (Z + dz).
template <class S> SPLAT_HD void project_vertices(const ConvexRow<S>& g, const View<S>& view, ConvexProjection<S>& o) {
  for (int i = 0; i < 3; ++i)
    o.p[i] = fma(view.R[3 * i], g.mean[0],
                 fma(view.R[3 * i + 1], g.mean[1], fma(view.R[3 * i + 2], g.mean[2], view.t[i])));
  const S inv_z = S(1) / o.p[2];
  o.slope[0] = o.p[0] * inv_z, o.slope[1] = o.p[1] * inv_z;
  o.x = fma(view.fx, o.slope[0], view.cx), o.y = fma(view.fy, o.slope[1], view.cy);
  S center[3];
  for (int i = 0; i < 3; ++i) {
    center[i] = S(0);
    for (int k = 0; k < g.vertices; ++k) center[i] = center[i] + g.vertex[3 * k + i];
    center[i] = center[i] / S(g.vertices);
  }
  for (int k = 0; k < g.vertices; ++k) {
    S* offset = o.offset + 3 * k;
    S* d = o.d + 3 * k;
    for (int i = 0; i < 3; ++i) offset[i] = g.vertex[3 * k + i] - center[i];
    for (int i = 0; i < 3; ++i)
      d[i] = fma(view.R[3 * i], offset[0], fma(view.R[3 * i + 1], offset[1], view.R[3 * i + 2] * offset[2]));
    o.inv_z[k] = S(1) / (o.p[2] + d[2]);
    o.pixel[2 * k] = view.fx * (d[0] - d[2] * o.slope[0]) * o.inv_z[k];
    o.pixel[2 * k + 1] = view.fy * (d[1] - d[2] * o.slope[1]) * o.inv_z[k];
  }
}

template <class S>
SPLAT_HD ConvexProjection<S> project_convex(const ConvexRow<S>& g, const View<S>& view,
                                            const ConvexSettings<S>& settings) {
  ConvexProjection<S> o;
  project_vertices(g, view, o);
  const S f = settings.reference_focal;
  const S resolution = f > S(0) ? f / view.fx * (f / view.fy) : S(1);
  o.scale = S(kLog2e) * resolution * o.p[2] * exp2_(g.log_delta * S(kLog2e));
  o.sharpness = o.p[2] * exp2_(g.log_sigma * S(kLog2e));
  o.opacity = S(1) / (S(1) + exp2_(g.logit_opacity * S(-kLog2e)));
  return o;
}

// Whether all numbers are fit to be drawn, before the hull is known. Phrased so that a NaN anywhere fails.
template <class S>
SPLAT_HD bool convex_exists(const ConvexRow<S>& g, const View<S>& view, const ConvexProjection<S>& o) {
  if (!(o.p[2] > view.near_z) || !(o.p[2] < view.far_z) || !(S(255) * o.opacity > S(1))) return false;
  S radius2 = S(0);
  for (int k = 0; k < g.vertices; ++k) {
    if (!(o.p[2] + o.d[3 * k + 2] > view.near_z)) return false;
    const S r = o.pixel[2 * k] * o.pixel[2 * k] + o.pixel[2 * k + 1] * o.pixel[2 * k + 1];
    if (!(r <= S(kVertexReach * kVertexReach))) return false;
    radius2 = max_(r, radius2);
  }
  return o.scale > S(1e-30) && o.sharpness > S(1e-30) && o.sharpness < S(1e30) && o.scale * radius2 < S(kSteepest) &&
         o.sharpness * o.scale * radius2 < S(kSteepest) && abs_(o.x) < S(1e7) && abs_(o.y) < S(1e7);
}

// The record but for its colour; false when the convex is not drawn.
template <class S>
SPLAT_HD bool convex_record(const ConvexRow<S>& g, const View<S>& view, const ConvexProjection<S>& o, S* record) {
  for (int i = 0; i < Convex::kRecord; ++i) record[i] = S(0);
  if (!convex_exists(g, view, o)) return false;
  int corner[kMaxVertices];
  const int edges = convex_hull(o.pixel, g.vertices, corner);
  if (edges < 3) return false;
  S n_x[kMaxVertices], n_y[kMaxVertices], c[kMaxVertices], doubled_area = S(0), radius2 = S(0);
  int packed = 0;
  for (int j = 0; j < edges; ++j) {
    const S* a = o.pixel + 2 * corner[j];
    const S* b = o.pixel + 2 * corner[j + 1 < edges ? j + 1 : 0];
    n_x[j] = b[1] - a[1], n_y[j] = a[0] - b[0], c[j] = b[1] * a[0] - b[0] * a[1];
    doubled_area = doubled_area + c[j];
    radius2 = max_(a[0] * a[0] + a[1] * a[1], radius2);
    packed |= corner[j] << 3 * j;
    S* edge = record + kEdges + 3 * j;
    edge[0] = o.scale * n_x[j], edge[1] = o.scale * n_y[j], edge[2] = -(o.scale * c[j]);
  }
  if (!(doubled_area > S(kSmallest)) || !(doubled_area > S(kThinnest) * radius2)) return false;
  record[0] = o.x, record[1] = o.y, record[kSharpness] = o.sharpness, record[kScale] = o.scale;
  record[kDepth] = o.p[2], record[kOpacity] = o.opacity;
  record[kEdgeCount] = S(edges), record[kCorners] = S(packed);
  record[kPhiCut] = log2_(S(255) * o.opacity - S(1)) / o.sharpness;
  record[kReachCut] = min_(record[kPhiCut], S(0.5 * kSkirt) * o.scale * doubled_area);
  const S level = record[kReachCut] / o.scale;
  for (int j = 0; j < edges; ++j) c[j] = c[j] + level;
  S half_x, half_y;
  half_planes_box(edges, n_x, n_y, c, &half_x, &half_y);
  // Slack for the rounding of line functions at pixels.
  record[kExtentX] = half_x + S(1e-5) * abs_(half_x) + S(1e-3);
  record[kExtentY] = half_y + S(1e-5) * abs_(half_y) + S(1e-3);
  return true;
}

// Gradients of the vertices' pixels [kMaxVertices,2] from the sums of the edges; returns that of ln A.
template <class S>
SPLAT_HD S hull_backward(const ConvexProjection<S>& o, const S* record, const S* sums, S* g_pixel) {
  const S to_edges = S(-kLn2) * o.sharpness;
  const int edges = as_index(record[kEdgeCount]), packed = as_index(record[kCorners]);
  S g_log_scale = S(0);
  for (int i = 0; i < 2 * kMaxVertices; ++i) g_pixel[i] = S(0);
  for (int j = 0; j < edges; ++j) {
    const int first = packed >> 3 * j & 7, second = packed >> 3 * (j + 1 < edges ? j + 1 : 0) & 7;
    const S* edge = record + kEdges + 3 * j;
    const S* sum = sums + 3 * j;  // of the gradient of L: times dx, times dy, alone
    // Every line function is A times something.
    g_log_scale = g_log_scale + to_edges * (edge[0] * sum[0] + edge[1] * sum[1] + edge[2] * sum[2]);
    const S to_line = to_edges * o.scale, sx = to_line * sum[0], sy = to_line * sum[1], s = to_line * sum[2];
    const S* a = o.pixel + 2 * first;
    const S* b = o.pixel + 2 * second;
    g_pixel[2 * first] = g_pixel[2 * first] + sy - s * b[1];
    g_pixel[2 * first + 1] = g_pixel[2 * first + 1] - sx + s * b[0];
    g_pixel[2 * second] = g_pixel[2 * second] - sy + s * a[1];
    g_pixel[2 * second + 1] = g_pixel[2 * second + 1] + sx - s * a[0];
  }
  return g_log_scale;
}

// Camera-space mean gp [3], added to, and differences to it gd [kMaxVertices,3], from the vertices' pixels and their
// sum (g_x, g_y). scale_x, scale_y: the focal lengths.
template <class S>
SPLAT_HD void vertices_backward(const ConvexRow<S>& g, const ConvexProjection<S>& o, const S* g_pixel, S g_x, S g_y,
                                S scale_x, S scale_y, S* gp, S* gd) {
  S g_slope[2] = {scale_x * g_x, scale_y * g_y};
  for (int k = 0; k < g.vertices; ++k) {
    const S iz = o.inv_z[k], hx = scale_x * g_pixel[2 * k] * iz, hy = scale_y * g_pixel[2 * k + 1] * iz;
    const S* d = o.d + 3 * k;
    // d pixel / d z of the vertex, as a multiple of the pixel's own (dx - dz slope) / z
    const S g_z = -(hx * (d[0] - d[2] * o.slope[0]) + hy * (d[1] - d[2] * o.slope[1])) * iz;
    gd[3 * k] = hx, gd[3 * k + 1] = hy;
    gd[3 * k + 2] = g_z - hx * o.slope[0] - hy * o.slope[1];
    gp[2] = gp[2] + g_z;
    g_slope[0] = g_slope[0] - hx * d[2], g_slope[1] = g_slope[1] - hy * d[2];
  }
  const S inv_z = S(1) / o.p[2];
  gp[0] = gp[0] + g_slope[0] * inv_z, gp[1] = gp[1] + g_slope[1] * inv_z;
  gp[2] = gp[2] - (g_slope[0] * o.slope[0] + g_slope[1] * o.slope[1]) * inv_z;
}

// Raw mean, vertices and pose.
template <class S>
SPLAT_HD void convex_pose_backward(const ConvexRow<S>& g, const ConvexProjection<S>& o, const S* gp, const S* gd,
                                   const View<S>& view, ConvexGrad<S>& out) {
  S center[3] = {S(0), S(0), S(0)};
  for (int i = 0; i < 3; ++i) out.mean[i] = gp[0] * view.R[i] + gp[1] * view.R[3 + i] + gp[2] * view.R[6 + i];
  for (int r = 0; r < 3; ++r) {
    for (int i = 0; i < 3; ++i) out.camera[4 * r + i] = gp[r] * g.mean[i];
    out.camera[4 * r + 3] = gp[r];
  }
  for (int k = 0; k < g.vertices; ++k)
    for (int i = 0; i < 3; ++i) {
      const S* d = gd + 3 * k;
      out.vertex[3 * k + i] = d[0] * view.R[i] + d[1] * view.R[3 + i] + d[2] * view.R[6 + i];
      center[i] = center[i] + out.vertex[3 * k + i];
      for (int r = 0; r < 3; ++r) out.camera[4 * r + i] = fma(d[r], o.offset[3 * k + i], out.camera[4 * r + i]);
    }
  for (int k = 0; k < kMaxVertices; ++k)
    for (int i = 0; i < 3; ++i)
      out.vertex[3 * k + i] = k < g.vertices ? out.vertex[3 * k + i] - center[i] / S(g.vertices) : S(0);
}

// From the sums of a splat's fragments, and the gradient g_z of its depth (of depth images), to raw row and pose.
template <class S>
SPLAT_HD ConvexGrad<S> project_convex_backward(const ConvexRow<S>& g, const View<S>& view,
                                               const ConvexSettings<S>& settings, const S* record, const S* sums,
                                               S g_z) {
  const ConvexProjection<S> o = project_convex(g, view, settings);
  ConvexGrad<S> out;
  S g_pixel[2 * kMaxVertices], gd[3 * kMaxVertices], gp[3] = {S(0), S(0), g_z};
  out.log_delta = hull_backward(o, record, sums, g_pixel);
  out.log_sigma = S(-kLn2) * o.sharpness * sums[3 * Convex::kSides + 1];
  out.opacity = sums[3 * Convex::kSides] / o.opacity;
  out.logit_opacity = sums[3 * Convex::kSides] * (S(1) - o.opacity);
  // Moving all vertices moves the footprint.
  out.x = out.y = S(0);
  for (int k = 0; k < g.vertices; ++k) out.x = out.x + g_pixel[2 * k], out.y = out.y + g_pixel[2 * k + 1];
  S scale_x = view.fx, scale_y = view.fy;
  if (settings.published) {
    scale_x = view.fx * S(2) / S(view.width), scale_y = view.fy * S(2) / S(view.height);
  } else {
    gp[2] = gp[2] + (out.log_delta + out.log_sigma) / o.p[2];
  }
  vertices_backward(g, o, g_pixel, out.x, out.y, scale_x, scale_y, gp, gd);
  convex_pose_backward(g, o, gp, gd, view, out);
  return out;
}

}  // namespace SPLAT_ISA
}  // namespace splat
