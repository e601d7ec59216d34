"""What is bad, and what may not be touched: one number or one flag per row."""

from __future__ import annotations

import torch
from torch import Tensor

from splat.model.splat_model import SplatModel


def mean_over_views(totals: Tensor, views: Tensor) -> Tensor:  # [N], [N] -> [N]
    """Sum over count; 0 for rows that were never seen or whose sum is not finite."""
    mean = totals / views.clamp_min(1)
    return torch.where(torch.isfinite(mean), mean, 0.0)


def finite_rows(model: SplatModel) -> Tensor:  # [N] bool
    """Rows whose every raw value is finite."""
    good = torch.ones(model.count, dtype=torch.bool, device=model.device)
    for table in model.rows.values():
        good &= torch.isfinite(table.detach()).reshape(model.count, table[:1].numel() if model.count else 1).all(dim=1)
    return good


def elongated(scales: Tensor, limit: float) -> Tensor:  # [N,3] -> [N] bool
    """Needles: the middle axis is below ``limit`` times the largest. The published guard (CityGaussianV2) takes the
    smallest, for surfels; flat splats in space have a tiny smallest axis by right."""
    ordered = scales.sort(dim=1).values
    return ordered[:, 1] < limit * ordered[:, 2]


def mean_weight(weighted: Tensor, blended: Tensor) -> Tensor:  # [N], [N] -> [N]
    """Mean of a pixel map under each splat, by blend weights: sum of w * alpha * T over sum of alpha * T, in 0..1; 0
    for rows that never drew a pixel."""
    return torch.where(blended > 0, weighted / blended.clamp_min(1e-12), 0.0).nan_to_num(0.0).clamp(0, 1)


def error_map(color: Tensor, target: Tensor, *, floor: float = 0.02, quantile: float = 0.9) -> Tensor:
    """Pixels [1,H,W] (1 or 0) whose mean absolute error over channels is above ``floor`` and among the picture's
    worst: above its ``quantile``. ``color``, ``target``: [H,W,3]."""
    errors = (color.clamp(0, 1) - target).abs()
    error = (errors[..., 0] + errors[..., 1] + errors[..., 2]) / 3
    if error.numel() == 0:
        return error[None]
    ranked = error.flatten().sort().values  # torch.quantile stops at 2^24 pixels
    worst = (
        ranked[min(int(quantile * ranked.shape[0]), ranked.shape[0] - 1)] if ranked.shape[0] else error.new_zeros(())
    )
    return (error > torch.clamp_min(worst, floor)).to(color.dtype)[None]
