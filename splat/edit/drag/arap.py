"""As-rigid-as-possible drags: the graph bends, its parts keep their shape (specs: viewer_editing 4.3-3 and 4.3-4).

Iterations go on in the direction of the last ones, faster and faster until that leads uphill (Nesterov 1983; O'Donoghue
and Candes 2015, "Adaptive restart for accelerated gradient schemes"): a twist, which goes from node to node, comes to
its end in a tenth of the iterations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from splat.edit.drag.graph import DragGraph
from splat.edit.drag.grasp import Grasp
from splat.edit.drag.motion import NodeMotion, frame_points, pose, taken_hold, turned_by
from splat.edit.drag.rigid import rigid_motion
from splat.edit.ops import Handle
from splat.native.arap import Arap
from splat.native.neighbours import nearest_points
from splat.native.skin import Skin

ITERATIONS, FINISH = 6, 300
"""Per move of the mouse, from where the last one ended; at the end, at most."""
_STIFF = 0.5
"""Least weight of neighbours turning alike on the way to where the handles go. That leads past folds that are easily
fallen into and not left again: of the shapes that hold still, a lower one is found (a hose twisted by 180 degrees has
half the energy, one pushed together to a third two thirds). The last iterations have the weight that was asked for."""
_SETTLED = 1e-4
"""Of a spacing: the end is reached when no node goes further in one iteration."""
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
        self._grasp = Grasp(bound, self._rest)
        self._outer, self._anchors, self._smooth = node_softness < _HELD_BELOW, anchors, smooth
        self._places = self._rest.clone()
        self._rotations = torch.eye(3, dtype=torch.float64).repeat(len(self._rest), 1, 1)
        self._last, self._pace = (self._places, self._rotations), 1.0
        self._hold: tuple = ()

    def move(self, handles: Sequence[Handle]) -> NodeMotion:
        self._go(handles, self._smooth)
        return self._now()

    def pass_by(self, handles: Sequence[Handle]) -> None:
        self._go(handles, max(self._smooth, _STIFF))

    def finish(self) -> NodeMotion:
        self._iterate(FINISH, self._smooth, _SETTLED * self._spacing)
        return self._now()

    def _go(self, handles: Sequence[Handle], smooth: float) -> None:
        if taken_hold(handles) != self._hold:
            self._take_hold(handles)
            self._last, self._pace = (self._places.clone(), self._rotations.clone()), 1.0
        self._predict(handles)
        self._handles = tuple(handles)
        for index, handle in enumerate(handles):
            at, to, rotation = pose(handle)
            driven = self._owner == index
            self._places[driven] = to + turned_by(rotation, self._rest[driven] - at)
            self._rotations[driven] = rotation
            self._targets[self._pulled == index] = to
        put = (self._owner != _FREE) | self._carried_along
        for before, here in zip(self._last, (self._places, self._rotations), strict=True):
            before[put] = here[put]  # the others go on as they went at the last move
        self._iterate(ITERATIONS, smooth)

    def _iterate(self, most: int, smooth: float, settled: float = 0.0) -> None:
        """``most`` times, or until no node goes further than ``settled`` (world units) in one."""
        for _ in range(most):
            pace = (1 + (1 + 4 * self._pace**2) ** 0.5) / 2
            on, self._pace = (self._pace - 1) / pace, pace
            now = self._places, self._rotations
            ahead = [here + on * (here - before) for here, before in zip(now, self._last, strict=True)]
            self._places, self._rotations = self._arap.iterate(*ahead, self._targets, 1, smooth=smooth)
            self._last, gone = now, self._places - now[0]
            if float(((ahead[0] - self._places) * gone).sum()) > 0:  # it had to come back
                self._pace = 1.0
            if float(gone.abs().max()) <= settled:
                break

    def _now(self) -> NodeMotion:
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
        """What several reach goes with the nearest."""
        claimed, distances = self._grasp.reached(handle)
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
        self._carried_along = torch.zeros(len(self._rest), dtype=torch.bool)
        for part in self._loose:
            here = self._graph.parts == part
            self._carried_along |= here
            which = {int(i) for table in (self._owner, self._pulled) for i in table[here] if i >= 0}
            before = frame_points([self._handles[i] for i in sorted(which)])[1]
            after = frame_points([handles[i] for i in sorted(which)])[1]
            rotation, translation = rigid_motion(before, after)
            self._places[here] = turned_by(rotation, self._places[here]) + translation
            columns = self._rotations[here].unbind(2)
            self._rotations[here] = torch.stack([turned_by(rotation, column) for column in columns], dim=2)


def _resting(handle: Handle) -> Handle:
    return Handle(handle.at, handle.at, handle.radius)
