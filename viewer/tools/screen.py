"""Between the page's pixels and the world, and outlines of what is drawn with the mouse. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from splat.edit.shapes import Point2
from splat.geometry.camera import Camera


def pixel(screen: Sequence[float], camera: Camera) -> Point2:
    """A place that the browser tells as a share of the canvas (0..1), in pixels of ``camera``. The browser adds half a
    pixel, so a pointer on the first pixel is at (0.5, 0.5), as everywhere in this package."""
    return float(screen[0]) * camera.width, float(screen[1]) * camera.height


def at_depth(camera: Camera, pixels: np.ndarray, depth: float | np.ndarray) -> np.ndarray:
    """[...,2] px and camera z [...] in world units -> [...,3] world."""
    pixels = np.asarray(pixels, np.float64)
    depth = np.broadcast_to(np.asarray(depth, np.float64), pixels.shape[:-1])
    ones = np.ones((*pixels.shape[:-1], 1))
    rays = np.concatenate([pixels, ones], -1) @ np.linalg.inv(camera.K).T
    pose = camera.world_from_camera
    return (rays * depth[..., None]) @ pose[:3, :3].T + pose[:3, 3]


def project(camera: Camera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World points [...,3] -> px [...,2] and camera z [...]; px means nothing where z <= 0."""
    pose = camera.camera_from_world
    seen = np.asarray(points, np.float64) @ pose[:3, :3].T + pose[:3, 3]
    depth = seen[..., 2]
    safe = np.where(depth == 0, 1e-12, depth)
    return (seen @ camera.K.T)[..., :2] / safe[..., None], depth


def in_view_plane(camera: Camera, start: Point2, end: Point2, point: np.ndarray) -> np.ndarray:
    """Where ``point [3]`` (world) goes when the pointer takes it from ``start`` to ``end`` (px) at its own depth."""
    _, depth = project(camera, point)
    before, after = at_depth(camera, np.array([start, end]), float(depth))
    return np.asarray(point, np.float64) + after - before


def thinned(points: Sequence[Point2], least_px: float = 1.0) -> list[Point2]:
    """The points of a stroke without those closer than ``least_px`` to the one kept before; both ends stay."""
    kept: list[Point2] = []
    for point in points:
        if not kept or np.hypot(point[0] - kept[-1][0], point[1] - kept[-1][1]) >= least_px:
            kept.append((float(point[0]), float(point[1])))
    last = (float(points[-1][0]), float(points[-1][1])) if points else None
    if last is not None and kept[-1] != last:
        kept.append(last)
    return kept


def rectangle(start: Point2, end: Point2) -> tuple[Point2, Point2]:
    """Least and largest corner of the rectangle between two points."""
    (x0, y0), (x1, y1) = start, end
    return (min(x0, x1), min(y0, y1)), (max(x0, x1), max(y0, y1))


def chain(points: Sequence[Point2], *, closed: bool) -> np.ndarray:
    """Segments [S,2,2] px that join the points in order."""
    line = np.asarray(points, np.float64).reshape(-1, 2)
    if len(line) < 2:
        return np.zeros((0, 2, 2))
    ends = np.roll(line, -1, axis=0) if closed else line[1:]
    return np.stack([line[: len(ends)], ends], axis=1)


def circle(center: Point2, radius: float, corners: int = 48) -> np.ndarray:
    """Segments [corners,2,2] px of a circle."""
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return chain(np.asarray(center) + radius * np.stack([np.cos(turn), np.sin(turn)], -1), closed=True)


def swept(points: Sequence[Point2], radius: float) -> np.ndarray:
    """Segments [S,2,2] px around what a disc passes over along ``points``: every disc's and link's outline, without the
    parts that lie inside another disc or link."""
    line = np.asarray(points, np.float64).reshape(-1, 2)
    pieces = [circle(tuple(point), radius, 32) for point in line]
    links = chain(line, closed=False)
    along = links[:, 1] - links[:, 0]
    length = np.linalg.norm(along, axis=-1, keepdims=True)
    across = np.stack([-along[:, 1], along[:, 0]], -1) / np.where(length == 0, 1, length) * radius
    pieces += [links + across[:, None], links - across[:, None]]
    segments = np.concatenate(pieces)
    if len(line) < 2:
        return segments
    inside = distance_to_chain(segments.mean(axis=1), links) < 0.97 * radius
    return segments[~inside]


def distance_to_chain(points: np.ndarray, links: np.ndarray) -> np.ndarray:
    """Distance [P] px of points [P,2] to the nearest of the segments [S,2,2]."""
    start, along = links[:, 0], links[:, 1] - links[:, 0]
    squared = np.maximum((along**2).sum(-1), 1e-12)
    share = np.clip((((points[:, None] - start) * along).sum(-1)) / squared, 0, 1)
    nearest = start + share[..., None] * along
    return np.linalg.norm(points[:, None] - nearest, axis=-1).min(axis=1)
