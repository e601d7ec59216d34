"""Between the model's frame and that of the page.

The page stores depth with 24 bits up to about 167 units, and its controls feel right around a scene of a few units: so
the page's frame is the model's, scaled about the origin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from splat.geometry.camera import Camera


@dataclass(frozen=True)
class Space:
    """``page = scale * world``; no rotation: the page turns by its up direction."""

    scale: float = 1.0
    up: tuple[float, float, float] = (0.0, -1.0, 0.0)
    """Unit vector in the world's (and so the page's) frame."""

    def page(self, points: np.ndarray) -> np.ndarray:
        """World -> page, [...,3]."""
        return np.asarray(points, np.float64) * self.scale

    def world(self, points: np.ndarray) -> np.ndarray:
        """Page -> world, [...,3]."""
        return np.asarray(points, np.float64) / self.scale

    def camera(
        self, *, wxyz: np.ndarray, position: np.ndarray, fov: float, width: int, height: int, name: str = "page"
    ) -> Camera:
        """Pinhole in the world's frame of a page's camera: OpenCV axes, vertical ``fov`` in radians."""
        w, x, y, z = np.asarray(wxyz, np.float64) / np.linalg.norm(wxyz)
        world_from_camera = np.array([
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ])  # fmt: skip
        pose = np.eye(4)
        pose[:3, :3] = world_from_camera.T
        pose[:3, 3] = -world_from_camera.T @ self.world(position)
        focal = height / 2 / np.tan(fov / 2)
        intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        return Camera(name, pose, intrinsics, width, height)
