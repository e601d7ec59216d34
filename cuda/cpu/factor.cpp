// Sparse L D L^T of a graph's matrix. A row of L is found from the rows before it (up-looking): the places of its entries
// are what is met on the way up the elimination tree from each entry of the matrix. The order is nested dissection by
// place: a set of nodes is cut across its longest side, and those at the cut come last, so that the halves stay apart.
#include "factor.h"

#include <algorithm>
#include <vector>

namespace splat {
namespace {

constexpr int kLeaf = 16;         // nodes that need no more cutting
constexpr double kSingular = 1e-12;  // of a pivot over its diagonal

class Dissection {
 public:
  explicit Dissection(const splat_arap& t) : t_(t), side_(size_t(t.nodes), 0) {
    std::vector<int32_t> free;
    for (int32_t i = 0; i < t.nodes; ++i)
      if (!t.held[i]) free.push_back(i);
    cut(free.data(), int32_t(free.size()));
  }
  std::vector<int32_t> order;

 private:
  void cut(int32_t* set, int32_t count) {
    if (count <= kLeaf) {
      order.insert(order.end(), set, set + count);
      return;
    }
    const int axis = longest_side(set, count);
    const int32_t half = count / 2;
    std::sort(set, set + count, [&](int32_t a, int32_t b) {
      const double x = t_.rest[3 * int64_t(a) + axis], y = t_.rest[3 * int64_t(b) + axis];
      return x < y || (x == y && a < b);
    });
    const int32_t mark = ++marks_;
    for (int32_t i = half; i < count; ++i) side_[set[i]] = mark;
    // Of the first half, those with a neighbour in the second come last.
    int32_t* seam = std::stable_partition(set, set + half, [&](int32_t node) {
      for (int32_t e = t_.begin[node]; e < t_.begin[node + 1]; ++e)
        if (side_[t_.neighbours[e]] == mark) return false;
      return true;
    });
    const std::vector<int32_t> last(seam, set + half);
    cut(set, int32_t(seam - set));
    cut(set + half, count - half);
    order.insert(order.end(), last.begin(), last.end());
  }

  int longest_side(const int32_t* set, int32_t count) const {
    double low[3], high[3];
    for (int a = 0; a < 3; ++a) low[a] = high[a] = t_.rest[3 * int64_t(set[0]) + a];
    for (int32_t i = 1; i < count; ++i)
      for (int a = 0; a < 3; ++a) {
        const double x = t_.rest[3 * int64_t(set[i]) + a];
        low[a] = std::min(low[a], x), high[a] = std::max(high[a], x);
      }
    int axis = 0;
    for (int a = 1; a < 3; ++a)
      if (high[a] - low[a] > high[axis] - low[axis]) axis = a;
    return axis;
  }

  const splat_arap& t_;
  std::vector<int32_t> side_;
  int32_t marks_ = 0;
};

// Where nodes stand in the order; -1 for held ones.
std::vector<int32_t> places_of(const splat_arap& t, const int32_t* order, int32_t count) {
  std::vector<int32_t> place(size_t(t.nodes), -1);
  for (int32_t i = 0; i < count; ++i) place[order[i]] = i;
  return place;
}

// Row k of L: the columns of its entries, every one before those above it in the tree. Learns the tree as it goes.
class Rows {
 public:
  Rows(const splat_arap& t, const int32_t* order, const std::vector<int32_t>& place)
      : t_(t), order_(order), place_(place), parent_(place.size(), -1), seen_(place.size(), -1), path_(place.size()),
        found_(place.size()) {}

  const int32_t* row(int32_t k, int32_t* count) {
    int32_t top = int32_t(found_.size());
    seen_[k] = k;
    for (int32_t e = t_.begin[order_[k]]; e < t_.begin[order_[k] + 1]; ++e) {
      int32_t column = place_[t_.neighbours[e]], steps = 0;
      if (column < 0 || column > k) continue;
      for (; seen_[column] != k; column = parent_[column]) {
        if (parent_[column] < 0) parent_[column] = k;
        path_[steps++] = column, seen_[column] = k;
      }
      while (steps > 0) found_[--top] = path_[--steps];
    }
    *count = int32_t(found_.size()) - top;
    return found_.data() + top;
  }

