// Brute force over the footprints of the EWA family, on random covariances: every pixel of a picture against the
// bounds (box, tiles, blocks), in float64 and with bounds made in float32; alpha against a plain formula; float32
// against float64; and finite sums and gradients whatever the covariance.
//
//   footprint_check gef 1500 7   -> JSON
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "../../cuda/math/pack.h"
// pack.h first: templates below find its operations by argument-dependent lookup.
#include "../../cuda/math/analytic.h"
#include "../../cuda/math/gaussian.h"
#include "../../cuda/math/gef.h"

namespace splat {
namespace {

constexpr int kWidth = 150, kHeight = 110, kTilesX = (kWidth + 15) / 16, kBlockW = 8, kBlockH = 4;
constexpr double kCut = 1.0 / 255, kPi = 3.14159265358979323846;

// One splat on the picture.
struct Splat {
  double a, xy, c, det, x, y, opacity, shape;
};

struct Found {
  long visible = 0, drawn = 0, outside_box = 0, outside_tiles = 0, outside_blocks = 0, wrong_cut = 0, infinite = 0;
  long tiles_walked = 0, tiles_hit = 0, tiles_boxed = 0, blocks_kept = 0, blocks_hit = 0, more_than_boxed = 0;
  double formula = 0, float32 = 0;  // largest differences of alpha: relative, absolute
};

template <class R> Projection<R> projection_of(const Splat& s) {
  using S = typename Lanes<R>::Scalar;
  Projection<R> o{};
  o.a = R(S(s.a)), o.xy = R(S(s.xy)), o.c = R(S(s.c)), o.det = R(S(s.det));
  o.x = R(S(s.x)), o.y = R(S(s.y)), o.opacity_eff = R(S(s.opacity));
  return o;
}

template <class F, class R> void record_of(const Splat& s, R* record) {
  using S = typename Lanes<R>::Scalar;
  const Projection<R> o = projection_of<R>(s);
  const R shape = R(S(s.shape));
  for (int i = 0; i < F::kRecord; ++i) record[i] = R(S(0));
  F::template record<R, S>(o, log2_(max_(o.opacity_eff, R(S(1e-30)))), &shape, record);
  record[kOpacity] = o.opacity_eff;
}

// Plain formulas, for what the kernels compute in other words.
double logistic(double x) { return 1 / (1 + std::exp(-1.6 * x - 0.07 * x * x * x)); }
double window(double s, double u) { return s * (logistic((u + 0.5) / s) - logistic((u - 0.5) / s)); }

template <class F> double plain_alpha(const Splat& s, double dx, double dy);
template <> double plain_alpha<Gaussian>(const Splat& s, double dx, double dy) {
  return s.opacity * std::exp(-0.5 * (s.c * dx * dx - 2 * s.xy * dx * dy + s.a * dy * dy) / s.det);
}
template <> double plain_alpha<Gef>(const Splat& s, double dx, double dy) {
  const double q = (s.c * dx * dx - 2 * s.xy * dx * dy + s.a * dy * dy) / s.det;
  return s.opacity * std::exp(-4.5 * std::pow(std::fmax(q / 9, 1e-6), std::pow(4, std::tanh(s.shape))));
}
template <> double plain_alpha<Analytic>(const Splat& s, double dx, double dy) {
  const double mean = (s.a + s.c) / 2, radius = std::hypot((s.a - s.c) / 2, s.xy);
  const bool round = 2 * radius < 2e-4 * mean + 1e-6;
  const double angle = round ? 0 : 0.5 * std::atan2(2 * s.xy, s.a - s.c), c = std::cos(angle), n = std::sin(angle);
  const double first = std::sqrt(round ? s.a : mean + radius);
  const double second = std::sqrt(round ? s.c : s.det / (mean + radius));
  return s.opacity * 2 * kPi * window(first, c * dx + n * dy) * window(second, c * dy - n * dx);
}

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  double uniform(double lo, double hi) { return std::uniform_real_distribution<double>(lo, hi)(engine_); }
  double log_uniform(double lo, double hi) { return std::exp(uniform(std::log(lo), std::log(hi))); }
  bool chance(double p) { return uniform(0, 1) < p; }

