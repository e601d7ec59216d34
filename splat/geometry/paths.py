"""Camera paths made from a capture's cameras: along them, or once around what they look at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from splat.errors import UserError
from splat.geometry.camera import Camera

KEYFRAMES = 24
"""Photographs an interpolated path passes through by default: hand-held captures shake from one to the next."""
MAX_ORBIT_GAP_DEG = 200.0
"""A capture with a larger gap than this, seen from what it looks at, is one-sided."""


def interpolated_path(
    cameras: Sequence[Camera], frames: int, *, keyframes: int | None = KEYFRAMES
) -> tuple[Camera, ...]:
    """``frames`` views on a smooth curve through ``cameras`` in the order of their names, at even speed.

    Positions and rotations follow Catmull-Rom splines whose knots are spaced by distance (centripetal, so that
    the curve neither loops nor overshoots). ``keyframes`` keeps that many evenly chosen cameras, None keeps all.
    """
    ordered = sorted(cameras, key=lambda camera: camera.name)
    _check(ordered, frames)
    if keyframes is not None and len(ordered) > keyframes >= 2:
        ordered = [ordered[round(i)] for i in np.linspace(0, len(ordered) - 1, keyframes)]
    positions = np.stack([camera.center_world for camera in ordered])  # [n,3]
    quats = _continuous([_quat_from_matrix(camera.world_from_camera[:3, :3]) for camera in ordered])  # [n,4]
    intrinsics = np.stack([_relative_intrinsics(camera) for camera in ordered])  # [n,4]
    values = np.concatenate([positions, quats, intrinsics], axis=1)
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    floor = max(steps.max(initial=0.0) * 1e-3, 1e-9)  # two photographs from one spot still need distinct knots
    knots = np.concatenate([[0.0], np.cumsum(np.sqrt(np.maximum(steps, floor)))])
    samples = _even_speed(knots, values, frames)
    rotations = [_matrix_from_quat(row[3:7]) for row in samples]
    return tuple(
        _camera(ordered, f"path_{i:05d}", row[:3], rotation, row[7:])
        for i, (row, rotation) in enumerate(zip(samples, rotations, strict=True))
    )


def orbit_path(cameras: Sequence[Camera], frames: int, *, turns: float = 1.0) -> tuple[Camera, ...]:
    """``frames`` views on an ellipse fitted to the camera positions, looking at what the cameras look at.

    Where the photographs surround that point, the ellipse does too; where they were all taken from one side, it
    stays on that side, close to views that were trained on.
    """
    cameras = list(cameras)
    _check(cameras, frames)
    target, up = focus_point(cameras), up_direction(cameras)
    positions = np.stack([camera.center_world for camera in cameras])
    mean = positions.mean(0)
    center = target + up * ((mean - target) @ up) if _surrounds(positions - target, up) else mean
    flat = (positions - center) - np.outer((positions - center) @ up, up)  # [n,3] in the plane of the orbit
    _, spread, axes = np.linalg.svd(flat, full_matrices=True)
    major = axes[0] if spread[0] > 1e-9 else _any_perpendicular(up)
    minor = np.cross(up, major)
    radii = _ellipse_radii(flat @ major, flat @ minor, least=0.05 * float(np.linalg.norm(target - mean)))
    start = math.atan2((flat[0] @ minor) / radii[1], (flat[0] @ major) / radii[0])
    lens = _median_lens(cameras)
    views = []
    for i in range(frames):
        angle = start + 2 * math.pi * turns * i / frames
        position = center + radii[0] * math.cos(angle) * major + radii[1] * math.sin(angle) * minor
        views.append(_camera(cameras, f"orbit_{i:05d}", position, look_at(position, target, up), lens))
    return tuple(views)


def _surrounds(offsets: np.ndarray, up: np.ndarray) -> bool:  # [n,3] from the target
    """Whether the positions, seen from the target, leave no gap of half a turn or more (with some slack)."""
    if len(offsets) < 3:
        return False
    right = _any_perpendicular(up)
    angles = np.sort(np.arctan2(offsets @ np.cross(up, right), offsets @ right))
    gaps = np.diff(np.append(angles, angles[0] + 2 * math.pi))
    return float(gaps.max()) < math.radians(MAX_ORBIT_GAP_DEG)


def _ellipse_radii(x: np.ndarray, y: np.ndarray, *, least: float) -> tuple[float, float]:
    """Semi-axes of the ellipse around the origin that fits points (x, y), ``least`` at least.

    Least squares on x^2 / a^2 + y^2 / b^2 = 1; where the points are no ellipse, their spread: points spread
    evenly over one have variance a^2 / 2 along its axis.
    """
    inverse, *_ = np.linalg.lstsq(np.stack([x**2, y**2], axis=1), np.ones(len(x)), rcond=None)
    spread = math.sqrt(2 * float((x**2).mean())), math.sqrt(2 * float((y**2).mean()))
    fitted = 1 / np.sqrt(np.maximum(inverse, 1e-12))
    is_ellipse = (inverse > 0).all() and all(0.5 < f / max(s, 1e-12) < 2 for f, s in zip(fitted, spread, strict=True))
    a, b = fitted if is_ellipse else spread
    return max(float(a), least, 1e-6), max(float(b), least, 1e-6)


def focus_point(cameras: Sequence[Camera]) -> np.ndarray:  # [3]
    """The point closest to all optical axes; in front of the cameras where the axes are nearly parallel."""
    centers = np.stack([camera.center_world for camera in cameras])
    forward = np.stack([camera.camera_from_world[2, :3] for camera in cameras])
    # Minimise sum |(I - f f^T)(p - c)|^2. The small pull towards a point ahead decides when the axes do not.
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]  # [n,3,3]
    ahead = centers.mean(0) + forward.mean(0) * max(float(np.linalg.norm(centers.std(0))), 1e-3) * 2
    pull = 1e-4 * len(cameras)
    system = across.sum(0) + pull * np.eye(3)
    target = np.linalg.solve(system, (across @ centers[:, :, None]).sum(0)[:, 0] + pull * ahead)
    depth = ((target - centers) * forward).sum(1)
    return target if np.median(depth) > 0 else ahead


def up_direction(cameras: Sequence[Camera]) -> np.ndarray:  # [3]
    """The mean of the cameras' up axes (unit length; image y points down)."""
    up = -np.stack([camera.camera_from_world[1, :3] for camera in cameras]).mean(0)
    length = np.linalg.norm(up)
    return up / length if length > 1e-6 else -cameras[0].camera_from_world[1, :3]


