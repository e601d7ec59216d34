// The CUDA runtime's calls, and the sort and scan behind cuda/gpu/sort.h, for one imagined device on the host.
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>

namespace splat_host {

uint64_t host_seed();
cudaError_t& last_error();

#if defined(__SANITIZE_ADDRESS__)
void guard(void* memory, size_t bytes) { ASAN_POISON_MEMORY_REGION(memory, bytes); }
void unguard(void* memory, size_t bytes) { ASAN_UNPOISON_MEMORY_REGION(memory, bytes); }
#else
void guard(void*, size_t) {}
void unguard(void*, size_t) {}
#endif

size_t sort_scratch(int64_t count, size_t bytes_per_item) {
  return 256 + size_t(count) * bytes_per_item + size_t(count) / 8;
}

// Spoils the scratch, so that one that is too small or holds something still needed shows.
void claim_scratch(void* scratch, size_t have, size_t needed) {
  if (!scratch || have < needed) {
    std::fprintf(stderr, "splat_host: a sort or scan needs %zu bytes of scratch and was given %zu\n", needed,
                 scratch ? have : 0);
    std::abort();
  }
  std::memset(scratch, 0xA5, needed);
}

void permute_stable(int64_t count, int begin_bit, int end_bit, const std::function<uint64_t(int64_t)>& key,
                    int64_t* order) {
  const int bits = end_bit - begin_bit;
  const uint64_t mask = bits >= 64 ? ~uint64_t(0) : (uint64_t(1) << bits) - 1;
  std::iota(order, order + count, int64_t(0));
  const auto digits = [&](int64_t i) { return key(i) >> begin_bit & mask; };
  std::stable_sort(order, order + count, [&](int64_t a, int64_t b) { return digits(a) < digits(b); });
}

int sorted_place_of(int place) { return host_seed() & 1 ? 1 - place : place; }

void exclusive_sum(const uint32_t* in, uint32_t* out, int64_t count) {
  uint32_t sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t value = in[i];
    out[i] = sum;
    sum += value;
  }
}

}  // namespace splat_host

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    default: return "cudaErrorUnknown";
  }
}
const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorInvalidValue: return "invalid argument";
    default: return "unknown error";
  }
}
cudaError_t cudaPeekAtLastError() { return splat_host::last_error(); }
cudaError_t cudaGetLastError() {
  const cudaError_t error = splat_host::last_error();
  splat_host::last_error() = cudaSuccess;
  return error;
}
cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return cudaErrorInvalidDevice;
  *properties = cudaDeviceProp{};
  std::strcpy(properties->name, "fibers on the host");
  properties->totalGlobalMem = size_t(8) << 30;
  properties->sharedMemPerBlock = 48 * 1024, properties->sharedMemPerBlockOptin = 64 * 1024;
  properties->sharedMemPerMultiprocessor = 64 * 1024;
  properties->major = 7, properties->minor = 5, properties->multiProcessorCount = 4;
  properties->warpSize = 32, properties->maxThreadsPerBlock = 1024;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, device) != cudaSuccess) return cudaErrorInvalidDevice;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = properties.multiProcessorCount; break;
    case cudaDevAttrComputeCapabilityMajor: *value = properties.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = properties.minor; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = int(properties.sharedMemPerBlockOptin); break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = int(properties.sharedMemPerMultiprocessor); break;
  }
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  *free_bytes = size_t(6) << 30, *total_bytes = size_t(8) << 30;
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  if (bytes) std::memset(memory, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  if (bytes) std::memmove(to, from, bytes);
  return cudaSuccess;
}
