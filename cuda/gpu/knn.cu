// Mean squared distance to the k nearest other points, exact. Points in Morton order fall into boxes of kBox; a block
// of threads asks for the points of one box and visits the boxes that any of its threads still may need.
#include "spatial.h"

#include "../math/real.h"

namespace splat {
namespace gpu {
namespace {

constexpr int kBox = 128, kMaxNeighbours = 16;
constexpr float kNever = 3.4e38f;

struct KnnTask {
  int64_t count, boxes;
  int k;
  const uint32_t* order;
  const float* sorted;  // [N,3] points in Morton order
  const float* bounds;  // [boxes,6]
  float* out;
};

// Points in Morton order and the bounds of each box. Budget: 16 bytes per point in, 12 out.
__global__ void __launch_bounds__(kBox) box_points(KnnTask task, const float* points, float* sorted, float* bounds) {
  SPLAT_SHARED_2D(float, ends, 6, kBox);
  const int64_t i = int64_t(blockIdx.x) * kBox + threadIdx.x;
  for (int a = 0; a < 3; ++a) {
    const float x = i < task.count ? points[3 * int64_t(task.order[i]) + a] : 0.0f;
    if (i < task.count) sorted[3 * i + a] = x;
    const bool counts = i < task.count && abs_(x) < kNever;
    ends[a][threadIdx.x] = counts ? x : kNever, ends[3 + a][threadIdx.x] = counts ? x : -kNever;
  }
  __syncthreads();
  if (threadIdx.x >= 6) return;
  float end = ends[threadIdx.x][0];
  for (int t = 1; t < kBox; ++t)
    end = threadIdx.x < 3 ? min_(end, ends[threadIdx.x][t]) : max_(end, ends[threadIdx.x][t]);
  bounds[6 * blockIdx.x + threadIdx.x] = end;
}

// Squared distance between two boxes; a point is a box.
__device__ float sq_gap(const float* low_a, const float* high_a, const float* low_b, const float* high_b) {
  float d = 0.0f;
  for (int a = 0; a < 3; ++a) {
    const float gap = max_(max_(low_b[a] - high_a[a], low_a[a] - high_b[a]), 0.0f);
    d += gap * gap;
  }
  return d;
}

template <int kKeep> struct Nearest {
  float best[kKeep];  // ascending

  __device__ void clear() {
    for (int i = 0; i < kKeep; ++i) best[i] = kNever;
  }
  __device__ float worst() const { return best[kKeep - 1]; }
  __device__ void add(float d) {
    if (!(d < worst())) return;
    best[kKeep - 1] = d;
#pragma unroll
    for (int i = kKeep - 1; i > 0; --i) {
      const float low = min_(best[i - 1], best[i]), high = max_(best[i - 1], best[i]);
      best[i - 1] = low, best[i] = high;
    }
  }
  __device__ float mean(int k) const {
    float sum = 0.0f;
    int found = 0;
#pragma unroll
    for (int i = 0; i < kKeep; ++i)
      if (i < k && best[i] < kNever) sum += best[i], ++found;
    return found ? sum / float(found) : 0.0f;
  }
};

// One box of points through shared memory against every thread's query.
template <int kKeep>
__device__ void visit_box(const KnnTask& task, int64_t box, int64_t self, const float* query, bool asks, float* points,
                          Nearest<kKeep>* nearest) {
  const int64_t first = box * kBox, left = task.count - first;
  const int n = left < kBox ? int(left) : kBox;
  __syncthreads();
  for (int i = int(threadIdx.x); i < 3 * n; i += kBox) points[i] = task.sorted[3 * first + i];
  __syncthreads();
  const float* bounds = task.bounds + 6 * box;
  if (!asks || !(sq_gap(query, query, bounds, bounds + 3) < nearest->worst())) return;
  for (int i = 0; i < n; ++i) {
    const float x = points[3 * i] - query[0], y = points[3 * i + 1] - query[1], z = points[3 * i + 2] - query[2];
    if (first + i != self) nearest->add(x * x + y * y + z * z);
  }
}

// Budget: a query measures about 30 boxes of 128 distances, 9 instructions each: 35 G lane-instructions per million
// points, 1 ms on an H200; a block looks once at every box's bounds, kBox of them at a time.
template <int kKeep> __global__ void __launch_bounds__(kBox) knn_kernel(KnnTask task) {
  SPLAT_SHARED(float, points, 3 * kBox);
  SPLAT_SHARED(float, reach_of, kBox);
  SPLAT_SHARED(int, candidates, kBox);
  SPLAT_SHARED(uint32_t, votes, kBox / 32);
  const int64_t home = blockIdx.x, self = home * kBox + threadIdx.x;
  const bool asks = self < task.count;
  float query[3] = {0.0f, 0.0f, 0.0f};
  if (asks)
    for (int a = 0; a < 3; ++a) query[a] = task.sorted[3 * self + a];
  Nearest<kKeep> nearest;
  nearest.clear();
  const float* own = task.bounds + 6 * home;
  // Its own box and the neighbours in the order first: they give a short reach.
  for (int64_t box = home > 0 ? home - 1 : 0; box <= home + 1 && box < task.boxes; ++box)
    visit_box(task, box, self, query, asks, points, &nearest);
  for (int64_t from = 0; from < task.boxes; from += kBox) {
    __syncthreads();
    reach_of[threadIdx.x] = asks ? nearest.worst() : 0.0f;
    __syncthreads();
    float reach = 0.0f;
    for (int t = 0; t < kBox; ++t) reach = max_(reach, reach_of[t]);
    const int64_t box = from + threadIdx.x;
    const float* bounds = task.bounds + 6 * box;
    const bool other = box < task.boxes && (box < home - 1 || box > home + 1);
    const bool near = other && sq_gap(own, own + 3, bounds, bounds + 3) < reach;
    const uint32_t vote = __ballot_sync(0xffffffffu, near);
    if ((threadIdx.x & 31) == 0) votes[threadIdx.x / 32] = vote;
    __syncthreads();
    int at = __popc(vote & ((1u << (threadIdx.x & 31)) - 1u)), total = 0;
    for (int w = 0; w < kBox / 32; ++w) {
      if (w < int(threadIdx.x) / 32) at += __popc(votes[w]);
      total += __popc(votes[w]);
    }
    if (near) candidates[at] = int(threadIdx.x);
    __syncthreads();
    for (int c = 0; c < total; ++c) visit_box(task, from + candidates[c], self, query, asks, points, &nearest);
  }
  if (asks) task.out[task.order[self]] = nearest.mean(task.k);
}

struct KnnMemory {
  MortonMemory morton;
  float *sorted, *bounds;

