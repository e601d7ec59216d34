// Lets g++ compile the .cu files of cuda/gpu for the host: `g++ -x c++ -DSPLAT_HOST_CUDA -include cuda_host.h`.
//
// A block's threads run as fibers, one at a time, and change over only at barriers and warp intrinsics, in an order
// drawn from a seed. cuda_host/runtime.cpp holds the machinery; this header holds the names of CUDA that the kernels
// may use. Every fatal finding ends the process with one line that starts with "splat_host:".
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>

#define __host__
#define __device__
#define __global__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// No __shared__ here: SPLAT_SHARED and SPLAT_DYNAMIC_SHARED of launch.h give memory that is poisoned and fenced.

// --- vector types: aligned as on the device, so that UBSan sees a misaligned wide load -----------------------
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
#define SPLAT_HOST_VECTORS(scalar, name, align2, align4)                                              \
  struct alignas(align2) name##2 { scalar x, y; };                                                    \
  struct name##3 { scalar x, y, z; };                                                                 \
  struct alignas(align4) name##4 { scalar x, y, z, w; };                                              \
  inline name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }                                \
  inline name##3 make_##name##3(scalar x, scalar y, scalar z) { return {x, y, z}; }                   \
  inline name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }
  SPLAT_HOST_VECTORS(float, float, 8, 16)
  SPLAT_HOST_VECTORS(double, double, 16, 16)
  SPLAT_HOST_VECTORS(int, int, 8, 16)
  SPLAT_HOST_VECTORS(unsigned, uint, 8, 16)
  SPLAT_HOST_VECTORS(unsigned short, ushort, 4, 8)
  SPLAT_HOST_VECTORS(unsigned char, uchar, 2, 4)
#undef SPLAT_HOST_VECTORS

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// --- the runtime ---------------------------------------------------------------------------------------------
using cudaError_t = int;
using cudaError = int;
struct splat_host_stream;
using cudaStream_t = splat_host_stream*;
enum {
  cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2, cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35, cudaErrorNoDevice = 100, cudaErrorInvalidDevice = 101,
  cudaErrorNoKernelImageForDevice = 209, cudaErrorUnsupportedPtxVersion = 222, cudaErrorUnknown = 999
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8, cudaFuncAttributePreferredSharedMemoryCarveout = 9
};
enum cudaDeviceAttr {
  cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81, cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75, cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin, sharedMemPerMultiprocessor;
  int major, minor, multiProcessorCount, warpSize, maxThreadsPerBlock, l2CacheSize;
};
const char* cudaGetErrorString(cudaError_t error);
const char* cudaGetErrorName(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes);
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream = nullptr);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

namespace splat_host {

cudaError_t allow_shared(const void* kernel, int bytes);
void run(const char* name, const void* kernel, dim3 grid, dim3 block, size_t shared_bytes,
         const std::function<void()>& body);

// Arguments are converted to the kernel's parameters once, as a real launch does; every thread gets its own copy.
template <class... Params, class... Args>
void launch(const char* name, void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t,
            Args&&... args) {
  const std::tuple<std::decay_t<Params>...> copies{static_cast<std::decay_t<Params>>(args)...};
  run(name, reinterpret_cast<const void*>(kernel), grid, block, shared_bytes, [&] { std::apply(kernel, copies); });
}

// One shared array of a kernel; the block that runs now gets memory for it at its first use, filled with NaN.
struct SharedArray {
  const char* name;
  void* memory = nullptr;
  uint64_t block = 0;
  constexpr explicit SharedArray(const char* name_) : name(name_) {}
  void* get(size_t bytes);
};
void* dynamic_shared();

enum WarpOp { SYNC, SHUFFLE, UP, DOWN, XOR, BALLOT, ANY, ALL, ADD, MIN, MAX, AND, OR, BITXOR, MATCH };
enum BlockOp { BARRIER, COUNT_TRUE, ALL_TRUE, ANY_TRUE };
uint64_t warp_op(WarpOp op, unsigned mask, uint64_t value, int argument, int width, int line);
int block_barrier(BlockOp op, int value, int line);
void atomic_access(const void* address, size_t bytes);  // tells the race detector
void fence();
// cp.async: the copy happens some time before copies_done() of the same thread, by seed at once or as late as can be.
void copy_async(void* shared, const void* global, size_t bytes);
void copies_done();

template <class T> T shuffle(WarpOp op, unsigned mask, T value, int argument, int width, int line) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "shuffles move 4 or 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = warp_op(op, mask, bits, argument, width, line);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// Memory that nobody may touch, for AddressSanitizer; nothing without it.
void guard(void* memory, size_t bytes);
void unguard(void* memory, size_t bytes);

// The host's sort and scan behind cuda/gpu/sort.h.
size_t sort_scratch(int64_t count, size_t bytes_per_item);
void claim_scratch(void* scratch, size_t have, size_t needed);
void permute_stable(int64_t count, int begin_bit, int end_bit, const std::function<uint64_t(int64_t)>& key,
                    int64_t* order);
int sorted_place_of(int place);
template <class Key, class Value>
void sort_pairs(const Key* keys_in, Key* keys_out, const Value* values_in, Value* values_out, int64_t count,
                int begin_bit, int end_bit) {
  int64_t* order = new int64_t[size_t(count)];
  permute_stable(count, begin_bit, end_bit, [&](int64_t i) { return uint64_t(keys_in[i]); }, order);
  for (int64_t i = 0; i < count; ++i) keys_out[i] = keys_in[order[i]], values_out[i] = values_in[order[i]];
  delete[] order;
}
// The sorted pairs lie in place `to`; by seed they are moved to the other one, and the place left behind is spoiled.
template <class Key, class Value> int sorted_place(Key* const* keys, Value* const* values, int to, int64_t count) {
  const int end = sorted_place_of(to);
  if (end != to)
    for (int64_t i = 0; i < count; ++i) keys[end][i] = keys[to][i], values[end][i] = values[to][i];
  std::memset(static_cast<void*>(keys[1 - end]), 0xA5, size_t(count) * sizeof(Key));
  std::memset(static_cast<void*>(values[1 - end]), 0xA5, size_t(count) * sizeof(Value));
  return end;
}
void exclusive_sum(const uint32_t* in, uint32_t* out, int64_t count);

}  // namespace splat_host

