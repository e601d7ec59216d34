"""Drags by a smooth field of displacements over all space: what the handles ask for is spread by fixed weights.

First everything moves as the handles and what stays would take it together, rigidly; the field spreads what is left.
Its weights depend on where the handles take hold alone, so that a move is one product. Written in numpy: its loops run
on one thread, so the bits do not depend on how many there are.

Rows follow nodes, and these the field: what lies between nodes is not quite where the field has it. So the weights are
mended until the middle of every handle comes to its target to the last digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from splat.edit.drag.graph import binding
from splat.edit.drag.grasp import Grasp
from splat.edit.drag.motion import NodeMotion, frame_points, pose, taken_hold, turned_by
from splat.edit.drag.rigid import rigid_motion
from splat.edit.ops import Handle
from splat.native.skin import Skin

_MOST_STILL = 160
"""Places of the band's outer edge that the field is told to leave alone; softness does the rest."""
_MOST_HELD = 48
"""Nodes of a handle that the field is told of; it has room for a few hundred points."""
_SAME = 1e-6
"""Points nearer than this part of the whole count as one: a table with two equal rows has no inverse."""
_APART = 0.5
"""Of a spacing: of handles nearer than this the first is heard alone. No node is between them, so a field that went
through both would have to go far beyond them everywhere else."""
_MOST_MENDED = 2.0
"""How much larger the weights may become that are mended: more would tear what lies around to meet one point."""


