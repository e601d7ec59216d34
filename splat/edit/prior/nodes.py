"""A few splats stand for all that move: their graph has the energy, the others go along.

The energy is that of as-rigid-as-possible deformation (Sorkine and Alexa 2007): E = sum_ij w_ij |(x_i - x_j) -
R_i (g_i - g_j)|^2. With R_i the best rotation, its gradient is that of the sum with R_i fixed, so R_i is found anew at
every step and never differentiated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splat.edit.prior.regions import k_nearest
from splat.geometry.deformation import split_gradients

_EDGES = 8
"""Neighbours of a node."""
_BLEND = 4
"""Nodes a splat goes along with."""


@dataclass(frozen=True, eq=False)
class NodeGraph:
    """M nodes, which are splats, and how the R splats that move hang on them."""

    rows: Tensor  # [M] int64, places among the R
    neighbours: Tensor  # [M,E] int64, places among the M
    edges: Tensor  # [M,E,3] world units: neighbour minus node at rest
    weights: Tensor  # [M,E], sum 1 over all: exp(-d^2 / mean d^2)
    blend_nodes: Tensor  # [R,B] int64
    blend_weights: Tensor  # [R,B], sum 1
    spacing: float
    """World units: typical length of an edge."""

    def spread(self, table: Tensor) -> Tensor:  # [M,D] -> [R,D]
        """What the nodes have, for every splat."""
        picked = table[self.blend_nodes.flatten()].unflatten(0, self.blend_nodes.shape)
        return (picked * self.blend_weights[..., None]).sum(1)

    def rotations(self, places: Tensor) -> Tensor:  # [M,3] -> [M,3,3]
        """The rotation of each node's edges that fits best; never a mirror."""
        moved = places[self.neighbours] - places[:, None]
        correlation = (self.weights[..., None] * moved).transpose(1, 2) @ self.edges  # [M,3,3]
        return split_gradients(correlation)[0].to(places.dtype)

    def energy(self, places: Tensor) -> Tensor:  # [M,3] -> scalar
        """Weighted mean over the edges, in units of the spacing squared."""
        with torch.no_grad():
            turns = self.rotations(places)
        rigid = torch.einsum("mij,mej->mei", turns, self.edges)
        apart = places[self.neighbours] - places[:, None] - rigid
        return (self.weights * apart.square().sum(2)).sum() / self.spacing**2

    def turned(self, before: Tensor, after: Tensor) -> Tensor:  # [M,3], [M,3] -> [R,3,3]
        """How each splat turns when the nodes go from one place to another: its nodes' rotations, blended and made
        one again."""
        turns = self.rotations(after) @ self.rotations(before).transpose(1, 2)
        mixed = self.spread(turns.flatten(1)).unflatten(1, (3, 3))
        return split_gradients(mixed)[0].to(after.dtype)


def node_graph(points: Tensor, eligible: Tensor, count: int) -> NodeGraph:
    """points [R,3] at rest; nodes are taken from ``eligible [R]`` bool (all, where none is)."""
    pool = eligible.nonzero().squeeze(1)
    pool = pool if len(pool) else torch.arange(len(points), device=points.device)
    rows = pool[_spread_out(points[pool], min(count, len(pool)))]
    nodes = points[rows]
    k = min(_EDGES + 1, len(rows))
    distances, neighbours = (table[:, 1:] for table in k_nearest(nodes, nodes, k))
    mean_square = distances.square().mean().clamp_min(1e-20) if distances.numel() else points.new_ones(())
    weights = torch.exp(-distances.square() / mean_square)
    weights = weights / weights.sum().clamp_min(1e-20)
    blend_nodes, blend_weights = _blend(points, nodes)
    spacing = float(distances.median()) if distances.numel() else 1.0
    edges = nodes[neighbours] - nodes[:, None]
    return NodeGraph(rows, neighbours, edges, weights, blend_nodes, blend_weights, max(spacing, 1e-6))


def _blend(points: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:  # [R,B], [R,B]
    """(1 - d/d_last)^2 of the nearest nodes, where ``d_last`` is the distance of the first that has no say."""
    distances, nearest = k_nearest(points, nodes, min(_BLEND + 1, len(nodes)))
    if distances.shape[1] == 1:
        return nearest, torch.ones_like(distances)
    weights = (1 - distances[:, :-1] / distances[:, -1:].clamp_min(1e-20)).square() + 1e-12
    return nearest[:, :-1], weights / weights.sum(1, keepdim=True)


def _spread_out(points: Tensor, count: int) -> Tensor:  # [P,3] -> [count] int64
    """Farthest points: each next one is the farthest from those taken, beginning next to the middle."""
    taken = torch.empty(count, dtype=torch.int64, device=points.device)
    place = (points - points.mean(0)).square().sum(1).argmin()
    least = torch.full((len(points),), torch.inf, dtype=points.dtype, device=points.device)
    for i in range(count):
        taken[i] = place
        least = torch.minimum(least, (points - points[place]).square().sum(1))
        place = least.argmax()
    return taken
