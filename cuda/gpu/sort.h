// Radix sort and scan: CUB on the device, the standard library in the host harness. Keys are unsigned integers and
// values travel with them; sorts are stable. Counts stay below 2^31.
#pragma once
#include <cstddef>
#include <cstdint>
#if !defined(SPLAT_HOST_CUDA)
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#endif
#include "launch.h"

namespace splat {
namespace gpu {

// Two places for keys and two for values: a sort moves them back and forth. `current` says which place holds them.
template <class Key, class Value> struct SortBuffers {
  Key* keys[2];
  Value* values[2];
  int current;  // 0 or 1; changed by sort_pairs at once, before the device has sorted
};

#if !defined(SPLAT_HOST_CUDA)

// Scratch bytes of sort_pairs for up to `count` pairs and any range of bits.
template <class Key, class Value> size_t sort_pairs_scratch(int64_t count) {
  size_t bytes = 0;
  cub::DoubleBuffer<Key> keys(nullptr, nullptr);
  cub::DoubleBuffer<Value> values(nullptr, nullptr);
  cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys, values, int(count), 0, int(sizeof(Key) * 8));
  return bytes;
}

// Sorts by the bits [begin_bit, end_bit) of the keys. What the other place held is lost.
template <class Key, class Value>
cudaError_t sort_pairs(void* scratch, size_t scratch_bytes, SortBuffers<Key, Value>& pairs, int64_t count,
                       int begin_bit, int end_bit, cudaStream_t stream) {
  if (count <= 0 || begin_bit >= end_bit) return cudaSuccess;
  cub::DoubleBuffer<Key> keys(pairs.keys[pairs.current], pairs.keys[1 - pairs.current]);
  cub::DoubleBuffer<Value> values(pairs.values[pairs.current], pairs.values[1 - pairs.current]);
  const cudaError_t error = cub::DeviceRadixSort::SortPairs(scratch, scratch_bytes, keys, values, int(count),
                                                            begin_bit, end_bit, stream);
  pairs.current = keys.selector ? 1 - pairs.current : pairs.current;
  return error;
}

// Scratch bytes of sort_pairs_into (it holds the second places itself).
template <class Key, class Value> size_t sort_pairs_into_scratch(int64_t count) {
  size_t bytes = 0;
  cub::DeviceRadixSort::SortPairs(nullptr, bytes, static_cast<const Key*>(nullptr), static_cast<Key*>(nullptr),
                                  static_cast<const Value*>(nullptr), static_cast<Value*>(nullptr), int(count), 0,
                                  int(sizeof(Key) * 8));
  return bytes;
}

// The same into given arrays; the input is kept and must not overlap the output.
template <class Key, class Value>
cudaError_t sort_pairs_into(void* scratch, size_t scratch_bytes, const Key* keys_in, Key* keys_out,
                            const Value* values_in, Value* values_out, int64_t count, int begin_bit, int end_bit,
                            cudaStream_t stream) {
  if (count <= 0) return cudaSuccess;
  return cub::DeviceRadixSort::SortPairs(scratch, scratch_bytes, keys_in, keys_out, values_in, values_out, int(count),
                                         begin_bit, end_bit, stream);
}

// out[i] = in[0] + ... + in[i-1]; in place when out == in.
inline size_t exclusive_sum_scratch(int64_t count) {
  size_t bytes = 0;
  cub::DeviceScan::ExclusiveSum(nullptr, bytes, static_cast<const uint32_t*>(nullptr), static_cast<uint32_t*>(nullptr),
                                int(count));
  return bytes;
}
inline cudaError_t exclusive_sum(void* scratch, size_t scratch_bytes, const uint32_t* in, uint32_t* out, int64_t count,
                                 cudaStream_t stream) {
  if (count <= 0) return cudaSuccess;
  return cub::DeviceScan::ExclusiveSum(scratch, scratch_bytes, in, out, int(count), stream);
}

#else

template <class Key, class Value> size_t sort_pairs_scratch(int64_t count) {
  return ::splat_host::sort_scratch(count, 0);
}
template <class Key, class Value>
cudaError_t sort_pairs(void* scratch, size_t scratch_bytes, SortBuffers<Key, Value>& pairs, int64_t count,
                       int begin_bit, int end_bit, cudaStream_t) {
  if (count <= 0 || begin_bit >= end_bit) return cudaSuccess;
  ::splat_host::claim_scratch(scratch, scratch_bytes, sort_pairs_scratch<Key, Value>(count));
  const int from = pairs.current, to = 1 - from;
  ::splat_host::sort_pairs(pairs.keys[from], pairs.keys[to], pairs.values[from], pairs.values[to], count, begin_bit,
                           end_bit);
  // Where CUB leaves them depends on its number of passes: callers must follow `current`.
  pairs.current = ::splat_host::sorted_place(pairs.keys, pairs.values, to, count);
  return cudaSuccess;
}
template <class Key, class Value> size_t sort_pairs_into_scratch(int64_t count) {
  return ::splat_host::sort_scratch(count, sizeof(Key) + sizeof(Value));
}
template <class Key, class Value>
cudaError_t sort_pairs_into(void* scratch, size_t scratch_bytes, const Key* keys_in, Key* keys_out,
                            const Value* values_in, Value* values_out, int64_t count, int begin_bit, int end_bit,
                            cudaStream_t) {
  if (count <= 0) return cudaSuccess;
  ::splat_host::claim_scratch(scratch, scratch_bytes, sort_pairs_into_scratch<Key, Value>(count));
  ::splat_host::sort_pairs(keys_in, keys_out, values_in, values_out, count, begin_bit, end_bit);
  return cudaSuccess;
}
inline size_t exclusive_sum_scratch(int64_t count) { return ::splat_host::sort_scratch(count, 0); }
inline cudaError_t exclusive_sum(void* scratch, size_t scratch_bytes, const uint32_t* in, uint32_t* out, int64_t count,
                                 cudaStream_t) {
  if (count <= 0) return cudaSuccess;
  ::splat_host::claim_scratch(scratch, scratch_bytes, exclusive_sum_scratch(count));
  ::splat_host::exclusive_sum(in, out, count);
  return cudaSuccess;
}

#endif

}  // namespace gpu
}  // namespace splat
