"""Writes a COLMAP binary model (layout: COLMAP's documentation, "Output Format", binary files)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PINHOLE = 1
"""COLMAP's id of the camera model with parameters fx, fy, cx, cy."""


@dataclass(frozen=True, eq=False)
class PosedView:
    """One picture with its 2D observations."""

    name: str
    camera_from_world: np.ndarray  # [4,4]
    keypoints: np.ndarray  # [M,2] pixels
    point_ids: np.ndarray  # [M] 1-based


@dataclass(frozen=True, eq=False)
class SparsePoints:
    """3D points; ``tracks`` holds (image id, keypoint index) pairs, both as COLMAP counts them."""

    xyz: np.ndarray  # [P,3]
    rgb: np.ndarray  # [P,3] uint8
    error_px: np.ndarray  # [P]
    tracks: list[list[tuple[int, int]]]


def write_model(
    folder: Path, size: tuple[int, int], params: tuple[float, ...], views: list[PosedView], points: SparsePoints
) -> None:
    """cameras.bin (one pinhole camera), images.bin and points3D.bin in ``folder``; image ids count from 1."""
    folder.mkdir(parents=True, exist_ok=True)
    camera = struct.pack("<Q", 1) + struct.pack("<iiQQ", 1, PINHOLE, *size) + struct.pack("<4d", *params)
    (folder / "cameras.bin").write_bytes(camera)
    chunks = [struct.pack("<Q", len(views))]
    for number, view in enumerate(views, 1):
        quaternion = quaternion_wxyz(view.camera_from_world[:3, :3])
        chunks.append(struct.pack("<i7di", number, *quaternion, *view.camera_from_world[:3, 3], 1))
        chunks.append(view.name.encode() + b"\0" + struct.pack("<Q", len(view.keypoints)))
        rows = np.zeros(len(view.keypoints), dtype=[("xy", "<f8", 2), ("id", "<i8")])
        rows["xy"], rows["id"] = view.keypoints, view.point_ids
        chunks.append(rows.tobytes())
    (folder / "images.bin").write_bytes(b"".join(chunks))
    chunks = [struct.pack("<Q", len(points.xyz))]
    for number, track in enumerate(points.tracks, 1):
        at = number - 1
        chunks.append(struct.pack("<Q3d3Bd", number, *points.xyz[at], *points.rgb[at].tolist(), points.error_px[at]))
        chunks.append(struct.pack("<Q", len(track)) + np.asarray(track, "<i4").tobytes())
    (folder / "points3D.bin").write_bytes(b"".join(chunks))


def quaternion_wxyz(rotation: np.ndarray) -> np.ndarray:  # [3,3] -> [4]
    """Unit quaternion with w >= 0: the leading eigenvector of Bar-Itzhack's (2000) symmetric matrix."""
    r = rotation
    k = np.array([
        [r[0, 0] - r[1, 1] - r[2, 2], 0, 0, 0],
        [r[1, 0] + r[0, 1], r[1, 1] - r[0, 0] - r[2, 2], 0, 0],
        [r[2, 0] + r[0, 2], r[2, 1] + r[1, 2], r[2, 2] - r[0, 0] - r[1, 1], 0],
        [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], r[0, 0] + r[1, 1] + r[2, 2]],
    ])  # fmt: skip
    x, y, z, w = np.linalg.eigh(k)[1][:, -1]
    return np.array([w, x, y, z]) * (1 if w >= 0 else -1)