class Spread(Protocol):
    """Weights [M,P] with which displacements at ``points [P,3]`` reach ``nodes [M,3]``, and their gradients [M,P,3].
    ``handles [P]`` tells which handle a point belongs to, -1 for what stays; the first are the handles' middles."""

    def __call__(self, points: np.ndarray, nodes: np.ndarray, handles: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


class FieldMode:
    """Implements ``motion.Mode``."""

    def __init__(
        self, bound: Skin, nodes: Tensor, edge: Tensor, anchors: Sequence[Handle], spread: Spread, *,
        spacing: float, holds: bool,
    ) -> None:  # fmt: skip
        """``edge [E,3]``: places at the end of the band, where nothing moves; ``spacing`` of the nodes. With ``holds``
        what a handle reaches goes with it as one piece; without, the field bends it too."""
        every = max(1, -(-len(edge) // _MOST_STILL))
        self._nodes, self._spread, self._holds, self._grasp = nodes, spread, holds, Grasp(bound, nodes)
        self._still = torch.cat([frame_points(anchors, stay=True)[0], edge[::every]])
        self._hold, self._apart = (), _APART * spacing

    def move(self, handles: Sequence[Handle]) -> NodeMotion:
        if taken_hold(handles) != self._hold:
            self._hold = taken_hold(handles)
            self._heard = distinct(np.array([handle.at for handle in handles]), self._apart).tolist()
            self._take_hold([handles[index] for index in self._heard])
        handles = [handles[index] for index in self._heard]
        points, targets = self._points(handles)
        rotation, translation = rigid_motion(*frame_points_and(handles, self._still))
        left = (targets - turned_by(rotation, points) - translation).numpy()
        shifts = turned_by(rotation, self._nodes) + translation - self._nodes
        shifts = shifts + torch.from_numpy(np.einsum("mp,pa->ma", self._weights, left))
        linear = torch.from_numpy(np.einsum("pa,mpb->mab", left, self._gradients))
        linear = linear + (rotation - torch.eye(3, dtype=torch.float64))
        for index, handle in enumerate(handles):
            at, to, turn = pose(handle)
            driven = self._owner == index
            shifts[driven] = to + turned_by(turn, self._nodes[driven] - at) - self._nodes[driven]
            linear[driven] = turn - torch.eye(3, dtype=torch.float64)
        self._motion = NodeMotion.of_gradients(shifts, linear)
        return self._motion

    def pass_by(self, handles: Sequence[Handle]) -> None:
        pass  # where the way ends says all

    def finish(self) -> NodeMotion:
        return self._motion

    def _take_hold(self, handles: Sequence[Handle]) -> None:
        self._owner = self._grasp.owners(handles) if self._holds else torch.full((len(self._nodes),), -1)
        held = [(self._owner == index).nonzero().squeeze(1) for index in range(len(handles))]
        self._told = [nodes[:: max(1, -(-len(nodes) // _MOST_HELD))] for nodes in held]
        points, which = self._points(handles)[0].numpy(), self._handle_of_points(handles)
        weights, gradients = self._spread(points, self._nodes.numpy(), which)
        self._weights, self._gradients = mended(points, which, self._nodes, weights, gradients)

    def _points(self, handles: Sequence[Handle]) -> tuple[Tensor, Tensor]:
        """Points [P,3] of the field and where they go: middles of the handles first."""
        points = [torch.tensor([h.at for h in handles], dtype=torch.float64)]
        targets = [torch.tensor([h.to for h in handles], dtype=torch.float64)]
        for handle, told in zip(handles, self._told, strict=True):
            at, to, turn = pose(handle)
            here = self._around(handle, told)
            points.append(here)
            targets.append(to + turned_by(turn, here - at))
        return torch.cat([*points, self._still]), torch.cat([*targets, self._still])

    def _around(self, handle: Handle, told: Tensor) -> Tensor:  # [P,3]
        """Points besides its middle that go with a handle."""
        if len(told) or handle.radius == 0:
            return self._nodes[told]
        axes = handle.radius * torch.eye(3, dtype=torch.float64)
        return torch.tensor(handle.at, dtype=torch.float64) + torch.cat([axes, -axes])

    def _handle_of_points(self, handles: Sequence[Handle]) -> np.ndarray:  # [P]
        counts = [len(self._around(handle, told)) for handle, told in zip(handles, self._told, strict=True)]
        own = np.arange(len(handles))
        return np.concatenate([own, np.repeat(own, counts), np.full(len(self._still), -1)])


def frame_points_and(handles: Sequence[Handle], still: Tensor) -> tuple[Tensor, Tensor]:
    """``frame_points`` with places [S,3] that stay."""
    points, targets = frame_points(handles)
    return torch.cat([points, still]), torch.cat([targets, still])


def mended(
    points: np.ndarray, which: np.ndarray, nodes: Tensor, weights: np.ndarray, gradients: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """``weights [M,P]`` and ``gradients [M,P,3]`` with which what lies at the handles' middles, the first of ``points
    [P,3]``, and is carried by four of ``nodes [M,3]``, moves just as these points are told to. ``which [P]``: as
    ``Spread.__call__``."""
    middles = points[: which.max() + 1]
    kept = distinct(middles, _SAME * np.sqrt(np.ptp(nodes.numpy(), axis=0) @ np.ptp(nodes.numpy(), axis=0)))
    everywhere = torch.ones(len(nodes), len(nodes), dtype=torch.bool)
    carriers, shares, _ = binding(torch.from_numpy(middles[kept]), nodes, everywhere)
    away = (torch.from_numpy(middles[kept])[:, None] - nodes[carriers]).numpy()
    carriers, shares = carriers.numpy(), shares.numpy()
    moved = weights[carriers] + np.einsum("hkpa,hka->hkp", gradients[carriers], away)
    moved = np.einsum("hk,hkp->hp", shares, moved)  # by displacements of the points
    try:
        own = inverse(moved[:, kept])
    except ValueError:  # a handle beyond all nodes: nothing to mend
        return weights, gradients
    missing = np.eye(len(middles), weights.shape[1])[kept] - moved
    change = np.einsum("hg,gp->hp", own, missing)
    better = weights + np.einsum("mh,hp->mp", weights[:, kept], change)
    if reach_of(better, which) > _MOST_MENDED * reach_of(weights, which):
        return weights, gradients
    return better, gradients + np.einsum("mha,hp->mpa", gradients[:, kept], change)


def reach_of(weights: np.ndarray, which: np.ndarray) -> float:  # [M,P], [P]
    """How far a node goes at most when no handle goes further than 1, each with all its points."""
    own = (which[:, None] == np.arange(which.max() + 1)).astype(np.float64)
    return float(np.abs(np.einsum("mp,ph->mh", weights, own)).sum(axis=1).max())


def distinct(points: np.ndarray, least: float) -> np.ndarray:
    """Indices of points that are not (nearly) an earlier one again."""
    kept: list[int] = []
    for index, point in enumerate(points):
        if not kept or np.sqrt(((points[kept] - point) ** 2).sum(axis=1)).min() > least:
            kept.append(index)
    return np.array(kept)


def inverse(matrix: np.ndarray) -> np.ndarray:  # [P,P] -> [P,P]
    """By elimination with exchanges of rows, in plain operations of one thread.

    Raises:
        ValueError: when it is singular.
    """
    size = len(matrix)
    table = np.concatenate([matrix.astype(np.float64), np.eye(size)], axis=1)
    for column in range(size):
        pivot = column + int(np.abs(table[column:, column]).argmax())
        if not np.abs(table[pivot, column]) > 1e-14 * np.abs(matrix).max():
            raise ValueError("the matrix is singular")
        table[[column, pivot]] = table[[pivot, column]]
        table[column] /= table[column, column]
        factors = table[:, column].copy()
        factors[column] = 0
        table -= factors[:, None] * table[column]
    return table[:, size:]
