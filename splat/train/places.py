"""Where in the world an edit adds rows and where it removes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splat.model.row_edit import RowEdit

LOW, HIGH = 0.01, 0.99
"""The box leaves out the farthest: single strays say nothing about where an edit works."""

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Place:
    """Where a set of rows lies, world units of the training frame."""

    low: Point
    """Per axis, the 1st percentile."""
    high: Point
    """Per axis, the 99th percentile."""
    median: Point
    """Per axis."""


def changed_places(edit: RowEdit, before: Tensor, after: Tensor) -> tuple[Place | None, Place | None]:
    """Places of the added and of the removed rows, given the positions [N,3] before and [M,3] after the edit.

    Added are all rows but the first made of each old row; removed are old rows that none was made of.
    """
    added = removed = None
    if edit.added:
        numbers = torch.arange(edit.count_after, device=edit.source.device)
        first = numbers.new_full((edit.count_before,), edit.count_after)
        first.scatter_reduce_(0, edit.source, numbers, "amin")
        added = place_of(after[first[edit.source] != numbers])
    if edit.removed:
        gone = torch.ones(edit.count_before, dtype=torch.bool, device=edit.source.device)
        gone[edit.source] = False
        removed = place_of(before[gone])
    return added, removed


def place_of(points: Tensor) -> Place | None:  # [R,3]
    """None when no point is finite."""
    points = points[points.isfinite().all(dim=1)]
    if not points.shape[0]:
        return None
    ranks = [round(share * (points.shape[0] - 1)) for share in (LOW, HIGH, 0.5)]
    low, high, median = points.sort(dim=0).values[ranks].tolist()
    return Place(tuple(low), tuple(high), tuple(median))