template <class Kernel> cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  return splat_host::allow_shared(reinterpret_cast<const void*>(kernel), value);
}

// --- barriers and warp intrinsics; `line` tells call sites apart ---------------------------------------------
#define SPLAT_HOST_LINE int line = __builtin_LINE()
inline void __syncthreads(SPLAT_HOST_LINE) { splat_host::block_barrier(splat_host::BARRIER, 0, line); }
inline int __syncthreads_count(int value, SPLAT_HOST_LINE) {
  return splat_host::block_barrier(splat_host::COUNT_TRUE, value, line);
}
inline int __syncthreads_and(int value, SPLAT_HOST_LINE) {
  return splat_host::block_barrier(splat_host::ALL_TRUE, value, line);
}
inline int __syncthreads_or(int value, SPLAT_HOST_LINE) {
  return splat_host::block_barrier(splat_host::ANY_TRUE, value, line);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, SPLAT_HOST_LINE) {
  splat_host::warp_op(splat_host::SYNC, mask, 0, 0, 32, line);
}
template <class T> T __shfl_sync(unsigned mask, T value, int lane, int width = 32, SPLAT_HOST_LINE) {
  return splat_host::shuffle(splat_host::SHUFFLE, mask, value, lane, width, line);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SPLAT_HOST_LINE) {
  return splat_host::shuffle(splat_host::UP, mask, value, int(delta), width, line);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SPLAT_HOST_LINE) {
  return splat_host::shuffle(splat_host::DOWN, mask, value, int(delta), width, line);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, SPLAT_HOST_LINE) {
  return splat_host::shuffle(splat_host::XOR, mask, value, lanes, width, line);
}
inline unsigned __ballot_sync(unsigned mask, int value, SPLAT_HOST_LINE) {
  return unsigned(splat_host::warp_op(splat_host::BALLOT, mask, value != 0, 0, 32, line));
}
inline int __any_sync(unsigned mask, int value, SPLAT_HOST_LINE) {
  return int(splat_host::warp_op(splat_host::ANY, mask, value != 0, 0, 32, line));
}
inline int __all_sync(unsigned mask, int value, SPLAT_HOST_LINE) {
  return int(splat_host::warp_op(splat_host::ALL, mask, value != 0, 0, 32, line));
}
template <class T> unsigned __match_any_sync(unsigned mask, T value, SPLAT_HOST_LINE) {
  return splat_host::shuffle(splat_host::MATCH, mask, uint64_t(value), 0, 32, line);
}
#define SPLAT_HOST_REDUCE(name, op, type) \
  inline type __reduce_##name##_sync(unsigned mask, type value, SPLAT_HOST_LINE) { \
    return type(splat_host::warp_op(splat_host::op, mask, uint64_t(int64_t(value)), 0, 32, line)); \
  }
  SPLAT_HOST_REDUCE(add, ADD, unsigned) SPLAT_HOST_REDUCE(add, ADD, int)
  SPLAT_HOST_REDUCE(min, MIN, unsigned) SPLAT_HOST_REDUCE(min, MIN, int)
  SPLAT_HOST_REDUCE(max, MAX, unsigned) SPLAT_HOST_REDUCE(max, MAX, int)
  SPLAT_HOST_REDUCE(and, AND, unsigned) SPLAT_HOST_REDUCE(or, OR, unsigned) SPLAT_HOST_REDUCE(xor, BITXOR, unsigned)
