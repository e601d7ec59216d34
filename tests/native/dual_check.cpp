// Derivatives of a random weighted sum of all pictures, three ways: dual numbers through the forward templates, the
// float64 backward templates, and central differences of the float64 forward pass. One parameter per line of output.
//
//   dual_check footprint=0 degree=3 dilation=0.3 compensate=0 filter3d=1 off_center=1 wide=1 opaque=0 frontal=0
//              smaller=0 seed=1   -> JSON
//
// footprint: 0 gaussian, 1 analytic, 2 gef. frontal: a camera that looks along z at splats on its axis, whose ellipses
// are aligned, round, nearly round, needles. smaller: taken off every log scale.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "dual.h"
// dual.h first: templates below find its operations by argument-dependent lookup.
#include "../../cuda/cpu/bin.h"
#include "../../cuda/cpu/blend_backward.h"
#include "../../cuda/cpu/blend_forward.h"
#include "../../cuda/cpu/pool.h"
#include "../../cuda/cpu/project.h"
#include "../../cuda/cpu/walk.h"
#include "../../cuda/math/analytic.h"
#include "../../cuda/math/gaussian.h"
#include "../../cuda/math/gef.h"

namespace splat {
inline namespace SPLAT_ISA {

// A view whose pose moves along a direction.
struct MovingView : splat_view {
  double pose_direction[12];  // rows of [R|t]
};

template <> View<Dual> make_view<Dual>(const splat_view& view) {
  const View<double> at = make_view<double>(view);
  const double* direction = static_cast<const MovingView&>(view).pose_direction;
  View<Dual> o;
  for (int r = 0; r < 3; ++r) {
    for (int i = 0; i < 3; ++i) o.R[3 * r + i] = Dual(at.R[3 * r + i], direction[4 * r + i]);
    o.t[r] = Dual(at.t[r], direction[4 * r + 3]);
  }
  for (int i = 0; i < 3; ++i) o.center[i] = -(o.R[i] * o.t[0] + o.R[3 + i] * o.t[1] + o.R[6 + i] * o.t[2]);
  o.fx = at.fx, o.fy = at.fy, o.cx = at.cx, o.cy = at.cy;
  o.limit_x_neg = at.limit_x_neg, o.limit_x_pos = at.limit_x_pos;
  o.limit_y_neg = at.limit_y_neg, o.limit_y_pos = at.limit_y_pos;
  o.near_z = at.near_z, o.far_z = at.far_z, o.dilation = at.dilation;
  o.width = at.width, o.height = at.height, o.tiles_x = at.tiles_x, o.tiles_y = at.tiles_y;
  o.sh_degree = at.sh_degree, o.compensate = at.compensate;
  return o;
}

}  // namespace SPLAT_ISA

namespace {

constexpr int kSplats = 11, kFeatures = 2, kWidth = 37, kHeight = 21;
constexpr int64_t kPlane = kWidth * kHeight;

// Parameters by group. The pose is one of them; its 12 entries count as independent numbers.
enum Group { kMeans, kQuats, kLogScales, kLogits, kSh0, kShRest, kFeature, kBackground, kPose, kShape, kGroups };
constexpr const char* kNames[kGroups] = {"means", "quats",    "log_scales", "logit_opacities", "sh0",
                                         "sh_rest", "features", "background", "camera", "shapes"};

using Settings = std::map<std::string, double>;
using Values = std::vector<double>;

struct Scene {
  Values group[kGroups], filter3d;
  splat_view view{};
  int rest = 0;  // SH coefficients per channel above the first
  bool has_filter3d = false;
};

struct Weights {
  Values color = Values(3 * kPlane), alpha = Values(kPlane), expected = Values(kPlane), median = Values(kPlane),
         features = Values(kFeatures * kPlane);
};

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  double normal() { return normal_(engine_); }
  void fill(Values& values, double scale, double shift = 0) {
    for (double& value : values) value = scale * normal() + shift;
  }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<double> normal_;
};

void set_view(Scene& scene, Settings& s) {
  const double a = 0.15, b = -0.1;  // about x, then about y
  scene.group[kPose] = {std::cos(b),  std::sin(a) * std::sin(b), std::cos(a) * std::sin(b), 0.1,
                        0,            std::cos(a),               -std::sin(a),              -0.2,
                        -std::sin(b), std::sin(a) * std::cos(b), std::cos(a) * std::cos(b), 0.3};
  splat_view& v = scene.view;
  v.fx = 30, v.fy = 34, v.cx = kWidth / 2.0, v.cy = kHeight / 2.0;
  if (s["frontal"] > 0) scene.group[kPose] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0}, v.fy = v.fx;
  if (s["off_center"] > 0) v.cx = 0.3 * kWidth, v.cy = 0.66 * kHeight;
  v.near_z = 0.2, v.far_z = 1e10, v.dilation = s["dilation"], v.compensate = int32_t(s["compensate"]);
  v.sh_degree = int32_t(s["degree"]), v.width = kWidth, v.height = kHeight;
}