  KnnMemory(Scratch& from, int64_t count) : morton(from, count) {
    sorted = from.take<float>(3 * count), bounds = from.take<float>(6 * ((count + kBox - 1) / kBox));
  }
};

}  // namespace
}  // namespace gpu
}  // namespace splat

extern "C" size_t splat_cuda_knn_scratch(int64_t count) {
  splat::gpu::Scratch counting;
  const splat::gpu::KnnMemory memory(counting, count);
  return counting.used();
}

extern "C" int32_t splat_cuda_knn(int64_t count, const float* points, int32_t k, float* out, splat_scratch scratch,
                                  void* stream_) {
  using namespace splat::gpu;
  if (k < 1 || k > kMaxNeighbours || count < 0 || count >= int64_t(1) << 31)
    return refuse(SPLAT_BAD_ARGUMENT, "knn: %d neighbours (1 to %d) of %lld points", k, kMaxNeighbours,
                  (long long)count);
  if (count == 0) return SPLAT_OK;
  Scratch carve(scratch);
  const KnnMemory memory(carve, count);
  if (!carve.enough())
    return refuse(SPLAT_BAD_ARGUMENT, "knn: %zu bytes of scratch given, %zu needed", scratch.bytes, carve.used());
  cudaStream_t stream = static_cast<cudaStream_t>(stream_);
  uint32_t* order = nullptr;
  if (const int32_t status = morton_order(count, points, memory.morton, &order, stream)) return status;
  const int64_t boxes = (count + kBox - 1) / kBox;
  const KnnTask task{count, boxes, k, order, memory.sorted, memory.bounds, out};
  SPLAT_LAUNCH(box_points, unsigned(boxes), kBox, 0, stream, task, points, memory.sorted, memory.bounds);
  if (k <= 3)
    SPLAT_LAUNCH(knn_kernel<3>, unsigned(boxes), kBox, 0, stream, task);
  else
    SPLAT_LAUNCH(knn_kernel<kMaxNeighbours>, unsigned(boxes), kBox, 0, stream, task);
  SPLAT_CHECK(cudaGetLastError());
  return SPLAT_OK;
}
