// The k nearest points: of a set among itself (mean squared distances, for the start scales) and of one set for another.
// Exact search in a balanced k-d tree.
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

constexpr int kMaxMean = 16, kMaxNeighbours = 32, kLeaf = 12;
constexpr uint32_t kNobody = 0xffffffffu;
// Points per task.
constexpr int64_t kChunk = 1024;

// Points in an order where every node's are contiguous; the median splits the node's longest side.
class Tree {
 public:
  Tree(int64_t n, const float* points) : points_(points), order_(size_t(n)) {
    std::iota(order_.begin(), order_.end(), 0u);
    nodes_.reserve(size_t(4 * n / kLeaf + 2));
    build(0, uint32_t(n));
  }

  float mean_sq_dist(uint32_t self, int k) const {
    Found found(k);
    search(0, points_ + 3 * int64_t(self), self, &found);
    float sum = 0;
    int count = 0;
    for (; count < k && found.index[count] != kNobody; ++count) sum += found.sq_dist[count];
    return count ? sum / float(count) : 0.0f;
  }

  void nearest(const float* query, int k, int32_t* places, float* sq_distances) const {
    Found found(k);
    search(0, query, kNobody, &found);
    for (int i = 0; i < k; ++i)
      places[i] = found.index[i] == kNobody ? -1 : int32_t(found.index[i]), sq_distances[i] = found.sq_dist[i];
  }

 private:
  // The nearest so far, in order; the earlier point where two are as near.
  struct Found {
    explicit Found(int k) : k(k) {
      std::fill(sq_dist, sq_dist + k, std::numeric_limits<float>::infinity());
      std::fill(index, index + k, kNobody);
    }
    void offer(float d, uint32_t point) {
      if (!before(d, point, k - 1)) return;
      int place = k - 1;
      for (; place > 0 && before(d, point, place - 1); --place)
        sq_dist[place] = sq_dist[place - 1], index[place] = index[place - 1];
      sq_dist[place] = d, index[place] = point;
    }
    bool before(float d, uint32_t point, int place) const {
      return d < sq_dist[place] || (d == sq_dist[place] && point < index[place]);
    }
    float worst() const { return sq_dist[k - 1]; }
    int k;
    float sq_dist[kMaxNeighbours];
    uint32_t index[kMaxNeighbours];
  };

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

  void search(uint32_t at, const float* q, uint32_t self, Found* found) const {
    const Node& node = nodes_[at];
    if (node.left == 0) {
      for (uint32_t i = node.begin; i < node.end; ++i) {
        if (order_[i] == self) continue;
        const float* p = points_ + 3 * int64_t(order_[i]);
        const float x = p[0] - q[0], y = p[1] - q[1], z = p[2] - q[2];
        found->offer(x * x + y * y + z * z, order_[i]);
      }
      return;
    }
    const float left = sq_dist_to(nodes_[node.left], q), right = sq_dist_to(nodes_[node.right], q);
    const bool left_first = left <= right;
    if (std::min(left, right) <= found->worst()) search(left_first ? node.left : node.right, q, self, found);
    if (std::max(left, right) <= found->worst()) search(left_first ? node.right : node.left, q, self, found);
  }

  const float* points_;
  std::vector<uint32_t> order_;
  std::vector<Node> nodes_;
};

bool sound(int64_t count, const float* points) {
  if (count < 0 || count >= int64_t(1) << 31) return false;
  for (int64_t i = 0; i < 3 * count; ++i)
    if (!std::isfinite(points[i])) return false;
  return true;
}

template <class F> void each(int64_t count, const F& f) {
  parallel_for((count + kChunk - 1) / kChunk, [&](int64_t c) {
    for (int64_t i = c * kChunk; i < count && i < (c + 1) * kChunk; ++i) f(i);
  });
}

}  // namespace
}  // namespace splat

int32_t splat_cpu_knn(int64_t count, const float* points, int32_t k, float* out) {
  if (k < 1 || k > splat::kMaxMean || !splat::sound(count, points)) return SPLAT_BAD_ARGUMENT;
  if (count == 0) return SPLAT_OK;
  const splat::Tree tree(count, points);
  splat::each(count, [&](int64_t i) { out[i] = tree.mean_sq_dist(uint32_t(i), k); });
  return SPLAT_OK;
}

int32_t splat_cpu_neighbours(int64_t count, const float* points, int64_t query_count, const float* queries, int32_t k,
                             int32_t* places, float* sq_distances) {
  if (k < 1 || k > splat::kMaxNeighbours || count < 1 || !splat::sound(count, points) ||
      !splat::sound(query_count, queries))
    return SPLAT_BAD_ARGUMENT;
  const splat::Tree tree(count, points);
  splat::each(query_count, [&](int64_t i) {
    tree.nearest(queries + 3 * i, k, places + k * i, sq_distances + k * i);
  });
  return SPLAT_OK;
}
