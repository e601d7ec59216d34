"""What a handle takes hold of: nodes of the region it goes with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from splat.edit.ops import Handle
from splat.native.skin import Skin


class Grasp:
    """Of one region: its rows and the nodes that carry them."""

    def __init__(self, bound: Skin, rest: Tensor) -> None:
        """``rest [M,3]`` float64: the nodes of ``bound``, before they were rounded."""
        self._rest = rest
        self._points, self._movable = bound.points.double(), bound.softness > 0
        self._nodes_of_rows, self._carried = bound.nodes.long(), bound.weights > 0

    def reached(self, handle: Handle) -> tuple[Tensor, Tensor]:
        """All nodes [M] bool that carry a splat within the radius, so that these go exactly as the handle does, and
        the squared distances [M] of all nodes."""
        center = torch.tensor(handle.at, dtype=torch.float64)
        inside = ((self._points - center).square().sum(dim=1) <= handle.radius**2) & self._movable
        reached = torch.zeros(len(self._rest), dtype=torch.bool)
        reached[self._nodes_of_rows[inside][self._carried[inside]]] = True
        distances = (self._rest - center).square().sum(dim=1)
        return reached | (distances <= handle.radius**2), distances

    def owners(self, handles: Sequence[Handle]) -> Tensor:
        """[M] int64: which of the handles with a radius a node goes with, the nearest of several; -1 for none."""
        owner = torch.full((len(self._rest),), -1)
        nearest = torch.full((len(self._rest),), torch.inf, dtype=torch.float64)
        for index, handle in enumerate(handles):
            if handle.radius > 0:
                reached, distances = self.reached(handle)
                reached &= distances < nearest
                owner[reached], nearest[reached] = index, distances[reached]
        return owner
