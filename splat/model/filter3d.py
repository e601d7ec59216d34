"""The Mip 3D filter: no splat may be finer than the photographs could sample (Yu et al. 2024, section 4.1)."""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt

import torch
from torch import Tensor

from splat.geometry.camera import Camera

VARIANCE_PX = 0.2
"""Variance of the filter at the sampling rate of the closest camera, px^2."""
MARGIN = 0.15
"""A splat this part of the image size outside the picture still counts as seen."""


def sampling_filter(means: Tensor, cameras: Iterable[Camera], *, near: float = 0.2) -> Tensor:  # [N,3] -> [N]
    """Standard deviation of the 3D filter per splat, world units.

    The paper takes the largest focal length of all cameras and the smallest depth; with mixed cameras that
    pairs numbers of different photographs, so here each camera gives its own f / z and the largest counts.
    Splats that no camera sees get the largest filter of all. ``near`` is in world units.
    """
    means = means.detach()
    pixels_per_unit = torch.zeros(means.shape[0], dtype=means.dtype, device=means.device)
    for camera in cameras:
        rate = _sampling_rate(means, camera, near)
        pixels_per_unit = torch.maximum(pixels_per_unit, rate)
    seen = pixels_per_unit > 0
    if not seen.any():
        return torch.zeros_like(pixels_per_unit)
    slowest = pixels_per_unit[seen].min()
    return sqrt(VARIANCE_PX) / torch.where(seen, pixels_per_unit, slowest)


def _sampling_rate(means: Tensor, camera: Camera, near: float) -> Tensor:  # [N,3] -> [N] px per world unit
    """f / z where the camera sees the point, else 0."""
    pose = torch.as_tensor(camera.camera_from_world, dtype=means.dtype)
    (x_row, y_row, z_row) = pose[:3].tolist()
    x_cam, y_cam, z_cam = (
        means[:, 0] * row[0] + means[:, 1] * row[1] + means[:, 2] * row[2] + row[3] for row in (x_row, y_row, z_row)
    )
    fx, fy = camera.focal_px
    cx, cy = float(camera.K[0, 2]), float(camera.K[1, 2])
    u, v = fx * x_cam / z_cam + cx, fy * y_cam / z_cam + cy
    inside_x = (u >= -MARGIN * camera.width) & (u <= (1 + MARGIN) * camera.width)
    inside_y = (v >= -MARGIN * camera.height) & (v <= (1 + MARGIN) * camera.height)
    seen = (z_cam > near) & inside_x & inside_y
    return torch.where(seen, max(fx, fy) / z_cam, 0.0)


def filtered(scales: Tensor, opacities: Tensor, filter3d: Tensor) -> tuple[Tensor, Tensor]:
    """Scales [N,3] and opacities [N] of the plain Gaussian that draws like the filtered one."""
    widened = (scales.square() + filter3d[:, None].square()).sqrt()
    return widened, opacities * opacity_factor(scales, filter3d)


def opacity_factor(scales: Tensor, filter3d: Tensor) -> Tensor:  # [N,3], [N] -> [N]
    """sqrt(det / det filtered) per splat: widening must not add matter."""
    widened = (scales.square() + filter3d[:, None].square()).sqrt()
    ratio = scales / widened.clamp_min(torch.finfo(scales.dtype).tiny)
    return ratio[:, 0] * ratio[:, 1] * ratio[:, 2]