// On the axis of a frontal camera, where the ellipse has exactly the splat's own first two axes.
void place_on_axis(Scene& scene) {
  struct Ellipse { double x, y, angle; };  // log deviations, px at the depth of 4; radians
  const Ellipse ellipses[] = {{1.2, 0.4, 0}, {0.3, 1.1, 0},    {0.9, 0.2, 1.5707963267948966},
                              {0.7, 0.7, 0}, {0.4, 0.4, 0.7},  {0.8, 0.79, 0.4},
                              {1.9, -1.2, 0.6}, {-1.0, -1.3, 1.2}, {-1.2, -1.2, 0}};
  for (int i = 0; i < 9; ++i) {
    const Ellipse& e = ellipses[i];
    const int row = 2 + i;
    const double at[3] = {0, 0, 3.5 + 0.13 * i}, px = std::log(4.0 / 30.0);
    const double log_scale[3] = {e.x + px, e.y + px, 0.3 + px};
    const double quat[4] = {std::cos(e.angle / 2), 0, 0, std::sin(e.angle / 2)};
    for (int k = 0; k < 3; ++k) scene.group[kMeans][3 * row + k] = at[k];
    for (int k = 0; k < 3; ++k) scene.group[kLogScales][3 * row + k] = log_scale[k];
    for (int k = 0; k < 4; ++k) scene.group[kQuats][4 * row + k] = quat[k];
  }
}

template <class F> Scene make_scene(Settings& s) {
  Scene scene;
  Random random{uint64_t(s["seed"])};
  const int degree = int(s["degree"]);
  scene.rest = (degree + 1) * (degree + 1) - 1;
  const int sizes[kGroups] = {3, 4, 3, 1, 3, 3 * scene.rest, kFeatures, 0, 0, F::kShapes};
  for (int g = 0; g < kGroups; ++g) scene.group[g].resize(size_t(kSplats * sizes[g]));
  for (int i = 0; i < kSplats; ++i) {
    const double spread[3] = {1.2, 0.7, 0.6}, center[3] = {0, 0, 4};
    for (int k = 0; k < 3; ++k) scene.group[kMeans][3 * i + k] = spread[k] * random.normal() + center[k];
  }
  random.fill(scene.group[kQuats], 1), random.fill(scene.group[kLogScales], 0.4, s["opaque"] > 0 ? -0.2 : -0.7);
  random.fill(scene.group[kLogits], 1, s["opaque"]);
  random.fill(scene.group[kSh0], 0.6), random.fill(scene.group[kShRest], 0.2), random.fill(scene.group[kFeature], 1);
  scene.group[kSh0][1] = -5;               // the colour is clamped at 0
  scene.group[kMeans][3 * 1 + 2] = -3;     // behind the camera
  if (s["wide"] > 0) {                     // centres off screen, the Jacobian clamped, still wide enough to reach in
    const double far[4][2] = {{4.6, 0.2}, {-4.8, -0.3}, {0.3, 3.6}, {-0.2, -3.8}};
    for (int i = 0; i < 4; ++i)
      for (int k = 0; k < 3; ++k) {
        scene.group[kMeans][3 * (2 + i) + k] = k < 2 ? far[i][k] : 3.5 + 0.1 * i;
        scene.group[kLogScales][3 * (2 + i) + k] = 0.4 + 0.1 * k;
      }
  }
  scene.has_filter3d = s["filter3d"] > 0;
  scene.filter3d.resize(kSplats);
  for (double& f : scene.filter3d) f = 0.1 + 0.05 * std::fabs(random.normal());
  random.fill(scene.group[kShape], 1);
  if (s["frontal"] > 0) place_on_axis(scene);
  for (double& value : scene.group[kLogScales]) value -= s["smaller"];
  scene.group[kBackground] = {0.2, 0.5, 0.9};
  set_view(scene, s);
  return scene;
}

