"""Rigid drags: the motion that takes points nearest to their targets (Kabsch 1976, by one polar decomposition)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from splat.edit.drag.motion import NodeMotion, angle_of, frame_points, turned_by
from splat.edit.ops import Handle
from splat.geometry.deformation import split_gradients

_HOLD = 1e3
"""Weight of anchors over that of handles: a body may turn about its anchors, it is not pulled off them."""
_ALIKE = 1e-6
"""How much turning nothing counts, over the size of the points: points on a line leave a turn about it open."""


def rigid_motion(points: Tensor, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Rotation [3,3] and translation [3] with ``targets ~ points @ R.T + t``; float64. ``points``, ``targets`` [P,3],
    ``weights`` [P]. What the points leave open is not turned: one point is moved, not rotated."""
    points, targets = points.double(), targets.double()
    weights = torch.ones(len(points), dtype=torch.float64) if weights is None else weights.double()
    share = (weights / weights.sum())[:, None]
    center, target = (points * share).sum(0), (targets * share).sum(0)
    before, after = points - center, (targets - target) * share
    spread = torch.stack([(after * before[:, i : i + 1]).sum(0) for i in range(3)], dim=1)
    size = float((before.square() * share).sum())
    if size == 0 or torch.equal(points, targets):
        return torch.eye(3, dtype=torch.float64), target - center
    rotation = torch.eye(3, dtype=torch.float64)
    for _ in range(3):  # each turn takes the bias of the last by a factor of it; what is open stays as it was
        rotation = split_gradients((spread / size + _ALIKE * rotation)[None])[0][0]
    return rotation, target - rotation @ center


class RigidMode:
    """Implements ``motion.Mode``: everything is one node, which goes where the handles take it together. Anchors are
    points it may turn about: one stays where it is, of several the middle does."""

    def __init__(self, center: Tensor, size: float, anchors: Sequence[Handle]) -> None:
        """``center [3]`` of what is dragged; ``size`` stands in for the radius of a handle that turns without one."""
        self._center, self._size, self._anchors = center, size, anchors

    def move(self, handles: Sequence[Handle]) -> NodeMotion:
        turning = [replace(h, radius=max(h.radius, self._size)) if angle_of(h) else h for h in handles]
        points, targets = frame_points(turning)
        still, _ = frame_points([replace(anchor, radius=0.0) for anchor in self._anchors], stay=True)
        weights = torch.cat([torch.ones(len(points)), torch.full((len(still),), _HOLD)]).double()
        rotation, translation = rigid_motion(torch.cat([points, still]), torch.cat([targets, still]), weights)
        if len(still):
            middle = still.cumsum(0)[-1:] / len(still)
            translation = (middle - turned_by(rotation, middle))[0]
        shift = turned_by(rotation, self._center[None]) + translation - self._center
        self._motion = NodeMotion.of_rotations(shift, rotation[None])
        return self._motion

    def pass_by(self, handles: Sequence[Handle]) -> None:
        pass  # where the way ends says all

    def finish(self) -> NodeMotion:
        return self._motion
