// Warps and copies: what kernels share. Every reduction adds in one fixed order, so results repeat bit for bit.
#pragma once
#include "../math/real.h"
#include "launch.h"

namespace splat {
namespace gpu {

constexpr unsigned kFullWarp = 0xffffffffu;
constexpr int kWarp = 32;

// A value the compiler must keep in a register instead of working it out again.
__device__ __forceinline__ int kept(int value) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+r"(value));
#endif
  return value;
}

// --- one value per lane -> the same result in every lane -----------------------------------------------------------
template <class T> __device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kFullWarp, value, lanes);
  return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) value = fmaxf(value, __shfl_xor_sync(kFullWarp, value, lanes));
  return value;
}

__device__ __forceinline__ uint32_t warp_sum_u32(uint32_t value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  return __reduce_add_sync(kFullWarp, value);
#else
  return warp_sum(value);
#endif
}

// --- N sums over the lanes at once, by recursive halving -----------------------------------------------------------
// In each round a lane keeps one half of its columns and hands the other half to its partner: 12 shuffles for 9
// columns, where one butterfly per column takes 45.
template <int N, int kLanes = kWarp / 2> struct Halving {
  static constexpr int kHalf = (N + 1) / 2;
  static __device__ __forceinline__ void run(float* sums, int lane) {
    if constexpr (N == 1) {
      sums[0] += __shfl_xor_sync(kFullWarp, sums[0], kLanes);
    } else {
      const bool upper = lane & kLanes;
#pragma unroll
      for (int i = 0; i < kHalf; ++i) {
        const float low = sums[i], high = kHalf + i < N ? sums[kHalf + i < N ? kHalf + i : 0] : 0.0f;
        const float received = __shfl_xor_sync(kFullWarp, upper ? low : high, kLanes);
        sums[i] = (upper ? high : low) + received;
      }
    }
    if constexpr (kLanes > 1) Halving<kHalf, kLanes / 2>::run(sums, lane);
  }
  static __device__ __forceinline__ int column(int lane, int first, int size) {
    const bool upper = lane & kLanes;
    if (N == 1 && upper) return -1;  // a copy of the partner's
    const int begin = upper ? first + kHalf : first, left = upper ? size - kHalf : (size < kHalf ? size : kHalf);
    if constexpr (kLanes > 1) {
      return Halving<kHalf, kLanes / 2>::column(lane, begin, left);
    } else {
      return left > 0 ? begin : -1;
    }
  }
};

template <int N> __device__ __forceinline__ void halve(float (&sums)[N], int lane) { Halving<N>::run(sums, lane); }

// The column that halve() leaves in sums[0] of this lane; -1 = none, or another lane's.
template <int N> __device__ __forceinline__ int halved_column(int lane) { return Halving<N>::column(lane, 0, N); }

// --- from global to shared memory, past the registers where the GPU can (sm_80 and later) --------------------------
__device__ __forceinline__ void copy_async(float4* shared, const float4* global) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
#elif defined(SPLAT_HOST_CUDA)
  ::splat_host::copy_async(shared, global, sizeof(float4));
#else
  *shared = *global;
#endif
}

__device__ __forceinline__ void copy_async(uint32_t* shared, const uint32_t* global) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(address), "l"(global) : "memory");
#elif defined(SPLAT_HOST_CUDA)
  ::splat_host::copy_async(shared, global, sizeof(uint32_t));
#else
  *shared = *global;
#endif
}

// Waits for this thread's copies; a barrier makes them everybody's.
__device__ __forceinline__ void copies_done() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_all;" ::: "memory");
#elif defined(SPLAT_HOST_CUDA)
  ::splat_host::copies_done();
#endif
}

}  // namespace gpu
}  // namespace splat
