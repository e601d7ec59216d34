// splat_cuda_photometric: (1 - lambda) L1 + lambda (1 - SSIM) and its gradient, as in cpu/photometric.h. Masks and
// factors on the L1 are template arguments: who has none pays nothing.
//
// A CTA of 256 threads takes 32 x 22 pixels of the three channels: with the window's margin that is 32 rows of 42, so
// that the pass along rows has exactly one group of four outputs per thread. Sums go through one partial per CTA and
// are added up by one CTA in order. The partials need no memory of their own: they lie in the gradient's place until
// it is written, or in the scratch of the derivative maps when no gradient is wanted.
#include "../math/ssim.h"
#include "warp.cuh"

namespace splat {
namespace gpu {
namespace {

constexpr int kThreads = 256, kColumns = 32, kRows = 22, kRowsPerThread = 3, kQuad = 4;
constexpr int kSourceRows = kRows + 2 * kRadius, kSourceColumns = kColumns + 2 * kRadius, kStride = 44;
constexpr int kSource = kSourceRows * kStride, kFiltered = kSourceRows * kColumns;
static_assert(kSourceRows * kColumns / kQuad == kThreads, "one group per thread");
static_assert(kSourceRows % (kThreads / kWarp) == 0 && kStride <= 2 * kWarp, "rows of the source are dealt to warps");
static_assert(kThreads / kColumns * kRowsPerThread >= kRows, "every row has a thread");

struct PhotometricArgs {
  int width, height;
  const float* color;
  const uint8_t *target, *mask;
  const float* l1_weights;
  float *grad, *maps;
  uint32_t* partials;  // [CTAs,6]: l1, ssim (doubles), sum of the mask (exact: a CTA has 704 pixels), weighted l1
  double* sums;
  double ssim_weight, scale;  // scale = 1 / (3 sum of weights), known here only without a mask
};

// Doubles in memory of any alignment.
__device__ void store_words(uint32_t* to, double value) {
  uint32_t words[2];
  memcpy(words, &value, sizeof(value));
  to[0] = words[0], to[1] = words[1];
}
__device__ double load_words(const uint32_t* from) {
  const uint32_t words[2] = {from[0], from[1]};
  double value;
  memcpy(&value, words, sizeof(value));
  return value;
}

template <bool kMask> struct Picture {
  float x, y, weight;  // rendered with the mask applied, true
  __device__ __forceinline__ Picture(const PhotometricArgs& a, int channel, int64_t pixel) {
    const float color = __ldg(a.color + channel * (int64_t(a.width) * a.height) + pixel);
    y = float(__ldg(a.target + 3 * pixel + channel)) * float(1.0 / 255);
    weight = kMask ? float(__ldg(a.mask + pixel)) * float(1.0 / 255) : 1.0f;
    x = kMask ? weight * color + (1.0f - weight) * y : color;
  }
};

// The window over 4 neighbouring places of a row.
__device__ __forceinline__ void filter_quad(const float (&in)[16], float* out) {
  float sums[kQuad];
#pragma unroll
  for (int j = 0; j < kQuad; ++j) {
    sums[j] = float(window_at(0)) * in[j + kRadius];
#pragma unroll
    for (int k = 1; k <= kRadius; ++k)
      sums[j] = fma(float(window_at(k)), in[j + kRadius - k] + in[j + kRadius + k], sums[j]);
  }
  *reinterpret_cast<float4*>(out) = make_float4(sums[0], sums[1], sums[2], sums[3]);
}

__device__ __forceinline__ void load_quads(const float* from, float (&to)[16]) {
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    const float4 v = reinterpret_cast<const float4*>(from)[q];
    to[4 * q] = v.x, to[4 * q + 1] = v.y, to[4 * q + 2] = v.z, to[4 * q + 3] = v.w;
  }
}

// The window over 3 neighbouring rows of one column.
__device__ __forceinline__ void filter_rows(const float* filtered, int row, int column, float (&out)[kRowsPerThread]) {
  float in[kRowsPerThread + 2 * kRadius];
#pragma unroll
  for (int k = 0; k < kRowsPerThread + 2 * kRadius; ++k)  // the last thread row reaches below the tile
    in[k] = row + k < kSourceRows ? filtered[(row + k) * kColumns + column] : 0.0f;
#pragma unroll
  for (int j = 0; j < kRowsPerThread; ++j) {
    out[j] = float(window_at(0)) * in[j + kRadius];
#pragma unroll
    for (int k = 1; k <= kRadius; ++k)
      out[j] = fma(float(window_at(k)), in[j + kRadius - k] + in[j + kRadius + k], out[j]);
  }
}

// Fills `source` with value(pixel) for the tile and its margin, zero outside the picture: a row per warp. Every lane
// reads some pixel, so that all reads are under way together.
template <int kPlanes, class Value>
__device__ __forceinline__ void fill_source(const PhotometricArgs& a, float* source, Value&& value) {
  const int x0 = int(blockIdx.x) * kColumns - kRadius, y0 = int(blockIdx.y) * kRows - kRadius;
#pragma unroll
  for (int step = 0; step < kSourceRows / (kThreads / kWarp); ++step) {
    const int row = threadIdx.x / kWarp + step * (kThreads / kWarp), y = min(max(y0 + row, 0), a.height - 1);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int column = threadIdx.x % kWarp + half * kWarp, x = min(max(x0 + column, 0), a.width - 1);
      const bool inside = y == y0 + row && x == x0 + column && column < kSourceColumns;
      float values[kPlanes];
      value(int64_t(y) * a.width + x, values);
#pragma unroll
      for (int k = 0; k < kPlanes; ++k)
        if (column < kStride) source[k * kSource + row * kStride + column] = inside ? values[k] : 0.0f;
    }
  }
}

// The sum over the CTA.
template <class T> __device__ T block_sum(T value, T* warps) {
  value = warp_sum(value);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = value;
  __syncthreads();
  T total = 0;
  for (int w = 0; w < kThreads / kWarp; ++w) total += warps[w];
  return total;
}

__device__ __forceinline__ void filter_statistics(const float* source, float* filtered) {
  const int row = threadIdx.x / (kColumns / kQuad), at = threadIdx.x % (kColumns / kQuad) * kQuad;
  float x[16], y[16];
  load_quads(source + row * kStride + at, x);
  load_quads(source + kSource + row * kStride + at, y);
  float* out = filtered + row * kColumns + at;
  filter_quad(x, out);
  filter_quad(y, out + kFiltered);
  float xy[16];
#pragma unroll
  for (int i = 0; i < 16; ++i) xy[i] = x[i] * y[i], x[i] *= x[i], y[i] *= y[i];
  filter_quad(x, out + 2 * kFiltered);
  filter_quad(y, out + 3 * kFiltered);
  filter_quad(xy, out + 4 * kFiltered);
}

template <bool kMask, bool kWeighted>
__global__ void __launch_bounds__(kThreads, 3) photometric_statistics(PhotometricArgs a) {
  SPLAT_SHARED(float4, source_place, 2 * kSource / 4);
  SPLAT_SHARED(float4, filtered_place, 5 * kFiltered / 4);
  SPLAT_SHARED(double, warps, kThreads / kWarp);
  float* const source = reinterpret_cast<float*>(source_place);
  float* const filtered = reinterpret_cast<float*>(filtered_place);
  const int column = threadIdx.x % kColumns, row = threadIdx.x / kColumns * kRowsPerThread;
  const int x = int(blockIdx.x) * kColumns + column, y = int(blockIdx.y) * kRows + row;
  const int64_t plane = int64_t(a.width) * a.height;
  float l1 = 0, ssim = 0, weighted_l1 = 0;
  uint32_t mask_sum = 0;
  for (int channel = 0; channel < 3; ++channel) {
    __syncthreads();  // the last channel has been read
    fill_source<2>(a, source, [&](int64_t pixel, float* values) {
      const Picture<kMask> picture(a, channel, pixel);
      values[0] = picture.x, values[1] = picture.y;
    });
    __syncthreads();
    filter_statistics(source, filtered);
    __syncthreads();
    float m[5][kRowsPerThread];
#pragma unroll
    for (int q = 0; q < 5; ++q) filter_rows(filtered + q * kFiltered, row, column, m[q]);
#pragma unroll
    for (int j = 0; j < kRowsPerThread; ++j) {
      if (x >= a.width || y + j >= a.height || row + j >= kRows) continue;
      const int64_t pixel = int64_t(y + j) * a.width + x;
      const int place = (row + j + kRadius) * kStride + column + kRadius;
      const SsimPixel<float> s(m[0][j], m[1][j], m[2][j], m[3][j], m[4][j]);
      const uint32_t byte = kMask ? __ldg(a.mask + pixel) : 0;
      const float weight = kMask ? float(byte) * float(1.0 / 255) : 1.0f;
      const float distance = fabsf(source[place] - source[kSource + place]);
      l1 += distance;
      if (kWeighted) weighted_l1 = fma(__ldg(a.l1_weights + pixel), distance, weighted_l1);
      ssim = fma(weight, s.value, ssim);
      if (channel == 0) mask_sum += byte;
      if (a.grad) {
        float* const to = a.maps + 3 * channel * plane + pixel;
        to[0] = weight * s.d_x, to[plane] = weight * s.d_xx, to[2 * plane] = weight * s.d_xy;
      }
    }
  }
  const double l1_total = block_sum(double(l1), warps), ssim_total = block_sum(double(ssim), warps);
  const double mask_total = kMask ? block_sum(double(mask_sum), warps) : 0.0;
  const double weighted_total = kWeighted ? block_sum(double(weighted_l1), warps) : 0.0;
  if (threadIdx.x == 0) {
    uint32_t* const out = a.partials + 6 * (size_t(blockIdx.y) * gridDim.x + blockIdx.x);
    store_words(out, l1_total), store_words(out + 2, ssim_total);
    out[4] = uint32_t(mask_total), out[5] = __float_as_uint(float(weighted_total));
  }
}

// Two floats in the place of a double.
__device__ double packed(float a, float b) {
  const float both[2] = {a, b};
  double value;
  memcpy(&value, both, sizeof(value));
  return value;
}

// l1 and ssim from the partials. With a mask the gradient's scale is left in sums[0], and where there are factors
// sums[1] holds both kinds of l1; photometric_total() comes later.
template <bool kMask, bool kWeighted>
__global__ void __launch_bounds__(kThreads) photometric_sums(PhotometricArgs a, int count) {
  SPLAT_SHARED(double, warps, kThreads / kWarp);
  double sums[4] = {};
  for (int i = threadIdx.x; i < count; i += kThreads) {
    const uint32_t* const from = a.partials + 6 * size_t(i);
    sums[0] += load_words(from), sums[1] += load_words(from + 2), sums[2] += from[4];
    sums[3] += __uint_as_float(from[5]);
  }
  for (int c = 0; c < (kWeighted ? 4 : 3); ++c) sums[c] = block_sum(sums[c], warps);
  if (threadIdx.x != 0) return;
  // Nothing counts: no loss, no gradient. The sum of the mask is an exact integer.
  const double weight = sums[2] / 255;
  const double scale = !kMask ? a.scale : weight > 0 ? 1 / (3 * weight) : 0;
  const double l1 = sums[0] * scale, ssim = scale > 0 ? sums[1] * scale : 1;
  const double counted = kWeighted ? sums[3] * scale : l1;
  a.sums[0] = kMask && a.grad ? scale : (1 - a.ssim_weight) * counted + a.ssim_weight * (1 - ssim);
  a.sums[1] = kMask && kWeighted && a.grad ? packed(float(l1), float(counted)) : l1, a.sums[2] = ssim;
}

template <bool kWeighted> __global__ void photometric_total(PhotometricArgs a) {
  double counted = a.sums[1];
  if (kWeighted) {
    float both[2];
    memcpy(both, a.sums + 1, sizeof(both));
    a.sums[1] = both[0], counted = both[1];
  }
  a.sums[0] = (1 - a.ssim_weight) * counted + a.ssim_weight * (1 - a.sums[2]);
}

template <bool kMask, bool kWeighted>
__global__ void __launch_bounds__(kThreads, 3) photometric_gradient(PhotometricArgs a) {
  SPLAT_SHARED(float4, source_place, 3 * kSource / 4);
  SPLAT_SHARED(float4, filtered_place, 3 * kFiltered / 4);
  float* const source = reinterpret_cast<float*>(source_place);
  float* const filtered = reinterpret_cast<float*>(filtered_place);
  const int column = threadIdx.x % kColumns, row = threadIdx.x / kColumns * kRowsPerThread;
  const int x = int(blockIdx.x) * kColumns + column, y = int(blockIdx.y) * kRows + row;
  const int64_t plane = int64_t(a.width) * a.height;
  const double scale = kMask ? a.sums[0] : a.scale;
  const float k_ssim = float(-a.ssim_weight * scale), k_l1 = float((1 - a.ssim_weight) * scale);
  for (int channel = 0; channel < 3; ++channel) {
    __syncthreads();
    fill_source<3>(a, source, [&](int64_t pixel, float* values) {
#pragma unroll
      for (int m = 0; m < 3; ++m) values[m] = __ldg(a.maps + (3 * channel + m) * plane + pixel);
    });
    __syncthreads();
    const int quad_row = threadIdx.x / (kColumns / kQuad), at = threadIdx.x % (kColumns / kQuad) * kQuad;
#pragma unroll
    for (int m = 0; m < 3; ++m) {
      float values[16];
      load_quads(source + m * kSource + quad_row * kStride + at, values);
      filter_quad(values, filtered + m * kFiltered + quad_row * kColumns + at);
    }
    __syncthreads();
    float d[3][kRowsPerThread];
#pragma unroll
    for (int m = 0; m < 3; ++m) filter_rows(filtered + m * kFiltered, row, column, d[m]);
#pragma unroll
    for (int j = 0; j < kRowsPerThread; ++j) {
      if (x >= a.width || y + j >= a.height || row + j >= kRows) continue;
      const int64_t pixel = int64_t(y + j) * a.width + x;
      const Picture<kMask> picture(a, channel, pixel);
      const float slope = d[0][j] + 2.0f * picture.x * d[1][j] + picture.y * d[2][j];
      const float diff = picture.x - picture.y;
      float sign = diff > 0.0f ? 1.0f : diff < 0.0f ? -1.0f : 0.0f;
      if (kWeighted) sign *= __ldg(a.l1_weights + pixel);
      a.grad[channel * plane + pixel] = picture.weight * fma(k_ssim, slope, k_l1 * sign);
    }
  }
}

template <bool kMask, bool kWeighted> int32_t photometric(const PhotometricArgs& a, void* stream) {
  const dim3 grid(unsigned((a.width + kColumns - 1) / kColumns), unsigned((a.height + kRows - 1) / kRows));
  SPLAT_LAUNCH((photometric_statistics<kMask, kWeighted>), grid, kThreads, 0, stream, a);
  SPLAT_LAUNCH((photometric_sums<kMask, kWeighted>), 1, kThreads, 0, stream, a, int(grid.x * grid.y));
  if (a.grad) SPLAT_LAUNCH((photometric_gradient<kMask, kWeighted>), grid, kThreads, 0, stream, a);
  if (a.grad && kMask) SPLAT_LAUNCH(photometric_total<kWeighted>, 1, 1, 0, stream, a);
  SPLAT_CHECK(cudaGetLastError());
  return SPLAT_OK;
}

}  // namespace
}  // namespace gpu
}  // namespace splat

