"""Which splats a drag can move, how softly, and the nodes that stand for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from splat.edit.ops import Handle
from splat.errors import UserError
from splat.model.splat_model import SplatModel
from splat.native.neighbours import nearest_points

_NODES_ALONG = 40
"""Node spacings along the diagonal of the selection (specs: viewer_editing 4.3-2), where that gives few enough."""
_SPLATS_APART = 1.5
"""Least spacing of nodes over that of the splats (median, to the third nearest): a node stands for a few splats, and
the middle between two nodes lies near some. More would join what lies side by side."""
_OUTLIERS = 0.01
"""Part of the selection on either side of each axis that its size is taken without."""
_COARSER = 1.15
_LEAST_OPACITY = 0.01
"""Weight of splats that are hardly there; they need a node as well."""


@dataclass(frozen=True, eq=False)
class Region:
    """The selection and the soft band around it. All on the CPU."""

    rows: Tensor  # [R] int64, of the model
    points: Tensor  # [R,3] float32
    distances: Tensor  # [R] float64, to the nearest selected splat, in widths of the band: 0 inside, below 1
    outward: Tensor  # [R,3] float64, gradient of ``distances``
    nodes: Tensor  # [M,3] float64: centroids of occupied voxels, weighted by opacity
    node_of: Tensor  # [R] int64
    spacing: float
    """Side of a voxel, world units."""

    def softness(self, start: float) -> tuple[Tensor, Tensor]:
        """How much of a motion is each row's own, [R], and its gradient [R,3]: 1 up to distance ``start``, from there
        smoothly to 0 at the end of the band."""
        t = ((self.distances - start) / (1 - start)).clamp(0, 1)
        slope = -6 * t * (1 - t) / (1 - start)
        return 1 - t * t * (3 - 2 * t), slope[:, None] * self.outward

    def anchored(self, softness: tuple[Tensor, Tensor], anchors: Sequence[Handle]) -> tuple[Tensor, Tensor]:
        """The same with 0 within the radius of every anchor, and softly less up to twice as far."""
        value, gradient = softness
        for anchor in anchors:
            if anchor.radius == 0:
                continue
            away = self.points.double() - torch.tensor(anchor.at, dtype=torch.float64)
            x, y, z = away.unbind(1)
            apart = (x * x + y * y + z * z).sqrt()
            t = ((apart - anchor.radius) / anchor.radius).clamp(0, 1)
            rise = (6 * t * (1 - t) / anchor.radius / apart.clamp_min(1e-300))[:, None] * away
            share = t * t * (3 - 2 * t)
            value, gradient = value * share, gradient * share[:, None] + value[:, None] * rise
        return value, gradient

    def of_nodes(self, values: Tensor) -> Tensor:  # [R] -> [M]
        """Mean over the rows of each node."""
        ones = torch.ones(len(values), 1, dtype=torch.float64)
        sums = _segment_sums(torch.cat([values.double()[:, None], ones], dim=1), self.node_of, len(self.nodes))
        return sums[:, 0] / sums[:, 1]


def region_of(model: SplatModel, mask: Tensor, *, band: float, most_nodes: int, frozen: Tensor | None = None) -> Region:
    """The region of a drag of the rows ``mask [N]`` bool. ``band`` is in node spacings; rows of ``frozen [N]`` are left
    out.

    Raises:
        UserError: when nothing is selected, or a number is out of range.
    """
    if not (0 <= band <= 1000 and most_nodes >= 1):
        raise UserError(f"band = {band}, nodes = {most_nodes} do not fit: band is 0 to 1000 spacings, nodes at least 1")
    means = model.rows["means"].detach().cpu().float()
    mask = mask.cpu() & torch.isfinite(means).all(dim=1)
    mask = mask if frozen is None else mask & ~frozen.cpu()
    free = ~mask if frozen is None else ~mask & ~frozen.cpu()
    selected = mask.nonzero().squeeze(1)
    if not len(selected):
        raise UserError("a drag needs a selection: no splat is selected (locked ones cannot be moved)")
    weights = model.opacities.detach().cpu().double().clamp_min(_LEAST_OPACITY)
    spacing = _first_spacing(model, means, selected)
    while True:
        rows, distances, outward = _with_band(means, selected, free, band * spacing)
        cells, node_of = torch.unique(_voxels(means[rows].double(), spacing), return_inverse=True)
        if len(cells) <= most_nodes:
            break
        spacing *= max(_COARSER, sqrt(len(cells) / most_nodes) ** 0.8)
    points = means[rows]
    weighted = torch.cat([points.double() * weights[rows, None], weights[rows, None]], dim=1)
    sums = _segment_sums(weighted, node_of, len(cells))
    return Region(rows, points, distances, outward, sums[:, :3] / sums[:, 3:], node_of, spacing)


def _voxels(points: Tensor, spacing: float) -> Tensor:  # [R,3] -> [R] int64
    """One number per voxel. Far outliers may share theirs with others: 2^21 voxels a side are told apart."""
    x, y, z = ((points - points.amin(0)) / spacing).floor().long().clamp_max(2**21 - 1).unbind(1)
    return (x << 42) | (y << 21) | z


def _first_spacing(model: SplatModel, means: Tensor, selected: Tensor) -> float:
    ordered = means[selected].double().sort(dim=0).values
    skip = int(_OUTLIERS * len(selected))
    diagonal = float((ordered[len(selected) - 1 - skip] - ordered[skip]).square().sum().sqrt())
    _, squares = nearest_points(means[selected], means[selected], k=4)
    apart = squares[:, -1].double().sort().values[(len(selected) - 1) // 2].sqrt()
    if diagonal > 0:
        return max(diagonal / _NODES_ALONG, _SPLATS_APART * float(apart) if torch.isfinite(apart) else 0.0)
    sizes = model.primitive.scales({name: table.detach()[selected] for name, table in model.rows.items()})
    return max(float(sizes.amax()), 1e-6)


def _with_band(means: Tensor, selected: Tensor, free: Tensor, width: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, their distances in widths and the gradient of these: the selection first, then the band."""
    distances = torch.zeros(len(selected), dtype=torch.float64)
    outward = torch.zeros(len(selected), 3, dtype=torch.float64)
    if width == 0:
        return selected, distances, outward
    low, high = means[selected].amin(0) - width, means[selected].amax(0) + width
    near = (free & (means > low).all(dim=1) & (means < high).all(dim=1)).nonzero().squeeze(1)
    places, _ = nearest_points(means[near], means[selected])
    away = means[near].double() - means[selected[places[:, 0]]].double()
    x, y, z = away.unbind(1)
    apart = (x * x + y * y + z * z).sqrt()
    inside = apart < width
    apart, near, away = apart[inside], near[inside], away[inside]
    gradient = away / (apart * width).clamp_min(1e-300)[:, None]
    return torch.cat([selected, near]), torch.cat([distances, apart / width]), torch.cat([outward, gradient])


def _segment_sums(values: Tensor, segment: Tensor, count: int) -> Tensor:  # [R,C], [R] -> [count,C]
    """Sums over the rows of each segment, in the order of the rows whatever the number of threads."""
    order = segment.argsort(stable=True)
    totals = torch.nn.functional.pad(values.double()[order].cumsum(dim=0), (0, 0, 1, 0))
    ends = torch.searchsorted(segment[order], torch.arange(count + 1))
    return totals[ends[1:]] - totals[ends[:-1]]
