// Tile lists: which tiles the splats of a chunk of rows meet.
#pragma once
#include "../math/composite.h"
#include "kernels.h"

namespace splat {
inline namespace SPLAT_ISA {

// Tiles of the splats of one chunk of rows, into their slots.
template <class F, class S> void walk_chunk(const BinTask& task, int64_t chunk) {
  const S* records = (const S*)task.projected->records;
  const splat_bins& bins = *task.bins;
  const int tiles_x = (task.view->width + kTile - 1) / kTile;
  for (int64_t row = chunk * kRowChunk; row < task.rows->count && row < (chunk + 1) * kRowChunk; ++row) {
    bins.slot_count[row] = 0;
    if (task.projected->rect_tiles[row] == 0) continue;
    uint32_t* out = task.tile_of_slot + bins.slot_begin[row];
    bins.slot_count[row] = walk_tiles<F, S>(records + row * F::kRecord, task.view->width, task.view->height,
                                            tiles_x, [&](uint32_t tile) { *out++ = tile; });
  }
}

}  // namespace SPLAT_ISA
}  // namespace splat