using namespace splat;
using namespace splat::gpu;

int32_t splat_cuda_photometric(int32_t width, int32_t height, const void* color, const uint8_t* target,
                               const uint8_t* mask, const void* l1_weights, double ssim_weight, void* grad,
                               void* scratch, double* sums, void* stream) {
  if (width < 1 || height < 1 || width > 16384 || height > 16384)
    return refuse(SPLAT_BAD_ARGUMENT, "photometric: pictures of %d x %d pixels", int(width), int(height));
  PhotometricArgs a;
  a.width = width, a.height = height;
  a.color = static_cast<const float*>(color), a.target = target, a.mask = mask;
  a.l1_weights = static_cast<const float*>(l1_weights);
  a.grad = static_cast<float*>(grad), a.maps = static_cast<float*>(scratch);
  a.sums = sums, a.ssim_weight = ssim_weight, a.scale = 1 / (3 * double(width) * height);
  // A single CTA's partial is as large as the sums; two CTAs have 23 pixels or more, and 12 bytes of gradient for each.
  const bool single = width <= kColumns && height <= kRows;
  a.partials = single ? reinterpret_cast<uint32_t*>(sums) : static_cast<uint32_t*>(grad ? grad : scratch);
  if (l1_weights) return mask ? photometric<true, true>(a, stream) : photometric<false, true>(a, stream);
  return mask ? photometric<true, false>(a, stream) : photometric<false, false>(a, stream);
}
