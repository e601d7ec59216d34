"""The cameras a drag is judged from, and what each sees before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from splat.edit.ops import Drag
from splat.edit.prior.protocol import EditView
from splat.geometry.camera import Camera
from splat.model.splat_model import SplatModel
from splat.render.types import CameraBatch, Rasterizer, RenderOptions

ENOUGH_PX = 50
"""A camera that shows fewer pixels of the mask says nothing about it."""
_GRID_PX = 64
"""Sides of a picture are multiples of this: eight pixels a latent, three halvings within the network."""
_GROWN = 30 / 512
"""The mask is widened by this share of the longer side, twice: room for what the drag uncovers."""


def choose_views(
    model: SplatModel, mask: Tensor, drag: Drag, cameras: Sequence[Camera], rasterizer: Rasterizer, *,
    most: int, longest_px: int,
) -> list[EditView]:  # fmt: skip
    """Of the cameras that see the masked splats in at least 50 pixels, at most ``most``, evenly through their order."""
    small = [at_size(camera, longest_px) for camera in cameras]
    shares = [seen_share(model, mask, camera, rasterizer) for camera in small]
    seeing = [i for i, share in enumerate(shares) if int((share > 0.5).sum()) >= ENOUGH_PX]
    if len(seeing) > most:
        seeing = [seeing[round(i * (len(seeing) - 1) / max(most - 1, 1))] for i in range(most)]
    return [_view(model, drag, small[i], shares[i], rasterizer) for i in seeing]


def at_size(camera: Camera, longest_px: int) -> Camera:
    """The camera with its longer side near ``longest_px`` and both sides on the networks' grid."""
    factor = longest_px / max(camera.width, camera.height)
    sides = (max(_GRID_PX, round(side * factor / _GRID_PX) * _GRID_PX) for side in (camera.width, camera.height))
    return replace(camera.resized(*sides), lens=None)


def drawn(model: SplatModel, camera: Camera, rasterizer: Rasterizer) -> Tensor:  # [3,H,W]
    """The picture, differentiable with respect to the rows; not clamped."""
    options = RenderOptions(sh_degree=model.sh_degree, filter2d=model.filter2d)
    batch = CameraBatch.of(camera, device=model.device)
    return rasterizer.render(model.render_inputs(), batch, options).color[0].permute(2, 0, 1)


def seen_share(model: SplatModel, mask: Tensor, camera: Camera, rasterizer: Rasterizer) -> Tensor:  # [H,W]
    """Which share of each pixel the masked splats [N] bool have."""
    inputs = model.render_inputs()
    inputs = replace(inputs, features=mask.to(inputs.means.dtype)[:, None].contiguous())
    options = RenderOptions(sh_degree=0, filter2d=model.filter2d)
    with torch.no_grad():
        output = rasterizer.render(inputs, CameraBatch.of(camera, device=model.device), options)
    return output.features[0, :, :, 0]


def _view(model: SplatModel, drag: Drag, camera: Camera, share: Tensor, rasterizer: Rasterizer) -> EditView:
    handles = pixels_of(torch.tensor([handle.at for handle in drag.handles]), camera)
    targets = pixels_of(torch.tensor([handle.to for handle in drag.handles]), camera)
    with torch.no_grad():
        picture = drawn(model, camera, rasterizer).clamp(0, 1)
    changing = (share > 0.5).float()
    for start, end in zip(handles, targets, strict=True):
        if not torch.isnan(torch.cat([start, end])).any():  # also where the part goes
            changing = torch.maximum(changing, _shifted(share > 0.5, end - start))
    return EditView(camera, picture, _grown(changing), handles.to(share.device), targets.to(share.device))


def pixels_of(points: Tensor, camera: Camera) -> Tensor:  # [K,3] -> [K,2] px, NaN behind the camera
    pose, matrix = torch.as_tensor(camera.camera_from_world), torch.as_tensor(camera.K)
    local = points.double().cpu() @ pose[:3, :3].T + pose[:3, 3]
    pixels = (local @ matrix.T)[:, :2] / local[:, 2:]
    return torch.where(local[:, 2:] > 0, pixels, torch.nan).float()


def _shifted(mask: Tensor, by: Tensor) -> Tensor:  # [H,W] bool, [2] px -> [H,W] float
    dx, dy = (round(float(part)) for part in by)
    height, width = mask.shape
    moved = torch.zeros_like(mask, dtype=torch.float32)
    ys, xs = mask.nonzero(as_tuple=True)
    ys, xs = ys + dy, xs + dx
    inside = (ys >= 0) & (ys < height) & (xs >= 0) & (xs < width)
    moved[ys[inside], xs[inside]] = 1
    return moved


def _grown(mask: Tensor) -> Tensor:  # [H,W] float -> [H,W]
    radius = max(1, round(_GROWN * max(mask.shape)))
    for _ in range(2):
        mask = functional.max_pool2d(mask[None, None], 2 * radius + 1, stride=1, padding=radius)[0, 0]
    return mask
