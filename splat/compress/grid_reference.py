"""The sort of ``native.ops.grid_sort`` as it reads: every cell wants to be like the blur of the grid around it, and
groups of four contents are dealt out anew, each time in the best of the 24 ways. For tests and small grids.

After PLAS (Morgenstern et al. 2024; specs: compression A2.1). We leave it in two places: the blur is a plain box
(theirs is a Gaussian cut at half a standard deviation, nearly one), and the four cells of a group lie in four different
rows, each shifted against the others, not anywhere in a square.
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

LEAST_BLOCK = 16
"""Rows that trade among each other at the smallest blur."""
TIE = 1e-6
"""Gains below this part of the compared sums are rounding."""
_MASK = 2**64 - 1


def grid_sort_reference(
    features: Tensor, height: int, width: int, *, seed: int, first_radius: float, last_radius: float = 1.0,
    shrink: float = 0.95, stop_gain: float = 1e-4, least_turns: int = 4, most_turns: int = 64, rounds: int = 4,
) -> tuple[Tensor, tuple[float, float]]:  # fmt: skip
    """As ``native.ops.grid_sort``, in float64."""
    cells = features.detach().double().reshape(height, width, -1).clone()
    order = torch.arange(height * width).reshape(height, width)
    before = after = 0.0
    level, radius = 0, first_radius
    while radius >= last_radius:
        key, goal = _mixed(seed + level), boxed(cells, int(radius))
        after = float((cells - goal).square().sum())
        before = after if level == 0 else before
        for turn in range(most_turns):
            gain = _trade(cells, order, goal, _Draws(_mixed(key + turn)), radius=int(radius), rounds=rounds)
            after -= gain
            if turn + 1 >= least_turns and gain <= stop_gain * after:
                break
        level, radius = level + 1, radius * shrink
    return order.reshape(-1), (before, after)


def boxed(cells: Tensor, radius: int) -> Tensor:  # [H,W,C] -> [H,W,C]
    """Mean over (2r+1) x (2r+1) cells, circular in x, mirrored at the first and last row in y; less where so many do
    not fit."""
    height, width, _ = cells.shape
    across, down = min(radius, (width - 1) // 2), min(radius, (height - 1) // 2)
    columns = torch.arange(width)[:, None] + torch.arange(-across, across + 1)
    cells = cells[:, columns % width].mean(dim=2)
    lines = (torch.arange(height)[:, None] + torch.arange(-down, down + 1)).abs()
    lines = torch.where(lines >= height, 2 * (height - 1) - lines, lines)
    return cells[lines].mean(dim=1)


def _trade(cells: Tensor, order: Tensor, goal: Tensor, draws: _Draws, *, radius: int, rounds: int) -> float:
    """One partition of the rows into groups of four; ``cells`` and ``order`` change in place."""
    height, width, _ = cells.shape
    block = min(height, max(LEAST_BLOCK, 2 * radius + 2)) // 4 * 4
    if block < 4:
        return 0.0
    span, blocks = min(width, max(LEAST_BLOCK, 2 * radius + 2)), height // block
    offset, rows = draws.below(height), []
    for first in range(0, blocks * block, block):
        mine = [(offset + first + i) % height for i in range(block)]
        for i in range(block - 1, 0, -1):
            j = draws.below(i + 1)
            mine[i], mine[j] = mine[j], mine[i]
        rows += mine
    groups = [rows[i : i + 4] for i in range(0, len(rows), 4)]
    shifts = [[[draws.below(span) for _ in range(4)] for _ in range(rounds)] for _ in groups]
    gain = 0.0
    for group, turns in zip(groups, shifts, strict=True):
        for shift in turns:
            lines = torch.tensor(group)[:, None].expand(4, width)
            columns = (torch.tensor(shift)[:, None] + torch.arange(width)) % width
            gain += _deal(cells, order, goal, lines, columns)
    return 2 * gain


def _deal(cells: Tensor, order: Tensor, goal: Tensor, lines: Tensor, columns: Tensor) -> float:
    """``lines``, ``columns`` [4,G]: G groups of four cells. Sums of squared distances are least where the sums of the
    products of contents and goals are greatest."""
    contents, goals = cells[lines, columns], goal[lines, columns]  # [4,G,C]
    score = torch.einsum("igc,jgc->gij", contents, goals)
    ways = torch.tensor(list(permutations(range(4))))  # [24,4]: the content that each place gets
    totals = score[:, ways, torch.arange(4)].sum(dim=2)  # [G,24]
    as_is = totals[:, 0]
    best = totals.max(dim=1)
    size = score.diagonal(dim1=1, dim2=2).abs().sum(dim=1)
    moves = best.values > as_is + TIE * size
    source = torch.where(moves[:, None], ways[best.indices], torch.arange(4)).T  # [4,G]
    cells[lines, columns] = contents.gather(0, source[..., None].expand_as(contents))
    order[lines, columns] = order[lines, columns].gather(0, source)
    return float(torch.where(moves, best.values - as_is, 0.0).sum())


class _Draws:
    """SplitMix64 (Steele et al. 2014)."""

    def __init__(self, key: int) -> None:
        self._state = key

    def below(self, count: int) -> int:
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        return (_mixed(self._state) >> 32) * count >> 32


def _mixed(value: int) -> int:
    value &= _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