 private:
  std::mt19937_64 engine_;
};

// Deviations of 0.05 to 200 px, needles of up to 1:1000, some round and some along the picture's axes; opacities down
// to a little under 1/255. `dilation` is what the footprint's filters leave at least (px^2).
Splat random_splat(Random& random, double dilation) {
  Splat s;
  const double first = random.log_uniform(0.05, 200), aspect = random.chance(0.15) ? 1 : random.log_uniform(1, 1000);
  const double angle = random.chance(0.2) ? 0.5 * kPi * std::floor(random.uniform(0, 2)) : random.uniform(0, kPi);
  const double l1 = first * first, l2 = l1 / (aspect * aspect), c = std::cos(angle), n = std::sin(angle);
  const bool aligned = std::fabs(c * n) < 1e-12;
  s.a = c * c * l1 + n * n * l2 + dilation, s.c = n * n * l1 + c * c * l2 + dilation;
  s.xy = aligned || aspect == 1 ? 0 : c * n * (l1 - l2);
  if (aspect == 1) s.a = s.c = l1 + dilation;
  s.det = l1 * l2 + dilation * (l1 + l2) + dilation * dilation;
  s.opacity = random.chance(0.3) ? random.log_uniform(0.99 / 255, 1.2 / 255) : random.log_uniform(1.0 / 255, 1);
  s.shape = random.chance(0.2) ? random.uniform(-30, 30) : random.uniform(-2, 2);
  return s;
}

// The centre somewhere from which the border of the footprint may cross the picture.
void place(Random& random, double extent_x, double extent_y, Splat* s) {
  s->x = random.uniform(0, kWidth) + 1.1 * std::fmax(extent_x, 0) * random.uniform(-1, 1);
  s->y = random.uniform(0, kHeight) + 1.1 * std::fmax(extent_y, 0) * random.uniform(-1, 1);
  if (random.chance(0.2)) s->x = std::floor(s->x) + 0.5, s->y = std::floor(s->y) + 0.5;  // on a pixel's centre
}

// Which pixels pass, and what their bounds in number type T say of them.
template <class F, class T>
void check_bounds(const Splat& s, const std::vector<double>& alpha, double least, Found& found) {
  T record[F::kRecord];
  record_of<F, T>(s, record);
  const uint32_t boxed = rect_tiles(record[0], record[1], record[kExtentX], record[kExtentY], kWidth, kHeight);
  std::set<uint32_t> walked, hit;
  if (boxed) walk_tiles<F, T>(record, kWidth, kHeight, kTilesX, [&](uint32_t tile) { walked.insert(tile); });
  for (int y = 0; y < kHeight; ++y)
    for (int x = 0; x < kWidth; ++x) {
      if (!(alpha[y * kWidth + x] >= least)) continue;
      const uint32_t tile = uint32_t(y / 16 * kTilesX + x / 16);
      hit.insert(tile);
      const double dx = std::fabs(x + 0.5 - s.x), dy = std::fabs(y + 0.5 - s.y);
      found.outside_box += !boxed || dx > record[kExtentX] || dy > record[kExtentY];
      found.outside_tiles += walked.count(tile) == 0;
    }
  for (int y0 = 0; y0 < kHeight; y0 += kBlockH)
    for (int x0 = 0; x0 < kWidth; x0 += kBlockW) {
      bool passes = false;
      for (int y = y0; y < kHeight && y < y0 + kBlockH; ++y)
        for (int x = x0; x < kWidth && x < x0 + kBlockW; ++x) passes |= alpha[y * kWidth + x] >= least;
      const T left = T(x0 + 0.5), right = T(x0 + kBlockW - 0.5), top = T(y0 + 0.5), bottom = T(y0 + kBlockH - 0.5);
      const bool kept = boxed && F::template may_reach<T>(record, left, right, top, bottom);
      found.outside_blocks += passes && !kept;
      found.blocks_hit += passes, found.blocks_kept += kept;
    }
  found.tiles_walked += long(walked.size()), found.tiles_hit += long(hit.size()), found.tiles_boxed += boxed;
  found.more_than_boxed += walked.size() > boxed, found.drawn += boxed != 0;
}

// Responses and, with h = 1 where a pixel passes, sums over the picture; in packs where R is one.
template <class F, class R>
std::vector<double> render(const Splat& s, std::vector<double>* alpha, long* wrong_cut, double* gradient) {
  using S = typename Lanes<R>::Scalar;
  constexpr int W = Lanes<R>::width;
  S record[F::kRecord];
  record_of<F, S>(s, record);
  std::vector<double> valid_alpha(kWidth * kHeight, 0.0);
  R totals[F::kSums];
  for (R& total : totals) total = R(S(0));
  for (int x0 = 0; x0 < kWidth; x0 += W) {
    const typename F::template Run<R> run(record, Lanes<R>::iota() + R(S(x0 + 0.5)));
    typename F::template Sums<R> sums;
    for (int y = 0; y < kHeight; ++y) {
      const R dy = R(S(y + 0.5) - run.y);
      const auto f = run.at(dy);
      const R h = select(f.valid(), R(S(1)), R(S(0)));
      sums.add(run, f, h, dy);
      S lanes[W], in[W];
      Lanes<R>::store(lanes, f.alpha()), Lanes<R>::store(in, h);
      for (int l = 0; l < W && x0 + l < kWidth; ++l) {
        (*alpha)[y * kWidth + x0 + l] = double(lanes[l]);
        if (in[l] > 0) valid_alpha[y * kWidth + x0 + l] = double(lanes[l]);
        const bool passes = in[l] > 0, surely = lanes[l] >= kCut * (1 + 1e-9), never = lanes[l] < kCut * (1 - 1e-9);
        if (wrong_cut) *wrong_cut += (surely && !passes) || (never && passes);
      }
    }
    sums.add_to(run, totals);
  }
  S scalars[F::kSums];
  for (int i = 0; i < F::kSums; ++i) scalars[i] = reduce_add(totals[i]);
  const FootprintGrad<S> g = F::template gradient<S, S>(record, scalars, projection_of<S>(s));
  const S numbers[7] = {g.x, g.y, g.covariance.xx, g.covariance.xy, g.covariance.yy, g.opacity, g.shape};
  for (int i = 0; i < 7; ++i) gradient[i] = double(numbers[i]);
  return valid_alpha;
}

// Numbers as float32 stores them, so that both number types see one splat; det stays that of the splat.
Splat rounded(Splat s) {
  for (double* v : {&s.a, &s.xy, &s.c, &s.det, &s.x, &s.y, &s.opacity, &s.shape}) *v = double(float(*v));
  return s;
}

template <class F> void check(Random& random, double dilation, Found& found) {
  Splat s = random_splat(random, dilation);
  double record[F::kRecord];
  s.x = s.y = 0;
  record_of<F, double>(s, record);
  place(random, record[kExtentX], record[kExtentY], &s);
  s = rounded(s);
  std::vector<double> alpha(kWidth * kHeight), alpha32(kWidth * kHeight);
  double gradient[7], gradient32[7];
  const auto valid = render<F, double>(s, &alpha, &found.wrong_cut, gradient);
  const auto valid32 = render<F, Pack>(s, &alpha32, nullptr, gradient32);
  for (int i = 0; i < 7; ++i) found.infinite += !std::isfinite(gradient[i]) + !std::isfinite(gradient32[i]);
  check_bounds<F, double>(s, valid, kCut, found);
  Found of_float;
  check_bounds<F, float>(s, valid, kCut * 1.0001, of_float);
  found.outside_box += of_float.outside_box, found.outside_tiles += of_float.outside_tiles;
  found.outside_blocks += of_float.outside_blocks, found.more_than_boxed += of_float.more_than_boxed;
  // A needle's quadratic form cancels in float32: no use in comparing it there.
  const bool stable = s.det > 1e-3 * s.a * s.c;
  for (int i = 0; i < kWidth * kHeight; ++i) {
    if (!(valid[i] > 0)) continue;
    const double plain = plain_alpha<F>(s, i % kWidth + 0.5 - s.x, i / kWidth + 0.5 - s.y);
    if (stable) found.formula = std::fmax(found.formula, std::fabs(plain / valid[i] - 1));
    if (stable && valid32[i] > 0) found.float32 = std::fmax(found.float32, std::fabs(valid32[i] - valid[i]));
    ++found.visible;
  }
}

// Covariances, places and shapes at and beyond the ends of their ranges: nothing may come out NaN or infinite.
template <class F> long count_infinite(const std::vector<Splat>& splats) {
  long infinite = 0;
  std::vector<double> alpha(kWidth * kHeight);
  double gradient[7];
  for (const Splat& s : splats) {
    float record[F::kRecord];
    record_of<F, float>(s, record);
    if (!rect_tiles(record[0], record[1], record[kExtentX], record[kExtentY], kWidth, kHeight)) continue;
    for (double a : render<F, double>(s, &alpha, nullptr, gradient)) infinite += !std::isfinite(a);
    for (double g : gradient) infinite += !std::isfinite(g);
    for (double a : render<F, Pack>(s, &alpha, nullptr, gradient)) infinite += !std::isfinite(a);
    for (double g : gradient) infinite += !std::isfinite(g);
  }
  return infinite;
}

// Every mix of those, the shapes taking turns.
std::vector<Splat> extreme_splats(double dilation) {
  constexpr double kShapes[] = {0, 1e30, -20, 3, -3, 20, -1e30};
  std::vector<Splat> splats;
  for (double first : {1e-12, 1e-4, 0.02, 0.3, 1.0, 40.0, 1e5, 1e12})
    for (double ratio : {1.0, 1 + 1e-7, 1 + 3e-4, 9.0, 1e6, 1e12})
      for (double angle : {0.0, 0.5 * kPi, 0.25 * kPi, 1e-9, 1.0})
        for (double opacity : {kCut, 0.3, 1.0})
          for (double x : {70.5, 70.5 + 1e-6, 3.2}) {
            const double second = first / ratio, c = std::cos(angle), n = std::sin(angle);
            const double xy = angle == 0 ? 0 : c * n * (first - second);
            const double det = first * second + dilation * (first + second) + dilation * dilation;
            splats.push_back({c * c * first + n * n * second + dilation, xy, n * n * first + c * c * second + dilation,
                              det, x, 50.5, opacity, kShapes[splats.size() % 7]});
          }
  return splats;
}

template <class F> int run(double dilation, int count, uint64_t seed) {
  Found found;
  Random random(seed);
  for (int i = 0; i < count; ++i) check<F>(random, dilation, found);
  const std::vector<Splat> extremes = extreme_splats(dilation);
  found.infinite += count_infinite<F>(extremes);
  const std::pair<const char*, long> counts[] = {
      {"visible", found.visible}, {"drawn", found.drawn}, {"outside_box", found.outside_box},
      {"outside_tiles", found.outside_tiles}, {"outside_blocks", found.outside_blocks},
      {"wrong_cut", found.wrong_cut}, {"infinite", found.infinite}, {"more_than_boxed", found.more_than_boxed},
      {"tiles_walked", found.tiles_walked}, {"tiles_hit", found.tiles_hit}, {"tiles_boxed", found.tiles_boxed},
      {"blocks_kept", found.blocks_kept}, {"blocks_hit", found.blocks_hit}, {"extremes", long(extremes.size())}};
  std::printf("{");
  for (const auto& [word, count] : counts) std::printf("\"%s\": %ld, ", word, count);
  std::printf("\"formula\": %.3g, \"float32\": %.3g}\n", found.formula, found.float32);
  return 0;
}

}  // namespace
}  // namespace splat

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "";
  const int count = argc > 2 ? std::atoi(argv[2]) : 200;
  const uint64_t seed = argc > 3 ? uint64_t(std::atoll(argv[3])) : 1;
  if (name == "gaussian") return splat::run<splat::Gaussian>(0.1, count, seed);
  if (name == "gef") return splat::run<splat::Gef>(0.1, count, seed);
  if (name == "analytic") return splat::run<splat::Analytic>(0.0, count, seed);
  return std::fprintf(stderr, "footprint_check gaussian|gef|analytic [count] [seed], got '%s'\n", name.c_str()), 2;
}
