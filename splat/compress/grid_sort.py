"""Splats onto a square grid whose neighbours are alike: what to sort by, who stays, and which of the quaternions that
turn a splat alike is written down."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

import torch
from torch import Tensor

STOP_GAIN = 1e-3
"""Ten times less makes neighbours 2 % closer and the sort five times longer."""
_SIGN_ROUNDS = 4
_FLIPS = ((0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0))
_FLIP_SIGNS = ((1, 1, 1, 1), (-1, 1, 1, -1), (-1, -1, 1, 1), (-1, 1, -1, 1))
"""q times 1, i, j, k: component and sign of each. Half a turn about an axis of an ellipsoid shows the same one."""


def side_of(count: int) -> int:
    """Cells along a side of the largest full square."""
    return isqrt(count)


def kept_rows(importance: Tensor) -> Tensor:  # [N] -> [side*side] int64, ascending
    """Rows that fill the square: the least important go, of equals the later ones; at most 2 sqrt(N) rows."""
    side = side_of(importance.shape[0])
    order = torch.sort(importance.detach(), descending=True, stable=True).indices
    return order[: side * side].sort().values


def signed_log(values: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|): places far out do not outweigh the rest."""
    return values.sign() * values.abs().log1p()


def sort_features(rows: Mapping[str, Tensor]) -> Tensor:  # [N,C] float32
    """Places (by logarithm), base colours and log sizes, each as a block of mean 0 and variance 1 (specs: compression
    A2.2). What is missing in ``rows`` does not count."""
    blocks = [signed_log(rows["means"].detach().float())]
    blocks += [rows[name].detach().float().flatten(1) for name in ("sh0", "log_scales") if name in rows]
    scaled = []
    for block in blocks:
        spread = block.double().std(correction=0) if block.numel() else torch.tensor(1.0)
        scaled.append((block - block.double().mean().float()) / (spread.float() if spread > 0 else 1.0))
    return torch.cat(scaled, dim=1)


def grid_order(rows: Mapping[str, Tensor], *, seed: int) -> Tensor:  # [N] int64
    """The row in each cell of a square grid; N must be a square. It starts from a random order (a good one would hold
    it in a local minimum) and the same seed gives the same order."""
    from splat.native.ops import grid_sort

    features = sort_features(rows)
    count, side = features.shape[0], side_of(features.shape[0])
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(features.device)
    radius = max(side / 2 - 1, 1.0)
    order, _ = grid_sort(features[shuffled], side, side, seed=seed, first_radius=radius, stop_gain=STOP_GAIN)
    return shuffled[order]


def neighbour_distance(values: Tensor, side: int) -> float:
    """Mean distance of ``values [side*side,C]`` to those in the next cell, right (circular) and below."""
    grid = values.detach().double().reshape(side, side, values.shape[1])
    across = (grid - grid.roll(1, 1)).norm(dim=2)
    down = (grid[1:] - grid[:-1]).norm(dim=2)
    return float((across.sum() + down.sum()) / max(across.numel() + down.numel(), 1))


def aligned_quats(quats: Tensor, side: int) -> Tensor:  # [side*side,4] -> [side*side,4]
    """Quaternions of length 1 that show the same ellipsoids and are closest to their neighbours' mean.

    Eight of them show one: q, and q with half a turn about one of its own axes, each with either sign. Two colours
    of a checkerboard take turns, so that no cell moves towards one that moves as well.
    """
    from splat.compress.smoothness import blurred

    unit = torch.nn.functional.normalize(quats.detach(), dim=1, eps=1e-12)
    unit = torch.where(unit.norm(dim=1, keepdim=True) > 0.5, unit, unit.new_tensor([1.0, 0, 0, 0]))
    signs = unit.new_tensor(_FLIP_SIGNS)
    choices = torch.stack([unit[:, list(part)] * sign for part, sign in zip(_FLIPS, signs, strict=True)], dim=1)
    # To start with, the one with the largest w: all in one half of the sphere.
    chosen = _closest(choices, unit.new_tensor([1.0, 0, 0, 0]).expand_as(unit))
    cells = torch.arange(side * side, device=quats.device)
    odd = ((cells // side + cells % side) % 2).bool() if side else cells.bool()
    for turn in range(2 * _SIGN_ROUNDS):
        goal = blurred(chosen.reshape(side, side, 4)).reshape(-1, 4) if side else chosen
        moves = odd if turn % 2 else ~odd
        chosen = torch.where(moves[:, None], _closest(choices, goal), chosen)
    return chosen


def _closest(choices: Tensor, goal: Tensor) -> Tensor:  # [N,4,4], [N,4] -> [N,4]
    dots = (choices * goal[:, None]).sum(2)
    best = dots.abs().argmax(dim=1)
    rows = torch.arange(len(best), device=best.device)
    sign = torch.where(dots[rows, best] < 0, -1.0, 1.0).to(choices.dtype)
    return choices[rows, best] * sign[:, None]
