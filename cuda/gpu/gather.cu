// Per-splat sums of columns of the slots: statistics and extra channels.
#include "slots.cuh"

namespace splat {
namespace gpu {
namespace {

constexpr int kWarps = 4, kColumnsAtOnce = 16;

struct GatherTask {
  int64_t rows;
  const uint32_t *slot_begin, *slot_count;
  const float* slots;  // at the first column
  float* out;          // at the first column
  int stride, columns, max_column, out_stride;
  bool accumulate;
};

// Budget: 4 bytes per slot and column in, 4 per row and column out; 8 KiB of shared memory.
__global__ void __launch_bounds__(32 * kWarps) gather_kernel(GatherTask task) {
  SPLAT_SHARED_2D(float, sums, kWarps, 32 * kColumnsAtOnce);
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) / 32;
  const int64_t base = (int64_t(blockIdx.x) * kWarps + warp) * 32, row = base + lane;
  const uint32_t count = row < task.rows ? task.slot_count[row] : 0u;
  const uint32_t begin = row < task.rows ? task.slot_begin[row] : 0u;
  const uint32_t drawn = __ballot_sync(kFullWarp, count > 0);
  SlotSums<0>(task.slots, task.stride, task.columns, task.max_column).of_rows(begin, count, sums[warp]);
  __syncwarp();
  for (int i = lane; i < 32 * task.columns; i += 32) {
    const int r = i / task.columns;
    if (base + r >= task.rows) continue;
    float* cell = task.out + (base + r) * task.out_stride + (i - r * task.columns);
    const float value = drawn >> r & 1u ? sums[warp][i] : 0.0f;
    *cell = task.accumulate ? *cell + value : value;
  }
}

}  // namespace

int32_t gather_slots(const splat_rows& rows, const splat_bins& bins, const void* slots, int stride, int first,
                     int columns, int max_column, void* out, bool accumulate, void* stream) {
  if (rows.count == 0) return SPLAT_OK;
  for (int at = 0; at < columns; at += kColumnsAtOnce) {
    const int n = columns - at < kColumnsAtOnce ? columns - at : kColumnsAtOnce;
    const GatherTask task{rows.count, bins.slot_begin, bins.slot_count, static_cast<const float*>(slots) + first + at,
                          static_cast<float*>(out) + at, stride, n, max_column - at, columns, accumulate};
    SPLAT_LAUNCH(gather_kernel, unsigned((rows.count + 32 * kWarps - 1) / (32 * kWarps)), 32 * kWarps, 0, stream, task);
    SPLAT_CHECK(cudaGetLastError());
  }
  return SPLAT_OK;
}

}  // namespace gpu
}  // namespace splat

extern "C" int32_t splat_cuda_gather_stats(const splat_rows* rows, const splat_bins* bins, const void* slot_stats,
                                           int32_t slot_stride, int32_t first, int32_t columns, int32_t max_column,
                                           void* out, void* stream) {
  using namespace splat::gpu;
  if (first < 0 || columns < 1 || first + columns > slot_stride || rows->dtype != SPLAT_F32)
    return refuse(SPLAT_BAD_ARGUMENT, "gather_stats: columns %d..%d of %d, float32 only", first, first + columns,
                  slot_stride);
  return gather_slots(*rows, *bins, slot_stats, slot_stride, first, columns, max_column, out, false, stream);
}