// One render in one number type, with the memory it needs.
template <class F, class P> struct Pass {
  std::vector<P> group[kGroups], filter3d, records, color, final_T, expected, median, features, slot_stats;
  std::vector<uint32_t> depth_keys, rect_tiles, order, slot_begin, slot_count, tile_begin;
  std::vector<uint32_t> instance_splat, instance_slot;
  splat_rows rows{};
  MovingView view{};
  splat_projected projected{};
  splat_bins bins{};
  splat_images images{};
  int64_t tiles = int64_t((kWidth + 15) / 16) * ((kHeight + 15) / 16), slots = 0, visible = 0;

  // `moving` is the parameter whose derivative the duals carry; -1 = none.
  Pass(const Scene& scene, int moving_group, int moving_index) {
    for (int g = 0; g < kGroups; ++g) group[g].assign(scene.group[g].begin(), scene.group[g].end());
    filter3d.assign(scene.filter3d.begin(), scene.filter3d.end());
    static_cast<splat_view&>(view) = scene.view;
    for (int i = 0; i < 12; ++i) view.camera_from_world[i] = scene.group[kPose][i];
    if constexpr (std::is_same_v<P, Dual>) {
      if (moving_group == kPose) view.pose_direction[moving_index] = 1;
      else if (moving_group >= 0) group[moving_group][moving_index].d = 1;
    }
    rows = {kSplats, SPLAT_F64, scene.rest, kFeatures, 0,
            group[kMeans].data(), group[kQuats].data(), group[kLogScales].data(), group[kLogits].data(),
            group[kSh0].data(), group[kShRest].data(), group[kFeature].data(),
            scene.has_filter3d ? filter3d.data() : nullptr, {group[kShape].data()}, {F::kShapes}, {}};
    draw();
  }
  Pass(const Pass&) = delete;

  void draw() {
    records.resize(kSplats * F::kRecord), depth_keys.resize(kSplats), rect_tiles.resize(kSplats);
    projected = {records.data(), depth_keys.data(), rect_tiles.data()};
    const ProjectTask project{&rows, &view, &projected, nullptr, nullptr, nullptr};
    project_chunk<F, P>(project, 0);
    const int64_t capacity = kSplats * tiles;
    order.resize(kSplats), slot_begin.resize(kSplats + 1), slot_count.resize(kSplats), tile_begin.resize(tiles + 1);
    instance_splat.resize(capacity), instance_slot.resize(capacity);
    bins = {order.data(), slot_begin.data(), slot_count.data(), tile_begin.data(), instance_splat.data(),
            instance_slot.data(), capacity};
    FootprintKernels kernels{};
    kernels.walk = walk_chunk<F, P>;
    slots = bin(kernels, rows, view, projected, bins, &visible);
    color.resize(3 * kPlane), final_T.resize(kPlane), expected.resize(kPlane), median.resize(kPlane);
    features.resize(kFeatures * kPlane), slot_stats.resize(slots);
    images.background = group[kBackground].data();
    images.color = color.data(), images.final_T = final_T.data(), images.depth_expected = expected.data();
    images.depth_median = median.data(), images.features = features.data();
    images.stats = SPLAT_STAT_FRAGMENTS, images.slot_stats = slot_stats.data();
    const BlendTask blend{&rows, &view, &projected, &bins, &images, nullptr};
    for (int64_t t = 0; t < tiles; ++t) blend_tile<F, P>(blend, t);
  }

  P loss(const Weights& w) const {
    P sum = P(0);
    auto add = [&](const std::vector<P>& image, const Values& weights) {
      for (size_t i = 0; i < image.size(); ++i) sum = sum + P(weights[i]) * image[i];
    };
    add(color, w.color), add(expected, w.expected), add(median, w.median), add(features, w.features);
    for (int64_t i = 0; i < kPlane; ++i) sum = sum + P(w.alpha[i]) * (P(1) - final_T[i]);
    return sum;
  }
  double fragments() const {
    double sum = 0;
    for (const P& n : slot_stats) sum += value_of(n);
    return sum;
  }
};

struct Gradients {
  Values group[kGroups];
};

template <class F> Gradients backward(const Scene& scene, Pass<F, double>& pass, const Weights& w) {
  Gradients g;
  for (int i = 0; i < kGroups; ++i) g.group[i].assign(scene.group[i].size(), 0);
  const int stride = F::kSums + 3 + 1 + kFeatures;  // depth, features
  Values slots(size_t(pass.slots * stride)), scratch(SPLAT_CAMERA_GRAD);
  splat_image_grads cotangents{};
  cotangents.color = w.color.data(), cotangents.alpha = w.alpha.data(), cotangents.features = w.features.data();
  cotangents.depth_expected = w.expected.data(), cotangents.depth_median = w.median.data();
  cotangents.slot_stride = stride, cotangents.slots = slots.data();
  const BlendTask blend{&pass.rows, &pass.view, &pass.projected, &pass.bins, &pass.images, &cotangents};
  for (int64_t t = 0; t < pass.tiles; ++t) blend_backward_tile<F, double>(blend, t);
  splat_row_grads out{};
  out.means = g.group[kMeans].data(), out.quats = g.group[kQuats].data(), out.log_scales = g.group[kLogScales].data();
  out.logit_opacities = g.group[kLogits].data(), out.sh0 = g.group[kSh0].data();
  out.sh_rest = g.group[kShRest].data(), out.features = g.group[kFeature].data();
  out.shape[0] = g.group[kShape].data();
  out.camera = g.group[kPose].data(), out.camera_scratch = scratch.data();
  const ProjectTask project{&pass.rows, &pass.view, &pass.projected, &pass.bins, &cotangents, &out};
  project_backward_chunk<F, double>(project, 0);
  g.group[kPose] = scratch;  // one chunk: its sums are the sums
  for (int c = 0; c < 3; ++c)
    for (int64_t i = 0; i < kPlane; ++i) g.group[kBackground][c] += w.color[c * kPlane + i] * pass.final_T[i];
  return g;
}

