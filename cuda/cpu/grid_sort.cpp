// Sorts rows of features onto a grid so that neighbours are alike (after PLAS, Morgenstern et al. 2024): every cell's goal
// is the blur of the grid around it, whose width shrinks; groups of four contents trade places as the goals say.
//
// What is ours: the four cells of a group lie in four rows, side by side with their neighbours' groups, so that a whole
// row of groups is solved by packs without a gather; and the blur is a plain box, by running sums.
#include "grid_sort_driver.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "pool.h"

namespace splat {
namespace {

constexpr int kLeastBlock = 16;  // rows that trade among each other at the smallest blur
constexpr int kStrip = 64;       // columns per task of the vertical blur
constexpr int kBand = 16;        // rows per task of everything else

// SplitMix64 (Steele et al. 2014) as a function of (key, place): the draws do not depend on who asks first.
uint64_t mixed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

class Draws {
 public:
  explicit Draws(uint64_t key) : state_(key) {}
  uint64_t next() { return mixed(state_ += 0x9e3779b97f4a7c15u); }
  int below(int n) { return int(((next() >> 32) * uint64_t(n)) >> 32); }

 private:
  uint64_t state_;
};

template <class F> void banded(int64_t count, int64_t size, const F& f) {
  parallel_for((count + size - 1) / size, [&](int64_t i) { f(i * size, std::min(count, (i + 1) * size)); });
}

template <class S> class Sorter {
 public:
  Sorter(const Kernels& kernels, const splat_grid& grid)
      : kernels_(kernels), g_(grid), cells_(size_t(rows() * cell_row())), targets_(size_t(rows() * target_row())) {
    const S* features = static_cast<const S*>(g_.features);
    banded(rows(), kBand, [&](int64_t first, int64_t last) {
      for (int64_t y = first; y < last; ++y)
        for (int64_t x = 0; x < g_.width; ++x) {
          const int64_t row = y * g_.width + x;
          for (int c = 0; c < g_.channels; ++c) cells_[y * cell_row() + c * g_.width + x] = features[row * g_.channels + c];
          const int32_t number = int32_t(row);
          std::memcpy(&cells_[y * cell_row() + g_.channels * int64_t(g_.width) + x], &number, sizeof number);
        }
    });
  }

  // Goals for this radius; returns the sum of squared distances to them.
  double aim(int radius) {
    const int rx = std::min(radius, (g_.width - 1) / 2), ry = std::min(radius, (g_.height - 1) / 2);
    banded(rows(), kBand, [&](int64_t first, int64_t last) {
      for (int64_t y = first; y < last; ++y)
        for (int c = 0; c < g_.channels; ++c)
          blur_row(&cells_[y * cell_row() + c * g_.width], rx, &targets_[y * target_row() + c * g_.width]);
    });
    banded(target_row(), kStrip, [&](int64_t first, int64_t last) { blur_columns(first, last, ry); });
    std::vector<double> sums(size_t(g_.height));
    banded(rows(), kBand, [&](int64_t first, int64_t last) {
      for (int64_t y = first; y < last; ++y) {
        const S *a = &cells_[y * cell_row()], *b = &targets_[y * target_row()];
        double sum = 0;
        for (int64_t i = 0; i < target_row(); ++i) sum += double(a[i] - b[i]) * double(a[i] - b[i]);
        sums[y] = sum;
      }
    });
    double sum = 0;
    for (const double row : sums) sum += row;
    return sum;
  }

  // One round of trades with a new partition into groups; returns by how much the sum of squared distances shrinks.
  double trade(int radius, uint64_t key) {
    Draws draws(key);
    const int block = std::min(g_.height, std::max(kLeastBlock, 2 * radius + 2)) / 4 * 4;
    if (block < 4) return 0;
    const int span = std::min(g_.width, std::max(kLeastBlock, 2 * radius + 2));
    const int offset = draws.below(g_.height), blocks = g_.height / block;
    std::vector<int32_t> order(static_cast<size_t>(blocks) * block), shifts(order.size() * g_.rounds);
    for (int b = 0; b < blocks; ++b) {
      int32_t* mine = &order[size_t(b) * block];
      for (int i = 0; i < block; ++i) mine[i] = (offset + b * block + i) % g_.height;
      for (int i = block - 1; i > 0; --i) std::swap(mine[i], mine[draws.below(i + 1)]);
    }
    for (int32_t& shift : shifts) shift = draws.below(span);
    std::vector<double> gains(order.size() / 4);
    const GridTask task{g_.width, g_.channels, g_.rounds, cells_.data(), targets_.data(),
                        order.data(), shifts.data(), gains.data()};
    const auto kernel = kernels_.grid_group;
    parallel_for(int64_t(gains.size()), [&](int64_t i) { kernel(task, i); });
    double sum = 0;
    for (const double gain : gains) sum += gain;
    return 2 * sum;
  }

  void order(int32_t* out) const {
    for (int64_t y = 0; y < g_.height; ++y)
      for (int64_t x = 0; x < g_.width; ++x)
        std::memcpy(&out[y * g_.width + x], &cells_[y * cell_row() + g_.channels * int64_t(g_.width) + x], sizeof(int32_t));
  }

 private:
  int64_t rows() const { return g_.height; }
  int64_t cell_row() const { return int64_t(g_.channels + 1) * g_.width; }
  int64_t target_row() const { return int64_t(g_.channels) * g_.width; }

  // Mean over 2 r + 1 cells, circular.
  void blur_row(const S* in, int r, S* out) const {
    const int w = g_.width;
    double sum = 0;
    for (int x = -r; x <= r; ++x) sum += double(in[x < 0 ? x + w : x]);
    const double part = 1.0 / (2 * r + 1);
    for (int x = 0, enter = r, leave = -r; x < w; ++x) {
      out[x] = S(sum * part);
      if (++enter >= w) enter -= w;
      sum += double(in[enter]) - double(in[leave < 0 ? leave + w : leave]);
      ++leave;
    }
  }

  // The same down columns [first, last) of the targets, mirrored at the first and the last row.
  void blur_columns(int64_t first, int64_t last, int r) {
    const int h = g_.height, n = int(last - first);
    if (r == 0) return;
    std::vector<S> in(size_t(h) * n);
    for (int y = 0; y < h; ++y) std::copy_n(&targets_[y * target_row() + first], n, &in[size_t(y) * n]);
    const auto line = [&](int y) { return &in[size_t(y < 0 ? -y : y >= h ? 2 * (h - 1) - y : y) * n]; };
    double sum[kStrip] = {};
    for (int y = -r; y <= r; ++y)
      for (int i = 0; i < n; ++i) sum[i] += double(line(y)[i]);
    const double part = 1.0 / (2 * r + 1);
    for (int y = 0; y < h; ++y) {
      S* out = &targets_[y * target_row() + first];
      for (int i = 0; i < n; ++i) out[i] = S(sum[i] * part);
      if (y + 1 == h) break;
      const S *enter = line(y + r + 1), *leave = line(y - r);
      for (int i = 0; i < n; ++i) sum[i] += double(enter[i]) - double(leave[i]);
    }
  }

  const Kernels& kernels_;
  const splat_grid& g_;
  std::vector<S> cells_, targets_;
};

template <class S> void sort(const Kernels& kernels, const splat_grid& grid, int32_t* order, double* distances) {
  Sorter<S> sorter(kernels, grid);
  distances[0] = distances[1] = 0;
  int64_t level = 0;
  for (double r = grid.first_radius; r >= grid.last_radius; r *= grid.shrink, ++level) {
    const int radius = int(r);
    const uint64_t key = mixed(grid.seed + uint64_t(level));
    double distance = sorter.aim(radius);
    if (level == 0) distances[0] = distance;
    for (int turn = 0; turn < grid.most_turns; ++turn) {
      const double gain = sorter.trade(radius, mixed(key + uint64_t(turn)));
      distance -= gain;
      if (turn + 1 >= grid.least_turns && gain <= grid.stop_gain * distance) break;
    }
    distances[1] = distance;
  }
  sorter.order(order);
}

}  // namespace

void grid_sort(const Kernels& kernels, const splat_grid& grid, int32_t* order, double* distances) {
  if (grid.dtype == SPLAT_F64)
    sort<double>(kernels, grid, order, distances);
  else
    sort<float>(kernels, grid, order, distances);
}

}  // namespace splat
