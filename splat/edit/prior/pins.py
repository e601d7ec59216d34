"""Handles and anchors: they arrive exactly, and nothing is learned where they hold."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splat.edit.ops import Drag
from splat.geometry.rotations import matrix_from_quat, rotated


@dataclass(frozen=True, eq=False)
class Pins:
    """How the K handles and anchors hold R points, and the last bit of the way to where they go."""

    firm: Tensor  # [R] 0..1
    closing: Tensor  # [R,3] world units: what a geometric drag left open


def pins_of(drag: Drag, rest: Tensor, start: Tensor, falloff: float) -> Pins:
    """rest, start [R,3]: points before and after the geometric drag, whose pull on a handle without a radius is soft.

    A point is held firmly within the radius of a handle or an anchor, and where it is the nearest to it; from there
    less, down to nothing over ``falloff`` (world units). What is missing at that nearest point is added, in the same
    measure. Between pins each counts by c/(1-c) with c its firmness, so that at a pin its own way counts alone.
    """
    pins = [*drag.handles, *(replace(anchor, to=anchor.at, turn=(1.0, 0.0, 0.0, 0.0)) for anchor in drag.anchors)]
    at, to = (rest.new_tensor([getattr(pin, name) for pin in pins]) for name in ("at", "to"))
    turns = matrix_from_quat(rest.new_tensor([pin.turn for pin in pins]))
    away = torch.cdist(rest, at, compute_mode="donot_use_mm_for_euclid_dist")  # [R,K]
    least, nearest = away.min(0)
    cores = torch.maximum(rest.new_tensor([pin.radius for pin in pins]), least * (1 + 1e-5))
    firm = (1 - ((away - cores) / falloff).clamp(0, 1).square()).square()
    missing = rotated(turns, rest[nearest] - at) + to - start[nearest]  # [K,3]
    shares = firm / (1 - firm).clamp_min(1e-6)
    mixed = (shares[..., None] * missing).sum(1) / shares.sum(1).clamp_min(1e-12)[:, None]
    return Pins(firm.amax(1), firm.amax(1)[:, None] * mixed)
