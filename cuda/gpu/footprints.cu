// What the library says about its footprints and about the rows that blending leaves per instance.
#include "footprints.cuh"

#include <cstring>
#include <string>

namespace splat {
namespace gpu {
namespace {

struct Facts {
  const char* name;
  int record_reals, sums;
};

// Of one footprint; without a name where there is none of that index.
Facts facts(int footprint) {
  Facts found{nullptr, 0, 0};
  if (footprint >= 0 && footprint < kFootprintCount)
    visit_footprint(footprint, [&](auto row) -> int32_t {
      using F = FootprintOf<decltype(row)>;
      static_assert(F::kRecord % 4 == 0 && F::kRecord <= SPLAT_MAX_RECORD && F::kSums + 3 <= SPLAT_MAX_SLOT, "layout");
      found = {row.name, F::kRecord, F::kSums};
      return SPLAT_OK;
    });
  return found;
}

int bits_of(int32_t x) {
  int count = 0;
  for (uint32_t rest = uint32_t(x); rest != 0; rest &= rest - 1) ++count;
  return count;
}

}  // namespace
}  // namespace gpu
}  // namespace splat

using namespace splat::gpu;

const char* splat_footprints(void) {
  static const std::string names = [] {
    std::string all;
    for (int i = 0; i < kFootprintCount; ++i) all += (i ? " " : "") + std::string(facts(i).name);
    return all;
  }();
  return names.c_str();
}

int32_t splat_footprint(const char* name) {
  for (int i = 0; name != nullptr && i < kFootprintCount; ++i)
    if (std::strcmp(facts(i).name, name) == 0) return i;
  return -1;
}

int32_t splat_record_reals(int32_t footprint) { return facts(footprint).record_reals; }

int32_t splat_footprint_sums(int32_t footprint) { return facts(footprint).sums; }

// The slot layouts are those of the CPU backend; both libraries answer for themselves.
int32_t splat_forward_stat_stride(int32_t stats, int32_t maps) {
  return bits_of(stats & ~SPLAT_STAT_WEIGHTED) + ((stats & SPLAT_STAT_WEIGHTED) ? 2 * maps : 0);
}

int32_t splat_backward_slot_stride(int32_t footprint, int32_t stats, int32_t extra_channels) {
  const int columns = bits_of(stats) + ((stats & SPLAT_STAT_ABS_GRAD) ? 1 : 0);
  return splat_footprint_sums(footprint) + 3 + extra_channels + columns;
}
