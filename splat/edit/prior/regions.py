"""Three regions of a drag: the mask, a shell of its neighbours, and the rest."""

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
    """Rows that may move, the masked ones first; every other row is the rest and stays."""

    rows: Tensor  # [R] int64
    masked: int
    """How many of ``rows`` are in the mask; the others are the shell."""

    @property
    def shell(self) -> Tensor:  # [R] bool
        return torch.arange(len(self.rows), device=self.rows.device) >= self.masked


def split_regions(means: Tensor, mask: Tensor, *, neighbours: int = 20, also: Tensor | None = None) -> Regions:
    """means [N,3], mask [N] bool. The shell is what is among the ``neighbours`` nearest unmasked splats of a masked
    one, with the rows ``also`` (those that a geometric drag moves beyond its mask)."""
    inside = mask.nonzero().squeeze(1)
    shell = torch.zeros_like(mask)
    if len(inside):
        shell[_nearest_outside(means, mask, inside, neighbours)] = True
    if also is not None:
        shell[also] = True
    outside = (shell & ~mask).nonzero().squeeze(1)
    return Regions(torch.cat([inside, outside]), len(inside))


def _nearest_outside(means: Tensor, mask: Tensor, inside: Tensor, neighbours: int) -> Tensor:
    low, high = means[inside].amin(0), means[inside].amax(0)
    grown = _REACH * (high - low).norm()
    near = ((means >= low - grown) & (means <= high + grown)).all(1)
    candidates = (near & ~mask).nonzero().squeeze(1)
    if len(candidates) == 0 or neighbours == 0:
        return candidates[:0]
    nearest = k_nearest(means[inside], means[candidates], min(neighbours, len(candidates)))[1]
    return candidates[nearest.flatten().unique()]


def k_nearest(points: Tensor, among: Tensor, k: int) -> tuple[Tensor, Tensor]:  # [P,3], [Q,3] -> [P,k], [P,k]
    """Distances and places of the ``k`` nearest, nearest first."""
    step = max(1, _CHUNK // max(1, len(among)))
    parts = [
        torch.cdist(part, among, compute_mode="donot_use_mm_for_euclid_dist").topk(k, dim=1, largest=False)
        for part in points.split(step)
    ]
    if not parts:
        return points.new_zeros(0, k), torch.zeros(0, k, dtype=torch.int64, device=points.device)
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])
