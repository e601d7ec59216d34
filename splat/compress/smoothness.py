"""How far rows on a grid are from the blur of their neighbours: what makes neighbours alike while training.

Self-Organizing Gaussian Grids (Morgenstern et al. 2024, section 3.4; specs: compression A2.2): of every field the raw
numbers as a picture, circular in x and mirrored in y; its goal is the blur of that picture, held fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, prod

import torch
from torch import Tensor

KERNEL, SIGMA = 5, 3.0
"""Taps of the blur along each axis, and the standard deviation they are cut from, cells."""


def smoothness_loss(rows: Mapping[str, Tensor], *, side: int, weights: Mapping[str, float]) -> Tensor | None:
    """Mean Huber distance (delta 1) of ``rows`` to their blurred neighbourhood: 0-dim, differentiable.

    ``rows[name] [side*side,...]`` in the grid's order, row by row. ``weights`` by field; they are divided by their sum,
    fields without numbers or with weight 0 do not count. None where nothing does.
    """
    used = {name: weight for name, weight in weights.items() if weight > 0 and name in rows and rows[name].numel()}
    total = sum(used.values())
    terms = [(weight / total) * _distance(rows[name], side) for name, weight in used.items()]
    return torch.stack(terms).sum() if terms else None


def _distance(values: Tensor, side: int) -> Tensor:
    grid = values.reshape(side, side, prod(values.shape[1:]))
    return torch.nn.functional.huber_loss(grid, blurred(grid.detach()))


def blurred(grid: Tensor) -> Tensor:  # [H,W,C] -> [H,W,C]
    """A Gaussian of 5 x 5 taps and sigma 3, circular in x, mirrored at the first and last line in y. A side of fewer
    than 3 cells has no 5 taps: there the kernel shrinks to what fits."""
    return _along(_along(grid, 1), 0)


def _along(grid: Tensor, axis: int) -> Tensor:
    length = grid.shape[axis]
    reach = min(KERNEL // 2, (length - 1) // 2 if axis == 1 else length - 1)
    if reach <= 0:
        return grid
    taps = [exp(-0.5 * (offset / SIGMA) ** 2) for offset in range(-reach, reach + 1)]
    if axis == 1:
        before, after = grid.narrow(1, length - reach, reach), grid.narrow(1, 0, reach)
    else:
        before, after = grid.narrow(0, 1, reach).flip(0), grid.narrow(0, length - 1 - reach, reach).flip(0)
    padded = torch.cat([before, grid, after], dim=axis)
    out = torch.zeros_like(grid)
    for offset, tap in enumerate(taps):  # a fixed order of additions
        out.add_(padded.narrow(axis, offset, length), alpha=tap / sum(taps))
    return out
