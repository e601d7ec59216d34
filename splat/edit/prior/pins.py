"""Handles and anchors as a part of the map itself: whatever is learned around them, they reach their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splat.edit.ops import Drag, Handle
from splat.geometry.rotations import matrix_from_quat


@dataclass(frozen=True, eq=False)
class Pins:
    """K handles and anchors; an anchor is a handle that goes nowhere."""

    at: Tensor  # [K,3]
    to: Tensor  # [K,3]
    turns: Tensor  # [K,3,3]
    cores: Tensor  # [K] world units: within it points follow exactly
    falloff: float
    """World units beyond the core after which a pin has no say."""

    def held(self, points: Tensor) -> tuple[Tensor, Tensor]:  # [P,3] -> [P], [P,3]
        """How firmly each point is held (1 = it goes where the pins say) and the offset it is held to.

        A pin's share is c/(1-c) with c its firmness, so that at a pin its own offset stands, however near others are.
        """
        apart = points[:, None] - self.at  # [P,K,3]
        beyond = (apart.norm(dim=2) - self.cores).clamp_min(0) / self.falloff
        firm = (1 - beyond.square()).clamp_min(0).square()  # 1 at the core, smooth to 0 at the falloff
        share = firm / (1 - firm).clamp_min(1e-6)
        offsets = (self.turns @ apart[..., None]).squeeze(3) + self.to - points[:, None]
        mixed = (share[..., None] * offsets).sum(1) / share.sum(1).clamp_min(1e-12)[:, None]
        return firm.amax(1), torch.where(firm.amax(1)[:, None] > 0, mixed, torch.zeros_like(mixed))


def pins_of(drag: Drag, points: Tensor, falloff: float) -> Pins:
    """points [R,3]: what may move. A handle without a radius reaches as far as the nearest of them."""
    handles = [*drag.handles, *(_standing(anchor) for anchor in drag.anchors)]
    at, to = (points.new_tensor([getattr(handle, name) for handle in handles]).reshape(-1, 3) for name in ("at", "to"))
    turns = matrix_from_quat(points.new_tensor([handle.turn for handle in handles]).reshape(-1, 4))
    nearest = torch.cdist(at, points, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    radii = points.new_tensor([handle.radius for handle in handles])
    return Pins(at, to, turns, torch.maximum(radii, nearest * (1 + 1e-5)), falloff)


def _standing(anchor: Handle) -> Handle:
    return Handle(anchor.at, anchor.at, anchor.radius)


def has_handles(handles: Sequence[Handle]) -> bool:
    return any(handle.at != handle.to or handle.turn != (1.0, 0.0, 0.0, 0.0) for handle in handles)
