"""A model of a few splats, cameras around it, and a painter fast enough for tests."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from splat.geometry.camera import Camera
from splat.geometry.paths import look_at
from splat.model.gaussian import GaussianPrimitive
from splat.model.splat_model import SplatModel
from splat.scene.types import PointCloud, Scene


def model_of_balls(count: int = 12) -> SplatModel:
    """Soft coloured balls around the origin."""
    rng = torch.Generator().manual_seed(3)
    rows = {
        "means": torch.randn(count, 3, generator=rng) * 0.5,
        "quats": torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        "log_scales": torch.full((count, 3), -1.2),
        "logit_opacities": torch.full((count,), 2.0),
        "sh0": torch.randn(count, 3, generator=rng),
        "sh_rest": torch.zeros(count, 0, 3),
    }
    return SplatModel(GaussianPrimitive(), rows, sh_degree=0)


def cameras_around(count: int = 4, *, size: tuple[int, int] = (33, 24), background=None) -> tuple[Camera, ...]:
    """Cameras on a circle of radius 3, odd width on purpose."""
    cameras = []
    for i in range(count):
        angle = 2 * math.pi * i / count
        position = np.array([3 * math.sin(angle), -0.5, -3 * math.cos(angle)])
        rotation = look_at(position, np.zeros(3), np.array([0, -1.0, 0]))
        camera_from_world = np.eye(4)
        camera_from_world[:3, :3], camera_from_world[:3, 3] = rotation.T, -rotation.T @ position
        width, height = size
        intrinsics = np.array([[30.0, 0, width / 2], [0, 30.0, height / 2], [0, 0, 1]])
        cameras.append(Camera(f"left/{i:03d}.jpg", camera_from_world, intrinsics, width, height, background=background))
    return tuple(cameras)


def scene_around(count: int = 5, *, tests: int = 2) -> Scene:
    points = PointCloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
    indices = tuple(range(count))
    return Scene("s", Path("/s"), cameras_around(count), points, indices[tests:], indices[:tests], 1.0, np.eye(4))
