"""A training of a small made-up scene by the real trainer, on any device; torch and numpy are all it needs."""

from __future__ import annotations

import math

import numpy as np
import torch

from splat.densify.none import Frozen
from splat.densify.protocol import RefineContext
from splat.geometry.camera import Camera
from splat.model.gaussian import GaussianPrimitive
from splat.model.splat_model import SplatModel
from splat.optim.adam import SplatAdam
from splat.render.native_rasterizer import NativeRasterizer
from splat.render.types import CameraBatch, RenderOptions
from splat.scene.types import Frame
from splat.train.frames import FrameSource
from splat.train.settings import LoopSettings
from splat.train.state import TrainState
from splat.train.trainer import Trainer, drive

VIEWS = 6


def around(size: tuple[int, int]) -> tuple[Camera, ...]:
    """Cameras on an arc, 4 units from the origin."""
    width, height = size
    intrinsics = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
    made = []
    for number, angle in enumerate(np.linspace(-0.6, 0.6, VIEWS)):
        pose = np.eye(4)
        pose[:3, :3] = [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]
        pose[2, 3] = 4.0
        made.append(Camera(f"{number}.png", pose, intrinsics, width, height))
    return tuple(made)


def cloud(count: int, device: str, *, seed: int, size: float = 1.0) -> SplatModel:
    random = torch.Generator().manual_seed(seed)
    primitive = GaussianPrimitive(init_scale=size)
    rows = primitive.start(
        torch.randn(count, 3, generator=random) * 0.6, torch.rand(count, 3, generator=random), sh_degree=1,
        generator=random,
    )  # fmt: skip
    rows["logit_opacities"] = rows["logit_opacities"] + (2.0 if size > 1 else 0.0)
    return SplatModel(primitive, {name: table.to(device) for name, table in rows.items()}, 1)


@torch.no_grad()
def pictures(model: SplatModel, cameras: tuple[Camera, ...]) -> list[np.ndarray]:
    drawn = []
    for camera in cameras:
        batch = CameraBatch.of(camera, device=model.device)
        output = NativeRasterizer().render(model.render_inputs(), batch, RenderOptions(sh_degree=1))
        drawn.append((output.color[0].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy())
    return drawn


def fitted_psnr(device: str, *, steps: int, count: int, size: tuple[int, int]) -> float:
    """Mean PSNR over the training views after ``steps``."""
    cameras = around(size)
    truth = pictures(cloud(count, device, seed=1, size=2.0), cameras)
    model = cloud(count, device, seed=2)
    specs = model.primitive.fields(1)
    adam = SplatAdam(specs)
    adam.start(model)
    state = TrainState(model, adam, Frozen().start(model))
    trainer = Trainer(
        state, settings=LoopSettings(steps=steps, seed=1, sh_degree=1, sh_every=steps // 2 or 1), densifier=Frozen(),
        context=RefineContext(extent_world=1.0, total_steps=steps), rasterizer=NativeRasterizer(),
        frames=FrameSource(cameras, lambda index: Frame(truth[index], None), device=device),
    )  # fmt: skip
    drive(trainer, [])
    model.requires_grad_(False)
    errors = [
        np.mean((found.astype(float) - true.astype(float)) ** 2)
        for found, true in zip(pictures(model, cameras), truth, strict=True)
    ]
    return float(np.mean([10 * math.log10(255**2 / max(error, 1e-9)) for error in errors]))
