// Blending tasks: one 16x16 tile each, splats near to far, a row of pixels per pack. What forward and backward share;
// the arithmetic of a fragment is in math/composite.h.
#pragma once
#include "../math/composite.h"
#include "kernels.h"

namespace splat {
inline namespace SPLAT_ISA {

constexpr int kAliveEvery = 8;  // splats between two looks for finished rows

// Where a tile lies and which of its pixels exist.
template <class P> struct TileGeometry {
  using S = typename Lanes<P>::Scalar;
  static constexpr int W = Lanes<P>::width, kBlocks = kTile / W;
  int x0, y0, width, height, columns, rows;
  uint32_t begin, end;
  P px[kBlocks];

  TileGeometry(const BlendTask& task, int64_t tile) {
    width = task.view->width, height = task.view->height;
    const int tiles_x = (width + kTile - 1) / kTile;
    x0 = int(tile % tiles_x) * kTile, y0 = int(tile / tiles_x) * kTile;
    columns = width - x0 < kTile ? width - x0 : kTile;
    rows = height - y0 < kTile ? height - y0 : kTile;
    begin = task.bins->tile_begin[tile], end = task.bins->tile_begin[tile + 1];
    for (int b = 0; b < kBlocks; ++b) px[b] = Lanes<P>::iota() + P(S(x0 + b * W + 0.5));
  }

  int64_t pixel(int row) const { return int64_t(y0 + row) * width + x0; }

  void load(const void* plane, S* out, S outside) const {
    for (int r = 0; r < kTile; ++r)
      for (int c = 0; c < kTile; ++c)
        out[r * kTile + c] = r < rows && c < columns ? ((const S*)plane)[pixel(r) + c] : outside;
  }
  void store(void* plane, const S* in) const {
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < columns; ++c) ((S*)plane)[pixel(r) + c] = in[r * kTile + c];
  }
  void start_transmittance(S* T) const {
    for (int r = 0; r < kTile; ++r)
      for (int c = 0; c < kTile; ++c) T[r * kTile + c] = r < rows && c < columns ? S(1) : S(-1);
  }

  // Rows of the tile whose centres the footprint reaches; false when none.
  bool row_range(const S* record, int* first, int* last) const {
    const S lo = record[1] - record[kExtentY] - S(y0 + 0.5), hi = record[1] + record[kExtentY] - S(y0 + 0.5);
    if (hi < S(0) || lo > S(kTile - 1)) return false;
    int l = 0;
    if (lo > S(0)) l = int(lo), l += S(l) < lo ? 1 : 0;
    *first = l;
    *last = hi >= S(rows - 1) ? rows - 1 : int(hi);
    return *first <= *last;
  }
  bool block_missed(const S* record, int b) const {
    if (kBlocks == 1) return false;
    const S left = S(x0 + b * W) + S(0.5), right = left + S(W - 1);
    return record[0] + record[kExtentX] < left || record[0] - record[kExtentX] > right;
  }
  // Bit r is set while some pixel of row r is unfinished.
  uint32_t alive_rows(const S* T) const {
    uint32_t alive = 0;
    for (int r = 0; r < rows; ++r) {
      bool open = false;
      for (int b = 0; b < kBlocks; ++b) open |= any(lt(P(S(0)), Lanes<P>::load(T + r * kTile + b * W)));
      alive |= uint32_t(open) << r;
    }
    return alive;
  }
};

// Features of one splat; null when the render has none.
template <class S> SPLAT_HD const S* feature_row(const splat_rows& rows, uint32_t splat) {
  return rows.features ? (const S*)rows.features + int64_t(splat) * rows.feature_count : nullptr;
}

// In place of the extras of a pass that wants none.
struct NoExtras {
  template <class... Args> SPLAT_HD explicit NoExtras(const Args&...) {}
};

}  // namespace SPLAT_ISA
}  // namespace splat
