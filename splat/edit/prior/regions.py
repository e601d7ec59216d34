"""Three regions of a drag: the mask, a shell around it, and the rest, which stays."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_REACH = 0.25
"""Of the mask's diagonal: splats farther than this from its box are no shell, however few are nearer."""
_CHUNK = 1 << 22
"""Distances held at a time."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Rows that may move, in their order in the model; every other row is the rest."""

    rows: Tensor  # [R] int64
    shell: Tensor  # [R] bool: those beyond the mask


def split_regions(means: Tensor, mask: Tensor, *, neighbours: int = 20, also: Tensor | None = None) -> Regions:
    """means [N,3], mask [N] bool. The shell is what is among the ``neighbours`` nearest unmasked splats of a masked
    one, with the rows ``also`` (those that a geometric drag moves beyond its mask)."""
    mask = mask & torch.isfinite(means).all(1)
    moving = mask.clone()
    moving[_nearest_outside(means, mask, neighbours)] = True
    if also is not None:
        moving[also] = True
    rows = moving.nonzero().squeeze(1)
    return Regions(rows, ~mask[rows])


def _nearest_outside(means: Tensor, mask: Tensor, neighbours: int) -> Tensor:  # [S] int64
    inside = means[mask]
    if len(inside) == 0 or neighbours == 0:
        return mask.new_zeros(0, dtype=torch.int64)
    low, high = inside.amin(0), inside.amax(0)
    grown = _REACH * (high - low).norm()
    near = ((means >= low - grown) & (means <= high + grown)).all(1)
    candidates = (near & ~mask).nonzero().squeeze(1)
    if len(candidates) == 0:
        return candidates
    among, k = means[candidates], min(neighbours, len(candidates))
    nearest = [
        torch.cdist(part, among, compute_mode="donot_use_mm_for_euclid_dist").topk(k, dim=1, largest=False).indices
        for part in inside.split(max(1, _CHUNK // len(among)))
    ]
    return candidates[torch.cat(nearest).unique()]
