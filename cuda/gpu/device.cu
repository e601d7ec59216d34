// What the library knows about the machine: devices, versions, architectures, and the last error of a thread.
// Nothing here needs a GPU to link or to load: the runtime is linked in, and it looks for the driver when called.
#include "device.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#if !defined(SPLAT_CUDA_ARCHITECTURES)
#define SPLAT_CUDA_ARCHITECTURES "unknown"  // such as "75 80 ptx80": machine code for 7.5 and 8.0, PTX from 8.0 on
#endif

namespace splat::gpu {
namespace {

constexpr int kTextBytes = 512;
thread_local char last_error[kTextBytes] = "";
thread_local char last_info[kTextBytes] = "";

}  // namespace

int32_t refuse(int32_t status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(last_error, sizeof last_error, format, arguments);
  va_end(arguments);
  return status;
}

#if defined(SPLAT_HOST_CUDA)

int32_t failed(cudaError_t error, const char* what) {
  return refuse(SPLAT_CUDA_ERROR, "%s: error %d", what, int(error));
}

#else

int32_t failed(cudaError_t error, const char* what) {
  cudaGetLastError();  // the runtime remembers it otherwise, and the next launch would be blamed
  return refuse(SPLAT_CUDA_ERROR, "%s: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

namespace {

// Oldest Linux driver that runs programs of this CUDA release (NVIDIA's table of minor version compatibility).
int oldest_driver() { return CUDART_VERSION >= 13000 ? 580 : CUDART_VERSION >= 12000 ? 525 : 450; }

// Whether code for `capability` (such as 86) is in here: machine code runs on the same major version from its minor
// version on, PTX on everything from its version on.
bool runs_on(int capability) {
  for (const char* at = SPLAT_CUDA_ARCHITECTURES; *at != '\0';) {
    const bool ptx = std::strncmp(at, "ptx", 3) == 0;
    const int built = std::atoi(at + (ptx ? 3 : 0));
    if (built > 0 && built <= capability && (ptx || built / 10 == capability / 10)) return true;
    while (*at != '\0' && *at != ' ') ++at;
    while (*at == ' ') ++at;
  }
  return std::strcmp(SPLAT_CUDA_ARCHITECTURES, "unknown") == 0;
}

int32_t no_devices(cudaError_t error) {
  int driver = 0;
  cudaDriverGetVersion(&driver);
  if (error == cudaErrorInsufficientDriver && driver == 0)
    return refuse(-1, "no driver: this machine has no NVIDIA driver (libcuda is not there); install %d or newer",
                  oldest_driver());
  if (error == cudaErrorInsufficientDriver)
    return refuse(-1, "driver too old: it serves CUDA %d.%d, this library was built with %d.%d; install driver %d or newer",
                  driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10, oldest_driver());
  if (error == cudaErrorNoDevice || error == cudaSuccess)
    return refuse(-1, "no GPU: the NVIDIA driver is there but shows no device (is CUDA_VISIBLE_DEVICES empty?)");
  return refuse(-1, "the GPU cannot be used: %s (%s)", cudaGetErrorString(error), cudaGetErrorName(error));
}

// The compute capability of a device times ten, or -1 with an error when this library has no code for it.
int usable_capability(int device) {
  int major = 0, minor = 0;
  const cudaError_t first = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  const cudaError_t second = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  if (first != cudaSuccess || second != cudaSuccess) return failed(first, "compute capability"), -1;
  if (runs_on(10 * major + minor)) return 10 * major + minor;
  return refuse(-1, "wrong compute capability: GPU %d is %d.%d, this library has code for %s", device, major, minor,
                SPLAT_CUDA_ARCHITECTURES);
}

}  // namespace
#endif  // !SPLAT_HOST_CUDA

}  // namespace splat::gpu

using namespace splat::gpu;

extern "C" {

int32_t splat_abi_version(void) { return SPLAT_ABI_VERSION; }

const char* splat_cuda_error(void) { return last_error; }

const char* splat_cuda_architectures(void) { return SPLAT_CUDA_ARCHITECTURES; }

#if defined(SPLAT_HOST_CUDA)

int32_t splat_cuda_device_count(void) { return 1; }

const char* splat_cuda_device_info(int32_t device) {
  if (device != 0) return refuse(0, "no device %d: the host build has one", device), nullptr;
  std::snprintf(last_info, sizeof last_info, "kernels as fibers of this process (a build for tests, no GPU)");
  return last_info;
}

#else

int32_t splat_cuda_device_count(void) {
  int count = 0, usable = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (error != cudaSuccess || count == 0) return no_devices(error);
  for (int device = 0; device < count; ++device) usable += usable_capability(device) > 0;
  return usable > 0 ? count : -1;
}

const char* splat_cuda_device_info(int32_t device) {
  const int capability = usable_capability(device);
  if (capability < 0) return nullptr;
  cudaDeviceProp facts;
  const cudaError_t error = cudaGetDeviceProperties(&facts, device);
  if (error != cudaSuccess) return failed(error, "device properties"), nullptr;
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  std::snprintf(last_info, sizeof last_info, "%s, compute %d.%d, %.0f GiB, driver for CUDA %d.%d, built with CUDA %d.%d",
                facts.name, capability / 10, capability % 10, double(facts.totalGlobalMem) / (1 << 30), driver / 1000,
                driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
  return last_info;
}

#endif

}  // extern "C"
