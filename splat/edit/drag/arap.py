"""As-rigid-as-possible drags: the graph bends, its parts keep their shape (specs: viewer_editing 4.3-3 and 4.3-4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from splat.edit.drag.graph import DragGraph
from splat.edit.drag.motion import NodeMotion, frame_points, pose, taken_hold, turned_by
from splat.edit.drag.rigid import rigid_motion
from splat.edit.ops import Handle
from splat.native.arap import Arap
from splat.native.neighbours import nearest_points
from splat.native.skin import Skin

ITERATIONS, FINISH = 4, 24
"""Per move of the mouse, from where the last one ended; at the end."""
_PULL = 10.0
"""Of a handle without radius over what its node's edges hold it with: the node comes within a tenth of where the rest
of the part would let it, without a spike."""
_HELD_BELOW = 0.9
"""Nodes of the band with less softness stay where they are."""
_CRUMB = 0.02
"""A part of fewer nodes (of all) that nothing holds goes along with what is dragged beside it; a larger one stays."""
_CRUMB_REACH = 4.0
"""How far away that may be, in spacings."""
_FREE, _STAYS = -1, -2


class ArapMode:
    """Implements ``motion.Mode``."""

    def __init__(
        self, graph: DragGraph, bound: Skin, spacing: float, *, node_softness: Tensor, anchors: Sequence[Handle],
        smooth: float,
    ) -> None:  # fmt: skip
        """``bound``: the rows, which say what a handle reaches; ``node_softness`` [M]; ``smooth``: weight of
        neighbouring nodes turning alike."""
        self._graph, self._spacing, self._rest = graph, spacing, graph.graph.rest
        self._points, self._movable = bound.points.double(), bound.softness > 0
        self._nodes_of_rows, self._carried = bound.nodes.long(), bound.weights > 0
        self._outer, self._anchors, self._smooth = node_softness < _HELD_BELOW, anchors, smooth
        self._places = self._rest.clone()
        self._rotations = torch.eye(3, dtype=torch.float64).repeat(len(self._rest), 1, 1)
        self._hold: tuple = ()

    def move(self, handles: Sequence[Handle]) -> NodeMotion:
        if taken_hold(handles) != self._hold:
            self._take_hold(handles)
        self._predict(handles)
        self._handles = tuple(handles)
        for index, handle in enumerate(handles):
            at, to, rotation = pose(handle)
            driven = self._owner == index
            self._places[driven] = to + turned_by(rotation, self._rest[driven] - at)
            self._rotations[driven] = rotation
            self._targets[self._pulled == index] = to
        return self._iterated(ITERATIONS)

    def finish(self) -> NodeMotion:
        return self._iterated(FINISH)

    def _iterated(self, iterations: int) -> NodeMotion:
        self._places, self._rotations = self._arap.iterate(self._places, self._rotations, self._targets, iterations)
        places, rotations = self._places.clone(), self._rotations.clone()
        crumbs, leads = self._crumbs, self._leads
        rotations[crumbs] = rotations[leads]
        x, y, z = (self._rest[crumbs] - self._rest[leads])[:, None].unbind(2)
        turned = rotations[leads].unbind(2)
        places[crumbs] = places[leads] + (turned[0] * x + turned[1] * y + turned[2] * z)
        return NodeMotion.of_rotations(places - self._rest, rotations)

    def _take_hold(self, handles: Sequence[Handle]) -> None:
        """Which nodes go with which handle, which stay, and the factor for these."""
        self._hold, self._handles = taken_hold(handles), tuple(_resting(handle) for handle in handles)
        count = len(self._rest)
        self._pulled, self._owner = torch.full((count,), _FREE), torch.full((count,), _FREE)
        self._owner[self._outer] = _STAYS
        nearest = torch.full((count,), torch.inf, dtype=torch.float64)
        arms = torch.zeros(count, 3, dtype=torch.float64)
        for index, handle in ((_STAYS, a) for a in self._anchors):
            self._claim(index, handle, nearest)
        for index, handle in enumerate(handles):
            if handle.radius > 0:
                self._claim(index, handle, nearest)
        for index, handle in enumerate(handles):
            if handle.radius == 0:
                node = self._node_at(handle)
                self._owner[node], self._pulled[node] = _FREE, index
                arms[node] = torch.tensor(handle.at, dtype=torch.float64) - self._rest[node]
        self._settle_parts()
        pulls = torch.where(self._pulled >= 0, _PULL * self._edge_weights(), 0.0)
        self._targets = self._rest + arms
        self._arap = Arap(self._graph.graph, self._owner != _FREE, pulls, arms, smooth=self._smooth)

    def _claim(self, index: int, handle: Handle, nearest: Tensor) -> None:
        """All nodes that carry a splat within the radius, so that these go exactly as the handle does. What several
        reach goes with the nearest."""
        center = torch.tensor(handle.at, dtype=torch.float64)
        inside = ((self._points - center).square().sum(dim=1) <= handle.radius**2) & self._movable
        claimed = torch.zeros(len(self._rest), dtype=torch.bool)
        claimed[self._nodes_of_rows[inside][self._carried[inside]]] = True
        distances = (self._rest - center).square().sum(dim=1)
        claimed |= distances <= handle.radius**2
        if not claimed.any():
            claimed[self._node_at(handle)] = True
        claimed &= distances < nearest
        self._owner[claimed] = index
        nearest[claimed] = distances[claimed]

    def _node_at(self, handle: Handle) -> int:
        """The node that is nearest, of those that are not at the outer edge of the band if there are others."""
        inner = (~self._outer).nonzero().squeeze(1)
        inner = inner if len(inner) else torch.arange(len(self._rest))
        return int(inner[nearest_points(torch.tensor([handle.at]), self._rest[inner])[0][0, 0]])

    def _settle_parts(self) -> None:
        """Parts without a handle stay, but for crumbs, which follow the nearest node that is dragged."""
        parts, count = self._graph.parts, int(self._graph.parts.max()) + 1
        driven, resting, size = (torch.zeros(count, dtype=torch.int64) for _ in range(3))
        driven.index_add_(0, parts, ((self._owner >= 0) | (self._pulled >= 0)).long())
        resting.index_add_(0, parts, (self._owner == _STAYS).long())
        size.index_add_(0, parts, torch.ones_like(parts))
        moving = (driven > 0)[parts]
        self._owner[~moving] = _STAYS
        self._loose = [part for part in range(count) if driven[part] and not resting[part]]
        small = (size <= max(3, _CRUMB * len(self._rest))) & (resting == 0)
        crumbs, movers = (~moving & small[parts]).nonzero().squeeze(1), moving.nonzero().squeeze(1)
        self._crumbs, self._leads = crumbs, crumbs
        if len(crumbs) and len(movers):
            places, squares = nearest_points(self._rest[crumbs], self._rest[movers])
            near = squares[:, 0] <= (_CRUMB_REACH * self._spacing) ** 2
            self._crumbs, self._leads = crumbs[near], movers[places[near, 0]]

    def _edge_weights(self) -> Tensor:  # [M] sum over a node's edges
        graph = self._graph.graph
        ends = torch.nn.functional.pad(graph.weights.cumsum(0), (1, 0))
        sums = ends[graph.begin[1:].long()] - ends[graph.begin[:-1].long()]
        return torch.where(sums > 1e-6, sums, 1.0)

    def _predict(self, handles: Sequence[Handle]) -> None:
        """Parts that nothing keeps in place go first as the handles would take them together, rigidly: iterations find
        a common rotation only slowly."""
        for part in self._loose:
            here = self._graph.parts == part
            which = {int(i) for table in (self._owner, self._pulled) for i in table[here] if i >= 0}
            before = frame_points([self._handles[i] for i in sorted(which)])[1]
            after = frame_points([handles[i] for i in sorted(which)])[1]
            rotation, translation = rigid_motion(before, after)
            self._places[here] = turned_by(rotation, self._places[here]) + translation
            columns = self._rotations[here].unbind(2)
            self._rotations[here] = torch.stack([turned_by(rotation, column) for column in columns], dim=2)


def _resting(handle: Handle) -> Handle:
    return Handle(handle.at, handle.at, handle.radius)
