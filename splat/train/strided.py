"""Dilated rendering: every d-th pixel of every d-th row, as a camera of its own (specs: densifiers 3).

Pixel (x, y) of the small picture is pixel (ox + d x, oy + d y) of the full one. A pinhole with f' = f/d and
c' = (c - o - 1/2)/d + 1/2 looks exactly through the centres of those pixels, and with the screen filter's variance
over d^2 every splat has there the opacity it has in the full picture: the d^2 offsets together are that picture.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from splat.geometry.camera import Camera
from splat.geometry.rng import keyed_generator
from splat.train.frames import View

_MARGIN = 0.3
"""Of tan(fov/2): what rasterizers allow of their own accord."""
Offset = tuple[int, int]
"""Columns and rows left out before the first drawn pixel, each below the stride."""


def blur_scale(stride: int) -> float:
    """``RenderOptions.blur_scale`` that goes with a strided camera."""
    return 1.0 / stride**2


def tan_limits(camera: Camera) -> tuple[float, float, float, float]:
    """``RenderOptions.tan_limits`` of the full picture: 15 % beyond its borders, as without a stride."""
    (fx, _, cx), (_, fy, cy) = camera.K[:2]
    tan_x, tan_y = camera.width / (2 * fx), camera.height / (2 * fy)
    left, right = -(cx / fx + _MARGIN * tan_x), (camera.width - cx) / fx + _MARGIN * tan_x
    top, bottom = -(cy / fy + _MARGIN * tan_y), (camera.height - cy) / fy + _MARGIN * tan_y
    return float(left), float(right), float(top), float(bottom)


def drawn_offset(seed: int, views_taken: int, view: View, stride: int) -> Offset:
    """The offset for this visit of a view: a function of seed and visit, never beyond the picture."""
    generator = keyed_generator(seed, "stride", views_taken)
    x, y = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    return int(x * min(stride, view.camera.width)), int(y * min(stride, view.camera.height))


def strided_camera(camera: Camera, stride: int, offset: Offset) -> Camera:
    """The camera whose pixels are every ``stride``-th of ``camera``'s, from ``offset`` on."""
    shift = np.array([offset[0] + 0.5, offset[1] + 0.5])
    K = camera.K.copy()
    K[:2] /= stride
    K[:2, 2] = (camera.K[:2, 2] - shift) / stride + 0.5
    width, height = -(-(camera.width - offset[0]) // stride), -(-(camera.height - offset[1]) // stride)
    return replace(camera, K=K, width=width, height=height)


def strided_view(view: View, stride: int, offset: Offset) -> View:
    """Camera, pixels and mask of the drawn pixels."""
    pixels = every(view.pixels.permute(0, 3, 1, 2), stride, offset).permute(0, 2, 3, 1).contiguous()
    mask = None if view.mask is None else every(view.mask, stride, offset).contiguous()
    return View(strided_camera(view.camera, stride, offset), pixels, mask, view.index)


def every(planes: Tensor, stride: int, offset: Offset) -> Tensor:  # [...,H,W] -> [...,h,w]
    """The drawn pixels of planes (a view of their memory)."""
    return planes[..., offset[1] :: stride, offset[0] :: stride]
