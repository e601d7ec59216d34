"""The records of a COLMAP model and the checks that binary and text files share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splat.geometry.lens import LENS_MODELS, Lens
from splat.scene.types import SceneError

MAX_SIDE_PX = 1_000_000  # far above any sensor; a larger number is a misread file


@dataclass(frozen=True, eq=False)
class ColmapImage:
    """A registered image: world to camera, OpenCV axes."""

    name: str
    camera_id: int
    qvec: tuple[float, float, float, float]
    """Rotation as a quaternion, w first."""
    tvec: tuple[float, float, float]

    @property
    def has_pose(self) -> bool:
        values = np.array((*self.qvec, *self.tvec))
        return bool(np.isfinite(values).all() and np.linalg.norm(values[:4]) > 1e-8)

    @property
    def camera_from_world(self) -> np.ndarray:  # [4,4]
        w, x, y, z = np.array(self.qvec) / np.linalg.norm(self.qvec)
        pose = np.eye(4)
        pose[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
        pose[:3, 3] = self.tvec
        return pose


@dataclass(frozen=True, eq=False)
class ColmapPoints:
    """The points of a model; tracks are not kept."""

    xyz: np.ndarray  # [P,3] float64
    rgb: np.ndarray  # [P,3] uint8
    error_px: np.ndarray  # [P] float64


def checked_lens(path: Path, camera_id: int, lens: Lens) -> Lens:
    """The lens when its numbers can be true, or an error that names the file and the camera."""
    name, params, width, height = lens.model, lens.params, lens.width, lens.height
    where = f"{path}: camera {camera_id} ({name})"
    if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX):
        raise SceneError(f"{where} has size {width}x{height}; expected 1 to {MAX_SIDE_PX:,} px, the file is damaged")
    expected = LENS_MODELS[name].params
    if len(params) != len(expected):
        raise SceneError(f"{where} has {len(params)} parameters; expected {len(expected)}: {' '.join(expected)}")
    if not np.isfinite(params).all():
        raise SceneError(f"{where} has parameters that are not finite: {params}")
    fx, fy, *_ = lens.focal_and_center
    if not (fx > 0 and fy > 0):
        raise SceneError(f"{where} has focal length {fx:g}, {fy:g} px; expected positive numbers")
    return lens


def checked_name(path: Path, name: str) -> str:
    """An image name with forward slashes, refused when it is clearly not text."""
    if not name or not name.isprintable():
        raise SceneError(f"{path}: image name {name[:60]!a} is not readable text; the file is damaged")
    return name.replace("\\", "/")
