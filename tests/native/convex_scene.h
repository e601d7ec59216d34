// Scenes of smooth convexes, their render in one number type, and the gradients of a weighted sum of its pictures.
#pragma once
#include <random>
#include <type_traits>
#include <vector>

#include "../../cuda/math/pack.h"
#include "dual.h"
// These first: templates below find their operations by argument-dependent lookup.
#include "../../cuda/cpu/bin.h"
#include "../../cuda/cpu/blend_backward.h"
#include "../../cuda/cpu/blend_forward.h"
#include "../../cuda/cpu/pool.h"
#include "../../cuda/cpu/project_convex.h"
#include "../../cuda/cpu/walk.h"

namespace splat {
inline namespace SPLAT_ISA {

// A view whose pose moves along a direction.
struct MovingView : splat_view {
  double pose_direction[12] = {};  // rows of [R|t]
};

template <> View<Dual> make_view<Dual>(const splat_view& view) {
  const View<double> at = make_view<double>(view);
  const double* direction = static_cast<const MovingView&>(view).pose_direction;
  View<Dual> o{};
  for (int r = 0; r < 3; ++r) {
    for (int i = 0; i < 3; ++i) o.R[3 * r + i] = Dual(at.R[3 * r + i], direction[4 * r + i]);
    o.t[r] = Dual(at.t[r], direction[4 * r + 3]);
  }
  for (int i = 0; i < 3; ++i) o.center[i] = -(o.R[i] * o.t[0] + o.R[3 + i] * o.t[1] + o.R[6 + i] * o.t[2]);
  o.fx = at.fx, o.fy = at.fy, o.cx = at.cx, o.cy = at.cy, o.near_z = at.near_z, o.far_z = at.far_z;
  o.width = at.width, o.height = at.height, o.tiles_x = at.tiles_x, o.tiles_y = at.tiles_y, o.sh_degree = at.sh_degree;
  return o;
}

}  // namespace SPLAT_ISA

namespace {

constexpr int kFeatures = 2;

enum Group { kMeans, kVertices, kLogDeltas, kLogSigmas, kLogits, kSh0, kShRest, kFeature, kBackground, kPose, kGroups };
constexpr const char* kNames[kGroups + 1] = {"means", "vertices", "log_deltas", "log_sigmas", "logit_opacities", "sh0",
                                         "sh_rest", "features", "background", "camera", "centers"};

using Values = std::vector<double>;

struct Scene {
  Values group[kGroups];
  splat_view view{};
  int splats = 0, vertices = 6, rest = 0;
  double focal = 0, published = 0;
};

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  double normal() { return normal_(engine_); }
  double uniform(double lo, double hi) { return lo + (hi - lo) * uniform_(engine_); }
  int below(int n) { return int(uniform(0, n)); }
  void fill(Values& values, double scale, double shift = 0) {
    for (double& value : values) value = scale * normal() + shift;
  }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<double> normal_;
  std::uniform_real_distribution<double> uniform_{0, 1};
};

void size_groups(Scene& scene, int splats, int vertices, int degree) {
  scene.splats = splats, scene.vertices = vertices, scene.rest = (degree + 1) * (degree + 1) - 1;
  const int sizes[kGroups] = {3, 3 * vertices, 1, 1, 1, 3, 3 * scene.rest, kFeatures, 0, 0};
  for (int g = 0; g <= kFeature; ++g) scene.group[g].resize(size_t(splats * sizes[g]));
  scene.group[kBackground] = {0.2, 0.5, 0.9};
}

void set_view(Scene& scene, int width, int height, double fx, double fy) {
  const double a = 0.15, b = -0.1;  // about x, then about y
  scene.group[kPose] = {std::cos(b),  std::sin(a) * std::sin(b), std::cos(a) * std::sin(b), 0.1,
                        0,            std::cos(a),               -std::sin(a),              -0.2,
                        -std::sin(b), std::sin(a) * std::cos(b), std::cos(a) * std::cos(b), 0.3};
  splat_view& v = scene.view;
  v.fx = fx, v.fy = fy, v.cx = 0.45 * width, v.cy = 0.55 * height, v.near_z = 0.2, v.far_z = 1e10;
  v.sh_degree = 3, v.width = width, v.height = height;
}

// One random convex: [0, 1) random numbers decide how large, soft, flat and far off the picture it is.
void random_convex(Random& random, Scene& scene, int i) {
  const double z = random.uniform(1, 8), size = std::exp(random.uniform(-4, 0.7)) * z / 4;
  const double flat = random.uniform(0, 1) < 0.2 ? 1e-3 : 1;
  const double center[3] = {random.uniform(-1.3, 1.3) * z, random.uniform(-1.1, 1.1) * z, z};
  for (int k = 0; k < 3; ++k) scene.group[kMeans][3 * i + k] = center[k];
  double axis[3];
  for (double& a : axis) a = random.normal();
  for (int v = 0; v < scene.vertices; ++v) {
    double* vertex = scene.group[kVertices].data() + 3 * (i * scene.vertices + v);
    const double along = random.normal();
    for (int k = 0; k < 3; ++k) vertex[k] = size * (flat * random.normal() + (flat < 1 ? along * axis[k] : 0));
  }
  // From a fog to a knife: phi across the hull from 1/30 to 1e4, its logit alike.
  const double focal = 0.5 * (scene.view.fx + scene.view.fy), px = focal * size / z;
  scene.group[kLogDeltas][i] = random.uniform(-3.5, 9) - 2 * std::log(px) - std::log(z);
  scene.group[kLogSigmas][i] = random.uniform(-7, 1) - std::log(z);
  scene.group[kLogits][i] = random.uniform(-5.6, 5);
}

Scene random_scene(uint64_t seed, int splats, int vertices, int width, int height, double f) {
  Scene scene;
  Random random{seed};
  size_groups(scene, splats, vertices, 0);
  set_view(scene, width, height, f, 1.1 * f);
  scene.group[kPose] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0};
  for (int i = 0; i < splats; ++i) random_convex(random, scene, i);
  random.fill(scene.group[kSh0], 0.6), random.fill(scene.group[kFeature], 1);
  return scene;
}

