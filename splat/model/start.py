"""Sizes of the first splats, from the distances between the points they start from."""

from __future__ import annotations

import torch
from torch import Tensor

from splat.errors import UserError

NEIGHBOURS = 3
_FLOOR_OF_MEDIAN = 1e-3
"""Coincident points get this part of the median spacing (the reference uses an absolute 3e-4, whatever the units)."""
_LONE_POINT_RATIO = 0.01
"""A point without neighbours gets this part of its distance from the origin, as nothing else gives a unit."""


def neighbour_spacing(xyz: Tensor) -> Tensor:  # [P,3] -> [P]
    """Root of the mean squared distance to the three nearest other points, world units; always positive."""
    if not torch.isfinite(xyz).all():
        bad = int((~torch.isfinite(xyz)).any(dim=1).sum())
        raise UserError(f"{bad} of {len(xyz)} start points are not finite; remove them from the point cloud")
    count = xyz.shape[0]
    if count <= 1:
        return (_LONE_POINT_RATIO * xyz.norm(dim=1)).clamp_min(_LONE_POINT_RATIO)
    from splat.native import ops  # loads the native library, so only when it is used

    squared = ops.knn_mean_sq_dist(xyz.detach().float().contiguous(), k=min(NEIGHBOURS, count - 1)).to(xyz.device)
    spacing = squared.clamp_min(0).sqrt()
    spread = spacing[spacing > 0]
    if spread.numel() == 0:  # every point in one place
        return (_LONE_POINT_RATIO * xyz.norm(dim=1)).clamp_min(_LONE_POINT_RATIO)
    return spacing.clamp_min(float(spread.median()) * _FLOOR_OF_MEDIAN)
