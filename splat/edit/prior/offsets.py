"""Where the splats of a drag are while it is refined: where the geometric drag put them, and what is learned."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splat.edit.prior.adam import Group
from splat.edit.prior.nodes import NodeGraph
from splat.edit.prior.regions import Regions
from splat.edit.prior.triplane import TriplaneField


@dataclass(eq=False)
class Offsets:
    """Places of the R rows that move: start + (1 - firmness) (nodes' offsets + field).

    Where we leave the paper: the field corrects a geometric start instead of making the whole drag, the nodes of a
    graph move beside it, the rest does not move at all (so the rule for "outside" begins at the shell), and handles
    hold by construction.
    """

    rest: Tensor  # [R,3] before the drag
    start: Tensor  # [R,3]
    regions: Regions
    graph: NodeGraph
    firm: Tensor  # [R] 0..1
    nodes: Tensor  # [M,3] learned, world units
    field: TriplaneField | None

    @staticmethod
    def of(
        rest: Tensor, start: Tensor, regions: Regions, *, graph: NodeGraph, firm: Tensor, field: TriplaneField | None
    ) -> Offsets:
        nodes = torch.zeros(graph.count, 3, dtype=rest.dtype, device=rest.device, requires_grad=True)
        return Offsets(rest, start, regions, graph, firm, nodes, field)

    def learned(self) -> Tensor:  # [R,3]
        """On top of the start."""
        offsets = self.graph.spread(self.nodes)
        if self.field is not None:
            offsets = offsets + self.field(self.rest, ~self.regions.shell)
        return (1 - self.firm[:, None]) * offsets

    @property
    def unit(self) -> float:
        """World units the shell's offsets are counted in: half the diagonal of the box of what moves."""
        return max(float((self.rest.amax(0) - self.rest.amin(0)).norm()) / 2, 1e-6)

    def groups(self, *, nodes: float, grid: float, heads: float) -> list[Group]:
        """Parameters with their learning rates; that of the nodes is in spacings of the graph."""
        groups = [Group([self.nodes], nodes * self.graph.spacing)]
        if self.field is not None:
            groups += [Group(self.field.grid_parameters(), grid), Group(self.field.head_parameters(), heads)]
        return groups
