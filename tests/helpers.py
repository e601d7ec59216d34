"""Small things many tests need: a capture on disk that takes a second to train."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from splat.geometry.camera import Camera
from splat.io.png import write_png

TINY_VIEWS, TINY_WIDTH, TINY_HEIGHT = 6, 32, 24
_FOCAL_PX = 30.0
_BLOBS = 40
_BLOB_RADIUS = 0.35


def make_tiny_scene(root: Path, *, views: int = TINY_VIEWS, width: int = TINY_WIDTH, height: int = TINY_HEIGHT) -> Path:
    """A COLMAP text capture of coloured balls, seen from an arc; poses and points are exact."""
    rng = np.random.default_rng(7)
    centers = rng.uniform(-1, 1, (_BLOBS, 3))
    colors = rng.integers(40, 255, (_BLOBS, 3), dtype=np.uint8)
    model = root / "sparse" / "0"
    model.mkdir(parents=True)
    cx, cy = width / 2, height / 2
    (model / "cameras.txt").write_text(f"1 PINHOLE {width} {height} {_FOCAL_PX} {_FOCAL_PX} {cx} {cy}\n")
    lines = []
    for number, angle in enumerate(np.linspace(-0.5, 0.5, views), start=1):
        camera = _camera(angle, width, height)
        write_png(root / "images" / f"view_{number:02d}.png", _picture(camera, centers, colors))
        pose = (np.cos(angle / 2), 0, np.sin(angle / 2), 0, *camera.camera_from_world[:3, 3])
        lines.append(f"{number} {' '.join(repr(float(part)) for part in pose)} 1 view_{number:02d}.png\n\n")
    (model / "images.txt").write_text("".join(lines))
    rows = (
        f"{i} {' '.join(map(repr, map(float, p)))} {' '.join(map(str, c))} 0.5 1 0 2 0 3 0\n"
        for i, (p, c) in enumerate(zip(centers, colors, strict=True), start=1)
    )
    (model / "points3D.txt").write_text("".join(rows))
    return root


def _camera(angle_rad: float, width: int, height: int) -> Camera:
    """Turned about y, looking at the origin from 4 units away."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    pose = np.eye(4)
    pose[:3, :3] = [[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]
    pose[:3, 3] = (0, 0, 4)
    intrinsics = np.array([[_FOCAL_PX, 0, width / 2], [0, _FOCAL_PX, height / 2], [0, 0, 1.0]])
    return Camera("", pose, intrinsics, width, height)


def _picture(camera: Camera, centers: np.ndarray, colors: np.ndarray) -> np.ndarray:  # [H,W,3] uint8
    """Discs painted far to near over grey."""
    picture = np.full((camera.height, camera.width, 3), 90, np.uint8)
    points = centers @ camera.camera_from_world[:3, :3].T + camera.camera_from_world[:3, 3]
    v, u = np.mgrid[: camera.height, : camera.width] + 0.5
    for index in np.argsort(-points[:, 2]):
        x, y, z = points[index]
        radius = camera.K[0, 0] * _BLOB_RADIUS / z
        px, py = camera.K[0, 0] * x / z + camera.K[0, 2], camera.K[1, 1] * y / z + camera.K[1, 2]
        picture[(u - px) ** 2 + (v - py) ** 2 < radius**2] = colors[index]
    return picture
