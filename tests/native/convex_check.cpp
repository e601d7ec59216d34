// The smooth convex footprint by itself: derivatives by dual numbers against the backward templates, independence of
// the resolution, bounds by brute force, and rows that nobody should make.
//
//   convex_check what=0 vertices=6 degree=1 published=0 focal=60 seed=1   derivatives, a parameter per row -> JSON
//   convex_check what=1 seed=1    the same convexes at several resolutions
//   convex_check what=2 seed=1    bounds: box, tiles, may_reach
//   convex_check what=3 seed=1    broken rows in float32, packs included
//   convex_check what=4           edges of hulls that have a name, 0 = not drawn
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "convex_scene.h"

namespace splat {
namespace {

using Settings = std::map<std::string, double>;

// The inside of a JSON object, followed by `end`.
void print(std::initializer_list<std::pair<const char*, double>> values, const char* end) {
  bool first = true;
  for (const auto& [name, value] : values) {
    std::printf("%s\"%s\": %.17g", first ? "" : ", ", name, value);
    first = false;
  }
  std::printf("%s", end);
}

Scene make_scene(Settings& s) {
  Scene scene;
  Random random{uint64_t(s["seed"])};
  size_groups(scene, 10, int(s["vertices"]), int(s["degree"]));
  set_view(scene, 37, 21, 30, 34);
  scene.focal = s["focal"], scene.published = s["published"];
  for (int i = 0; i < scene.splats; ++i) {
    const double spread[3] = {1.2, 0.7, 0.6}, center[3] = {0, 0, 4};
    for (int k = 0; k < 3; ++k) scene.group[kMeans][3 * i + k] = spread[k] * random.normal() + center[k];
  }
  random.fill(scene.group[kVertices], 0.7);
  // phi of a few units, its logit of about one.
  random.fill(scene.group[kLogDeltas], 0.5, scene.focal > 0 ? -4.5 : -3.2);
  random.fill(scene.group[kLogSigmas], 0.5, -2.5);
  random.fill(scene.group[kLogits], 1, s["opaque"]);
  random.fill(scene.group[kSh0], 0.6), random.fill(scene.group[kShRest], 0.2), random.fill(scene.group[kFeature], 1);
  for (int k = 0; k < 3; ++k) scene.group[kSh0][k] = -5;   // the colour is clamped at 0
  scene.group[kMeans][3 * 1 + 2] = -3;                     // behind the camera
  scene.group[kVertices][3 * scene.vertices * 2 + 2] -= 6;  // one vertex behind the camera
  scene.group[kLogSigmas][3] = 3;                          // sharp as a knife
  return scene;
}

// The gradient of ln alpha at single pixels with respect to the centre against dual numbers: worst difference.
double pixel_gradient_error(const Pass<double>& pass) {
  double worst = 0;
  for (int64_t i = 0; i < pass.rows.count; ++i) {
    if (pass.slot_count[i] == 0) continue;
    const double* record = pass.records.data() + i * Convex::kRecord;
    std::vector<Dual> moving(record, record + Convex::kRecord);
    for (int p = 0; p < 2 * pass.plane; ++p) {
      const int axis = p % 2;
      const double x = p / 2 % pass.view.width + 0.5, y = p / 2 / pass.view.width + 0.5;
      moving[size_t(axis)].d = 1, moving[size_t(1 - axis)].d = 0;
      const Convex::Run<Dual> moving_run(moving.data(), Dual(x));
      const auto exact = moving_run.at(Dual(y) - moving_run.y);
      if (!exact.valid()) continue;
      const Convex::Run<double> run(record, x);
      double g[2];
      Convex::Sums<double>::pixel_gradient(record, run, run.at(y - run.y), 1, y - run.y, g, g + 1);
      worst = max_(worst, std::fabs(g[axis] - exact.alpha().d / exact.alpha().v) / (1 + std::fabs(g[axis])));
    }
  }
  return worst;
}

void derivatives(Settings& settings) {
  const Scene scene = make_scene(settings);
  Pass<double> pass(scene);
  const Cotangents<double> w(pass.plane, uint64_t(settings["seed"]));
  const auto gradients = backward(pass, w);
  double skirted = 0, opaque = 0, most = 0;
  for (int i = 0; i < scene.splats; ++i) {
    if (pass.slot_count[i] == 0) continue;
    const double* r = pass.records.data() + i * Convex::kRecord;
    skirted += r[kReachCut] < r[kPhiCut], opaque += r[kOpacity] > kAlphaMax;
    most = max_(most, r[kEdgeCount]);
  }
  std::printf("{");
  print({{"drawn", double(pass.visible)}, {"most_edges", most}, {"skirted", skirted}, {"opaque", opaque},
         {"pixel_gradient_error", pixel_gradient_error(pass)}, {"loss", loss_of(pass, w)}}, ", \"rows\": [");
  bool first = true;
  for (int g = 0; g <= kGroups; ++g)
    for (int i = 0; i < int(gradients[g].size()); ++i) {
      const Dual forward = loss_of(Pass<Dual>(scene, g, i), w);
      std::printf("%s\n[\"%s\", %d, %.17g, %.17g, %.17g]", first ? "" : ",", kNames[g], i, forward.v, forward.d,
                  gradients[g][i]);
      first = false;
    }
  std::printf("]}\n");
}

Convex::Response<double> response_at(const double* record, double x, double y) {
  return Convex::Run<double>(record, x).at(y - record[1]);
}

// Coverage at the same places of the world, rendered k times as large.
void resolutions(Settings& settings) {
  const int vertices = 6, splats = 60;
  Scene scene = random_scene(uint64_t(settings["seed"]), splats, vertices, 160, 120, 100);
  scene.group[kPose][3] = 0;
  std::printf("{");
  for (const double focal : {90.0, 0.0}) {
    scene.focal = focal;
    const Pass<double> base(scene);
    double worst = 0;
    int seen = 0;
    for (const double k : {0.5, 2.0, 4.0}) {
      Scene scaled = scene;
      scaled.view.fx *= k, scaled.view.fy *= k, scaled.view.cx *= k, scaled.view.cy *= k;
      scaled.view.width = int(160 * k), scaled.view.height = int(120 * k);
      const Pass<double> other(scaled);
      for (int i = 0; i < splats; ++i) {
        if (base.depth_keys[i] == 0xffffffffu) continue;
        for (int p = 0; p < 40 * 30; ++p) {
          const double x = p % 40 * 4 + 1.7, y = p / 40 * 4 + 2.1;
          const auto a = response_at(base.records.data() + i * Convex::kRecord, x, y);
          const auto b = response_at(other.records.data() + i * Convex::kRecord, k * x, k * y);
          const double c = b.valid() ? b.coverage : 0;
          if (a.valid()) worst = max_(worst, std::fabs(a.coverage - c)), ++seen;
        }
      }
    }
    std::printf("\"%s\": {\"worst\": %.17g, \"seen\": %d}, ", focal > 0 ? "reference" : "published", worst, seen);
  }
  // The publication's trend: a place with C = 0.673 where one edge decides.
  size_groups(scene, 1, vertices, 0);
  scene.focal = 0;
  Random random{7};
  random.fill(scene.group[kVertices], 0.4);
  scene.group[kMeans] = {0, 0, 4}, scene.group[kLogits] = {2};
  scene.group[kLogDeltas] = {2}, scene.group[kLogSigmas] = {-5};
  const double phi = response_at(Pass<double>(scene).records.data(), scene.view.cx, scene.view.cy).phi * kLn2;
  scene.group[kLogSigmas][0] = std::log(std::log(0.673 / 0.327) / -phi / 4);
  std::printf("\"trend\": [");
  for (const double k : {1.0, 2.0, 4.0}) {
    Scene scaled = scene;
    scaled.view.fx *= k, scaled.view.fy *= k;
    const Pass<double> pass(scaled);
    const double coverage = response_at(pass.records.data(), scene.view.cx, scene.view.cy).coverage;
    std::printf("%s%.17g", k > 1 ? ", " : "", coverage);
  }
  std::printf("]}\n");
}

// Half sizes of the box of {n . p <= c}, by the corners: crossings of two lines inside all the others.
void corners_box(const double* record, double* half_x, double* half_y) {
  double n_x[8], n_y[8], c[8];
  const int edges = Convex::sides(record, n_x, n_y, c);
  *half_x = *half_y = 0;
  for (int i = 0; i < edges; ++i)
    for (int j = 0; j < edges; ++j) {
      const double det = n_x[i] * n_y[j] - n_y[i] * n_x[j];
      if (det == 0) continue;
      const double x = (c[i] * n_y[j] - n_y[i] * c[j]) / det, y = (n_x[i] * c[j] - c[i] * n_x[j]) / det;
      bool inside = true;
      for (int m = 0; m < edges; ++m)
        inside &= m == i || m == j ||
                  n_x[m] * x + n_y[m] * y <= c[m] + 1e-9 * (std::fabs(n_x[m] * x) + std::fabs(c[m]));
      if (inside) *half_x = max_(*half_x, std::fabs(x)), *half_y = max_(*half_y, std::fabs(y));
    }
}

// How much of its half box a footprint fills, on a grid of 400 x 400 places; only of edges sharp enough for corners.
double attained(const double* record) {
  double reach_x = 0, reach_y = 0;
  for (int i = 0; i <= 400; ++i)
    for (int j = 0; j <= 400; ++j) {
      const double dx = (i - 200) / 200.0 * record[kExtentX], dy = (j - 200) / 200.0 * record[kExtentY];
      if (!Convex::Run<double>(record, record[0] + dx).at(dy).valid()) continue;
      reach_x = max_(reach_x, std::fabs(dx)), reach_y = max_(reach_y, std::fabs(dy));
    }
  return min_(reach_x / record[kExtentX], reach_y / record[kExtentY]);
}

// A convex whose footprint ends at 1/255, where one edge alone decides.
double tightness() {
  Scene scene = random_scene(5, 1, 6, 150, 110, 100);
  Random random{11};
  random.fill(scene.group[kVertices], 0.6);
  scene.group[kMeans] = {0, 0, 4}, scene.group[kLogits] = {2};
  scene.group[kLogDeltas] = {1}, scene.group[kLogSigmas] = {-7.5};
  const Pass<double> pass(scene);
  return pass.records[kReachCut] == pass.records[kPhiCut] ? attained(pass.records.data()) : 0;
}

constexpr int kWidth = 150, kHeight = 110, kTilesX = (kWidth + 15) / 16;

struct Found {
  double convexes = 0, drawn = 0, pixels = 0, outside_box = 0, outside_tiles = 0, unreached = 0, wrong_cut = 0;
  double more_than_rectangle = 0, skirted = 0, loosest = 0, tiles = 0, rect_tiles = 0, pointless = 0;
};

// Every pixel of the picture against the bounds of one record; the tiles that hold one.
template <class S> std::set<uint32_t> look_at_pixels(const S* record, const std::set<uint32_t>& met, Found& found) {
  std::set<uint32_t> used;
  for (int y = 0; y < kHeight; ++y)
    for (int x = 0; x < kWidth; ++x) {
      const S px = S(x + 0.5), py = S(y + 0.5);
      const Convex::Run<S> run(record, px);
      const auto response = run.at(py - run.y);
      if (!response.valid()) continue;
      const uint32_t tile = uint32_t(y / 16 * kTilesX + x / 16);
      used.insert(tile);
      found.pixels += 1, found.outside_tiles += met.count(tile) == 0;
      found.outside_box += abs_(px - record[0]) > record[kExtentX] || abs_(py - record[1]) > record[kExtentY];
      const S left = S(x / 8 * 8 + 0.5), top = S(y / 4 * 4 + 0.5);
      found.unreached += !Convex::may_reach(record, left, left + 7, top, top + 3);
      found.unreached += !Convex::may_reach(record, px, px, py, py);
      found.wrong_cut += response.alpha() < S((1 - 1e-5) / 255);
    }
  return used;
}

// Half width of the footprint of a rectangle so soft that only the skirt ends it, in widths.
double skirt() {
  Scene scene = random_scene(5, 1, 4, 150, 110, 100);
  scene.group[kVertices] = {0, 0, 0, 0.2, 0, 0, 0.2, 0.1, 0, 0, 0.1, 0};
  scene.group[kMeans] = {0, 0, 4}, scene.group[kLogits] = {2};
  scene.group[kLogDeltas] = {-9}, scene.group[kLogSigmas] = {-9};
  return Pass<double>(scene).records[kExtentX] / (0.2 / 4 * 100);
}

template <class S> void bounds(Settings& settings) {
  constexpr int kSplats = 300;
  Found found;
  for (int vertices = 3; vertices <= 8; ++vertices) {
    const uint64_t seed = uint64_t(settings["seed"]) + uint64_t(vertices);
    Scene scene = random_scene(seed, kSplats, vertices, kWidth, kHeight, 100);
    scene.focal = 60;
    const Pass<S> pass(scene);
    const Pass<double> exact(scene);
    for (int i = 0; i < kSplats; ++i) {
      const S* record = pass.records.data() + i * Convex::kRecord;
      if (record[kEdgeCount] == 0) continue;  // not drawn, whatever the picture
      std::set<uint32_t> met;
      const uint32_t n = walk_tiles<Convex, S>(record, kWidth, kHeight, kTilesX, [&](uint32_t t) { met.insert(t); });
      const std::set<uint32_t> used = look_at_pixels(record, met, found);
      found.convexes += 1, found.drawn += n > 0, found.skirted += record[kReachCut] < record[kPhiCut];
      found.tiles += n, found.rect_tiles += pass.rect_tiles[i], found.more_than_rectangle += n > pass.rect_tiles[i];
      found.pointless += double(met.size() - used.size());
      double half_x, half_y;
      corners_box(exact.records.data() + i * Convex::kRecord, &half_x, &half_y);
      if (half_x < 0.5 || half_y < 0.5) continue;
      found.loosest = max_(found.loosest, max_(record[kExtentX] / half_x, record[kExtentY] / half_y));
    }
  }
  std::printf("{");
  print({{"convexes", found.convexes}, {"drawn", found.drawn}, {"pixels", found.pixels}, {"skirted", found.skirted},
         {"outside_box", found.outside_box}, {"outside_tiles", found.outside_tiles}, {"unreached", found.unreached},
         {"wrong_cut", found.wrong_cut}, {"more_than_rectangle", found.more_than_rectangle},
         {"loosest", found.loosest}, {"attained", tightness()}, {"skirt", skirt()}, {"tiles", found.tiles},
         {"rect_tiles", found.rect_tiles}, {"pointless", found.pointless}}, "}\n");
}

// What training, editing or a broken file may bring about.
void break_row(Random& random, Scene& scene, int i) {
  const int count = scene.vertices;
  double* vertices = scene.group[kVertices].data() + 3 * i * count;
  double* mean = scene.group[kMeans].data() + 3 * i;
  auto pick = [&] { return vertices + 3 * random.below(count); };
  auto place = [&](int v, double x, double y, double z) {
    vertices[3 * v] = x, vertices[3 * v + 1] = y, vertices[3 * v + 2] = z;
  };
  auto smoothness = [&](double reach) {
    scene.group[kLogDeltas][i] = random.uniform(-reach, reach);
    scene.group[kLogSigmas][i] = random.uniform(-reach, reach);
  };
  const double bad[] = {NAN, INFINITY, -INFINITY, 1e30, -1e30, 1e10, 0};
  const int kind = random.below(14);
  for (int v = 0; v < count; ++v) {
    const double* other = pick();
    if (kind == 0 && v % 2) place(v, other[0], other[1], other[2]);
    if (kind == 1) place(v, 0.3, 0.3, 0.3);
    if (kind == 2) place(v, v, 2 * v, 0.1 * v);
    if (kind == 3) place(v, v % 2, v / 4, 0);
    if (kind == 4) place(v, vertices[3 * v], 1e-6 * vertices[3 * v + 1], 1e-6 * vertices[3 * v + 2]);
    for (int k = 0; k < 3; ++k)
      if (kind == 5) vertices[3 * v + k] *= std::exp(random.uniform(-40, 40));
  }
  if (kind == 6) pick()[2] -= 1e3 * random.uniform(0, 1);
  if (kind == 7) smoothness(30);
  if (kind == 8) smoothness(1e3);
  for (int k = 0; k < 3; ++k)
    if (kind == 9) mean[k] *= std::exp(random.uniform(-10, 30));
  if (kind == 10) mean[2] = scene.view.near_z * (1 + 1e-6 * random.normal());
  if (kind == 11) pick()[random.below(3)] = bad[random.below(7)];
  if (kind == 12) mean[random.below(3)] = bad[random.below(7)];
  if (kind == 13) scene.group[kLogDeltas + random.below(3)][i] = bad[random.below(7)];
}

template <class P> void broken(Settings& settings) {
  using S = typename Lanes<P>::Scalar;
  double drawn = 0, hidden = 0, bad_records = 0, bad_pixels = 0, bad_gradients = 0;
  for (int round = 0; round < 24; ++round) {
    Random random{uint64_t(settings["seed"] * 1000) + uint64_t(round)};
    Scene scene = random_scene(uint64_t(settings["seed"] * 100) + uint64_t(round), 200, 3 + round % 6, 80, 60, 70);
    scene.focal = round % 2 ? 100 : 0, scene.published = round % 3 == 0;
    for (int i = 0; i < scene.splats; ++i) {
      if (i % 10) break_row(random, scene, i);
      if (i % 17 == 0) break_row(random, scene, i);
    }
    Pass<S, P> pass(scene);
    const Cotangents<S> w(pass.plane, 3);
    const auto gradients = backward(pass, w);
    for (int i = 0; i < scene.splats; ++i) {
      const bool here = pass.depth_keys[i] != 0xffffffffu;
      drawn += here, hidden += !here;
      if (!here) continue;
      for (int k = 0; k < Convex::kRecord; ++k) bad_records += !std::isfinite(pass.records[i * Convex::kRecord + k]);
    }
    for (const auto* image : {&pass.color, &pass.final_T, &pass.expected, &pass.features})
      for (const S value : *image) bad_pixels += !std::isfinite(value);
    for (const auto& group : gradients)
      for (const S value : group) bad_gradients += !std::isfinite(value);
  }
  std::printf("{");
  print({{"drawn", drawn}, {"hidden", hidden}, {"bad_records", bad_records}, {"bad_pixels", bad_pixels},
         {"bad_gradients", bad_gradients}}, "}\n");
}

// Edges of the hull of points in the plane z = 4, `scale` times as large, the first of them off that plane.
template <class S>
double edges_of(std::initializer_list<double> xy, double scale = 1, double first_z = 0, double logit = 2) {
  const int vertices = int(xy.size() / 2);
  Scene scene = random_scene(1, 1, vertices, 150, 110, 100);
  for (int i = 0; i < 2 * vertices; ++i) scene.group[kVertices][i / 2 * 3 + i % 2] = scale * xy.begin()[i];
  for (int v = 0; v < vertices; ++v) scene.group[kVertices][3 * v + 2] = v == 0 ? first_z : 0;
  scene.group[kMeans] = {0, 0, 4}, scene.group[kLogits] = {logit};
  scene.group[kLogDeltas] = {-3}, scene.group[kLogSigmas] = {-3};
  const Pass<S> pass(scene);
  return pass.depth_keys[0] == 0xffffffffu ? 0 : value_of(pass.records[kEdgeCount]);
}

template <class S> void named_hulls() {
  // The offsets are centred, so that one of three at -5.7 comes to lie at 4 - 3.8, the near plane.
  const auto triangle = {0., 0., 1., 0., 0., 1.};
  std::printf("{");
  print({{"triangle", edges_of<S>(triangle)},
         {"square with its centre", edges_of<S>({0, 0, .5, .5, 1, 1, 1, 0, 0, 1})},
         {"square, every corner twice", edges_of<S>({0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 1, 0, 0, 1, 0, 1})},
         {"square with midpoints", edges_of<S>({0, 0, .5, 0, 1, 0, 1, .5, 1, 1, .5, 1, 0, 1, 0, .5})},
         {"octagon", edges_of<S>({1, 0, 2, 0, 3, 1, 3, 2, 2, 3, 1, 3, 0, 2, 0, 1})},
         {"tilted square", edges_of<S>({0, 0, .1, .3, .2, .6, .3, .9, -.6, 1.2, -.9, .3, -.3, .1, -.6, .2})},
         {"line", edges_of<S>({0, 0, .1, .3, .2, .6, .3, .9})},
         {"vertical line", edges_of<S>({0, 0, 0, 1, 0, 2, 0, .5})},
         {"point", edges_of<S>({1, 1, 1, 1, 1, 1})},
         {"needle", edges_of<S>({0, 0, 1, 1, .500001, .5})},
         {"speck", edges_of<S>(triangle, 1e-9)},
         {"vertex before the near plane", edges_of<S>(triangle, 1, -5.69)},
         {"vertex behind the near plane", edges_of<S>(triangle, 1, -5.71)},
         {"vertex within reach", edges_of<S>(triangle, 490)},
         {"vertex out of reach", edges_of<S>(triangle, 505)},
         {"opacity above 1/255", edges_of<S>(triangle, 1, 0, -5.4)},
         {"opacity below 1/255", edges_of<S>(triangle, 1, 0, -5.6)}}, "}\n");
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
  const int what = int(settings["what"]);
  if (what == 0) splat::derivatives(settings);
  if (what == 1) splat::resolutions(settings);
  if (what == 2) settings["double"] > 0 ? splat::bounds<double>(settings) : splat::bounds<float>(settings);
  if (what == 4) settings["double"] > 0 ? splat::named_hulls<double>() : splat::named_hulls<float>();
  if (what == 3) settings["packs"] > 0 ? splat::broken<splat::Pack>(settings) : splat::broken<float>(settings);
}