// A render in one number type, with the memory it needs. P: what blends.
template <class S, class P = S> struct Pass {
  std::vector<S> group[kGroups], records, color, final_T, expected, features;
  std::vector<uint32_t> depth_keys, rect_tiles, order, slot_begin, slot_count, tile_begin;
  std::vector<uint32_t> instance_splat, instance_slot;
  splat_rows rows{};
  MovingView view{};
  splat_projected projected{};
  splat_bins bins{};
  splat_images images{};
  int64_t tiles, plane, slots = 0, visible = 0;
  int moved_center = -1;  // 2 row + axis of the footprint that moves as a whole

  // `moving` is the parameter whose derivative the duals carry; -1 = none, kGroups = the centres on the picture.
  Pass(const Scene& scene, int moving_group = -1, int moving_index = 0) {
    for (int g = 0; g < kGroups; ++g) group[g].assign(scene.group[g].begin(), scene.group[g].end());
    static_cast<splat_view&>(view) = scene.view;
    for (int i = 0; i < 12; ++i) view.camera_from_world[i] = scene.group[kPose][i];
    if constexpr (std::is_same_v<S, Dual>) {
      if (moving_group == kPose) view.pose_direction[moving_index] = 1;
      else if (moving_group == kGroups) moved_center = moving_index;
      else if (moving_group >= 0) group[moving_group][moving_index].d = 1;
    }
    rows.count = scene.splats, rows.dtype = std::is_same_v<S, float> ? SPLAT_F32 : SPLAT_F64;
    rows.sh_rest_count = scene.rest, rows.feature_count = kFeatures;
    rows.means = group[kMeans].data(), rows.logit_opacities = group[kLogits].data(), rows.sh0 = group[kSh0].data();
    rows.sh_rest = group[kShRest].data(), rows.features = group[kFeature].data();
    for (int i = 0; i < 3; ++i) rows.shape[i] = group[kVertices + i].data();
    rows.shape_columns[0] = 3 * scene.vertices, rows.shape_columns[1] = rows.shape_columns[2] = 1;
    rows.constants[0] = scene.focal, rows.constants[1] = scene.published;
    plane = int64_t(view.width) * view.height;
    tiles = int64_t((view.width + 15) / 16) * ((view.height + 15) / 16);
    draw();
  }
  Pass(const Pass&) = delete;

  void draw() {
    const size_t n = size_t(rows.count);
    records.resize(n * Convex::kRecord), depth_keys.resize(n), rect_tiles.resize(n);
    projected = {records.data(), depth_keys.data(), rect_tiles.data()};
    const ProjectTask project{&rows, &view, &projected, nullptr, nullptr, nullptr};
    project_convex_chunk<S>(project, 0);
    if constexpr (std::is_same_v<S, Dual>) {
      if (rows.constants[1] != 0) move_as_published();
      if (moved_center >= 0) records[size_t(moved_center / 2 * Convex::kRecord + moved_center % 2)].d = 1;
    }
    const int64_t capacity = rows.count * tiles;
    order.resize(n), slot_begin.resize(n + 1), slot_count.resize(n), tile_begin.resize(size_t(tiles + 1));
    instance_splat.resize(size_t(capacity)), instance_slot.resize(size_t(capacity));
    bins = {order.data(), slot_begin.data(), slot_count.data(), tile_begin.data(), instance_splat.data(),
            instance_slot.data(), capacity};
    FootprintKernels kernels{};
    kernels.walk = walk_chunk<Convex, S>;
    slots = bin(kernels, rows, view, projected, bins, &visible);
    color.resize(size_t(3 * plane)), final_T.resize(size_t(plane)), expected.resize(size_t(plane));
    features.resize(size_t(kFeatures * plane));
    images.background = group[kBackground].data();
    images.color = color.data(), images.final_T = final_T.data(), images.depth_expected = expected.data();
    images.features = features.data();
    const BlendTask blend{&rows, &view, &projected, &bins, &images, nullptr};
    for (int64_t t = 0; t < tiles; ++t) blend_tile<Convex, P>(blend, t);
  }

  // What the published gradients are the derivatives of: hulls that move 2/W and 2/H as far, and a depth that does not
  // change A and z sigma.
  void move_as_published() {
    const View<S> at = make_view<S>(view);
    for (int64_t i = 0; i < rows.count; ++i) {
      if (depth_keys[i] == 0xffffffffu) continue;
      const ConvexRow<S> g = load_convex<S>(rows, i);
      ConvexProjection<S> o = project_convex(g, at, convex_settings<S>(rows));
      const double depth_rate = o.p[2].d / o.p[2].v;
      o.scale.d -= o.scale.v * depth_rate, o.sharpness.d -= o.sharpness.v * depth_rate;
      o.x.d *= 2.0 / view.width, o.y.d *= 2.0 / view.height;
      for (int k = 0; k < g.vertices; ++k)
        o.pixel[2 * k].d *= 2.0 / view.width, o.pixel[2 * k + 1].d *= 2.0 / view.height;
      S* record = records.data() + i * Convex::kRecord;
      const S rgb[3] = {record[kColor], record[kColor + 1], record[kColor + 2]};
      convex_record(g, at, o, record);
      for (int c = 0; c < 3; ++c) record[kColor + c] = rgb[c];
    }
  }
};

