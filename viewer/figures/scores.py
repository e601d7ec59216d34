"""How well single views of the capture are met, measured one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from splat.geometry.camera import Camera
from splat.live.snapshot import Snapshot
from splat.render.types import CameraBatch, Rasterizer, RenderOptions
from splat.viewer.serving.desk import Desk

BEST_PSNR = 100.0
"""Of a picture that differs in nothing, dB."""


@dataclass(frozen=True)
class ViewScore:
    name: str
    psnr: float
    held_out: bool


def measured(desk: Desk, snapshot: Snapshot) -> Iterator[ViewScore | None]:
    """Scores of all views with a photograph, in the order of the capture; None for one that has none."""
    held_out = set(desk.scene.test_indices)
    for index, camera in enumerate(desk.scene.cameras):
        photo = desk.photo(camera)
        if photo is None:
            yield None
        else:
            yield ViewScore(camera.name, psnr(snapshot, camera, photo, desk.rasterizer), index in held_out)


@torch.no_grad()
def psnr(snapshot: Snapshot, camera: Camera, photo: np.ndarray, rasterizer: Rasterizer) -> float:
    """Over all pixels of ``photo [H,W,3]`` uint8, dB; masks are not looked at."""
    model = snapshot.model
    behind = None
    if camera.background is not None:
        behind = torch.tensor(camera.background, dtype=torch.float32, device=model.device)
    options = RenderOptions(sh_degree=model.sh_degree, filter2d=model.filter2d, background=behind)
    color = rasterizer.render(model.render_inputs(), CameraBatch.of(camera, device=model.device), options).color[0]
    truth = torch.from_numpy(photo).to(color) / 255
    squared = float((color.clamp(0, 1) - truth).square().mean())
    return BEST_PSNR if squared <= 0 else min(BEST_PSNR, float(-10 * np.log10(squared)))
