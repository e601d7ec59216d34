"""Pinhole cameras: the one camera type of the whole package.

Axes are OpenCV's (x right, y down, z forward). Pixel coordinates follow COLMAP: the centre of the
first pixel is (0.5, 0.5), so ``u = fx * x / z + cx`` with ``cx = width / 2`` for a centred lens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from splat.geometry.lens import Lens


@dataclass(frozen=True, eq=False)
class Camera:
    """One posed photograph, seen as a pinhole.

    ``K`` and ``width``/``height`` always describe the picture that training sees: after undistortion
    and after any downscale. ``lens`` is the model the *file* was taken with when it is not that
    pinhole; whoever reads the pixels uses it to undistort them.
    """

    name: str
    """Name of the image relative to the image folder, with forward slashes."""
    camera_from_world: np.ndarray  # [4,4] float64
    K: np.ndarray  # [3,3] float64, px
    width: int
    height: int
    image_path: Path | None = None
    mask_path: Path | None = None
    lens: Lens | None = None
    """Distorted model of the file at its own size; None when the file is already a pinhole picture."""
    time: float | None = None
    background: tuple[float, float, float] | None = None
    """Colour put behind the alpha channel of an RGBA file; None means alpha is a mask."""
    mask_inverted: bool = False
    """White is ignored instead of black in the mask file."""

    @property
    def world_from_camera(self) -> np.ndarray:  # [4,4]
        return invert_rigid(self.camera_from_world)

    @property
    def center_world(self) -> np.ndarray:  # [3]
        """Position of the optical centre in world coordinates."""
        rotation, translation = self.camera_from_world[:3, :3], self.camera_from_world[:3, 3]
        return -rotation.T @ translation

    @property
    def focal_px(self) -> tuple[float, float]:
        return float(self.K[0, 0]), float(self.K[1, 1])

    def resized(self, width: int, height: int) -> Camera:
        """The same view sampled at another size; intrinsics follow the true ratio of each axis."""
        scale = np.diag([width / self.width, height / self.height, 1.0])
        return replace(self, K=scale @ self.K, width=int(width), height=int(height))

    def posed(self, camera_from_world: np.ndarray) -> Camera:
        return replace(self, camera_from_world=np.asarray(camera_from_world, dtype=np.float64))


def invert_rigid(transform: np.ndarray) -> np.ndarray:  # [4,4] -> [4,4]
    """Inverse of a rotation plus translation."""
    inverse = np.eye(4)
    inverse[:3, :3] = transform[:3, :3].T
    inverse[:3, 3] = -transform[:3, :3].T @ transform[:3, 3]
    return inverse
