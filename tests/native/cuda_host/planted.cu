// Kernels for the tests of the harness itself: correct ones, and ones with a planted fault each.
#include "warp.cuh"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr unsigned all_lanes = 0xffffffffu;

__device__ float warp_sum(float value) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(all_lanes, value, step);
  return value;
}

// out [gridDim] = sums of blockDim inputs each.
__global__ void __launch_bounds__(1024) block_sum(const float* in, float* out) {
  SPLAT_SHARED(float, partial, 32);
  const unsigned lane = threadIdx.x & 31u, warp = threadIdx.x >> 5;
  const float sum = warp_sum(in[blockIdx.x * blockDim.x + threadIdx.x]);
  if (lane == 0) partial[warp] = sum;
  __syncthreads();
  if (warp != 0) return;
  const float total = warp_sum(lane < blockDim.x / 32 ? partial[lane] : 0.0f);
  if (lane == 0) out[blockIdx.x] = total;
}

// Keeps the positive numbers of every block of 256, in order; kept [gridDim] says how many.
__global__ void compact(const int* in, int* out, int* kept, int count) {
  SPLAT_SHARED(int, warp_begin, 9);
  const int i = int(blockIdx.x * 256 + threadIdx.x), lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5;
  const int value = i < count ? in[i] : 0;
  const unsigned votes = __ballot_sync(all_lanes, value > 0);
  if (lane == 0) warp_begin[warp + 1] = __popc(votes);
  if (threadIdx.x == 0) warp_begin[0] = 0;
  __syncthreads();
  if (threadIdx.x == 0)
    for (int w = 0; w < 8; ++w) warp_begin[w + 1] += warp_begin[w];
  __syncthreads();
  if (value > 0) out[int(blockIdx.x) * 256 + warp_begin[warp] + __popc(votes & ((1u << lane) - 1u))] = value;
  if (threadIdx.x == 0) kept[blockIdx.x] = warp_begin[8];
}

// Inclusive scan of one block in dynamic shared memory. `barriers` off leaves one of the two barriers out.
template <bool barriers> __global__ void scan(const int* in, int* out) {
  SPLAT_DYNAMIC_SHARED(int, sums);
  const unsigned i = threadIdx.x;
  sums[i] = in[i];
  __syncthreads();
  for (unsigned step = 1; step < blockDim.x; step *= 2) {
    const int before = i >= step ? sums[i - step] : 0;
    if (barriers) __syncthreads();
    sums[i] += before;
    __syncthreads();
  }
  out[i] = sums[i];
}

// The last block to finish adds up what the others left: fence, then an integer atomic.
__global__ void last_block_sum(const int* in, int* partial, unsigned* done, int* total) {
  SPLAT_SHARED(int, is_last, 1);
  const unsigned lane = threadIdx.x;
  const int sum = __reduce_add_sync(all_lanes, in[blockIdx.x * 32 + lane]);
  if (lane == 0) {
    partial[blockIdx.x] = sum;
    __threadfence();
    is_last[0] = atomicAdd(done, 1u) == gridDim.x - 1;
  }
  __syncwarp();
  if (!is_last[0]) return;
  int all = 0;
  for (unsigned b = lane; b < gridDim.x; b += 32) all += partial[b];
  all = __reduce_add_sync(all_lanes, all);
  if (lane == 0) *total = all;
}

// Every warp intrinsic once: results of lane i at out[16 * i].
__global__ void intrinsics(int* out) {
  const int lane = int(threadIdx.x) & 31;
  int* row = out + 16 * threadIdx.x;
  row[0] = __shfl_sync(all_lanes, lane, 5);
  row[1] = __shfl_up_sync(all_lanes, lane, 3);
  row[2] = __shfl_down_sync(all_lanes, lane, 3);
  row[3] = __shfl_xor_sync(all_lanes, lane, 9);
  row[4] = __shfl_sync(all_lanes, lane, 5, 8);
  row[5] = __shfl_up_sync(all_lanes, lane, 3, 8);
  row[6] = __shfl_down_sync(all_lanes, lane, 3, 8);
  row[7] = int(__ballot_sync(all_lanes, lane % 3 == 0));
  row[8] = __any_sync(all_lanes, lane == 7);
  row[9] = __all_sync(all_lanes, lane >= 0);
  row[10] = __reduce_add_sync(all_lanes, -lane);
  row[11] = int(__match_any_sync(all_lanes, lane % 4));
  if (lane < 8) row[12] = __shfl_xor_sync(0xffu, lane, 1);
  else row[12] = __shfl_xor_sync(0xffffff00u, lane, 1);
  row[13] = __syncthreads_count(lane < 4);
  row[14] = __syncthreads_and(lane < 4);
  row[15] = __syncthreads_or(lane == 4);
}

