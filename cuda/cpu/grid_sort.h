// The hot part of sorting a grid: groups of four rows, each lane of a pack with one cell of each of them, whose four
// contents go to the four places in the best of the 24 ways.
#pragma once
#include "../math/real.h"
#include "kernels.h"

namespace splat {
inline namespace SPLAT_ISA {

// Gains below this part of the compared sums are rounding: contents stay where they are.
constexpr double kGridTie = 1e-6;

// Scores of content i (rows i0, i0 + 1) at place j: with the contents given, the sum of squared distances is least where
// the sum of these products is greatest.
template <class P, class Cell, class Target>
SPLAT_HD void grid_scores(int channels, int i0, const Cell& cell, const Target& target, P (*score)[4]) {
  for (int i = i0; i < i0 + 2; ++i)
    for (int j = 0; j < 4; ++j) score[i][j] = P(0.0f);
  for (int c = 0; c < channels; ++c) {
    const P a = cell(i0, c), b = cell(i0 + 1, c);
    for (int j = 0; j < 4; ++j) {
      const P t = target(j, c);
      score[i0][j] = fma(a, t, score[i0][j]), score[i0 + 1][j] = fma(b, t, score[i0 + 1][j]);
    }
  }
}

// The best of the 24 ways: from[j] = the content (0..3) that place j gets. Returns by how much the score grows.
template <class P> SPLAT_HD P grid_assign(P (*score)[4], P* from) {
  const P as_is = (score[0][0] + score[1][1]) + (score[2][2] + score[3][3]);
  const P size = (abs_(score[0][0]) + abs_(score[1][1])) + (abs_(score[2][2]) + abs_(score[3][3]));
  const P least = fma(P(float(kGridTie)), size, as_is);
  P best = least;
  for (int j = 0; j < 4; ++j) from[j] = P(float(j));
  // Two contents for places 0 and 1, the other two for places 2 and 3: six pairs, each half the better way round.
  constexpr int pairs[6][4] = {{0, 1, 2, 3}, {0, 2, 1, 3}, {0, 3, 1, 2}, {1, 2, 0, 3}, {1, 3, 0, 2}, {2, 3, 0, 1}};
  for (const auto& p : pairs) {
    const P a = P(float(p[0])), b = P(float(p[1])), c = P(float(p[2])), d = P(float(p[3]));
    const P straight = score[p[0]][0] + score[p[1]][1], crossed = score[p[1]][0] + score[p[0]][1];
    const P straight2 = score[p[2]][2] + score[p[3]][3], crossed2 = score[p[3]][2] + score[p[2]][3];
    const auto turn = lt(straight, crossed), turn2 = lt(straight2, crossed2);
    const P total = max_(straight, crossed) + max_(straight2, crossed2);
    const auto better = lt(best, total);
    best = select(better, total, best);
    from[0] = select(better, select(turn, b, a), from[0]), from[1] = select(better, select(turn, a, b), from[1]);
    from[2] = select(better, select(turn2, d, c), from[2]), from[3] = select(better, select(turn2, c, d), from[3]);
  }
  return select(lt(least, best), best - as_is, P(0.0f));
}

// The first lanes of a pack, where it may reach beyond the end; the others load as zeros and are not stored.
template <class P> SPLAT_HD P load_lanes(const typename Lanes<P>::Scalar* p, int lanes) {
  if constexpr (Lanes<P>::width > 1)
    if (lanes < Lanes<P>::width) return Lanes<P>::load_first(p, lanes);
  return Lanes<P>::load(p);
}

template <class P> SPLAT_HD void store_lanes(typename Lanes<P>::Scalar* p, int lanes, P a) {
  if constexpr (Lanes<P>::width > 1)
    if (lanes < Lanes<P>::width) return Lanes<P>::store_first(p, lanes, a);
  Lanes<P>::store(p, a);
}

// One pack of cells: cell[k] and target[k] point at the first lane of row k, channels `stride` apart; the plane after
// the channels carries each content's number and is moved, not scored. `lanes` < width: the rest is left alone.
template <class P>
SPLAT_HD P grid_pack(typename Lanes<P>::Scalar* const* cell, const typename Lanes<P>::Scalar* const* target, int channels,
                     int64_t stride, int lanes) {
  const auto cells = [&](int k, int c) { return load_lanes<P>(cell[k] + c * stride, lanes); };
  const auto targets = [&](int k, int c) { return load_lanes<P>(target[k] + c * stride, lanes); };
  P score[4][4], from[4];
  grid_scores(channels, 0, cells, targets, score);
  grid_scores(channels, 2, cells, targets, score);
  const P gain = grid_assign(score, from);
  if (!any(lt(P(0.0f), gain))) return gain;
  for (int c = 0; c <= channels; ++c) {
    const P content[4] = {cells(0, c), cells(1, c), cells(2, c), cells(3, c)};
    for (int j = 0; j < 4; ++j) {
      const P low = select(lt(from[j], P(0.5f)), content[0], content[1]);
      const P high = select(lt(from[j], P(2.5f)), content[2], content[3]);
      store_lanes<P>(cell[j] + c * stride, lanes, select(lt(from[j], P(1.5f)), low, high));
    }
  }
  return gain;
}

// All rounds of group g: four rows, turned against each other by the round's shifts (circular in x).
template <class P> void grid_group(const GridTask& t, int64_t g) {
  using S = typename Lanes<P>::Scalar;
  const int64_t cell_row = int64_t(t.channels + 1) * t.width, target_row = int64_t(t.channels) * t.width;
  double gain = 0;
  for (int round = 0; round < t.rounds; ++round) {
    const int32_t* shift = t.shifts + (g * t.rounds + round) * 4;
    for (int x = 0, end; x < t.width; x = end) {
      S* cell[4];
      const S* target[4];
      end = t.width;
      for (int k = 0; k < 4; ++k) {
        int at = x + shift[k];
        if (at >= t.width) at -= t.width;
        end = end < x + t.width - at ? end : x + t.width - at;  // up to where this row starts again from the left
        cell[k] = static_cast<S*>(t.cells) + t.rows[4 * g + k] * cell_row + at;
        target[k] = static_cast<const S*>(t.targets) + t.rows[4 * g + k] * target_row + at;
      }
      for (int left = end - x; left > 0; left -= Lanes<P>::width) {
        const int lanes = left < Lanes<P>::width ? left : Lanes<P>::width;
        gain += double(reduce_add(grid_pack<P>(cell, target, t.channels, t.width, lanes)));
        for (int k = 0; k < 4; ++k) cell[k] += lanes, target[k] += lanes;
      }
    }
  }
  t.gains[g] = gain;
}

}  // namespace SPLAT_ISA
}  // namespace splat
