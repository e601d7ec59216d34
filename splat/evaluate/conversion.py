"""What a model loses when it is written as plain Gaussians for other viewers: both are drawn and compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splat.errors import UserError
from splat.evaluate.views import render_color
from splat.geometry.camera import Camera, invert_rigid
from splat.geometry.paths import look_at
from splat.metrics import psnr, ssim
from splat.model.filter2d import FILTERS_2D
from splat.model.primitives import PRIMITIVES
from splat.model.splat_model import SplatModel
from splat.render.types import Rasterizer, RenderOptions
from splat.scene.types import Frame

RING_VIEWS, RING_SIZE_PX, RING_TILT_DEG, RING_HALF_ANGLE_DEG = 8, (640, 480), 15.0, 25.0
"""The ring: its number of views, their size, how far they look down, half of their vertical field of view."""


@dataclass(frozen=True, eq=False)
class Views:
    """Where to look from."""

    cameras: Sequence[Camera]
    source: str
    """What they are, as a line names them: ``held-out views``."""
    frame_of: Callable[[int], Frame] | None = None
    """The photograph of ``cameras[i]``; None where there are none."""


@dataclass(frozen=True)
class ConversionLoss:
    """Means over the views. The last four are against the photographs, None where there are none."""

    what: str
    """What is converted, and to what."""
    views: int
    source: str
    psnr: float
    """Between the pictures of the model and of its Gaussians, dB."""
    psnr_model: float | None = None
    psnr_gaussians: float | None = None
    ssim_model: float | None = None
    ssim_gaussians: float | None = None

    def text(self) -> str:
        """One line."""
        line = f"{self.what}: PSNR {self.psnr:.2f} dB between both ({self.source}: {self.views})"
        if self.psnr_model is None:
            return line
        return (
            f"{line}; against the photographs PSNR {self.psnr_model:.2f} becomes {self.psnr_gaussians:.2f} dB, "
            f"SSIM {self.ssim_model:.4f} becomes {self.ssim_gaussians:.4f}"
        )

    def to_json(self) -> dict[str, Any]:
        """For ``metrics.jsonl``."""
        return asdict(self)


def what_is_lost(model: SplatModel) -> str | None:
    """What a file of plain Gaussians cannot keep of ``model``; None where it draws the same picture."""
    kind, filter2d = model.primitive.kind, model.filter2d
    elsewhere = FILTERS_2D[filter2d].elsewhere
    parts = [f"{kind} splats are approximated by Gaussians"] if model.primitive.export == "lossy" else []
    if elsewhere != filter2d:
        parts.append(f"other viewers draw filter2d {filter2d} as {elsewhere}")
    return ", ".join(parts) or None


def as_gaussians(model: SplatModel) -> SplatModel:
    """``model`` as another viewer draws its PLY."""
    rows = {name: table.detach() for name, table in model.rows.items()}
    rows = model.primitive.gaussian_rows(rows, filter3d=model.filter3d)
    return SplatModel(PRIMITIVES["gaussian"](), rows, model.sh_degree, FILTERS_2D[model.filter2d].elsewhere)


@torch.no_grad()
def conversion_loss(
    model: SplatModel,
    rasterizer: Rasterizer,
    views: Views,
    *,
    background: Tensor | Sequence[float] | None = None,
) -> ConversionLoss | None:
    """Draw ``model`` and its Gaussians from every view; None when nothing is lost. What cannot be drawn: UserError."""
    what = what_is_lost(model)
    if what is None or not views.cameras:
        return None
    pair = model, as_gaussians(model)
    for each in pair:
        reason = rasterizer.supports(each.render_inputs(), RenderOptions(filter2d=each.filter2d), each.device)
        if reason is not None:
            raise UserError(reason)
    scores: list[tuple[float, ...]] = []
    for index, camera in enumerate(views.cameras):
        images = [render_color(each, rasterizer, camera, background).clamp(0, 1).cpu() for each in pair]
        row = [psnr(*images)]
        if views.frame_of is not None:
            frame = views.frame_of(index)
            row += [score(image, frame.pixels, frame.mask) for score in (psnr, ssim) for image in images]
        scores.append(tuple(row))
    return ConversionLoss(what, len(scores), views.source, *map(_mean, zip(*scores, strict=True)))


def ring_views(model: SplatModel, *, up: Sequence[float] = (0.0, -1.0, 0.0)) -> Views:
    """Cameras around ``model`` that see most of it, for models whose capture is not at hand."""
    means = model.rows["means"].detach().cpu().double()
    means = means[means.isfinite().all(1)].numpy()
    if not len(means):
        return Views((), "views from a ring around it")
    low, high = np.percentile(means, (1, 99), axis=0)
    center, radius = (low + high) / 2, max(float(np.linalg.norm(high - low)) / 2, 1e-6)
    up_axis = np.asarray(up, np.float64) / np.linalg.norm(up)
    right = np.cross(up_axis, np.eye(3)[np.argmin(np.abs(up_axis))])
    right /= np.linalg.norm(right)
    distance = radius / math.sin(math.radians(RING_HALF_ANGLE_DEG))
    tilt = math.radians(RING_TILT_DEG)
    width, height = RING_SIZE_PX
    focal = height / 2 / math.tan(math.radians(RING_HALF_ANGLE_DEG))
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    cameras = []
    for index in range(RING_VIEWS):
        angle = 2 * math.pi * index / RING_VIEWS
        along = math.cos(angle) * right + math.sin(angle) * np.cross(up_axis, right)
        pose = np.eye(4)
        pose[:3, 3] = center + distance * (math.cos(tilt) * along + math.sin(tilt) * up_axis)
        pose[:3, :3] = look_at(pose[:3, 3], center, up_axis)
        cameras.append(Camera(f"ring_{index}", invert_rigid(pose), intrinsics, width, height))
    return Views(cameras, "views from a ring around it")


def _mean(values: Sequence[float]) -> float:
    """Over the views that have a score: a mask may leave nothing to compare."""
    valid = [value for value in values if math.isfinite(value)]
    return sum(valid) / len(valid) if valid else math.nan
