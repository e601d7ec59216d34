"""A table of features over space at several resolutions (Mueller et al. 2022), looked up through a plan made once.

Which entries a point touches, and with which weights, depends on the points alone. A plan holds that, sorted both ways:
by point for looking up, by entry for gradients. Either is then one weighted sum per row, each made by one thread in a
fixed order, so results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

_PRIMES = (1, 2_654_435_761, 805_459_861)
_CORNERS = tuple((i & 1, i >> 1 & 1, i >> 2 & 1) for i in range(8))


@dataclass(frozen=True)
class GridShape:
    """Levels of cells; those with more corners than the table has room for share entries by a hash."""

    resolutions: tuple[int, ...]
    """Cells along an axis of the unit cube, by level."""
    log2_size: int
    """Entries of a level: 2 to this power at most."""
    features: int
    """Per entry."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries by level."""
        return tuple(min((cells + 1) ** 3, 2**self.log2_size) for cells in self.resolutions)

    @property
    def width(self) -> int:
        """Features of a point."""
        return len(self.resolutions) * self.features


@dataclass(frozen=True, eq=False)
class Plan:
    """What rows take from a table: weighted sums of some entries each. The rows of a grid are (point, level)."""

    entries: Tensor  # [R,E] int32
    weights: Tensor  # [R,E]
    rows: Tensor  # [R*E] int32: the rows that touch an entry, entry by entry
    row_weights: Tensor  # [R*E]
    starts: Tensor  # [entries] int32: where in ``rows`` each entry's begin


def contracted(means: Tensor, center: Sequence[float], radius: float) -> Tensor:  # [N,3] -> [N,3] in [0,1]
    """Points within ``radius`` of ``center`` fill the middle half of the cube, all others the rest (Barron et al.
    2022, equation 10): the published field does so with the world's own unit, whatever that is."""
    local = (means - torch.tensor(list(center), dtype=means.dtype, device=means.device)) / radius
    x, y, z = local.unbind(1)
    length = (x * x + y * y + z * z).sqrt()[:, None].clamp_min(1.0)
    return ((local * (2 - 1 / length) / length) / 4 + 0.5).clamp(0, 1)


def planned(points: Tensor, shape: GridShape, *, gradients: bool = True) -> Plan:
    """For ``points [N,3]`` in the unit cube; without ``gradients`` only for looking up."""
    levels = [_level(points, cells, size) for cells, size in zip(shape.resolutions, shape.sizes, strict=True)]
    offsets = [sum(shape.sizes[:level]) for level in range(len(levels))]
    entries = torch.stack([each[0] + offset for each, offset in zip(levels, offsets, strict=True)], 1).flatten(0, 1)
    weights = torch.stack([each[1] for each in levels], 1).flatten(0, 1)
    if not gradients:
        none = entries.new_zeros(0, dtype=torch.int32)
        return Plan(entries.int(), weights, none, weights.new_zeros(0), none)
    return plan_of(entries, weights, sum(shape.sizes))


def plan_of(entries: Tensor, weights: Tensor, count: int) -> Plan:
    """Both ways of ``entries [R,E]`` with their ``weights``, for a table of ``count`` entries."""
    order = torch.sort(entries.flatten(), stable=True).indices
    counts = torch.bincount(entries.flatten(), minlength=count)
    starts = (torch.cumsum(counts, 0) - counts).int()
    return Plan(entries.int(), weights, (order // entries.shape[1]).int(), weights.flatten()[order], starts)


def looked_up(table: Tensor, plan: Plan) -> Tensor:  # [entries,F] -> [R,F]
    """Rows of the plan; differentiable in ``table``."""
    rows: Tensor = _LookUp.apply(table, plan)
    return rows


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table: Tensor, plan: Plan) -> Tensor:
        ctx.plan = plan
        return embedding_bag(plan.entries, table, mode="sum", per_sample_weights=plan.weights)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        plan = ctx.plan
        sums = embedding_bag(
            plan.rows, grad.contiguous(), plan.starts, mode="sum", per_sample_weights=plan.row_weights
        )  # fmt: skip
        return sums, None


def _level(points: Tensor, cells: int, size: int) -> tuple[Tensor, Tensor]:  # [N,8] twice
    scaled = points * cells
    corner = scaled.floor().clamp(0, cells - 1)
    inside = scaled - corner  # [N,3]
    corner = corner.long()
    entries, weights = [], []
    for offsets in _CORNERS:
        x, y, z = (corner[:, axis] + offsets[axis] for axis in range(3))
        if (cells + 1) ** 3 <= size:
            entries.append((z * (cells + 1) + y) * (cells + 1) + x)
        else:
            entries.append((x * _PRIMES[0] ^ y * _PRIMES[1] ^ z * _PRIMES[2]) & (size - 1))
        parts = [inside[:, axis] if offsets[axis] else 1 - inside[:, axis] for axis in range(3)]
        weights.append(parts[0] * parts[1] * parts[2])
    return torch.stack(entries, 1), torch.stack(weights, 1)
