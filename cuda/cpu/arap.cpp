// Shapes that bend rather than stretch: every node's rotation from where its neighbours are, then all places from the
// rotations, again and again (Sorkine and Alexa 2007, "As-rigid-as-possible surface modeling"). Each step lowers
// sum_ij w_ij |(x_j - x_i) - R_i (g_j - g_i)|^2. Places are solved for as a change of what they are, so that nothing moves
// where nothing pulls.
#include <cmath>
#include <utility>
#include <vector>

#include "../include/splat.h"
#include "factor.h"
#include "pool.h"

namespace splat {
namespace {

constexpr int64_t kNodes = 64;   // per task
constexpr int kSweeps = 12;      // of Jacobi rotations; 4 to 6 are needed
constexpr double kOrthogonal = 1e-13;  // cosine that counts as a right angle
// How much a node's last rotation weighs against its neighbours' places: settles what those leave open (a node at the end
// of a line may turn about it), and does not change where the iteration ends.
constexpr double kInertia = 1e-3;

double dot(const double* a, const double* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

void cross(const double* a, const double* b, double* out) {
  out[0] = a[1] * b[2] - a[2] * b[1], out[1] = a[2] * b[0] - a[0] * b[2], out[2] = a[0] * b[1] - a[1] * b[0];
}

// Turns columns i and j of b until they are orthogonal; v gets the same turn. False when they were.
bool turn_pair(double (*b)[3], double (*v)[3], int i, int j) {
  const double p = dot(b[i], b[i]), q = dot(b[j], b[j]), g = dot(b[i], b[j]);
  if (!(std::fabs(g) > kOrthogonal * std::sqrt(p * q))) return false;
  const double zeta = (q - p) / (2 * g);
  const double t = (zeta < 0 ? -1.0 : 1.0) / (std::fabs(zeta) + std::sqrt(1 + zeta * zeta));
  const double c = 1 / std::sqrt(1 + t * t), s = c * t;
  for (double(*m)[3] : {b, v})
    for (int r = 0; r < 3; ++r) {
      const double x = m[i][r], y = m[j][r];
      m[i][r] = c * x - s * y, m[j][r] = s * x + c * y;
    }
  return true;
}

// The rotation nearest to a 3x3 matrix: R with the greatest trace of R^T M. One-sided Jacobi: the columns of M V are
// U S; the third of U is the cross product of the others, which mirrors the least one where M is inside out.
void nearest_rotation(const double* m, double* out) {
  double b[3][3], v[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
  for (int c = 0; c < 3; ++c)
    for (int r = 0; r < 3; ++r) b[c][r] = m[3 * r + c];
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    const bool first = turn_pair(b, v, 0, 1), second = turn_pair(b, v, 0, 2), third = turn_pair(b, v, 1, 2);
    if (!first && !second && !third) break;
  }
  int order[3] = {0, 1, 2};
  double size[3] = {dot(b[0], b[0]), dot(b[1], b[1]), dot(b[2], b[2])};
  for (const auto& pair : {std::pair<int, int>{0, 1}, {1, 2}, {0, 1}})
    if (size[order[pair.first]] < size[order[pair.second]]) std::swap(order[pair.first], order[pair.second]);
  double u[3][3], w[3];
  const double first = std::sqrt(size[order[0]]), second = std::sqrt(size[order[1]]);
  if (!(second > 1e-12 * first)) {  // a line or less: inertia keeps it from coming to this
    for (int e = 0; e < 9; ++e) out[e] = double(e % 4 == 0);
    return;
  }
  for (int r = 0; r < 3; ++r) u[0][r] = b[order[0]][r] / first, u[1][r] = b[order[1]][r] / second;
  cross(u[0], u[1], u[2]);
  cross(v[order[0]], v[order[1]], w);
  for (int r = 0; r < 3; ++r)
    for (int c = 0; c < 3; ++c)
      out[3 * r + c] = u[0][r] * v[order[0]][c] + u[1][r] * v[order[1]][c] + u[2][r] * w[c];
}

class Shape {
 public:
  Shape(const splat_arap& t, double* places, double* rotations)
      : t_(t), places_(places), rotations_(rotations), last_(9 * size_t(t.nodes)), change_(3 * size_t(t.nodes)),
        scratch_(3 * size_t(t.nodes)), size_(measure()) {}

  void turn_nodes() {
    last_.assign(rotations_, rotations_ + 9 * size_t(t_.nodes));
    each_node([&](int32_t i) {
      if (!t_.held[i]) turn_node(i);
    });
  }

  void move_nodes(const splat_factor& factor) {
    each_node([&](int32_t i) { residual(i, change_.data() + 3 * size_t(i)); });
    solve(t_, factor, change_.data(), scratch_.data());
    for (int32_t i = 0; i < t_.nodes; ++i)
      for (int a = 0; a < 3 && !t_.held[i]; ++a) places_[3 * size_t(i) + a] += change_[3 * size_t(i) + a];
  }

 private:
  // Mean of the squared lengths of edges: brings weights of rotations to the scale of those of places.
  double measure() const {
    double sum = 0;
    for (int32_t i = 0; i < t_.nodes; ++i)
      for (int32_t e = t_.begin[i]; e < t_.begin[i + 1]; ++e) {
        double d[3];
        edge(t_.rest, i, t_.neighbours[e], d);
        sum += dot(d, d);
      }
    const int32_t edges = t_.begin[t_.nodes];
    return edges ? sum / edges : 1.0;
  }

  template <class F> void each_node(const F& f) const {
    parallel_for((t_.nodes + kNodes - 1) / kNodes, [&](int64_t task) {
      for (int64_t i = task * kNodes; i < t_.nodes && i < (task + 1) * kNodes; ++i) f(int32_t(i));
    });
  }

  static void edge(const double* table, int32_t from, int32_t to, double* out) {
    for (int a = 0; a < 3; ++a) out[a] = table[3 * size_t(to) + a] - table[3 * size_t(from) + a];
  }

  void turn_node(int32_t i) {
    const double* before = last_.data() + 9 * size_t(i);
    double m[9], total = 0;
    for (double& entry : m) entry = 0;
    for (int32_t e = t_.begin[i]; e < t_.begin[i + 1]; ++e) {
      const int32_t j = t_.neighbours[e];
      const double w = t_.weights[e], alike = w * t_.smooth * size_, *other = last_.data() + 9 * size_t(j);
      double rest[3], now[3];
      edge(t_.rest, i, j, rest), edge(places_, i, j, now);
      for (int r = 0; r < 3; ++r)
        for (int c = 0; c < 3; ++c) m[3 * r + c] += w * now[r] * rest[c] + alike * other[3 * r + c];
      total += w * dot(rest, rest);
    }
    if (t_.pulls[i] > 0) {
      const double *arm = t_.arms + 3 * size_t(i), *target = t_.targets + 3 * size_t(i), *x = places_ + 3 * size_t(i);
      for (int r = 0; r < 3; ++r)
        for (int c = 0; c < 3; ++c) m[3 * r + c] += t_.pulls[i] * (target[r] - x[r]) * arm[c];
    }
    for (int c = 0; c < 9; ++c) m[c] += (kInertia * total + 1e-300) * before[c];
    nearest_rotation(m, rotations_ + 9 * size_t(i));
  }

  // Right side of node i less the matrix times where it is.
  void residual(int32_t i, double* out) const {
    out[0] = out[1] = out[2] = 0;
    if (t_.held[i]) return;
    const double* mine = rotations_ + 9 * size_t(i);
    for (int32_t e = t_.begin[i]; e < t_.begin[i + 1]; ++e) {
      const int32_t j = t_.neighbours[e];
      const double w = t_.weights[e], *other = rotations_ + 9 * size_t(j);
      double rest[3], now[3];
      edge(t_.rest, i, j, rest), edge(places_, i, j, now);
      for (int r = 0; r < 3; ++r) {
        double turned = 0;
        for (int c = 0; c < 3; ++c) turned += (mine[3 * r + c] + other[3 * r + c]) / 2 * rest[c];
        out[r] += w * (now[r] - turned);
      }
    }
    if (!(t_.pulls[i] > 0)) return;
    const double *arm = t_.arms + 3 * size_t(i), *target = t_.targets + 3 * size_t(i), *x = places_ + 3 * size_t(i);
    for (int r = 0; r < 3; ++r) out[r] += t_.pulls[i] * (target[r] - x[r] - dot(mine + 3 * r, arm));
  }

  const splat_arap& t_;
  double *places_, *rotations_;
  std::vector<double> last_, change_, scratch_;
  double size_;
};

}  // namespace
}  // namespace splat

int64_t splat_cpu_arap_entries(const splat_arap* task) {
  return splat::sound_graph(*task) ? splat::factor_entries(*task) : -int64_t(SPLAT_BAD_ARGUMENT);
}

int32_t splat_cpu_arap_factor(const splat_arap* task, const splat_factor* factor) {
  const bool done = splat::sound_graph(*task) && splat::factorise(*task, *factor);
  return done ? SPLAT_OK : SPLAT_BAD_ARGUMENT;
}

int32_t splat_cpu_arap(const splat_arap* task, const splat_factor* factor, double* places, double* rotations) {
  if (!splat::sound_graph(*task)) return SPLAT_BAD_ARGUMENT;
  splat::Shape shape(*task, places, rotations);
  for (int32_t i = 0; i < task->iterations; ++i) {
    shape.turn_nodes();
    shape.move_nodes(*factor);
  }
  return SPLAT_OK;
}
