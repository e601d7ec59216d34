"""What the modes of a drag share: handles as numbers, and how nodes move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import acos, isfinite
from typing import Protocol

import torch
from torch import Tensor

from splat.edit.ops import Handle
from splat.errors import UserError
from splat.geometry.deformation import split_gradients
from splat.geometry.rotations import matrix_from_quat, quat_from_matrix


@dataclass(frozen=True, eq=False)
class NodeMotion:
    """Where nodes went, less where they were, and how each deforms its surroundings."""

    shifts: Tensor  # [M,3] float64
    linear: Tensor  # [M,3,3] float64: the deformation less 1
    turns: Tensor  # [M,4] unit quaternions of the rotation in it

    @staticmethod
    def of_rotations(shifts: Tensor, rotations: Tensor) -> NodeMotion:
        return NodeMotion(shifts, rotations - torch.eye(3, dtype=torch.float64), quat_from_matrix(rotations))

    @staticmethod
    def of_gradients(shifts: Tensor, linear: Tensor) -> NodeMotion:
        rotations, _ = split_gradients(linear + torch.eye(3, dtype=torch.float64))
        return NodeMotion(shifts, linear, quat_from_matrix(rotations))


class Mode(Protocol):
    """Moves the nodes of a region by handles; keeps what depends on where these take hold, not on where they go."""

    def move(self, handles: Sequence[Handle]) -> NodeMotion:
        """Quick, from where the last move left it."""
        ...

    def pass_by(self, handles: Sequence[Handle]) -> None:
        """A place on the way of handles that go further; nobody looks."""
        ...

    def finish(self) -> NodeMotion:
        """The best there is for the handles of the last move."""
        ...


def checked(handles: Sequence[Handle], anchors: Sequence[Handle]) -> None:
    """UserError for no handles, or numbers that are not finite, with where they stand."""
    if not handles:
        raise UserError("a drag needs at least one handle")
    for kind, group in (("handle", handles), ("anchor", anchors)):
        for place, handle in enumerate(group):
            for name in ("at", "to", "turn"):
                value = getattr(handle, name)
                if not all(isfinite(v) for v in value):
                    raise UserError(f"{kind} {place + 1}: {name} = {value} must be finite")
            if not (isfinite(handle.radius) and handle.radius >= 0):
                raise UserError(f"{kind} {place + 1}: radius = {handle.radius} must be 0 or more")
            if not any(handle.turn):
                raise UserError(f"{kind} {place + 1}: turn = {handle.turn} must be a quaternion other than 0")


def taken_hold(handles: Sequence[Handle]) -> tuple:
    """What a mode has to be set up again for."""
    return tuple((tuple(handle.at), handle.radius) for handle in handles)


def pose(handle: Handle) -> tuple[Tensor, Tensor, Tensor]:
    """``at`` [3], ``to`` [3] and the rotation [3,3] of a handle; float64."""
    at, to, turn = (torch.tensor(value, dtype=torch.float64) for value in (handle.at, handle.to, handle.turn))
    return at, to, matrix_from_quat(turn)


def frame_points(handles: Sequence[Handle], *, stay: bool = False) -> tuple[Tensor, Tensor]:
    """Points [P,3] and their targets [P,3] that say all about the handles: the middle of each, and for one with a
    radius a point to either side along every axis, so that its turn is in them."""
    points, targets = [torch.zeros(0, 3, dtype=torch.float64)], [torch.zeros(0, 3, dtype=torch.float64)]
    for handle in handles:
        at, to, rotation = pose(handle)
        arms = torch.zeros(1, 3, dtype=torch.float64)
        if handle.radius > 0:
            axes = handle.radius * torch.eye(3, dtype=torch.float64)
            arms = torch.cat([arms, axes, -axes])
        points.append(at + arms)
        targets.append(at + arms if stay else to + turned_by(rotation, arms))
    return torch.cat(points), torch.cat(targets)


def angle_of(handle: Handle) -> float:
    """How far it turns, radians, 0 to pi."""
    norm = sum(v * v for v in handle.turn) ** 0.5
    return 2 * acos(min(1.0, abs(handle.turn[0]) / norm))


def turned_by(rotation: Tensor, vectors: Tensor) -> Tensor:  # [3,3], [P,3] -> [P,3]
    """One rotation for all, in a fixed order of additions."""
    x, y, z = vectors[:, :1], vectors[:, 1:2], vectors[:, 2:]
    return x * rotation[:, 0] + y * rotation[:, 1] + z * rotation[:, 2]
