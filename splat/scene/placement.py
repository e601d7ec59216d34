"""Where a capture lies in space: its extent, a frame that float32 can hold, and points to start from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from splat.geometry.camera import Camera
from splat.scene.types import PointCloud

EXTENT_MARGIN = 1.1  # Kerbl et al. 2023 scale the mean learning rate by 1.1 x the radius of the cameras
RECENTRE_RATIO = 1e3  # farther from the origin than this many extents, float32 costs visible precision


def keyed_rng(seed: int, purpose: str) -> np.random.Generator:
    """A generator of its own for each purpose, the same on every machine."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def extent_of(centers: np.ndarray, points: np.ndarray | None) -> float:  # [C,3], [P,3]
    """Radius of the training cameras around their mean; of the points, or 1, when the cameras coincide."""
    extent = EXTENT_MARGIN * float(np.linalg.norm(centers - centers.mean(axis=0), axis=1).max())
    scale = 1.0 + float(np.abs(centers).max())
    if extent > 1e-9 * scale:
        return extent
    if points is not None and len(points):
        # Median, so that stray far points do not decide.
        distance = float(np.median(np.linalg.norm(points - centers.mean(axis=0), axis=1)))
        if distance > 1e-9 * scale:
            return distance
    return 1.0


def recentering(centers: np.ndarray, extent: float) -> np.ndarray:  # [C,3] -> [4,4]
    """Translation to the training frame: the identity unless coordinates are large, as in georeferenced captures."""
    world_from_input = np.eye(4)
    middle = centers.mean(axis=0)
    if np.linalg.norm(middle) > RECENTRE_RATIO * extent:
        world_from_input[:3, 3] = -np.round(middle)
    return world_from_input


def subsample(points: PointCloud, limit: int | None, seed: int) -> PointCloud:
    """At most ``limit`` points, drawn without replacement, in their own order."""
    if limit is None or len(points) <= limit:
        return points
    keep = np.sort(keyed_rng(seed, "scene/subsample").choice(len(points), limit, replace=False))
    return PointCloud(points.xyz[keep], points.rgb[keep], points.source)


def random_points(cameras: Sequence[Camera], extent_world: float, count: int, seed: int) -> PointCloud:
    """Points around what the cameras look at: most of them close, some far out, each in sight of a camera.

    Two thirds fill the ball of half the viewing distance around the point nearest to all optical axes;
    the rest spreads, evenly in logarithmic distance, from there out to four viewing distances.
    """
    rng = keyed_rng(seed, "scene/random points")
    focus, distance = _looked_at(cameras, extent_world)
    kept: list[np.ndarray] = []
    have = 0
    for _ in range(64):  # each round keeps what is in sight; rays that see almost nothing end it early
        directions = rng.normal(size=(count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        near = 0.5 * distance * np.cbrt(rng.random(count))
        far = 0.5 * distance * 8.0 ** rng.random(count)
        radius = np.where(rng.random(count) < 2 / 3, near, far)
        candidates = focus + directions * radius[:, None]
        candidates = candidates[_in_sight(candidates, cameras)]
        kept.append(candidates)
        have += len(candidates)
        if have >= count:
            break
    xyz = np.concatenate(kept)[:count]
    if not len(xyz):
        xyz = focus + 0.5 * distance * rng.uniform(-1, 1, (count, 3))
    rgb = rng.integers(0, 256, (len(xyz), 3), dtype=np.uint8)
    return PointCloud(xyz.astype(np.float32), rgb, source="random")


def _looked_at(cameras: Sequence[Camera], extent_world: float) -> tuple[np.ndarray, float]:
    """The point nearest to all optical axes and the median distance to it."""
    centers = np.array([camera.center_world for camera in cameras])
    axes = np.array([camera.camera_from_world[2, :3] for camera in cameras])
    # Least squares over the planes across each axis. The small ridge pulls towards a point ahead of the
    # cameras and decides when all axes are parallel.
    ahead = centers.mean(axis=0) + 2.0 * extent_world * axes.mean(axis=0)
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    ridge = 1e-3 * len(cameras)
    system = across.sum(axis=0) + ridge * np.eye(3)
    focus = np.linalg.solve(system, np.einsum("cij,cj->i", across, centers) + ridge * ahead)
    in_front = np.einsum("ci,ci->c", focus - centers, axes)
    if np.median(in_front) <= 0:  # cameras that look outwards
        focus = ahead
    distance = float(np.median(np.linalg.norm(focus - centers, axis=1)))
    return focus, max(distance, 0.5 * extent_world)


def _in_sight(points: np.ndarray, cameras: Sequence[Camera]) -> np.ndarray:  # [P,3] -> [P] bool
    seen = np.zeros(len(points), dtype=bool)
    for camera in cameras:
        local = points @ camera.camera_from_world[:3, :3].T + camera.camera_from_world[:3, 3]
        depth = np.maximum(local[:, 2], 1e-12)
        pixels = local[:, :2] / depth[:, None] * (camera.K[0, 0], camera.K[1, 1]) + camera.K[:2, 2]
        inside = (pixels >= 0).all(axis=1) & (pixels <= (camera.width, camera.height)).all(axis=1)
        seen |= inside & (local[:, 2] > 0)
    return seen
