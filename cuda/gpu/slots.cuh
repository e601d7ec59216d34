// Sums of a splat's contiguous slots, by a warp for its 32 rows. The order of additions depends on nothing but the
// number of slots, so results repeat to the bit.
#pragma once
#include "warp.cuh"

namespace splat {
namespace gpu {

constexpr uint32_t kManySlots = 96;  // beyond this a lane takes whole slots

// Lanes are `32 / columns` groups that take every so-many-th slot: loads of a group are one piece of memory. Column
// max_column takes the maximum of values >= 0 instead of the sum. kColumns = 0: as many as given, at most 32, any of
// which may take the maximum. Budget: 36 bytes per slot of 9 columns, 1.3 instructions per slot and lane; two rows and
// four slots of each are in flight.
template <int kColumns> class SlotSums {
 public:
  __device__ SlotSums(const float* slots, int stride, int columns, int max_column)
      : slots_(slots), stride_(stride), max_column_(kColumns ? -1 : max_column) {
    columns_ = kColumns ? kColumns : columns;
    lane_ = int(threadIdx.x) & 31;
    groups_ = 32 / columns_, group_ = lane_ / columns_, column_ = lane_ % columns_;
  }

  // out [32, columns] in shared memory; rows without slots are left alone. begin, count: of this lane's row.
  __device__ void of_rows(uint32_t begin, uint32_t count, float* out) const;

 private:
  __device__ float combine(float a, float b, int column) const {
    return !kColumns && column == max_column_ ? (b > a ? b : a) : a + b;
  }
  __device__ float part(uint32_t begin, uint32_t count) const;
  __device__ float over_groups(float part) const;
  __device__ float over_lanes(float part, int column) const;
  __device__ void whole_slots(uint32_t begin, uint32_t count, float* out) const;

  const float* slots_;
  int stride_, columns_, max_column_, lane_, groups_, group_, column_;
};

template <int kColumns>
__device__ __forceinline__ void SlotSums<kColumns>::of_rows(uint32_t begin, uint32_t count, float* out) const {
  const uint32_t many = __ballot_sync(kFullWarp, count > kManySlots);
  uint32_t few = __ballot_sync(kFullWarp, count > 0) & ~many;
  while (few) {
    const int first = __ffs(int(few)) - 1;
    few &= few - 1;
    const int second = few ? __ffs(int(few)) - 1 : first;
    few &= few - 1;
    const uint32_t begin_1 = __shfl_sync(kFullWarp, begin, first), count_1 = __shfl_sync(kFullWarp, count, first);
    const uint32_t begin_2 = __shfl_sync(kFullWarp, begin, second), count_2 = __shfl_sync(kFullWarp, count, second);
    const float part_1 = part(begin_1, count_1), part_2 = part(begin_2, second == first ? 0u : count_2);
    const float sum_1 = over_groups(part_1), sum_2 = over_groups(part_2);
    if (lane_ < columns_) out[first * columns_ + lane_] = sum_1;
    if (lane_ < columns_ && second != first) out[second * columns_ + lane_] = sum_2;
  }
  for (uint32_t rest = many; rest; rest &= rest - 1) {
    const int row = __ffs(int(rest)) - 1;
    whole_slots(__shfl_sync(kFullWarp, begin, row), __shfl_sync(kFullWarp, count, row), out + row * columns_);
  }
}

// This lane's share of its column.
template <int kColumns>
__device__ __forceinline__ float SlotSums<kColumns>::part(uint32_t begin, uint32_t count) const {
  float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  const float* at = slots_ + size_t(begin) * stride_ + column_;
  if (group_ < groups_)
    for (uint32_t s = uint32_t(group_); s < count; s += 4 * groups_)
#pragma unroll
      for (int u = 0; u < 4; ++u) {
        const uint32_t slot = s + u * groups_;
        if (slot < count) sum[u] = combine(sum[u], at[size_t(slot) * stride_], column_);
      }
  return combine(combine(sum[0], sum[1], column_), combine(sum[2], sum[3], column_), column_);
}

template <int kColumns> __device__ __forceinline__ float SlotSums<kColumns>::over_groups(float part) const {
  if (kColumns == 1) return over_lanes(part, 0);
  float sum = part;
  for (int g = 1; g < groups_; ++g) {
    const int from = column_ + g * columns_;  // beyond the warp for lanes outside group 0, whose sums nobody reads
    sum = combine(sum, __shfl_sync(kFullWarp, part, from < 32 ? from : 0), column_);
  }
  return sum;
}

template <int kColumns> __device__ __forceinline__ float SlotSums<kColumns>::over_lanes(float part, int column) const {
#pragma unroll
  for (int d = 16; d; d >>= 1) part = combine(part, __shfl_xor_sync(kFullWarp, part, d), column);
  return part;
}

// One row with many slots: 32 of them at a time, a lane each.
template <int kColumns>
__device__ __forceinline__ void SlotSums<kColumns>::whole_slots(uint32_t begin, uint32_t count, float* out) const {
  const float* at = slots_ + size_t(begin) * stride_;
  constexpr int kAtOnce = kColumns ? kColumns : 4;
  for (int from = 0; from < columns_; from += kAtOnce) {
    float sum[kAtOnce] = {};
#pragma unroll 2
    for (uint32_t s = uint32_t(lane_); s < count; s += 32)
#pragma unroll
      for (int c = 0; c < kAtOnce; ++c)
        if (kColumns || from + c < columns_) sum[c] = combine(sum[c], at[size_t(s) * stride_ + from + c], from + c);
#pragma unroll
    for (int c = 0; c < kAtOnce; ++c) {
      const float total = over_lanes(sum[c], from + c);
      if (lane_ == 0 && from + c < columns_) out[from + c] = total;
    }
  }
}

// out [N, columns] = per row the sums of the slots' columns first .. first + columns - 1 (gather.cu).
int32_t gather_slots(const splat_rows& rows, const splat_bins& bins, const void* slots, int stride, int first,
                     int columns, int max_column, void* out, bool accumulate, void* stream);

}  // namespace gpu
}  // namespace splat