#undef SPLAT_HOST_REDUCE
#undef SPLAT_HOST_LINE
// Lanes need not run together: a lane alone is a legal answer, and the one that breaks wrong uses.
inline unsigned __activemask() {
  return 1u << ((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31u);
}
inline void __threadfence() { splat_host::fence(); }
inline void __threadfence_block() {}

// --- integer atomics -----------------------------------------------------------------------------------------
#define SPLAT_HOST_ATOMIC(name, formula)                                                     \
  template <class T, class V> __attribute__((no_sanitize("thread"))) T name(T* address, V given) { \
    static_assert(std::is_integral<T>::value, "no float atomics: results must be repeatable"); \
    splat_host::atomic_access(address, sizeof(T));                                           \
    const T old = *address, value = T(given);                                                \
    *address = T(formula);                                                                   \
    return old;                                                                              \
  }
  SPLAT_HOST_ATOMIC(atomicAdd, old + value)
  SPLAT_HOST_ATOMIC(atomicSub, old - value)
  SPLAT_HOST_ATOMIC(atomicMax, old > value ? old : value)
  SPLAT_HOST_ATOMIC(atomicMin, old < value ? old : value)
  SPLAT_HOST_ATOMIC(atomicOr, old | value)
  SPLAT_HOST_ATOMIC(atomicAnd, old & value)
  SPLAT_HOST_ATOMIC(atomicExch, value)
#undef SPLAT_HOST_ATOMIC
template <class T> __attribute__((no_sanitize("thread"))) T atomicCAS(T* address, T expected, T value) {
  splat_host::atomic_access(address, sizeof(T));
  const T old = *address;
  if (old == expected) *address = value;
  return old;
}

// --- arithmetic ----------------------------------------------------------------------------------------------
template <class To, class From> inline To splat_host_bits(From value) {
  To to;
  static_assert(sizeof(To) == sizeof(From), "same size");
  std::memcpy(&to, &value, sizeof(To));
  return to;
}
inline int __float_as_int(float a) { return splat_host_bits<int>(a); }
inline unsigned __float_as_uint(float a) { return splat_host_bits<unsigned>(a); }
inline float __int_as_float(int a) { return splat_host_bits<float>(a); }
inline float __uint_as_float(unsigned a) { return splat_host_bits<float>(a); }
inline int __popc(unsigned a) { return __builtin_popcount(a); }
inline int __popcll(unsigned long long a) { return __builtin_popcountll(a); }
inline int __ffs(int a) { return __builtin_ffs(a); }
inline int __ffsll(long long a) { return __builtin_ffsll(a); }
inline int __clz(int a) { return a ? __builtin_clz(unsigned(a)) : 32; }
inline int __clzll(long long a) { return a ? __builtin_clzll((unsigned long long)a) : 64; }
inline unsigned __brev(unsigned a) {
  unsigned b = 0;
  for (int i = 0; i < 32; ++i) b |= (a >> i & 1u) << (31 - i);
  return b;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T> T __ldca(const T* p) { return *p; }
template <class T> void __stcs(T* p, T value) { *p = value; }
template <class T> void __stcg(T* p, T value) { *p = value; }
inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
inline float __frsqrt_rn(float a) { return 1.0f / std::sqrt(a); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __saturatef(float a) { return a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f; }
inline float __expf(float a) { return std::exp(a); }
inline float __exp2f(float a) { return std::exp2(a); }
inline float __logf(float a) { return std::log(a); }
inline float __log2f(float a) { return std::log2(a); }
inline float __powf(float a, float b) { return std::pow(a, b); }
// Conversions saturate and take NaN to zero, as on the device.
template <class To> inline To splat_host_convert(double a) {
  if (a != a) return 0;
  const double low = sizeof(To) == 4 && To(-1) < To(0) ? -2147483648.0 : 0.0;
  const double high = To(-1) < To(0) ? 2147483647.0 : 4294967295.0;
  return To(a < low ? low : a > high ? high : a);
}
inline int __float2int_rn(float a) { return splat_host_convert<int>(std::nearbyint(double(a))); }
inline int __float2int_rd(float a) { return splat_host_convert<int>(std::floor(double(a))); }
inline int __float2int_ru(float a) { return splat_host_convert<int>(std::ceil(double(a))); }
inline int __float2int_rz(float a) { return splat_host_convert<int>(std::trunc(double(a))); }
inline unsigned __float2uint_rn(float a) { return splat_host_convert<unsigned>(std::nearbyint(double(a))); }
inline unsigned __float2uint_rd(float a) { return splat_host_convert<unsigned>(std::floor(double(a))); }
inline unsigned __float2uint_rz(float a) { return splat_host_convert<unsigned>(std::trunc(double(a))); }
inline float __int2float_rn(int a) { return float(a); }
inline float __uint2float_rn(unsigned a) { return float(a); }
inline float __double2float_rn(double a) { return float(a); }
#define SPLAT_HOST_MIN_MAX(type)                                     \
  constexpr type min(type a, type b) { return b < a ? b : a; }       \
  constexpr type max(type a, type b) { return a < b ? b : a; }
  SPLAT_HOST_MIN_MAX(int) SPLAT_HOST_MIN_MAX(unsigned)
  SPLAT_HOST_MIN_MAX(long) SPLAT_HOST_MIN_MAX(unsigned long)
  SPLAT_HOST_MIN_MAX(long long) SPLAT_HOST_MIN_MAX(unsigned long long)
#undef SPLAT_HOST_MIN_MAX
// The device's min and max of floats pass over a NaN.
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
