// Nearest centroids of many points: shares the points out, and lays the centroids out for the kernel.
#include "nearest_driver.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "pool.h"

namespace splat {
namespace {

constexpr int64_t kPoints = 1024;   // per task
constexpr int64_t kColumns = 1024;  // centroids laid out at a time: 184 KB at 45 dimensions, within the second cache

struct Share {
  int64_t list, begin, end;  // points of one list
};

std::vector<Share> shares_of(const splat_nearest& t) {
  std::vector<Share> shares;
  for (int64_t list = 0; list < t.lists; ++list)
    for (int64_t i = t.point_begin[list]; i < t.point_begin[list + 1]; i += kPoints)
      shares.push_back({list, i, std::min(i + kPoints, t.point_begin[list + 1])});
  return shares;
}

class Worker {
 public:
  Worker(const Kernels& kernels, const splat_nearest& t)
      : kernels_(kernels), t_(t), packed_(size_t(kColumns) * t.dim), half_norms_(kColumns), best_(2 * kPoints),
        indices_(2 * kPoints) {}

  void run(const Share& share, int32_t* labels, float* sq_distances) {
    std::fill(best_.begin(), best_.end(), std::numeric_limits<float>::infinity());
    std::fill(indices_.begin(), indices_.end(), -1);
    const int64_t first = t_.candidate_begin[share.list], last = t_.candidate_begin[share.list + 1];
    NearestTask task{};
    task.rows = share.end - share.begin, task.dim = t_.dim;
    task.points = t_.points + share.begin * t_.dim;
    task.packed = packed_.data(), task.half_norms = half_norms_.data();
    task.best = best_.data(), task.indices = indices_.data();
    for (int64_t c = first; c < last; c += kColumns) {
      task.first_column = int32_t(c - first);
      task.columns = lay_out(c, std::min(c + kColumns, last));
      for (int64_t row = 0; row < task.rows; row += kNearestRows) kernels_.nearest(task, row);
    }
    for (int64_t i = 0; i < 2 * task.rows; ++i) {
      const int32_t place = indices_[i];
      labels[2 * share.begin + i] = place < 0 ? -1 : candidate(first + place);
      sq_distances[2 * share.begin + i] = sq_distance(share.begin + i / 2, labels[2 * share.begin + i]);
    }
  }

 private:
  int32_t candidate(int64_t i) const { return t_.candidates ? t_.candidates[i] : int32_t(i); }

  // Blocks of kNearestColumns, dimension by dimension; columns past the end are infinitely far.
  int lay_out(int64_t begin, int64_t end) {
    const int columns = int((end - begin + kNearestColumns - 1) / kNearestColumns) * kNearestColumns;
    for (int i = 0; i < columns; ++i) {
      float* column = packed_.data() + int64_t(i / kNearestColumns) * kNearestColumns * t_.dim + i % kNearestColumns;
      const bool real = begin + i < end;
      const float* c = t_.centroids + (real ? int64_t(candidate(begin + i)) * t_.dim : 0);
      float norm = 0;
      for (int d = 0; d < t_.dim; ++d) {
        column[int64_t(d) * kNearestColumns] = real ? c[d] : 0.0f;
        norm += c[d] * c[d];
      }
      half_norms_[i] = real ? norm / 2 : std::numeric_limits<float>::infinity();
    }
    return columns;
  }

  float sq_distance(int64_t point, int32_t label) const {
    if (label < 0) return std::numeric_limits<float>::infinity();
    const float *x = t_.points + point * t_.dim, *c = t_.centroids + int64_t(label) * t_.dim;
    float sum = 0;
    for (int d = 0; d < t_.dim; ++d) sum += (x[d] - c[d]) * (x[d] - c[d]);
    return sum;
  }

  const Kernels& kernels_;
  const splat_nearest& t_;
  std::vector<float> packed_, half_norms_, best_;
  std::vector<int32_t> indices_;
};

}  // namespace

void nearest(const Kernels& kernels, const splat_nearest& task, int32_t* labels, float* sq_distances) {
  const std::vector<Share> shares = shares_of(task);
  parallel_for(int64_t(shares.size()), [&](int64_t i) { Worker(kernels, task).run(shares[i], labels, sq_distances); });
}

}  // namespace splat
