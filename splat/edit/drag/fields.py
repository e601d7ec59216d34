"""Drags by a smooth field of displacements over all space: what the handles ask for is spread by fixed weights.

First everything moves as the handles and what stays would take it together, rigidly; the field spreads what is left.
Its weights depend on where the handles take hold alone, so that a move is one product. Written in numpy: its loops run
on one thread, so the bits do not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from splat.edit.drag.motion import NodeMotion, frame_points, taken_hold, turned_by
from splat.edit.drag.rigid import rigid_motion
from splat.edit.ops import Handle

_MOST_STILL = 160
"""Places of the band's outer edge that the field is told to leave alone; softness does the rest."""


class Spread(Protocol):
    """Weights [M,P] with which displacements at ``points [P,3]`` reach ``nodes [M,3]``, and their gradients [M,P,3]."""

    def __call__(self, points: np.ndarray, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


class FieldMode:
    """Implements ``motion.Mode``."""

    def __init__(self, nodes: Tensor, edge: Tensor, anchors: Sequence[Handle], spread: Spread) -> None:
        """``edge [E,3]``: places at the end of the band, where nothing moves."""
        every = max(1, -(-len(edge) // _MOST_STILL))
        self._nodes, self._anchors, self._spread = nodes, anchors, spread
        self._still = torch.cat([frame_points(anchors, stay=True)[0], edge[::every]])
        self._hold: tuple = ()

    def move(self, handles: Sequence[Handle]) -> NodeMotion:
        points, targets = frame_points(handles)
        points, targets = (torch.cat([table, self._still]) for table in (points, targets))
        if taken_hold(handles) != self._hold:
            self._hold = taken_hold(handles)
            self._weights, self._gradients = self._spread(points.numpy(), self._nodes.numpy())
        rotation, translation = rigid_motion(points, targets)
        left = (targets - turned_by(rotation, points) - translation).numpy()
        shifts = turned_by(rotation, self._nodes) + translation - self._nodes
        shifts = shifts + torch.from_numpy(np.einsum("mp,pa->ma", self._weights, left))
        linear = torch.from_numpy(np.einsum("pa,mpb->mab", left, self._gradients))
        self._motion = NodeMotion.of_gradients(shifts, linear + (rotation - torch.eye(3, dtype=torch.float64)))
        return self._motion

    def pass_by(self, handles: Sequence[Handle]) -> None:
        pass  # where the way ends says all

    def finish(self) -> NodeMotion:
        return self._motion


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
