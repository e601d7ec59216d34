"""Modes of the picture itself: colour, depth, alpha, normals."""

from __future__ import annotations

import torch
from torch import Tensor

from splat.viewer.modes.numbers import painted_number
from splat.viewer.modes.view import MIN_ALPHA, Painted, View


def to_8bit(planes: Tensor) -> Tensor:  # [H,W,3] float, 0..1 -> [H,W,3] uint8, contiguous
    """Clamped and rounded. Works in the order the numbers lie in memory, which is planar as rasterizers leave it."""
    planar = planes.permute(2, 0, 1)
    scaled = torch.mul(planar, 255.0).add_(0.5).clamp_(0.5, 255.5)
    return scaled.to(torch.uint8).permute(1, 2, 0).contiguous()


def draw_color(view: View) -> Painted:
    return Painted(to_8bit(view.render().color[0]))


def draw_alpha(view: View) -> Painted:
    """Black where nothing is, white where nothing shines through."""
    alpha = view.render().alpha[0]
    return Painted(to_8bit(alpha[..., None].expand(-1, -1, 3)))


def draw_depth(view: View) -> Painted:
    """Mean depth of what blends, by the ramp; near is its bright end, unless inverted."""
    drawn = view.render(depth=frozenset({"expected"}))
    alpha = drawn.alpha[0]
    depth = drawn.depth_expected[0] / alpha.clamp_min(1e-6)
    return painted_number(view, depth, alpha, near_is_high=True)


def draw_normal(view: View) -> Painted:
    """Of the surface that the mean depth makes, from its differences: this way every primitive has normals, and they
    belong to what is seen rather than to a splat. In the camera's frame: red to the right, green up, blue towards us.
    """
    drawn = view.render(depth=frozenset({"expected"}))
    alpha = drawn.alpha[0]
    depth = drawn.depth_expected[0] / alpha.clamp_min(1e-6)
    normals = depth_normals(depth, view.camera.K)
    seen = torch.where(alpha >= MIN_ALPHA, alpha, 0.0)
    flipped = normals * normals.new_tensor([1.0, -1.0, -1.0])
    return Painted(view.over_background(to_8bit(flipped * 0.5 + 0.5), seen))


def depth_normals(depth: Tensor, K) -> Tensor:  # [H,W], [3,3] px -> [H,W,3]
    """Unit normals of the surface at camera z ``depth``, OpenCV axes, turned to the camera; (0, 0, -1) at the border
    of a picture that is too small to have a neighbour."""
    height, width = depth.shape
    facing = depth.new_tensor([0.0, 0.0, -1.0]).expand(height, width, 3)
    if height < 3 or width < 3:
        return facing.clone()
    fx, fy, cx, cy = float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])
    x = (torch.arange(width, dtype=depth.dtype, device=depth.device) + 0.5 - cx) / fx
    y = (torch.arange(height, dtype=depth.dtype, device=depth.device) + 0.5 - cy) / fy
    points = torch.stack([x * depth, y[:, None] * depth, depth], dim=-1)
    across = points[1:-1, 2:] - points[1:-1, :-2]
    down = points[2:, 1:-1] - points[:-2, 1:-1]
    inner = torch.linalg.cross(down, across, dim=-1)
    length = inner.norm(dim=-1, keepdim=True)
    inner = torch.where(length > 1e-20, inner / length.clamp_min(1e-20), facing[1:-1, 1:-1])
    padded = inner.permute(2, 0, 1)[None]
    return torch.nn.functional.pad(padded, (1, 1, 1, 1), mode="replicate")[0].permute(1, 2, 0)
