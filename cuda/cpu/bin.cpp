// Depth sort of the visible splats and the list of splats of every tile. Both sorts are stable, so equal depths keep
// the order of their rows and the result depends on nothing but the input.
#include "bin.h"

#include <vector>

#include "pool.h"

namespace splat {
namespace {

constexpr int kSortChunk = 1 << 14, kDigitBits = 11, kDigits = 1 << kDigitBits, kTileChunks = 32, kAhead = 12;
constexpr uint32_t kHidden = 0xffffffffu;

// Scratch kept between calls; one call at a time per thread.
struct Scratch {
  std::vector<uint32_t> keys[2], rows, histogram, tile_of_slot, counts;
};
thread_local Scratch scratch;

int64_t chunks_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

// Rows that are drawn, in row order; returns how many.
int64_t compact(const splat_rows& rows, const splat_projected& projected, uint32_t* keys, uint32_t* order) {
  const int64_t n = rows.count, chunks = chunks_of(n, kSortChunk);
  scratch.counts.assign(size_t(chunks) + 1, 0);
  uint32_t* counts = scratch.counts.data();
  parallel_for(chunks, [&](int64_t c) {
    uint32_t k = 0;
    for (int64_t i = c * kSortChunk; i < n && i < (c + 1) * kSortChunk; ++i) k += projected.depth_keys[i] != kHidden;
    counts[c + 1] = k;
  });
  for (int64_t c = 0; c < chunks; ++c) counts[c + 1] += counts[c];
  parallel_for(chunks, [&](int64_t c) {
    uint32_t at = counts[c];
    for (int64_t i = c * kSortChunk; i < n && i < (c + 1) * kSortChunk; ++i)
      if (projected.depth_keys[i] != kHidden) keys[at] = projected.depth_keys[i], order[at] = uint32_t(i), ++at;
  });
  return counts[chunks];
}

// One stable pass over the digit at `shift`; false when every key has the same digit and nothing was moved.
bool radix_pass(int64_t n, int shift, const uint32_t* keys, const uint32_t* rows, uint32_t* keys_out, uint32_t* rows_out) {
  const int64_t chunks = chunks_of(n, kSortChunk);
  scratch.histogram.assign(size_t(chunks) * kDigits, 0);
  uint32_t* histogram = scratch.histogram.data();
  parallel_for(chunks, [&](int64_t c) {
    uint32_t* h = histogram + c * kDigits;
    for (int64_t i = c * kSortChunk; i < n && i < (c + 1) * kSortChunk; ++i) ++h[(keys[i] >> shift) & (kDigits - 1)];
  });
  uint32_t at = 0;
  for (int d = 0; d < kDigits; ++d) {
    const uint32_t before = at;
    for (int64_t c = 0; c < chunks; ++c) {
      uint32_t& cell = histogram[c * kDigits + d];
      const uint32_t k = cell;
      cell = at, at += k;
    }
    if (at - before == uint32_t(n)) return false;
  }
  parallel_for(chunks, [&](int64_t c) {
    uint32_t* h = histogram + c * kDigits;
    for (int64_t i = c * kSortChunk; i < n && i < (c + 1) * kSortChunk; ++i) {
      const uint32_t to = h[(keys[i] >> shift) & (kDigits - 1)]++;
      keys_out[to] = keys[i], rows_out[to] = rows[i];
    }
  });
  return true;
}

void sort_by_depth(int64_t n, uint32_t* order) {
  scratch.rows.resize(size_t(n));
  scratch.keys[1].resize(size_t(n));
  uint32_t *keys = scratch.keys[0].data(), *keys_other = scratch.keys[1].data();
  uint32_t *rows = order, *rows_other = scratch.rows.data();
  for (int shift = 0; shift < 32; shift += kDigitBits)
    if (radix_pass(n, shift, keys, rows, keys_other, rows_other)) std::swap(keys, keys_other), std::swap(rows, rows_other);
  if (rows != order)
    for (int64_t i = 0; i < n; ++i) order[i] = rows[i];
}

// Turns the histograms [chunks, tiles] into first places, filling tile_begin.
void place_tiles(int tiles, int64_t chunks, uint32_t* histogram, uint32_t* tile_begin) {
  uint32_t at = 0;
  for (int t = 0; t < tiles; ++t) {
    tile_begin[t] = at;
    for (int64_t c = 0; c < chunks; ++c) {
      uint32_t& cell = histogram[c * tiles + t];
      const uint32_t k = cell;
      cell = at, at += k;
    }
  }
  tile_begin[tiles] = at;
}

}  // namespace

int64_t bin(const FootprintKernels& kernels, const splat_rows& rows, const splat_view& view, const splat_projected& projected,
            const splat_bins& bins, int64_t* visible) {
  const int64_t n = rows.count;
  const int tiles_x = (view.width + SPLAT_TILE - 1) / SPLAT_TILE, tiles_y = (view.height + SPLAT_TILE - 1) / SPLAT_TILE;
  const int tiles = tiles_x * tiles_y;
  int64_t slots = 0;
  for (int64_t i = 0; i < n; ++i) {
    bins.slot_begin[i] = uint32_t(slots);
    slots += projected.rect_tiles[i];
    if (slots >= int64_t(1) << 31) return -SPLAT_OVERFLOW;
  }
  bins.slot_begin[n] = uint32_t(slots);
  scratch.keys[0].resize(size_t(n));
  const int64_t v = *visible = compact(rows, projected, scratch.keys[0].data(), bins.order);
  if (slots > bins.capacity) return slots;
  sort_by_depth(v, bins.order);

  scratch.tile_of_slot.resize(size_t(slots));
  uint32_t* tile_of_slot = scratch.tile_of_slot.data();
  const BinTask task{&rows, &view, &projected, &bins, tile_of_slot};
  parallel_for(chunks_of(n, kRowChunk), [&](int64_t c) { kernels.walk(task, c); });

  // Stable counting sort of the instances by tile, in depth order.
  scratch.histogram.assign(size_t(kTileChunks) * tiles, 0);
  uint32_t* histogram = scratch.histogram.data();
  auto for_ranks = [&](int64_t chunk, auto&& visit) {
    const int64_t begin = v * chunk / kTileChunks, end = v * (chunk + 1) / kTileChunks;
    for (int64_t r = begin; r < end; ++r) {
      if (r + kAhead < end) {
        const uint32_t next = bins.order[r + kAhead];
        __builtin_prefetch(bins.slot_count + next);
        __builtin_prefetch(tile_of_slot + bins.slot_begin[next]);
      }
      const uint32_t row = bins.order[r], first = bins.slot_begin[row];
      for (uint32_t s = first; s < first + bins.slot_count[row]; ++s) visit(row, s);
    }
  };
  parallel_for(kTileChunks, [&](int64_t c) {
    uint32_t* h = histogram + c * tiles;
    for_ranks(c, [&](uint32_t, uint32_t slot) { ++h[tile_of_slot[slot]]; });
  });
  place_tiles(tiles, kTileChunks, histogram, bins.tile_begin);
  parallel_for(kTileChunks, [&](int64_t c) {
    uint32_t* place = histogram + c * tiles;
    for_ranks(c, [&](uint32_t row, uint32_t slot) {
      const uint32_t to = place[tile_of_slot[slot]]++;
      bins.instance_splat[to] = row, bins.instance_slot[to] = slot;
    });
  });
  return slots;
}

}  // namespace splat