// A fragment came or went, or a median moved to another splat: no derivative says that.
template <class F> bool jumped(const Pass<F, double>& a, const Pass<F, double>& b) {
  bool moved = a.fragments() != b.fragments();
  for (int64_t i = 0; i < kPlane; ++i) moved |= std::fabs(a.median[i] - b.median[i]) > 1e-4;
  return moved;
}

// Central difference; false where the picture jumps between its ends.
template <class F> bool difference(Scene scene, int group, int index, const Weights& w, double* slope) {
  constexpr double kStep = 1e-6;
  double& x = scene.group[group][index];
  const double at = x;
  x = at + kStep;
  const Pass<F, double> above(scene, -1, 0);
  x = at - kStep;
  const Pass<F, double> below(scene, -1, 0);
  *slope = (above.loss(w) - below.loss(w)) / (2 * kStep);
  return !jumped(above, below);
}

// Whether the scene holds what it is meant to: splats with a clamped Jacobian, a clamped colour or a clamped alpha,
// pixels that are (nearly) at the stop and pixels that have a median depth.
template <class F> void print_coverage(const Pass<F, double>& pass) {
  int clamped = 0, opaque = 0, stopped = 0, crossed = 0, dark = 0, round = 0;
  const View<double> view = make_view<double>(pass.view);
  for (int64_t i = 0; i < kSplats; ++i) {
    if (pass.slot_count[i] == 0) continue;
    const bool filtered = pass.rows.filter3d != nullptr;
    const auto o = project_gaussian<double, double>(load_row<F, double>(pass.rows, i), view, filtered);
    clamped += o.tx != o.p[0] * o.inv_z || o.ty != o.p[1] * o.inv_z;
    opaque += o.opacity_eff > kAlphaMax;
    round += o.a == o.c && o.xy == 0;
    dark += pass.records[i * F::kRecord + kColor + 1] == 0;
  }
  for (int64_t i = 0; i < kPlane; ++i) stopped += pass.final_T[i] < 1e-3, crossed += pass.median[i] > 0;
  std::printf("\"drawn\": %d, \"instances\": %d, \"clamped\": %d, \"opaque\": %d, ", int(pass.visible),
              int(pass.tile_begin.back()), clamped, opaque);
  std::printf("\"dark\": %d, \"stopped\": %d, \"crossed\": %d, \"round\": %d,\n", dark, stopped, crossed, round);
}

template <class F> void run(Settings& settings) {
  const Scene scene = make_scene<F>(settings);
  Weights w;
  Random random{uint64_t(settings["seed"]) + 1000};
  for (Values* values : {&w.color, &w.alpha, &w.expected, &w.median, &w.features}) random.fill(*values, 1);
  Pass<F, double> pass(scene, -1, 0);
  const Gradients gradients = backward(scene, pass, w);
  const double loss = pass.loss(w);
  std::printf("{");
  print_coverage(pass);
  std::printf("\"loss\": %.17g, \"rows\": [", loss);
  bool first = true;
  for (int g = 0; g < kGroups; ++g)
    for (int i = 0; i < int(scene.group[g].size()); ++i) {
      const Dual forward = Pass<F, Dual>(scene, g, i).loss(w);
      double slope = 0;
      const bool smooth = difference<F>(scene, g, i, w, &slope);
      std::printf("%s\n[\"%s\", %d, %.17g, %.17g, %.17g, ", first ? "" : ",", kNames[g], i, forward.v, forward.d,
                  gradients.group[g][i]);
      std::printf(smooth ? "%.17g]" : "null]", slope);
      first = false;
    }
  std::printf("]}\n");
}

}  // namespace
}  // namespace splat

int main(int argc, char** argv) {
  splat::Settings settings;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const size_t equals = word.find('=');
    if (equals == std::string::npos) return std::fprintf(stderr, "expected key=value, got %s\n", argv[i]), 2;
    settings[word.substr(0, equals)] = std::atof(word.c_str() + equals + 1);
  }
  splat::set_thread_count(1);
  switch (int(settings["footprint"])) {
    case 0: splat::run<splat::Gaussian>(settings); break;
    case 1: splat::run<splat::Analytic>(settings); break;
    default: splat::run<splat::Gef>(settings);
  }
}
