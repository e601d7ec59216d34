"""Small models for file tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from splat.geometry.camera import Camera
from splat.model.gaussian import GaussianPrimitive
from splat.model.primitives import PRIMITIVES
from splat.model.splat_model import SplatModel

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def random_model(count: int = 40, *, sh_degree: int = 3, seed: int = 0, filter2d: str = "classic") -> SplatModel:
    """Splats of all shapes around the origin."""
    rng = torch.Generator().manual_seed(seed)
    higher = (sh_degree + 1) ** 2 - 1
    rows = {
        "means": torch.randn(count, 3, generator=rng) * 0.5,
        "quats": torch.randn(count, 4, generator=rng),
        "log_scales": torch.randn(count, 3, generator=rng) * 0.4 - 2,
        "logit_opacities": torch.randn(count, generator=rng) * 2,
        "sh0": torch.randn(count, 3, generator=rng),
        "sh_rest": torch.randn(count, higher, 3, generator=rng) * 0.2,
    }
    return SplatModel(GaussianPrimitive(), rows, sh_degree, filter2d)


def model_of(kind: str, count: int = 40, *, sh_degree: int = 1, seed: int = 0, **settings) -> SplatModel:
    """Splats of any primitive around the origin, every field off its start, fitted to a focal length of 50 px."""
    rng = torch.Generator().manual_seed(seed)
    primitive = PRIMITIVES[kind](init_opacity=0.6, **settings).fitted(50.0)
    xyz, rgb = torch.randn(count, 3, generator=rng) * 0.5, torch.rand(count, 3, generator=rng)
    rows = primitive.start(xyz, rgb, sh_degree=sh_degree, generator=rng)
    for name in sorted(rows):
        noise = torch.randn(rows[name].shape, generator=rng)
        rows[name] = rows[name] + noise * (0.02 if name in ("means", "vertices") else 0.2)
    return SplatModel(primitive, rows, sh_degree)


def camera_at(
    position: tuple[float, float, float], *, name: str = "view.jpg", size: tuple[int, int] = (48, 36)
) -> Camera:
    """A camera at ``position`` whose axes are the world's, turned about y to face the origin."""
    x, _, z = position
    angle = np.arctan2(-x, -z)
    world_from_camera = np.eye(4)
    world_from_camera[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    world_from_camera[:3, 3] = position
    width, height = size
    intrinsics = np.array([[50.0, 0, width / 2 + 3], [0, 52.0, height / 2 - 2], [0, 0, 1]])
    return Camera(name, np.linalg.inv(world_from_camera), intrinsics, width, height)


def shared_file(relative: str) -> Path:
    """A file of the shared data folder; skips the test where that is absent."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"shared/data/{relative} is absent")
    return path
