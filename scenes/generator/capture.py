"""Sparse points from the traced scene, as structure from motion would have found them, and the COLMAP files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from .colmap_files import PosedView, SparsePoints, write_model
from .path import CENTRE_PX, FOCAL_PX, HEIGHT, WIDTH

POINTS_PER_VIEW = 150
TRACK_LENGTH = 4
"""Observations kept per point at most: enough to test a reader, small enough for a repository."""
POINT_NOISE = 0.0015
"""Standard deviation of a point, as a share of its distance to the camera that proposed it."""
KEYPOINT_NOISE_PX = 0.3
SAME_DEPTH = 0.004
"""A view sees a point when its ray stops within this share of the point's distance."""
BORDER_PX = 4

SOURCE = """The capture "{name}": {count} views of a table set for tea, {width}x{height} pixels.

Everything in it (geometry, textures, camera path) comes from this repository's own generator in scenes/generator,
path-traced with Mitsuba 3 and denoised with Open Image Denoise. No third-party asset was used.
Licence: Apache-2.0, like the rest of the repository.

Poses and intrinsics are exact (PINHOLE, principal point off centre). Points are ray hits with {noise:.2%} noise;
their tracks list up to {track} of the views that see them.

Made again by:  python scenes/make_nook.py     (see scenes/README.md)
"""


def write_capture(mitsuba, scene, views: list[tuple[str, np.ndarray]], out: Path, *, seed: int) -> None:
    """The sparse model and SOURCE.txt beside the images in ``out/images``. A track starts with the proposing view."""
    rng = np.random.default_rng(seed + 3)
    pictures = [cv2.imread(str(out / "images" / name))[..., ::-1] for name, _ in views]
    poses = np.stack([pose for _, pose in views])
    xyz, rgb, origin = _propose(mitsuba, scene, pictures, poses, rng)
    seen = np.stack([_visible(mitsuba, scene, xyz, pose) for pose in poses], axis=1)  # [P,C]
    seen[np.arange(len(xyz)), origin] = True
    kept = seen.sum(1) >= 3
    xyz, rgb, origin, seen = xyz[kept], rgb[kept], origin[kept], seen[kept]
    distance = np.linalg.norm(xyz - _centres(poses)[origin], axis=1, keepdims=True)
    noisy = xyz + rng.normal(size=xyz.shape) * POINT_NOISE * distance / np.sqrt(3)
    chosen = _tracks(seen, origin, rng)
    tracks: list[list[tuple[int, int]]] = [[] for _ in xyz]
    squared_px, written = np.zeros(len(xyz)), []
    for number, (name, pose) in enumerate(views):
        ids = np.flatnonzero(chosen[:, number])
        keypoints = project(xyz[ids], pose)[0] + rng.normal(0, KEYPOINT_NOISE_PX, size=(len(ids), 2))
        squared_px[ids] += ((project(noisy[ids], pose)[0] - keypoints) ** 2).sum(1)
        for place, index in enumerate(ids):
            proposed_it = origin[index] == number
            tracks[index].insert(0 if proposed_it else len(tracks[index]), (number + 1, place))
        written.append(PosedView(name, pose, keypoints, ids + 1))
    points = SparsePoints(noisy, rgb, np.sqrt(squared_px / chosen.sum(1)), tracks)
    params = (FOCAL_PX, FOCAL_PX, *CENTRE_PX)
    write_model(out / "sparse" / "0", (WIDTH, HEIGHT), params, written, points)
    about = dict(name=out.name, count=len(views), width=WIDTH, height=HEIGHT, noise=POINT_NOISE, track=TRACK_LENGTH)
    (out / "SOURCE.txt").write_text(SOURCE.format(**about))


