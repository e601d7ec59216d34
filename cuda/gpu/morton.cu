// Rows in Morton order of their means.
#include "spatial.h"

#include "../math/real.h"

namespace splat {
namespace gpu {
namespace {

constexpr int kBoxBlocks = 256, kBoxThreads = 256, kAxisBits = 21;
constexpr float kHuge = 3.402823466e38f;  // the largest number

// Exact and in any order the same: minima and maxima do not round. Values that are not finite are passed over.
struct Box {
  float low[3], high[3];

  __device__ void clear() {
    for (int a = 0; a < 3; ++a) low[a] = kHuge, high[a] = -kHuge;
  }
  __device__ void add(const float* l, const float* h) {
    for (int a = 0; a < 3; ++a) low[a] = min_(low[a], l[a]), high[a] = max_(high[a], h[a]);
  }
};

__device__ bool finite_point(const float* p) {
  return abs_(p[0]) <= kHuge && abs_(p[1]) <= kHuge && abs_(p[2]) <= kHuge;
}

// Box of a block's points, or of the partial boxes (then one block). Budget: 12 bytes per point in.
template <bool kPartial>
__global__ void __launch_bounds__(kBoxThreads) box_kernel(int64_t count, const float* in, float* out) {
  SPLAT_SHARED(Box, boxes, kBoxThreads);
  Box box;
  box.clear();
  for (int64_t i = int64_t(blockIdx.x) * kBoxThreads + threadIdx.x; i < count; i += int64_t(gridDim.x) * kBoxThreads) {
    const float* p = in + (kPartial ? 6 : 3) * i;
    if (kPartial) box.add(p, p + 3);
    else if (finite_point(p)) box.add(p, p);
  }
  boxes[threadIdx.x] = box;
  for (int half = kBoxThreads / 2; half; half /= 2) {
    __syncthreads();
    if (int(threadIdx.x) < half) boxes[threadIdx.x].add(boxes[threadIdx.x + half].low, boxes[threadIdx.x + half].high);
  }
  if (threadIdx.x != 0) return;
  for (int a = 0; a < 3; ++a) out[6 * blockIdx.x + a] = boxes[0].low[a], out[6 * blockIdx.x + 3 + a] = boxes[0].high[a];
}

// Two zeros between neighbouring bits of a 21-bit number.
__device__ uint64_t spread(uint64_t x) {
  x = (x | x << 32) & 0x001f00000000ffffull;
  x = (x | x << 16) & 0x001f0000ff0000ffull;
  x = (x | x << 8) & 0x100f00f00f00f00full;
  x = (x | x << 4) & 0x10c30c30c30c30c3ull;
  return (x | x << 2) & 0x1249249249249249ull;
}

// Budget: 12 bytes per point in, 12 out. 21 bits per axis: a far outlier must not squeeze the scene into one cell.
__global__ void __launch_bounds__(256)
    code_kernel(int64_t count, const float* points, const float* box, uint64_t* codes, uint32_t* order) {
  const int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x;
  if (i >= count) return;
  order[i] = uint32_t(i);
  if (!finite_point(points + 3 * i)) {
    codes[i] = 0;
    return;
  }
  // One extent for all axes: cells are cubes. Doubles because 21 bits times a float32 would round cells together.
  const float extent = max_(max_(max_(box[3] - box[0], box[4] - box[1]), box[5] - box[2]), 1.17549435e-38f);
  uint64_t code = uint64_t(1) << 63;
  for (int a = 0; a < 3; ++a) {
    const float t = min_(max_((points[3 * i + a] - box[a]) / extent, 0.0f), 1.0f);
    code |= spread(uint64_t(double(t) * double((1 << kAxisBits) - 1))) << a;
  }
  codes[i] = code;
}

__global__ void __launch_bounds__(256) widen_kernel(int64_t count, const uint32_t* in, int64_t* out) {
  const int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x;
  if (i < count) out[i] = int64_t(in[i]);
}

}  // namespace

MortonMemory::MortonMemory(Scratch& from, int64_t count) {
  for (int k = 0; k < 2; ++k) codes[k] = from.take<uint64_t>(count), order[k] = from.take<uint32_t>(count);
  boxes = from.take<float>(6 * (kBoxBlocks + 1));
  sort_bytes = sort_pairs_scratch<uint64_t, uint32_t>(count);
  sort = from.take_bytes(sort_bytes);
}

int32_t morton_order(int64_t count, const float* points, const MortonMemory& memory, uint32_t** order,
                     cudaStream_t stream) {
  const int64_t needed = (count + kBoxThreads - 1) / kBoxThreads, blocks = needed < kBoxBlocks ? needed : kBoxBlocks;
  const unsigned grid = unsigned((count + 255) / 256);
  float* box = memory.boxes + 6 * kBoxBlocks;
  SPLAT_LAUNCH(box_kernel<false>, unsigned(blocks), kBoxThreads, 0, stream, count, points, memory.boxes);
  SPLAT_LAUNCH(box_kernel<true>, 1, kBoxThreads, 0, stream, blocks, memory.boxes, box);
  SPLAT_LAUNCH(code_kernel, grid, 256, 0, stream, count, points, box, memory.codes[0], memory.order[0]);
  SPLAT_CHECK(cudaGetLastError());
  SortBuffers<uint64_t, uint32_t> pairs{{memory.codes[0], memory.codes[1]}, {memory.order[0], memory.order[1]}, 0};
  SPLAT_CHECK(sort_pairs(memory.sort, memory.sort_bytes, pairs, count, 0, 64, stream));
  *order = pairs.values[pairs.current];
  return SPLAT_OK;
}

}  // namespace gpu
}  // namespace splat

extern "C" size_t splat_cuda_sort_scratch(int64_t count) {
  splat::gpu::Scratch counting;
  const splat::gpu::MortonMemory memory(counting, count);
  return counting.used();
}

extern "C" int32_t splat_cuda_morton(int64_t count, const float* means, int64_t* order, splat_scratch scratch,
                                     void* stream_) {
  using namespace splat::gpu;
  if (count < 0 || count >= int64_t(1) << 31)
    return refuse(SPLAT_BAD_ARGUMENT, "morton: %lld points", (long long)count);
  if (count == 0) return SPLAT_OK;
  Scratch carve(scratch);
  const MortonMemory memory(carve, count);
  if (!carve.enough())
    return refuse(SPLAT_BAD_ARGUMENT, "morton: %zu bytes of scratch given, %zu needed", scratch.bytes, carve.used());
  cudaStream_t stream = static_cast<cudaStream_t>(stream_);
  uint32_t* rows = nullptr;
  if (const int32_t status = morton_order(count, means, memory, &rows, stream)) return status;
  SPLAT_LAUNCH(widen_kernel, unsigned((count + 255) / 256), 256, 0, stream, count, rows, order);
  SPLAT_CHECK(cudaGetLastError());
  return SPLAT_OK;
}
