"""Shapes on a screen: which points lie in a rectangle, a lasso, a stroke of the brush, a mask, a flooded region.

Points are ``u``, ``v`` [P] float64 in pixels (the first pixel's centre at 0.5). Edges and capsules look only at the
points whose v they reach, which a sort finds: a lasso costs about as much as a few passes over the points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from splat.edit.shapes import Point2

_MOST_CELLS = 128
"""Along the longer side of what a stroke covers."""
_SEGMENTS_AT_ONCE = 128
"""Measured from all cells: 16,384 x 128 numbers are 16 MB."""


def in_rect(u: Tensor, v: Tensor, low: Point2, high: Point2) -> Tensor:  # [P] bool
    """The border belongs to it; ``low`` and ``high`` are any two opposite corners."""
    (left, right), (top, bottom) = (sorted(pair) for pair in zip(low, high, strict=True))
    return (u >= left) & (u <= right) & (v >= top) & (v <= bottom)


def in_polygon(u: Tensor, v: Tensor, points: Sequence[Point2]) -> Tensor:  # [P] bool
    """Inside by the even-odd rule: a ray to the right crosses the border an odd number of times."""
    near = _in_bounds(u, v, points, 0.0)
    order, x, y = _by_height(near, u, v)
    crossings = torch.zeros(len(order), dtype=torch.bool, device=u.device)
    for (x0, y0), (x1, y1), begin, end in _reached(y, [*points, points[0]], 0.0, half_open=True):
        if begin == end or y0 == y1:
            continue
        across = x0 + (y[begin:end] - y0) * ((x1 - x0) / (y1 - y0))
        crossings[begin:end] ^= x[begin:end] < across
    return _spread(crossings, order, len(u))


def in_stroke(u: Tensor, v: Tensor, points: Sequence[Point2], radius: float) -> Tensor:  # [P] bool
    """Within ``radius`` of the line through ``points``: capsules, joined. One point is a disc."""
    near = _in_bounds(u, v, points, radius)
    line = list(points) if len(points) > 1 else [points[0], points[0]]
    inside, doubtful = _by_cells(u[near], v[near], line, radius)
    whole = torch.zeros(len(u), dtype=torch.bool, device=u.device)
    whole[near[inside]] = True
    order, x, y = _by_height(near[doubtful], u, v)
    hit = torch.zeros(len(order), dtype=torch.bool, device=u.device)
    for start, end, begin, stop in _reached(y, line, radius, half_open=False):
        x_here = x[begin:stop]
        left, right = min(start[0], end[0]) - radius, max(start[0], end[0]) + radius
        left_over = ((x_here >= left) & (x_here <= right) & ~hit[begin:stop]).nonzero().squeeze(1) + begin
        if len(left_over):
            hit[left_over] = _squared_distances(x[left_over], y[left_over], [start, end])[:, 0] <= radius * radius
    whole[order[hit]] = True
    return whole


def _by_cells(u: Tensor, v: Tensor, line: Sequence[Point2], radius: float) -> tuple[Tensor, Tensor]:  # [P] bool twice
    """Points in cells of the screen that lie inside a stroke as a whole, and those in cells its border may pass: a
    long stroke over many splats would else be measured from every one of them."""
    if len(u) == 0:
        return (torch.zeros(0, dtype=torch.bool, device=u.device),) * 2
    low, high = torch.stack([u.min(), v.min()]), torch.stack([u.max(), v.max()])
    side = max(radius / 8, float((high - low).max()) / _MOST_CELLS, 1e-6)
    column, row = ((u - low[0]) / side).long(), ((v - low[1]) / side).long()
    columns, rows = int(column.max()) + 1, int(row.max()) + 1
    x, y = pixel_centers(columns, rows, u.device)
    x, y = x * side + low[0], y * side + low[1]
    parts = range(0, len(line) - 1, _SEGMENTS_AT_ONCE)
    nearest = torch.stack([_squared_distances(x, y, line[i : i + _SEGMENTS_AT_ONCE + 1]).amin(1) for i in parts])
    away = nearest.amin(0).sqrt()
    reach = side * 0.75  # a little over half the diagonal: rounding must not decide
    cell = row * columns + column
    return (away < radius - reach)[cell], ((away >= radius - reach) & (away <= radius + reach))[cell]


def _squared_distances(x: Tensor, y: Tensor, line: Sequence[Point2]) -> Tensor:  # [P], [P] -> [P,S]
    """From points to each segment of a line."""
    corners = torch.tensor(line, dtype=x.dtype, device=x.device)
    start, way = corners[:-1], corners[1:] - corners[:-1]
    dx, dy = x[:, None] - start[:, 0], y[:, None] - start[:, 1]
    length = way[:, 0] * way[:, 0] + way[:, 1] * way[:, 1]
    along = ((dx * way[:, 0] + dy * way[:, 1]) / length.clamp_min(1e-30)).clamp(0, 1)
    dx, dy = dx - along * way[:, 0], dy - along * way[:, 1]
    return dx * dx + dy * dy


def in_pixels(u: Tensor, v: Tensor, mask: Tensor) -> Tensor:  # [H,W] bool -> [P] bool
    """Whether the pixel a point lies in is set; outside the picture none is."""
    height, width = mask.shape
    column, row = u.floor().clamp(-1, width), v.floor().clamp(-1, height)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return inside & mask[row.clamp(0, height - 1).long(), column.clamp(0, width - 1).long()]


def pixel_centers(width: int, height: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """``u``, ``v`` [H*W] of a picture's pixels, row after row."""
    v, u = torch.meshgrid(
        torch.arange(height, dtype=torch.float64, device=device) + 0.5,
        torch.arange(width, dtype=torch.float64, device=device) + 0.5,
        indexing="ij",
    )
    return u.reshape(-1), v.reshape(-1)