def project(xyz: np.ndarray, camera_from_world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(pixels [N,2], depth [N] in metres)."""
    local = xyz @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    return local[:, :2] / local[:, 2:] * FOCAL_PX + CENTRE_PX, local[:, 2]


def depth_map(mitsuba, scene, pose: np.ndarray) -> np.ndarray:  # [4,4] -> [H,W] float32
    """Depth along the optical axis at every pixel's centre, metres; 0 where there is nothing."""
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    pixels = np.stack([columns, rows], 2).reshape(-1, 2)
    local = np.concatenate([(pixels - CENTRE_PX) / FOCAL_PX, np.ones((len(pixels), 1))], 1)
    length = np.linalg.norm(local, axis=1)
    reach = _first_hit(mitsuba, scene, _centres(pose[None])[0], local / length[:, None] @ pose[:3, :3])
    return np.where(np.isfinite(reach), reach / length, 0).reshape(HEIGHT, WIDTH).astype(np.float32)


def _centres(poses: np.ndarray) -> np.ndarray:  # [C,4,4] -> [C,3]
    return -np.einsum("cji,cj->ci", poses[:, :3, :3], poses[:, :3, 3])


def _propose(mitsuba, scene, pictures, poses, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(xyz, rgb, proposing view): pixels drawn where the picture has detail, followed to the surface."""
    xyz, rgb, origin = [], [], []
    for number, (picture, pose) in enumerate(zip(pictures, poses, strict=True)):
        grey = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 0.8)
        detail = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
        weight = np.sqrt(detail) + 1.5
        border = np.zeros_like(weight)
        border[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = 1
        weight = (weight * border).reshape(-1)
        pick = rng.choice(weight.size, size=POINTS_PER_VIEW, replace=False, p=weight / weight.sum())
        rows, columns = np.divmod(pick, WIDTH)
        pixels = np.stack([columns + 0.5, rows + 0.5], 1)
        local = np.concatenate([(pixels - CENTRE_PX) / FOCAL_PX, np.ones((len(pick), 1))], 1)
        local /= np.linalg.norm(local, axis=1, keepdims=True)
        eye, direction = _centres(pose[None])[0], local @ pose[:3, :3]
        reach = _first_hit(mitsuba, scene, eye, direction)
        hit = np.isfinite(reach)
        xyz.append(eye + direction[hit] * reach[hit, None])
        rgb.append(picture[rows[hit], columns[hit]])
        origin.append(np.full(hit.sum(), number))
    return np.concatenate(xyz), np.concatenate(rgb), np.concatenate(origin)


def _first_hit(mitsuba, scene, eye: np.ndarray, direction: np.ndarray) -> np.ndarray:  # [3], [N,3] -> [N]
    """Distance to the first surface along each ray, metres; infinite where there is none."""
    if "scalar" in mitsuba.variant():
        hits = [scene.ray_intersect_preliminary(mitsuba.Ray3f(eye.tolist(), d.tolist())).t for d in direction]
        return np.array(hits)
    origin = mitsuba.Point3f(*(mitsuba.Float(np.full(len(direction), value, np.float32)) for value in eye))
    rays = mitsuba.Ray3f(
        origin, mitsuba.Vector3f(*(mitsuba.Float(direction[:, i].astype(np.float32)) for i in range(3)))
    )
    return np.array(scene.ray_intersect_preliminary(rays).t, dtype=float)


def _visible(mitsuba, scene, xyz: np.ndarray, pose: np.ndarray) -> np.ndarray:  # [P] bool
    pixels, depth = project(xyz, pose)
    inside = (depth > 0.05) & ((pixels > BORDER_PX) & (pixels < np.array([WIDTH, HEIGHT]) - BORDER_PX)).all(1)
    eye = _centres(pose[None])[0]
    away = xyz - eye
    distance = np.linalg.norm(away, axis=1)
    reach = _first_hit(mitsuba, scene, eye, away / distance[:, None])
    return inside & (np.abs(reach - distance) < SAME_DEPTH * distance)


def _tracks(seen: np.ndarray, origin: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # [P,C] bool
    """At most TRACK_LENGTH views per point: the proposing one and others that see it, drawn by chance."""
    priority = rng.uniform(size=seen.shape) * seen
    priority[np.arange(len(seen)), origin] = 2.0
    rank = np.argsort(np.argsort(-priority, axis=1), axis=1)
    return (rank < TRACK_LENGTH) & seen