template <class S> struct Cotangents {
  std::vector<S> color, alpha, expected, features;
  Cotangents(int64_t plane, uint64_t seed) {
    Random random{seed + 1000};
    auto fill = [&](std::vector<S>& out, int64_t n) {
      for (int64_t i = 0; i < n; ++i) out.push_back(S(random.normal()));
    };
    fill(color, 3 * plane), fill(alpha, plane), fill(expected, plane), fill(features, kFeatures * plane);
  }
};

template <class S, class P> S loss_of(const Pass<S, P>& pass, const Cotangents<double>& w) {
  S sum = S(0);
  auto add = [&](const std::vector<S>& image, const Values& weights) {
    for (size_t i = 0; i < image.size(); ++i) sum = sum + S(weights[i]) * image[i];
  };
  add(pass.color, w.color), add(pass.expected, w.expected), add(pass.features, w.features);
  for (int64_t i = 0; i < pass.plane; ++i) sum = sum + S(w.alpha[i]) * (S(1) - pass.final_T[i]);
  return sum;
}

// Gradients by group and, in the last place, of the projected mean [N,2].
template <class S, class P> std::vector<std::vector<S>> backward(Pass<S, P>& pass, const Cotangents<S>& w) {
  std::vector<std::vector<S>> g(kGroups + 1);
  for (int i = 0; i < kGroups; ++i) g[i].assign(pass.group[i].size(), S(0));
  g[kGroups].assign(size_t(2 * pass.rows.count), S(0));
  const int stats = SPLAT_STAT_ABS_GRAD, stride = Convex::kSums + 3 + 1 + kFeatures + 2;
  std::vector<S> slots(size_t(pass.slots * stride));
  Values scratch(SPLAT_CAMERA_GRAD);
  splat_image_grads cotangents{};
  cotangents.color = w.color.data(), cotangents.alpha = w.alpha.data(), cotangents.features = w.features.data();
  cotangents.depth_expected = w.expected.data(), cotangents.stats = stats;
  cotangents.slot_stride = stride, cotangents.slots = slots.data();
  const BlendTask blend{&pass.rows, &pass.view, &pass.projected, &pass.bins, &pass.images, &cotangents};
  for (int64_t t = 0; t < pass.tiles; ++t) blend_backward_tile<Convex, P>(blend, t);
  splat_row_grads out{};
  out.means = g[kMeans].data(), out.logit_opacities = g[kLogits].data(), out.sh0 = g[kSh0].data();
  out.sh_rest = g[kShRest].data(), out.features = g[kFeature].data(), out.mean2d = g[kGroups].data();
  for (int i = 0; i < 3; ++i) out.shape[i] = g[kVertices + i].data();
  double camera[SPLAT_CAMERA_GRAD];
  out.camera = camera, out.camera_scratch = scratch.data();
  const ProjectTask project{&pass.rows, &pass.view, &pass.projected, &pass.bins, &cotangents, &out};
  project_convex_backward_chunk<S>(project, 0);
  g[kPose].assign(scratch.begin(), scratch.end());  // one chunk: its sums are the sums
  for (int c = 0; c < 3; ++c)
    for (int64_t i = 0; i < pass.plane; ++i)
      g[kBackground][c] = g[kBackground][c] + w.color[size_t(c * pass.plane + i)] * pass.final_T[size_t(i)];
  return g;
}

}  // namespace
}  // namespace splat
