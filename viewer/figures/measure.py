"""Measuring in a picture: what lies under a pixel, and what follows from points."""

from __future__ import annotations

import numpy as np

from splat.errors import UserError
from splat.geometry.camera import Camera


def ray_point(camera: Camera, x_px: float, y_px: float, depth: float) -> np.ndarray:  # [3]
    """The point at ``depth`` (along the camera's z) behind a pixel, in the camera's world."""
    local = np.linalg.solve(camera.K, np.array([x_px, y_px, 1.0])) * depth
    return camera.world_from_camera[:3, :3] @ local + camera.center_world


def surface_point(camera: Camera, depth: np.ndarray, x: float, y: float) -> np.ndarray | None:  # [H,W] -> [3]
    """What is seen at (``x``, ``y``), shares of width and height; None where nothing is. ``depth`` along z, 0 =
    nothing."""
    height, width = depth.shape
    column, row = min(max(int(x * width), 0), width - 1), min(max(int(y * height), 0), height - 1)
    found = float(depth[row, column])
    if not np.isfinite(found) or found <= 0:
        return None
    return ray_point(camera, x * camera.width, y * camera.height, found)


def distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(second) - np.asarray(first)))


def normal_of(points: np.ndarray, towards: np.ndarray) -> np.ndarray:  # [3,3], [3] -> [3]
    """Unit normal of the plane through three points, on the side of ``towards`` (a place). UserError when they lie on
    a line."""
    first, second = points[1] - points[0], points[2] - points[0]
    normal = np.cross(first, second)
    length = np.linalg.norm(normal)
    if length < 1e-3 * max(np.linalg.norm(first) * np.linalg.norm(second), 1e-12):
        raise UserError("three points on a line span no plane: choose them farther from a line")
    normal = normal / length
    return normal if normal @ (towards - points[0]) >= 0 else -normal


def scale_from(known: float, measured: float) -> float:
    """Factor that makes a measured length the known one. UserError where there is none."""
    if not (np.isfinite(known) and known > 0):
        raise UserError(f"a known length of {known:g} does not fit: above 0")
    if not (np.isfinite(measured) and measured > 0):
        raise UserError("the two points are in one place")
    return known / measured
