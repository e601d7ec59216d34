"""The graph of a drag: which nodes hang together, and which carry a splat (specs: viewer_editing 4.3-2 and 4.3-5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splat.native.arap import Graph
from splat.native.neighbours import nearest_points
from splat.native.skin import NODES

_DEGREE = 8
_LONGEST = 2.5
"""Of an edge, in spacings."""
_EMPTY = 0.75
"""An edge whose middle is this many spacings from any splat crosses empty space."""
_CANDIDATES = 12
"""Nodes near a splat that are looked at; those that hang together with the nearest one carry it."""

_PIECE = 896
"""Points with 12 candidates of 3 numbers: torch keeps operations of up to 32768 numbers on the thread that asks."""


@dataclass(frozen=True, eq=False)
class DragGraph:
    graph: Graph
    parts: Tensor  # [M] int64: connected parts, numbered
    rings: Tensor  # [M,M] bool: at most two edges apart


def graph_of(nodes: Tensor, points: Tensor, spacing: float) -> DragGraph:
    """Nodes [M,3] joined with their nearest where that is mutual, near, and along splats (``points [R,3]``)."""
    count = len(nodes)
    joined = torch.zeros(count, count, dtype=torch.bool)
    places, sq_distances = nearest_points(nodes, nodes, k=min(_DEGREE + 1, count))
    near = (places >= 0) & (sq_distances <= (_LONGEST * spacing) ** 2)
    joined[torch.arange(count)[:, None].expand_as(places)[near], places[near]] = True
    joined &= joined.T.clone()
    joined.fill_diagonal_(False)
    one, other = joined.triu().nonzero().unbind(1)
    if len(one):
        _, gap = nearest_points((nodes[one] + nodes[other]) / 2, points)
        empty = gap[:, 0] > (_EMPTY * spacing) ** 2
        joined[one[empty], other[empty]] = joined[other[empty], one[empty]] = False
    graph = _lists(nodes, joined)
    return DragGraph(graph, _parts(joined), _rings(joined))


def _lists(nodes: Tensor, joined: Tensor) -> Graph:
    """Weights fall with length: exp(-d^2 / mean d^2)."""
    one, other = joined.nonzero().unbind(1)
    x, y, z = (nodes[one] - nodes[other]).unbind(1)
    squares = x * x + y * y + z * z
    mean = squares.cumsum(0)[-1] / len(squares) if len(squares) else 1.0
    begin = torch.nn.functional.pad(joined.sum(dim=1).cumsum(0), (1, 0))
    return Graph(nodes, begin.int(), other.int(), (-squares / mean).exp())


def _parts(joined: Tensor) -> Tensor:
    """Every node learns the least number among those it can reach."""
    parts = torch.arange(len(joined))
    one, other = joined.nonzero().unbind(1)
    while True:
        least = parts.scatter_reduce(0, one, parts[other], "amin")
        least = least[least]
        if torch.equal(least, parts):
            return torch.unique(parts, return_inverse=True)[1]
        parts = least


def _rings(joined: Tensor) -> Tensor:
    rings = joined.clone().fill_diagonal_(True)
    one, other = rings.nonzero().unbind(1)
    wide = rings.clone()
    degree = int(rings.sum(dim=1).max())
    listed = torch.full((len(joined), degree), -1)
    starts = torch.nn.functional.pad(rings.sum(dim=1).cumsum(0), (1, 0))[:-1]
    listed[one, torch.arange(len(one)) - starts[one]] = other
    beyond = listed[other]  # [E,degree]
    real = beyond >= 0
    wide[one[:, None].expand_as(beyond)[real], beyond[real]] = True
    return wide


def binding(points: Tensor, nodes: Tensor, rings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which nodes carry each of ``points [R,3]`` [R,4], their weights [R,4] (sum 1) and the weights' gradients [R,4,3].

    Weights are (1 - d^2 / D^2)^2 with D the distance of the fifth: they and their gradients go to 0 where a node is
    left behind. (The specs have (1 - d / D)^2, which has a cusp at every node.) Only nodes within two edges of the
    nearest one carry, so that what is near without hanging together goes its own way.
    """
    places, _ = nearest_points(points, nodes, k=min(_CANDIDATES, len(nodes)))
    pieces = zip(points.split(_PIECE), places.split(_PIECE), strict=True)
    bound = [_bound(*piece, nodes, rings) for piece in pieces]
    return tuple(torch.cat(tables) for tables in zip(*bound, strict=True))  # type: ignore[return-value]


def _bound(points: Tensor, places: Tensor, nodes: Tensor, rings: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From the candidates [R,C] of each point."""
    allowed = rings[places[:, :1], places]
    away = points.double()[:, None] - nodes[places]  # [R,C,3]
    x, y, z = away.unbind(2)
    squares = torch.where(allowed, x * x + y * y + z * z, torch.inf)
    squares, order = squares.sort(dim=1, stable=True)
    squares, order = (table[:, : NODES + 1] for table in (squares, order))
    missing = NODES + 1 - squares.shape[1]
    squares = torch.nn.functional.pad(squares, (0, missing), value=torch.inf)
    order = torch.nn.functional.pad(order, (0, missing))
    return _weights(squares, away.gather(1, order[..., None].expand(-1, -1, 3)), places.gather(1, order))


def _weights(squares: Tensor, away: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From the five nearest, nearest first: infinite squares are none."""
    real = torch.isfinite(squares)
    last = (real.sum(dim=1) - 1)[:, None]
    # Where there are fewer than five, a distance somewhat beyond the last takes the place of the fifth's.
    factor = torch.where(last == NODES, 1.0, 2.25)
    reach = (squares.gather(1, last) * factor).clamp_min(1e-300)  # D^2 [R,1]
    reach_gradient = 2 * factor[..., None] * away.gather(1, last[..., None].expand(-1, -1, 3))  # [R,1,3]
    ratio = torch.where(real, squares / reach, 1.0)[:, :NODES].clamp_max(1.0)
    gradient = 2 * away[:, :NODES] / reach[..., None] - (ratio / reach)[..., None] * reach_gradient
    raw = (1 - ratio).square()
    raw_gradient = -2 * (1 - ratio)[..., None] * gradient
    total = raw[:, 0] + raw[:, 1] + raw[:, 2] + raw[:, 3]
    alone = total < 1e-12  # all as far as the fifth: the first, then
    total = torch.where(alone, 1.0, total)[:, None]
    weights = raw / total
    drift = raw_gradient[:, 0] + raw_gradient[:, 1] + raw_gradient[:, 2] + raw_gradient[:, 3]
    weight_gradients = (raw_gradient - weights[..., None] * drift[:, None]) / total[..., None]
    weights[alone] = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    weight_gradients[alone] = 0
    return torch.where(real, places, places[:, :1])[:, :NODES], weights, weight_gradients
