"""Modes of the picture itself: colour, depth, alpha, normals."""

from __future__ import annotations

import torch
from torch import Tensor

from splat.geometry.rotations import matrix_from_quat
from splat.model.splat_model import SplatModel
from splat.viewer.picture.modes.numbers import painted_number
from splat.viewer.picture.modes.view import Painted, View, remembered


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
    """The flattest axis of the splats, turned to the camera, as it blends. In the camera's frame: red to the right,
    green up, blue towards us."""
    snapshot = view.snapshot
    if view.preview is None:
        axes = remembered(snapshot, "flattest axes", lambda: flattest_axes(view.model))
    else:
        axes = flattest_axes(view.model)
    center = torch.tensor(view.camera.center_world, dtype=axes.dtype, device=axes.device)
    away = ((view.model.rows["means"] - center) * axes).sum(dim=1, keepdim=True) > 0
    drawn = view.render(torch.where(away, -axes, axes))
    turn = torch.tensor(view.camera.camera_from_world[:3, :3], dtype=axes.dtype, device=axes.device)
    normals = torch.nn.functional.normalize(drawn.features[0] @ turn.T, dim=-1)
    flipped = normals * normals.new_tensor([1.0, -1.0, -1.0])
    return Painted(view.over_background(to_8bit(flipped * 0.5 + 0.5), drawn.alpha[0]))


def flattest_axes(model: SplatModel) -> Tensor:  # [N,3] unit, world
    """Of the Gaussians closest to the splats."""
    plain = model.primitive.gaussian_rows(model.rows, filter3d=model.filter3d)
    axes = matrix_from_quat(plain["quats"])
    if not len(axes):
        return axes[:, 0]
    flattest = plain["log_scales"].argmin(dim=1)
    return axes.gather(2, flattest[:, None, None].expand(-1, 3, 1))[..., 0]
