"""The way of a drag that is replayed: its handles somewhere between where they take hold and where they go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import acos, ceil, radians, sin

import torch

from splat.edit.drag.motion import angle_of, frame_points, turned_by
from splat.edit.drag.rigid import rigid_motion
from splat.edit.ops import Handle
from splat.geometry.rotations import matrix_from_quat, quat_from_matrix, quat_product

Quat = tuple[float, float, float, float]
_STEP_SPACINGS, _STEP_ANGLE, _MOST_STEPS = 4.0, radians(15), 24
"""A step is no longer than this: a few iterations can follow."""


def steps_of(handles: Sequence[Handle], spacing: float) -> int:
    """How many steps the way is gone in."""
    longest = max(sum((b - a) ** 2 for a, b in zip(h.at, h.to, strict=True)) ** 0.5 for h in handles)
    turn = max(angle_of(handle) for handle in handles)
    return min(_MOST_STEPS, max(1, ceil(longest / (_STEP_SPACINGS * spacing)), ceil(turn / _STEP_ANGLE)))


def part_of_the_way(handles: Sequence[Handle], share: float) -> tuple[Handle, ...]:
    """The handles after ``share`` of their way. What they do together is a rigid motion, gone at an even pace: their
    middle along a line, turning; what each does besides goes with it. So what ends rigid is rigid all the way."""
    points, targets = frame_points(handles)
    rotation, translation = rigid_motion(points, targets)
    middle = points.cumsum(0)[-1] / len(points)
    shift = turned_by(rotation, middle[None])[0] + translation - middle
    together = quat_from_matrix(rotation)
    partly = torch.tensor(_part_of_turn(tuple(together.tolist()), share), dtype=torch.float64)
    turned, back = matrix_from_quat(partly), together * torch.tensor([1.0, -1, -1, -1], dtype=torch.float64)
    moved = []
    for handle in handles:
        at, to, turn = (torch.tensor(value, dtype=torch.float64) for value in (handle.at, handle.to, handle.turn))
        own = turned_by(rotation.T, (to - turned_by(rotation, at[None])[0] - translation)[None])
        place = turned_by(turned, at[None] - middle + share * own)[0] + middle + share * shift
        left = quat_product(back, turn / turn.square().sum().sqrt())
        own_turn = torch.tensor(_part_of_turn(tuple(left.tolist()), share), dtype=torch.float64)
        moved.append(replace(handle, to=tuple(place.tolist()), turn=tuple(quat_product(partly, own_turn).tolist())))
    return tuple(moved)


def _part_of_turn(turn: tuple[float, ...], share: float) -> Quat:
    norm = sum(v * v for v in turn) ** 0.5
    w, *axis = (v / norm if turn[0] >= 0 else -v / norm for v in turn)
    half = acos(min(1.0, w))
    if half < 1e-9:
        return tuple(turn) if share == 1 else (1.0, 0.0, 0.0, 0.0)  # type: ignore[return-value]
    first, second = sin((1 - share) * half) / sin(half), sin(share * half) / sin(half)
    return (first + second * w, *(second * v for v in axis))  # type: ignore[return-value]
