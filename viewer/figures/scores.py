"""How well single views of the capture are met, measured one at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from splat.geometry.camera import Camera
from splat.live.snapshot import Snapshot
from splat.render.types import CameraBatch, Rasterizer, RenderOptions
from splat.viewer.picture.counted import counted
from splat.viewer.serving.desk import Desk

BEST_PSNR = 100.0
"""Of a picture that differs in nothing, dB."""


@dataclass(frozen=True)
class ViewScore:
    name: str
    psnr: float
    held_out: bool
    counted: float = 1.0
    """Share of the photograph that was looked at: what masks and edits take out was not."""


def measured(desk: Desk, snapshot: Snapshot) -> Iterator[ViewScore | None]:
    """Scores of all views with a photograph, in the order of the capture; None for one that has none, or nothing that
    counts."""
    held_out = set(desk.scene.test_indices)
    for index, camera in enumerate(desk.scene.cameras):
        photo = desk.photo(camera)
        if photo is None:
            yield None
            continue
        counts = counted(desk, snapshot, camera, photo.shape[1], photo.shape[0])
        share = 1.0 if counts is None else float(counts.float().mean()) / 255
        if share == 0:
            yield None
            continue
        value = psnr(snapshot, camera, photo, desk.rasterizer, counts)
        yield ViewScore(camera.name, value, index in held_out, share)


@torch.no_grad()
def psnr(
    snapshot: Snapshot, camera: Camera, photo: np.ndarray, rasterizer: Rasterizer, counts: Tensor | None = None
) -> float:
    """Over the pixels of ``photo [H,W,3]`` uint8, dB; they weigh by ``counts [H,W]`` uint8, 255 = whole. NaN where it
    leaves none."""
    model = snapshot.model
    behind = None
    if camera.background is not None:
        behind = torch.tensor(camera.background, dtype=torch.float32, device=model.device)
    options = RenderOptions(sh_degree=model.sh_degree, filter2d=model.filter2d, background=behind)
    color = rasterizer.render(model.render_inputs(), CameraBatch.of(camera, device=model.device), options).color[0]
    truth = torch.from_numpy(photo).to(color) / 255
    squares = (color.clamp(0, 1) - truth).square().mean(dim=-1)
    if counts is None:
        squared = float(squares.mean())
    else:
        weights = counts.to(squares)
        if not weights.any():
            return math.nan
        squared = float((squares * weights).sum() / weights.sum())
    return BEST_PSNR if squared <= 0 else min(BEST_PSNR, float(-10 * np.log10(squared)))


def remarks(scores: list[ViewScore], *, is_protected: bool, is_edited_standing: bool) -> str:
    """What did not count and what did, in sentences for the page; "" where photographs count whole and nothing is
    edited. ``is_protected``: training leaves pixels out for edits; ``is_edited_standing``: edits without a training."""
    parts = []
    if fewer := sum(score.counted < 1 for score in scores):
        what = "masks and edits take" if is_protected else "masks take"
        parts.append(f"{fewer} of {len(scores)} without the pixels that {what} out.")
    if is_protected and any(score.held_out for score in scores):
        parts.append("Held-out photographs count also where an edit contradicts them.")
    if is_edited_standing:
        parts.append("Edits made while nothing trains take no pixels out.")
    return f"*{' '.join(parts)}*" if parts else ""
