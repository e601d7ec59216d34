"""Lens models by their COLMAP id: names, parameter layouts, projection (filled in by the scene loader)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lens:
    """Intrinsics of an image file in COLMAP's convention."""

    model: str
    """COLMAP's name of the model, such as ``OPENCV``."""
    params: tuple[float, ...]
    """The parameters in COLMAP's order, pixels of ``width`` x ``height``."""
    width: int
    height: int