def look_at(position: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:  # [3,3]
    """World-from-camera rotation of a camera at ``position`` that sees ``target`` in its centre."""
    forward = np.asarray(target, np.float64) - position
    forward = forward / max(float(np.linalg.norm(forward)), 1e-12)
    right = np.cross(forward, up)
    if np.linalg.norm(right) < 1e-6:  # looking along up
        right = _any_perpendicular(forward)
    right = right / np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward], axis=1)


def _even_speed(knots: np.ndarray, values: np.ndarray, frames: int) -> np.ndarray:  # [frames,11]
    """Spline samples at equal arc length of position."""
    dense = np.linspace(knots[0], knots[-1], max(frames * 8, 256))
    curve = _catmull_rom(knots, values, dense)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve[:, :3], axis=0), axis=1))])
    if length[-1] < 1e-9:
        return _catmull_rom(knots, values, np.linspace(knots[0], knots[-1], frames))
    wanted = np.linspace(0, length[-1], frames)
    return _catmull_rom(knots, values, np.interp(wanted, length, dense))


def _catmull_rom(knots: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Cubic Hermite interpolation of ``values`` [n,D] with non-uniform Catmull-Rom tangents."""
    if len(knots) == 1:
        return np.repeat(values, len(at), axis=0)
    gaps = np.diff(knots)[:, None]
    slopes = np.diff(values, axis=0) / gaps  # [n-1,D]
    tangents = np.empty_like(values)
    tangents[1:-1] = (slopes[:-1] * gaps[1:] + slopes[1:] * gaps[:-1]) / (gaps[1:] + gaps[:-1])
    tangents[0], tangents[-1] = slopes[0], slopes[-1]
    segment = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(gaps) - 1)
    t = ((at - knots[segment]) / gaps[segment, 0])[:, None]
    a, b, gap = values[segment], values[segment + 1], gaps[segment]
    from_a, from_b = tangents[segment] * gap, tangents[segment + 1] * gap
    return (
        a * (2 * t**3 - 3 * t**2 + 1) + b * (3 * t**2 - 2 * t**3)
        + from_a * (t**3 - 2 * t**2 + t) + from_b * (t**3 - t**2)
    )  # fmt: skip


def _camera(
    cameras: Sequence[Camera], name: str, position: np.ndarray, world_from_camera: np.ndarray, lens: np.ndarray
) -> Camera:
    """A pathless camera of the capture's most common picture size; ``lens`` is relative to that size."""
    ((width, height), _), *_ = Counter((camera.width, camera.height) for camera in cameras).most_common(1)
    camera_from_world = np.eye(4)
    camera_from_world[:3, :3] = world_from_camera.T
    camera_from_world[:3, 3] = -world_from_camera.T @ position
    fx, fy, cx, cy = lens
    intrinsics = np.array([[fx * height, 0, cx * width], [0, fy * height, cy * height], [0, 0, 1]])
    return Camera(name, camera_from_world, intrinsics, width, height, background=cameras[0].background)


def _relative_intrinsics(camera: Camera) -> np.ndarray:  # [4]
    """fx, fy over the height, cx over the width, cy over the height."""
    matrix = camera.K
    return np.array([
        matrix[0, 0] / camera.height, matrix[1, 1] / camera.height,
        matrix[0, 2] / camera.width, matrix[1, 2] / camera.height,
    ])  # fmt: skip


def _median_lens(cameras: Sequence[Camera]) -> np.ndarray:
    return np.median([_relative_intrinsics(camera) for camera in cameras], axis=0)


def _check(cameras: Sequence[Camera], frames: int) -> None:
    if not cameras:
        raise UserError("a camera path needs at least one camera, the capture has none")
    if frames < 1:
        raise UserError(f"a camera path needs at least one frame, got {frames}")


def _any_perpendicular(axis: np.ndarray) -> np.ndarray:
    other = np.eye(3)[int(np.argmin(np.abs(axis)))]
    perpendicular = np.cross(axis, other)
    return perpendicular / np.linalg.norm(perpendicular)


def _continuous(quats: list[np.ndarray]) -> np.ndarray:  # [n,4]
    """The same rotations with signs chosen so that neighbours are close (q and -q turn alike)."""
    table = np.stack(quats)
    for i in range(1, len(table)):
        if table[i] @ table[i - 1] < 0:
            table[i] = -table[i]
    return table


def _quat_from_matrix(matrix: np.ndarray) -> np.ndarray:  # [3,3] -> [4] wxyz
    """The eigenvector of Bar-Itzhack's (2000) symmetric matrix; robust where the trace formula is not."""
    m = matrix
    symmetric = np.array([
        [m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
        [m[2, 1] - m[1, 2], m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
        [m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], m[1, 2] + m[2, 1]],
        [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1]],
    ])  # fmt: skip
    _, vectors = np.linalg.eigh(symmetric)
    return vectors[:, -1]


def _matrix_from_quat(quat: np.ndarray) -> np.ndarray:  # [4] wxyz, any length -> [3,3]
    w, x, y, z = quat / max(float(np.linalg.norm(quat)), 1e-12)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
