"""What densifiers add to the loss."""

from __future__ import annotations

from torch import Tensor

from splat.model.splat_model import SplatModel


def size_penalty(model: SplatModel, *, opacity: float, scale: float) -> Tensor | None:
    """``opacity`` times the mean opacity plus ``scale`` times the mean size in world units (Kheradmand et al. 2024, eq.
    10); None where both weights are 0."""
    if model.count == 0 or (opacity == 0 and scale == 0):
        return None
    return opacity * model.opacities.mean() + scale * model.scales.mean()
