"""The geometric energy: that of the drag's own graph, at wherever the splats are.

It is that of as-rigid-as-possible deformation (Sorkine and Alexa 2007): E = sum_ij w_ij |(x_i - x_j) -
R_i (g_i - g_j)|^2. With R_i the best rotation, its gradient is that of the sum with R_i fixed, so R_i is found anew at
every step and never differentiated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splat.edit.drag.graph import binding, graph_of
from splat.edit.drag.region import region_of
from splat.geometry.deformation import split_gradients
from splat.model.splat_model import SplatModel


@dataclass(frozen=True, eq=False)
class NodeGraph:
    """M nodes, each the weighted mean of some of the R splats that move; E edges, each at both of its ends."""

    node_of: Tensor  # [R] int64
    shares: Tensor  # [R], sum 1 over the rows of a node
    ends: Tensor  # [2,E] int64
    edges: Tensor  # [E,3] world units: second end minus first, at rest
    weights: Tensor  # [E], sum 1
    carriers: Tensor  # [R,B] int64: nodes a splat goes along with
    carried: Tensor  # [R,B], sum 1
    spacing: float
    """World units."""
    count: int

    def gathered(self, places: Tensor) -> Tensor:  # [R,3] -> [M,3]
        """Where the nodes are when the splats are at ``places``."""
        return places.new_zeros(self.count, 3).index_add(0, self.node_of, self.shares[:, None] * places)

    def spread(self, table: Tensor) -> Tensor:  # [M,D] -> [R,D]
        """What the nodes have, for every splat."""
        picked = table.index_select(0, self.carriers.flatten()).unflatten(0, self.carriers.shape)
        return (picked * self.carried[..., None]).sum(1)

    def rotations(self, nodes: Tensor) -> Tensor:  # [M,3] -> [M,3,3]
        """The rotation of each node's edges that fits best; never a mirror."""
        one, other = self.ends
        outer = (self.weights[:, None] * (nodes[other] - nodes[one]))[:, :, None] * self.edges[:, None]
        sums = nodes.new_zeros(self.count, 9).index_add(0, one, outer.flatten(1))
        return split_gradients(sums.unflatten(1, (3, 3)))[0].to(nodes.dtype)

    def energy(self, nodes: Tensor) -> Tensor:  # [M,3] -> scalar
        """Weighted mean over the edges, in units of the spacing squared."""
        one, other = self.ends
        with torch.no_grad():
            turned = (self.rotations(nodes)[one] @ self.edges[..., None]).squeeze(2)
        apart = nodes[other] - nodes[one] - turned
        return (self.weights * apart.square().sum(1)).sum() / self.spacing**2

    def turned(self, before: Tensor, after: Tensor) -> Tensor:  # [M,3], [M,3] -> [R,3,3]
        """How each splat turns when the nodes go from one place to another: its nodes' rotations, blended and made
        one again."""
        turns = self.rotations(after) @ self.rotations(before).transpose(1, 2)
        mixed = self.spread(turns.flatten(1)).unflatten(1, (3, 3))
        return split_gradients(mixed)[0].to(after.dtype)


def node_graph(model: SplatModel, moving: Tensor, most: int) -> NodeGraph:
    """The graph of the rows ``moving [N]`` bool, with at most ``most`` nodes; what only comes near without hanging
    together is not joined. Rows are in their order in the model."""
    region = region_of(model, moving, band=0, most_nodes=most)
    found = graph_of(region.nodes, region.points, region.spacing)
    graph, device = found.graph, model.device
    carriers, carried, _ = binding(region.points, region.nodes, found.rings)
    weights = model.opacities.detach()[region.rows.to(device)].double().cpu().clamp_min(1e-2)
    sums = torch.zeros(len(region.nodes), dtype=torch.float64).index_add(0, region.node_of, weights)
    one = torch.repeat_interleave(torch.arange(graph.count), graph.begin.diff().long())
    other = graph.neighbours.long()
    edge_weights = graph.weights / graph.weights.sum().clamp_min(1e-300)
    dtype = model.rows["means"].dtype
    return NodeGraph(
        node_of=region.node_of.to(device), shares=(weights / sums[region.node_of]).to(device, dtype),
        ends=torch.stack([one, other]).to(device), edges=(graph.rest[other] - graph.rest[one]).to(device, dtype),
        weights=edge_weights.to(device, dtype), carriers=carriers.long().to(device), carried=carried.to(device, dtype),
        spacing=region.spacing, count=len(region.nodes),
    )  # fmt: skip
