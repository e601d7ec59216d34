// The few things that differ between nvcc and the host harness of the tests: launches, shared memory, error checks.
// Every kernel is launched through SPLAT_LAUNCH and declares its shared memory by the macros below.
#pragma once
#include <cstddef>
#include <cstdint>
#if !defined(SPLAT_HOST_CUDA)
#include <cuda_runtime.h>
#endif  // else tests/native/cuda_host.h was included before everything (-include)
#include "../include/splat.h"
#include "device.h"

#if !defined(SPLAT_HOST_CUDA)

// A kernel whose name holds commas goes in parentheses: SPLAT_LAUNCH((blend<A, B>), grid, 256, 0, stream, x, y).
// Configuration errors come back from cudaGetLastError(): follow launches by SPLAT_CHECK(cudaGetLastError()).
#define SPLAT_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  (kernel)<<<(grid), (block), (shared_bytes), static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)

// type name[count] in shared memory, uninitialised. Use inside a kernel or a device function.
#define SPLAT_SHARED(type, name, count) __shared__ type name[count]
#define SPLAT_SHARED_2D(type, name, rows, columns) __shared__ type name[rows][columns]

// The launch's dynamic shared memory as `type* name`, 16-byte aligned. All uses in a kernel see the same bytes.
#define SPLAT_DYNAMIC_SHARED(type, name)                             \
  extern __shared__ __align__(16) unsigned char splat_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(splat_dynamic_shared)

#else

#define SPLAT_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::splat_host::launch(#kernel, (kernel), (grid), (block), (shared_bytes), static_cast<cudaStream_t>(stream), \
                       ##__VA_ARGS__)

#define SPLAT_SHARED(type, name, count)                  \
  using name##_array_ = type[count];                     \
  static ::splat_host::SharedArray name##_place_{#name}; \
  name##_array_& name = *static_cast<name##_array_*>(name##_place_.get(sizeof(name##_array_)))
#define SPLAT_SHARED_2D(type, name, rows, columns)       \
  using name##_array_ = type[rows][columns];             \
  static ::splat_host::SharedArray name##_place_{#name}; \
  name##_array_& name = *static_cast<name##_array_*>(name##_place_.get(sizeof(name##_array_)))
#define SPLAT_DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(::splat_host::dynamic_shared())

#endif