def mask_of_runs(runs: Sequence[int], width: int, height: int, device: torch.device | str = "cpu") -> Tensor:
    """A mask [H,W] bool from lengths of runs, outside first. ValueError when they do not fill the picture."""
    lengths = torch.tensor(list(runs), dtype=torch.int64)
    if int(lengths.sum()) != width * height:
        raise ValueError(f"runs of {int(lengths.sum())} pixels do not fill a picture of {width} x {height}")
    inside = torch.arange(len(lengths)) % 2 == 1
    return inside.repeat_interleave(lengths).reshape(height, width).to(device)


def runs_of_mask(mask: Tensor) -> tuple[int, ...]:
    """The inverse of ``mask_of_runs``; as short as it can be."""
    flat = mask.reshape(-1).bool()
    if len(flat) == 0:
        return ()
    ends = (flat[1:] != flat[:-1]).nonzero().squeeze(1) + 1
    borders = [0, *ends.tolist(), len(flat)]
    lengths = tuple(later - earlier for earlier, later in pairwise(borders))
    return (0, *lengths) if bool(flat[0]) else lengths


def flooded(allowed: Tensor, x: int, y: int) -> Tensor:  # [H,W] bool -> [H,W] bool
    """The pixels of ``allowed`` joined to (x, y) by steps along rows and columns. Whole runs fill at once, so that
    what counts is how often the region turns, not how large it is."""
    region = torch.zeros_like(allowed)
    region[y, x] = allowed[y, x]
    filled = -1
    while filled != (filled := int(region.sum())):
        region = _runs_filled(allowed, region)
        region = _runs_filled(allowed.T, region.T).T
    return region


def _runs_filled(allowed: Tensor, seeds: Tensor) -> Tensor:  # [H,W] bool, twice
    """Every run of ``allowed`` along a row that holds a seed."""
    height, width = allowed.shape
    begins = allowed.clone()
    begins[:, 1:] &= ~allowed[:, :-1]
    run = begins.reshape(-1).cumsum(0)  # runs never reach over the end of a row: there another one begins
    holds = torch.zeros(height * width + 1, dtype=torch.bool, device=allowed.device)
    holds[run[seeds.reshape(-1)]] = True
    return holds[run].reshape(height, width) & allowed


def _in_bounds(u: Tensor, v: Tensor, points: Sequence[Point2], margin: float) -> Tensor:  # [Q] int64
    """Points in the bounding box of ``points``, grown by ``margin``."""
    columns, rows = zip(*points, strict=True)
    low, high = (min(columns) - margin, min(rows) - margin), (max(columns) + margin, max(rows) + margin)
    return in_rect(u, v, low, high).nonzero().squeeze(1)


def _by_height(chosen: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``chosen`` [Q] in the order of v, and their u and v."""
    y, order = v[chosen].sort()
    order = chosen[order]
    return order, u[order], y


def _reached(
    y: Tensor, line: Sequence[Point2], margin: float, *, half_open: bool
) -> Iterator[tuple[Point2, Point2, int, int]]:
    """The edges of ``line`` with the part of the sorted heights ``y`` that each reaches; of a half-open edge the
    higher end is none of it, so that a ray through a corner meets one edge."""
    starts, ends = list(line[:-1]), list(line[1:])
    heights = torch.tensor([[start[1], end[1]] for start, end in zip(starts, ends, strict=True)], dtype=y.dtype)
    low, high = (heights.amin(1) - margin).to(y.device), (heights.amax(1) + margin).to(y.device)
    begins = torch.searchsorted(y, low, right=False).tolist()
    stops = torch.searchsorted(y, high, right=not half_open).tolist()
    yield from zip(starts, ends, begins, stops, strict=True)


def _spread(hit: Tensor, order: Tensor, count: int) -> Tensor:
    whole = torch.zeros(count, dtype=torch.bool, device=hit.device)
    whole[order[hit]] = True
    return whole
