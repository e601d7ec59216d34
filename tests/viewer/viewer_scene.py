"""Snapshots small enough to work out by hand what a picture of them shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from splat.geometry.camera import Camera
from splat.geometry.sh import sh0_from_rgb
from splat.live.snapshot import Snapshot
from splat.model.convex import ConvexPrimitive
from splat.model.gaussian import GaussianPrimitive
from splat.model.gaussian_family import raw_opacities, raw_scales
from splat.model.labels import Labels
from splat.model.splat_model import SplatModel
from splat.scene.types import PointCloud, Scene

WIDTH, HEIGHT, FOCAL_PX = 48, 36, 40.0


def camera(*, width: int = WIDTH, height: int = HEIGHT, name: str = "view") -> Camera:
    """At the origin, looking along z."""
    intrinsics = np.array([[FOCAL_PX, 0, width / 2], [0, FOCAL_PX, height / 2], [0, 0, 1.0]])
    return Camera(name, np.eye(4), intrinsics, width, height)


def snapshot_of(
    means, *, rgb=None, opacities=0.99, scales=0.2, sh_degree: int = 0, step: int = 10, version: int = 1, **labels
) -> Snapshot:
    """Gaussians; ``scales`` a number, one per splat or three per splat."""
    means = torch.as_tensor(means, dtype=torch.float32).reshape(-1, 3)
    count = means.shape[0]
    rgb = torch.as_tensor([1.0, 0.5, 0.0] if rgb is None else rgb, dtype=torch.float32).expand(count, 3)
    scales = torch.as_tensor(scales, dtype=torch.float32)
    scales = scales[:, None] if scales.ndim == 1 else scales
    rows = {
        "means": means,
        "quats": torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        **raw_scales(scales.expand(count, 3).contiguous()),
        **raw_opacities(torch.as_tensor(opacities, dtype=torch.float32).expand(count).contiguous()),
        "sh0": sh0_from_rgb(rgb).contiguous(),
        "sh_rest": torch.zeros(count, (sh_degree + 1) ** 2 - 1, 3),
    }
    model = SplatModel(GaussianPrimitive(), rows, sh_degree)
    return Snapshot(model, labels_of(count, **labels), step, version)


def labels_of(count: int, **tables) -> Labels:
    """Labels with some tables (or ``names``) of their own."""
    start = Labels.start(count)
    own = {
        name: value if name == "names" else torch.as_tensor(value).to(getattr(start, name).dtype)
        for name, value in tables.items()
    }
    return replace(start, **own)


def random_snapshot(count: int = 200, *, kind: str = "gaussian", seed: int = 0) -> Snapshot:
    """A cloud in front of ``camera()``."""
    rng = np.random.default_rng(seed)
    xyz = torch.from_numpy(rng.uniform((-1, -1, 2), (1, 1, 4), (count, 3))).float()
    rgb = torch.from_numpy(rng.uniform(0, 1, (count, 3))).float()
    primitive = ConvexPrimitive(reference_focal=FOCAL_PX) if kind == "convex" else GaussianPrimitive(init_opacity=0.7)
    rows = primitive.start(xyz, rgb, sh_degree=1, generator=torch.Generator().manual_seed(seed))
    labels = labels_of(count, born=rng.integers(0, 10, count), reasons=rng.integers(0, 3, count),
                       names=("start", "clone", "split"))  # fmt: skip
    return Snapshot(SplatModel(primitive, rows, 1), labels, 10, 1)


class FakeDesk:
    """As much of a desk as drawing sees: a capture of two views, whose photographs show ``truth`` (or grey)."""

    def __init__(self, truth: Snapshot | None = None, rasterizer=None) -> None:
        left, right = camera(name="left.png"), camera(name="right.png")
        right = right.posed(np.array([[1, 0, 0, -0.2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
        points = PointCloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
        self.scene = Scene("fake", Path("fake"), (left, right), points, (0, 1), (), 1.0, np.eye(4))
        self.truth, self.rasterizer, self.asked = truth, rasterizer, 0
        self.masks: dict[str, np.ndarray] = {}

    def mask(self, view: Camera) -> np.ndarray | None:  # [H,W] uint8
        return self.masks.get(view.name)

    def photo(self, view: Camera) -> np.ndarray:
        from splat.viewer.picture.draw import draw
        from splat.viewer.picture.look import Look

        self.asked += 1
        if self.truth is None:
            return np.full((view.height, view.width, 3), 128, np.uint8)
        return draw(self.truth, view, Look(), rasterizer=self.rasterizer).rgb