// --- planted faults ---
__global__ void no_wait(const int* in, int* out) {
  SPLAT_SHARED(float4, row, 16);
  if (threadIdx.x < 16) splat::gpu::copy_async(row + threadIdx.x, reinterpret_cast<const float4*>(in) + threadIdx.x);
  __syncthreads();  // copies_done() is missing before it
  out[threadIdx.x] = reinterpret_cast<const int*>(row)[threadIdx.x];
}
__global__ void no_barrier(const int* in, int* out) {
  SPLAT_SHARED(int, mirror, 64);
  mirror[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = mirror[63 - threadIdx.x];  // __syncthreads() is missing
}
__global__ void no_warp_barrier(const int* in, int* out) {
  SPLAT_SHARED(int, mirror, 32);
  mirror[threadIdx.x] = in[threadIdx.x];
  (void)__ballot_sync(all_lanes, 1);  // orders nothing: __syncwarp() is missing
  out[threadIdx.x] = mirror[31 - threadIdx.x];
}
__global__ void lost_update(int* out) {
  SPLAT_SHARED(int, sum, 1);
  if (threadIdx.x == 0) sum[0] = 0;
  __syncthreads();
  sum[0] += int(threadIdx.x);  // wants atomicAdd
  __syncthreads();
  if (threadIdx.x == 0) *out = sum[0];
}
__global__ void blocks_meet(int* out) { out[threadIdx.x] = int(blockIdx.x); }
__global__ void off_by_one(const int* in, int* out, int count) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i <= count) out[i] = in[i];  // wants <
}
__global__ void shared_off_by_one(int* out) {
  SPLAT_DYNAMIC_SHARED(int, row);
  row[threadIdx.x + 1] = 1;
  __syncthreads();
  out[threadIdx.x] = row[threadIdx.x + 1];
}
__global__ void static_off_by_one(int* out, int last) {
  SPLAT_SHARED(int, row, 32);
  row[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = *(&row[0] + (threadIdx.x == 0 ? last : 0));
}
__global__ void unset_shared(float* out) {
  SPLAT_SHARED(float, row, 64);
  if (threadIdx.x < 63) row[threadIdx.x] = 1.0f;
  __syncthreads();
  out[threadIdx.x] = row[threadIdx.x];
}
__global__ void much_shared(int* out) {
  SPLAT_SHARED(int, row, 4 * 1024);
  SPLAT_DYNAMIC_SHARED(int, more);
  row[threadIdx.x] = more[threadIdx.x] = 1;
  out[threadIdx.x] = row[threadIdx.x] + more[threadIdx.x];
}
__global__ void early_return(int* out, int count) {
  if (int(threadIdx.x) >= count) return;
  out[threadIdx.x] = 1;
  __syncthreads();
}
__global__ void two_barriers(int* out) {
  if (threadIdx.x & 1u) {
    out[0] = 1;
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void missing_lane(int* out) {
  if (threadIdx.x == 3) return;
  if (threadIdx.x == 5) __syncthreads();
  out[threadIdx.x] = __shfl_sync(all_lanes, 1, 0);
}
__global__ void wrong_mask(int* out) { out[threadIdx.x] = __shfl_sync(0xffu, 1, 0); }
__global__ void misaligned(const float* in, float* out) {
  *reinterpret_cast<float4*>(out) = *reinterpret_cast<const float4*>(in + 1);
}

}  // namespace

EXPORT int planted_block_sum(const float* in, float* out, int blocks, int block) {
  SPLAT_LAUNCH(block_sum, blocks, block, 0, nullptr, in, out);
  return cudaGetLastError();
}
EXPORT int planted_compact(const int* in, int* out, int* kept, int count) {
  SPLAT_LAUNCH(compact, (count + 255) / 256, 256, 0, nullptr, in, out, kept, count);
  return cudaGetLastError();
}
EXPORT int planted_scan(const int* in, int* out, int block, int barriers) {
  if (barriers) SPLAT_LAUNCH((scan<true>), 1, block, block * sizeof(int), nullptr, in, out);
  else SPLAT_LAUNCH((scan<false>), 1, block, block * sizeof(int), nullptr, in, out);
  return cudaGetLastError();
}
EXPORT int planted_last_block_sum(const int* in, int* partial, unsigned* done, int* total, int blocks) {
  SPLAT_LAUNCH(last_block_sum, blocks, 32, 0, nullptr, in, partial, done, total);
  return cudaGetLastError();
}
EXPORT int planted_intrinsics(int* out) {
  SPLAT_LAUNCH(intrinsics, 1, 64, 0, nullptr, out);
  return cudaGetLastError();
}
EXPORT int planted_no_wait(const int* in, int* out) {
  SPLAT_LAUNCH(no_wait, 1, 64, 0, nullptr, in, out);
  return cudaGetLastError();
}
EXPORT int planted_no_barrier(const int* in, int* out) {
  SPLAT_LAUNCH(no_barrier, 1, 64, 0, nullptr, in, out);
  return cudaGetLastError();
}
EXPORT int planted_no_warp_barrier(const int* in, int* out) {
  SPLAT_LAUNCH(no_warp_barrier, 1, 32, 0, nullptr, in, out);
  return cudaGetLastError();
}
EXPORT int planted_lost_update(const int*, int* out) {
  SPLAT_LAUNCH(lost_update, 1, 64, 0, nullptr, out);
  return cudaGetLastError();
}
EXPORT int planted_blocks_meet(const int*, int* out) {
  SPLAT_LAUNCH(blocks_meet, 4, 32, 0, nullptr, out);
  return cudaGetLastError();
}
EXPORT int planted_off_by_one(const int* in, int* out) {
  SPLAT_LAUNCH(off_by_one, 1, 128, 0, nullptr, in, out, 64);
  return cudaGetLastError();
}
EXPORT int planted_shared_off_by_one(const int*, int* out) {
  SPLAT_LAUNCH(shared_off_by_one, 1, 32, 32 * sizeof(int), nullptr, out);
  return cudaGetLastError();
}
EXPORT int planted_static_off_by_one(const int*, int* out) {
  SPLAT_LAUNCH(static_off_by_one, 1, 32, 0, nullptr, out, 32);
  return cudaGetLastError();
}
EXPORT int planted_unset_shared(const int*, float* out) {
  SPLAT_LAUNCH(unset_shared, 1, 64, 0, nullptr, out);
  return cudaGetLastError();
}
EXPORT int planted_much_shared(const int*, int* out) {
  SPLAT_LAUNCH(much_shared, 1, 64, 40 * 1024, nullptr, out);
  return cudaGetLastError();
}
EXPORT int planted_early_return(const int*, int* out) {
  SPLAT_LAUNCH(early_return, 2, 64, 0, nullptr, out, 40);
  return cudaGetLastError();
}
EXPORT int planted_two_barriers(const int*, int* out) {
  SPLAT_LAUNCH(two_barriers, 1, 64, 0, nullptr, out);
  return cudaGetLastError();
}
EXPORT int planted_missing_lane(const int*, int* out) {
  SPLAT_LAUNCH(missing_lane, 1, 32, 0, nullptr, out);
  return cudaGetLastError();
}
EXPORT int planted_wrong_mask(const int*, int* out) {
  SPLAT_LAUNCH(wrong_mask, 1, 32, 0, nullptr, out);
  return cudaGetLastError();
}
EXPORT int planted_misaligned(const int* in, int* out) {
  SPLAT_LAUNCH(misaligned, 1, 1, 0, nullptr, reinterpret_cast<const float*>(in), reinterpret_cast<float*>(out));
  return cudaGetLastError();
}
EXPORT int planted_too_many_threads(const int* in, int* out) {
  SPLAT_LAUNCH(no_barrier, 1, 2048, 0, nullptr, in, out);
  return cudaGetLastError();
}
EXPORT int planted_no_blocks(const int* in, int* out) {
  SPLAT_LAUNCH(no_barrier, 0, 64, 0, nullptr, in, out);
  return cudaGetLastError();
}
EXPORT int planted_too_much_shared(const int* in, int* out) {
  SPLAT_LAUNCH((scan<true>), 1, 64, 64 * 1024, nullptr, in, out);
  return cudaGetLastError();
}
EXPORT int planted_allowed_shared(const int* in, int* out) {
  cudaFuncSetAttribute(scan<true>, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 * 1024);
  SPLAT_LAUNCH((scan<true>), 1, 64, 64 * 1024, nullptr, in, out);
  const int error = cudaGetLastError();
  cudaFuncSetAttribute(scan<true>, cudaFuncAttributeMaxDynamicSharedMemorySize, 48 * 1024);  // as it was
  return error;
}
