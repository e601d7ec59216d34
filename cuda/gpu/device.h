// Errors of the CUDA calls: a text per thread behind splat_cuda_error().
#pragma once
#include <cstdint>
#if !defined(SPLAT_HOST_CUDA)
#include <cuda_runtime.h>
#endif
#include "../include/splat.h"

namespace splat {
namespace gpu {

// Keeps the text "what: reason" for splat_cuda_error() and returns SPLAT_CUDA_ERROR.
int32_t failed(cudaError_t error, const char* what);

// Keeps a printf-formatted text of one's own and returns `status`.
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
int32_t refuse(int32_t status, const char* format, ...);

}  // namespace gpu
}  // namespace splat

// Leaves the function with SPLAT_CUDA_ERROR when a call of the runtime fails.
#define SPLAT_CHECK(call)                                                            \
  do {                                                                               \
    const cudaError_t splat_error_ = (call);                                         \
    if (splat_error_ != cudaSuccess) return ::splat::gpu::failed(splat_error_, #call); \
  } while (0)
