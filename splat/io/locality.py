"""Which order splats are written in, so that neighbours in space are neighbours in the file."""

from __future__ import annotations

import numpy as np
import torch

BLOCK = 256
"""Splats that share bounds in PlayCanvas' compressed PLY; locality is judged in such blocks."""
_SLACK = 1.05


def local_rows(means: np.ndarray) -> np.ndarray:  # [N,3] finite -> [N] int64
    """Rows in Morton order of their means; the present order where that is as local already.

    Positions that went through a quantiser have a slightly different Morton order. Keeping an order that is good
    enough makes writing what was just read give the same bytes.
    """
    from splat.native.ops import morton_order

    present = np.arange(len(means))
    if len(means) <= BLOCK:
        return present
    sorted_rows = morton_order(torch.from_numpy(np.ascontiguousarray(means, np.float32))).numpy()
    return present if _spread(means) <= _SLACK * _spread(means[sorted_rows]) else sorted_rows


def block_bounds(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [N,C] -> [ceil(N/256),C] twice
    """Smallest and largest value of every block of 256 rows, the last one possibly short."""
    starts = np.arange(0, len(values), BLOCK)
    if not len(starts):
        return values[:0], values[:0]
    return np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)


def _spread(means: np.ndarray) -> float:
    """Mean edge of the blocks' boxes, world units."""
    low, high = block_bounds(means.astype(np.float64))
    return float((high - low).mean())
