"""Splats as ellipses in the picture, worked out here rather than by a rasterizer: for marks over a picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splat.geometry.rotations import matrix_from_quat
from splat.model.activations import sigmoid
from splat.render.types import FILTER2D_VARIANCE_PX
from splat.viewer.picture.modes.view import View


@dataclass(frozen=True, eq=False)
class Projected:
    """R splats in one picture."""

    centers: Tensor  # [R,2] px
    z: Tensor  # [R]
    spread: Tensor  # [R,2,2] px^2, covariance with the widening of the filter
    opacities: Tensor  # [R] of the plain Gaussians, not compensated for the widening


def projected(view: View, rows: Tensor) -> Projected:  # [R] int64
    """J W R S S R^T W^T J^T (Zwicker et al. 2001) of the Gaussians closest to some splats, and the widening."""
    model = view.model
    chosen = {name: table[rows] for name, table in model.rows.items()}
    filter3d = None if model.filter3d is None else model.filter3d[rows]
    plain = model.primitive.gaussian_rows(chosen, filter3d=filter3d)
    means = plain["means"]
    pose = torch.tensor(view.camera.camera_from_world, dtype=means.dtype, device=means.device)
    fx, fy = view.camera.focal_px
    centers, z = view.pixels(means)
    x, y, _ = (means @ pose[:3, :3].T + pose[:3, 3]).unbind(1)
    near = z.clamp_min(1e-6)
    # Far off the axis the linearisation runs away; rasterizers hold it at 15 % beyond the picture.
    limit_x, limit_y = 1.3 * view.camera.width / 2 / fx, 1.3 * view.camera.height / 2 / fy
    across, down = (x / near).clamp(-limit_x, limit_x), (y / near).clamp(-limit_y, limit_y)
    zero = torch.zeros_like(near)
    jacobian = torch.stack([
        torch.stack([fx / near, zero, -fx * across / near], dim=1),
        torch.stack([zero, fy / near, -fy * down / near], dim=1),
    ], dim=1)  # fmt: skip
    axes = matrix_from_quat(plain["quats"]) * plain["log_scales"].exp()[:, None]
    flat = jacobian @ pose[:3, :3] @ axes  # [R,2,3]
    variance = FILTER2D_VARIANCE_PX[view.look.filter2d or model.filter2d]
    spread = flat @ flat.transpose(1, 2) + variance * torch.eye(2, dtype=means.dtype, device=means.device)
    return Projected(centers, z, spread, sigmoid(plain["logit_opacities"]))
