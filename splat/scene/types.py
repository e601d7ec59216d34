"""What a capture is once it is read: cameras, points, a split. It holds paths, never pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from splat.errors import UserError
from splat.geometry.camera import Camera


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Coloured points in the training frame."""

    xyz: np.ndarray  # [P,3] float32
    rgb: np.ndarray  # [P,3] uint8
    source: str = "sfm"
    """Where they came from: ``sfm``, ``ply`` or ``random``."""

    def __len__(self) -> int:
        return len(self.xyz)


@dataclass(frozen=True, eq=False)
class Scene:
    """A posed capture, ready to train on."""

    name: str
    root: Path
    cameras: tuple[Camera, ...]
    points: PointCloud
    train_indices: tuple[int, ...]
    test_indices: tuple[int, ...]
    extent_world: float
    """1.1 x the largest distance of a training camera from their mean centre."""
    world_from_input: np.ndarray  # [4,4]: training frame <- the capture's own frame (a similarity)
    warnings: tuple[str, ...] = field(default=())
    """One finished sentence each: what was skipped or assumed while reading."""
    protocol: dict[str, str] = field(default_factory=dict)
    """How pixels are made (image folder, downscale filter, undistortion, split): goes into metrics."""

    @property
    def train_cameras(self) -> tuple[Camera, ...]:
        return tuple(self.cameras[i] for i in self.train_indices)

    @property
    def test_cameras(self) -> tuple[Camera, ...]:
        return tuple(self.cameras[i] for i in self.test_indices)


@dataclass(frozen=True, eq=False)
class Frame:
    """The pixels of one camera."""

    pixels: np.ndarray  # [H,W,3] uint8, RGB
    mask: np.ndarray | None  # [H,W] uint8, 255 = counts, 0 = ignored; None = everything counts


class SceneError(UserError):
    """The capture cannot be read. The message is one line a user can act on."""
