"""A denser start: points halfway between neighbours of a sparse cloud (specs: densifiers 3.2 F, a reconstruction)."""

from __future__ import annotations

from math import ceil, log2

import torch
from torch import Tensor

_ROUNDING = 1.0 + 1e-4
"""Distances of the native search are float32."""
_MOST_PAIRS = 1 << 21
"""Candidate pairs looked at in one go: tens of megabytes."""
_FINEST_LEVEL = 20
"""Halvings of the reach: nearer points share a grid with those at this one."""
_WIDEST = 2**19
"""Cells along an axis, at most: three of them fit into one integer."""


def with_midpoints(
    xyz: Tensor, rgb: Tensor, *, neighbours: int, reach: float, rounds: int, most: int
) -> tuple[Tensor, Tensor]:  # [P,3], [P,3] -> [Q,3], [Q,3]
    """The points, then in each of ``rounds`` the midpoints between each and its nearest ``neighbours``, colours
    averaged. Gaps wider than ``reach`` times the median distance to the nearest point stay open, and so do pairs in one
    place. At most ``most`` points come out (more that went in stay); of too many midpoints an even choice is taken.
    """
    settled = 0  # among the rows before this one every pair has had its turn: neighbours only get fewer
    for _ in range(rounds):
        room = most - xyz.shape[0]
        if room <= 0:
            break
        pairs = neighbour_pairs(xyz, neighbours=neighbours, reach=reach)
        pairs, settled = pairs[pairs[:, 1] >= settled], xyz.shape[0]
        if pairs.shape[0] > room:
            pairs = pairs[torch.arange(room) * pairs.shape[0] // room]
        first, second = pairs.to(xyz.device).unbind(1)
        xyz = torch.cat([xyz, (xyz[first] + xyz[second]) / 2])
        rgb = torch.cat([rgb, (rgb[first] + rgb[second]) / 2])
    return xyz, rgb


def neighbour_pairs(xyz: Tensor, *, neighbours: int, reach: float) -> Tensor:  # [P,3] -> [E,2] int64
    """Pairs (lower row, higher row), sorted, of which one is among the ``neighbours`` nearest of the other, apart by
    more than 0 and at most ``reach`` times the median distance to the nearest other point. On the CPU."""
    from splat.native import ops  # loads the native library, so only when it is used

    points = xyz.detach().float().cpu()
    k = min(neighbours, points.shape[0] - 1)
    if k < 1:
        return torch.zeros(0, 2, dtype=torch.int64)
    nearest = ops.knn_mean_sq_dist(points, k=1).clamp_min(0).sqrt()
    spread = nearest[nearest > 0]
    if spread.numel() == 0:
        return torch.zeros(0, 2, dtype=torch.int64)
    limit = reach * float(spread.median())
    # The k-th of k distances is at most the root of their sum of squares: a sphere that surely holds the neighbours.
    holds = (ops.knn_mean_sq_dist(points, k=k).clamp_min(0) * k).sqrt() * _ROUNDING
    query, other = _nearest_within(points.double(), holds.double().clamp_max(limit), k)
    pairs = torch.stack([torch.minimum(query, other), torch.maximum(query, other)], dim=1)
    return torch.unique(pairs, dim=0)


def _nearest_within(points: Tensor, radii: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Rows (point, neighbour) of the ``k`` nearest others of each point within its own radius, nearest first.

    Points of about one radius share a grid whose cells are as wide as the largest of them: dense clusters, with small
    radii, are then searched in small cells.
    """
    largest = float(radii.max())
    levels = torch.log2(largest / radii.clamp_min(largest * 2.0**-_FINEST_LEVEL)).floor().long()
    found = []
    for level in levels.unique().tolist():
        rows = (levels == level).nonzero().squeeze(1)
        grid = _Grid(points, largest * 2.0**-level)
        found += [grid.nearest(part, radii, k) for part in grid.portions(rows)]
    return torch.cat([query for query, _ in found]), torch.cat([other for _, other in found])


class _Grid:
    """Points sorted by cell. Neighbouring cells along z follow each other, so nine ranges cover the 27 around one."""

    def __init__(self, points: Tensor, width: float) -> None:
        low = points.amin(dim=0)
        extent = float((points.amax(dim=0) - low).max())
        width = max(width, extent / _WIDEST)
        self._points = points
        self._cells = ((points - low) / width).floor().long() + 1  # from 1: the cells around stay above -1
        self._side = 2 ** ceil(log2(extent / width + 4))
        keys = self._key(self._cells)
        self._order = torch.argsort(keys, stable=True)
        self._keys = keys[self._order].contiguous()

    def portions(self, rows: Tensor) -> list[Tensor]:
        """``rows`` cut up so that each part has about ``_MOST_PAIRS`` candidates."""
        _, counts = self._ranges(rows)
        part = counts.sum(dim=1).cumsum(0) // _MOST_PAIRS
        return list(torch.split(rows, torch.unique_consecutive(part, return_counts=True)[1].tolist()))

    def nearest(self, rows: Tensor, radii: Tensor, k: int) -> tuple[Tensor, Tensor]:
        starts, counts = (table.flatten() for table in self._ranges(rows))
        query = rows.repeat_interleave(counts.reshape(-1, 9).sum(dim=1))
        within = torch.arange(query.shape[0]) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        other = self._order[starts.repeat_interleave(counts) + within]
        distance = (self._points[query] - self._points[other]).norm(dim=1)
        good = (other != query) & (distance <= radii[query])
        query, other, distance = query[good], other[good], distance[good]
        order = torch.argsort(distance, stable=True)
        order = order[torch.argsort(query[order], stable=True)]
        query, other = query[order], other[order]
        _, per_query = torch.unique_consecutive(query, return_counts=True)
        rank = torch.arange(query.shape[0]) - (per_query.cumsum(0) - per_query).repeat_interleave(per_query)
        good = (rank < k) & (distance[order] > 0)  # those in one place count among the nearest, but have no middle
        return query[good], other[good]

    def _ranges(self, rows: Tensor) -> tuple[Tensor, Tensor]:  # [R] -> [R,9], [R,9]
        """Where in the order the points of the nine columns of three cells begin, and how many they are."""
        step = torch.tensor([[x, y, 0] for x in (-1, 0, 1) for y in (-1, 0, 1)])
        middle = self._key(self._cells[rows][:, None] + step)  # [R,9]
        starts = torch.searchsorted(self._keys, middle - 1)
        return starts, torch.searchsorted(self._keys, middle + 1, right=True) - starts

    def _key(self, cells: Tensor) -> Tensor:  # [...,3] -> [...]
        x, y, z = cells.unbind(-1)
        return (x * self._side + y) * self._side + z