 private:
  const splat_arap& t_;
  const int32_t* order_;
  const std::vector<int32_t>& place_;
  std::vector<int32_t> parent_, seen_, path_, found_;
};

std::vector<int64_t> column_begins(const splat_arap& t, const std::vector<int32_t>& order) {
  const std::vector<int32_t> place = places_of(t, order.data(), int32_t(order.size()));
  std::vector<int64_t> begin(size_t(t.nodes) + 1, 0);
  Rows rows(t, order.data(), place);
  for (int32_t k = 0, count; k < int32_t(order.size()); ++k) {
    const int32_t* columns = rows.row(k, &count);
    for (int32_t i = 0; i < count; ++i) ++begin[columns[i] + 1];
  }
  for (int32_t i = 0; i < t.nodes; ++i) begin[i + 1] += begin[i];
  return begin;
}

}  // namespace

bool sound_graph(const splat_arap& t) {
  if (t.nodes < 1 || t.iterations < 0 || t.begin[0] != 0 || !(t.smooth >= 0)) return false;
  for (int32_t i = 0; i < t.nodes; ++i) {
    if (t.begin[i + 1] < t.begin[i] || !(t.pulls[i] >= 0)) return false;
    for (int32_t e = t.begin[i]; e < t.begin[i + 1]; ++e)
      if (t.neighbours[e] < 0 || t.neighbours[e] >= t.nodes || t.neighbours[e] == i || !(t.weights[e] > 0)) return false;
  }
  return true;
}

int64_t factor_entries(const splat_arap& t) { return column_begins(t, Dissection(t).order)[t.nodes]; }

bool factorise(const splat_arap& t, const splat_factor& f) {
  const std::vector<int32_t> order = Dissection(t).order;
  const std::vector<int64_t> begin = column_begins(t, order);
  if (begin[t.nodes] > f.entries) return false;
  const int32_t free = int32_t(order.size());
  std::fill(f.order, f.order + t.nodes, -1);
  std::copy(order.begin(), order.end(), f.order);
  std::copy(begin.begin(), begin.end(), f.begin);
  const std::vector<int32_t> place = places_of(t, f.order, free);
  std::vector<int64_t> filled(begin.begin(), begin.end() - 1);
  std::vector<double> y(size_t(t.nodes), 0.0);
  Rows rows(t, f.order, place);
  for (int32_t k = 0, count; k < free; ++k) {
    const int32_t* columns = rows.row(k, &count);
    double diagonal = t.pulls[f.order[k]];
    for (int32_t e = t.begin[f.order[k]]; e < t.begin[f.order[k] + 1]; ++e) {
      diagonal += t.weights[e];
      const int32_t column = place[t.neighbours[e]];
      if (column >= 0 && column < k) y[column] -= t.weights[e];
    }
    double pivot = diagonal;
    for (int32_t i = 0; i < count; ++i) {
      const int32_t column = columns[i];
      const double value = y[column], entry = value / f.diagonal[column];
      y[column] = 0;
      for (int64_t e = begin[column]; e < filled[column]; ++e) y[f.rows[e]] -= f.values[e] * value;
      pivot -= entry * value;
      f.rows[filled[column]] = k, f.values[filled[column]++] = entry;
    }
    if (!(pivot > kSingular * diagonal)) return false;
    f.diagonal[k] = pivot;
  }
  std::fill(f.diagonal + free, f.diagonal + t.nodes, 1.0);
  return true;
}

void solve(const splat_arap& t, const splat_factor& f, double* x, double* y) {
  int32_t free = 0;
  for (; free < t.nodes && f.order[free] >= 0; ++free)
    for (int a = 0; a < 3; ++a) y[3 * free + a] = x[3 * int64_t(f.order[free]) + a];
  for (int32_t j = 0; j < free; ++j)
    for (int64_t e = f.begin[j]; e < f.begin[j + 1]; ++e)
      for (int a = 0; a < 3; ++a) y[3 * int64_t(f.rows[e]) + a] -= f.values[e] * y[3 * j + a];
  for (int32_t j = free - 1; j >= 0; --j) {
    for (int a = 0; a < 3; ++a) y[3 * j + a] /= f.diagonal[j];
    for (int64_t e = f.begin[j]; e < f.begin[j + 1]; ++e)
      for (int a = 0; a < 3; ++a) y[3 * j + a] -= f.values[e] * y[3 * int64_t(f.rows[e]) + a];
  }
  for (int32_t j = 0; j < free; ++j)
    for (int a = 0; a < 3; ++a) x[3 * int64_t(f.order[j]) + a] = y[3 * j + a];
}

}  // namespace splat
