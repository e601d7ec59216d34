// Mean squared distance to the k nearest other points, for the start scales: exact search in a balanced k-d tree.
// A tree does not mind the far outliers that every sparse reconstruction has, as a uniform grid would.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "../include/splat.h"
#include "pool.h"

namespace splat {
namespace {

constexpr int kMaxNeighbours = 16, kLeaf = 12;

// Points in an order where every node's are contiguous; the median splits the node's longest side.
class Tree {
 public:
  Tree(int64_t n, const float* points) : points_(points), order_(size_t(n)) {
    std::iota(order_.begin(), order_.end(), 0u);
    nodes_.reserve(size_t(4 * n / kLeaf + 2));
    build(0, uint32_t(n));
  }

  float mean_sq_dist(uint32_t self, int k) const {
    float best[kMaxNeighbours];
    std::fill(best, best + k, std::numeric_limits<float>::infinity());
    search(0, self, k, best);
    float sum = 0;
    int found = 0;
    for (int i = 0; i < k && best[i] < std::numeric_limits<float>::infinity(); ++i) sum += best[i], ++found;
    return found ? sum / float(found) : 0.0f;
  }

 private:
  struct Node {
    float low[3], high[3];
    uint32_t begin, end, left, right;  // left = 0: a leaf
  };

  uint32_t build(uint32_t begin, uint32_t end) {
    Node node{{}, {}, begin, end, 0, 0};
    for (int a = 0; a < 3; ++a) node.low[a] = std::numeric_limits<float>::infinity(), node.high[a] = -node.low[a];
    for (uint32_t i = begin; i < end; ++i)
      for (int a = 0; a < 3; ++a) {
        const float x = points_[3 * int64_t(order_[i]) + a];
        node.low[a] = std::min(node.low[a], x), node.high[a] = std::max(node.high[a], x);
      }
    const uint32_t at = uint32_t(nodes_.size());
    nodes_.push_back(node);
    if (end - begin > kLeaf) {
      int axis = 0;
      for (int a = 1; a < 3; ++a)
        if (node.high[a] - node.low[a] > node.high[axis] - node.low[axis]) axis = a;
      const uint32_t middle = begin + (end - begin) / 2;
      std::nth_element(order_.begin() + begin, order_.begin() + middle, order_.begin() + end, [&](uint32_t a, uint32_t b) {
        const float x = points_[3 * int64_t(a) + axis], y = points_[3 * int64_t(b) + axis];
        return x < y || (x == y && a < b);
      });
      const uint32_t left = build(begin, middle), right = build(middle, end);
      nodes_[at].left = left, nodes_[at].right = right;
    }
    return at;
  }

  float sq_dist_to(const Node& node, const float* q) const {
    float d = 0;
    for (int a = 0; a < 3; ++a) {
      const float gap = std::max(std::max(node.low[a] - q[a], q[a] - node.high[a]), 0.0f);
      d += gap * gap;
    }
    return d;
  }

  void search(uint32_t at, uint32_t self, int k, float* best) const {
    const Node& node = nodes_[at];
    const float* q = points_ + 3 * int64_t(self);
    if (node.left == 0) {
      for (uint32_t i = node.begin; i < node.end; ++i) {
        if (order_[i] == self) continue;
        const float* p = points_ + 3 * int64_t(order_[i]);
        const float x = p[0] - q[0], y = p[1] - q[1], z = p[2] - q[2], d = x * x + y * y + z * z;
        if (!(d < best[k - 1])) continue;
        int place = k - 1;
        for (; place > 0 && best[place - 1] > d; --place) best[place] = best[place - 1];
        best[place] = d;
      }
      return;
    }
    const float left = sq_dist_to(nodes_[node.left], q), right = sq_dist_to(nodes_[node.right], q);
    const bool left_first = left <= right;
    if (std::min(left, right) < best[k - 1]) search(left_first ? node.left : node.right, self, k, best);
    if (std::max(left, right) < best[k - 1]) search(left_first ? node.right : node.left, self, k, best);
  }

  const float* points_;
  std::vector<uint32_t> order_;
  std::vector<Node> nodes_;
};

}  // namespace
}  // namespace splat

int32_t splat_cpu_knn(int64_t count, const float* points, int32_t k, float* out) {
  if (k < 1 || k > splat::kMaxNeighbours || count < 0 || count >= int64_t(1) << 31) return SPLAT_BAD_ARGUMENT;
  for (int64_t i = 0; i < 3 * count; ++i)
    if (!std::isfinite(points[i])) return SPLAT_BAD_ARGUMENT;
  if (count == 0) return SPLAT_OK;
  const splat::Tree tree(count, points);
  constexpr int64_t chunk = 1024;
  splat::parallel_for((count + chunk - 1) / chunk, [&](int64_t c) {
    for (int64_t i = c * chunk; i < count && i < (c + 1) * chunk; ++i) out[i] = tree.mean_sq_dist(uint32_t(i), k);
  });
  return SPLAT_OK;
}
