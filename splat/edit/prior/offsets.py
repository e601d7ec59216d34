"""Where the splats of a drag are while it is refined: what is learned, and what stands whatever is learned."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splat.edit.prior.adam import Group
from splat.edit.prior.nodes import NodeGraph
from splat.edit.prior.pins import Pins
from splat.edit.prior.regions import Regions
from splat.edit.prior.triplane import TriplaneField


@dataclass(eq=False)
class Offsets:
    """Places of the R rows that move: start + nodes' offsets + field, overruled by the pins where those are firm.

    Where we leave the paper: the field corrects a geometric start instead of making the whole drag, the nodes of a
    graph move beside it, the rest does not move at all (so the rule for "outside" begins at the shell), and handles
    hold by construction.
    """

    rest: Tensor  # [R,3] before the drag
    start: Tensor  # [R,3]
    regions: Regions
    graph: NodeGraph
    firm: Tensor  # [R] 0..1
    held: Tensor  # [R,3] offsets from ``rest``
    nodes: Tensor  # [M,3] learned, world units
    field: TriplaneField | None

    @staticmethod
    def of(
        rest: Tensor, start: Tensor, regions: Regions, *, graph: NodeGraph, pins: Pins, field: TriplaneField | None
    ) -> Offsets:
        firm, held = pins.held(rest)
        nodes = torch.zeros(len(graph.rows), 3, dtype=rest.dtype, device=rest.device, requires_grad=True)
        return Offsets(rest, start, regions, graph, firm, held, nodes, field)

    def free(self) -> Tensor:  # [R,3]
        """What was learned, on top of the start."""
        offsets = self.graph.spread(self.nodes)
        return offsets if self.field is None else offsets + self.field(self.rest, ~self.regions.shell)

    def places(self, free: Tensor) -> Tensor:  # [R,3] -> [R,3]
        firm = self.firm[:, None]
        return (1 - firm) * (self.start + free) + firm * (self.rest + self.held)

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
