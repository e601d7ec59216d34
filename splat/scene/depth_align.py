"""Depth from what a capture knows already: its points fix a depth map's scale, or become one (specs: densifiers 2.2,
R3). Arrays only; nothing here reads a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from splat.geometry.camera import Camera

DepthKind = Literal["disparity", "depth"]
"""What a map's values are affine in: inverse depth, or depth."""

FEWEST_INLIERS = 50
LOWEST_INLIER_RATIO = 0.6
_INLIER = 0.1  # relative error of depth up to which a point agrees with the map
_HUBER = 1.345  # in standard deviations: 95 % of least squares where nothing is wrong
_SIGMA_OF_MAD = 1.4826
_ROUNDS = 20
_FEWEST_POINTS, _LEAST_SPREAD = 10, 1e-3  # below, a fit means nothing (the gates of Inria's depth script)
_HIDDEN_CELLS, _HIDDEN = 32, 1.1  # a point this much behind the nearest one of its cell is hidden by it
_EDGE = 0.05  # relative jump of depth between neighbours that is an edge
_SIGMA_BLOCKS = 2.0  # standard deviation of the kernels, in blocks of these sizes
_BLOCKS_PX = (1, 2, 4, 8)
_ENOUGH_WEIGHT = 4.0  # points (in units of the kernel's peak) that a local plane is fitted to
_FAR_FROM_PLANE = 0.06  # relative: spread of the points about their plane where no depth is said


@dataclass(frozen=True)
class Alignment:
    """``a d + b`` is the inverse depth (or the depth) of value ``d``."""

    a: float
    b: float
    inliers: int
    count: int
    error: float = float("inf")
    """Median relative error at the points."""

    @property
    def ratio(self) -> float:
        return self.inliers / max(self.count, 1)

    @property
    def is_sound(self) -> bool:
        return self.a > 0 and self.inliers >= FEWEST_INLIERS and self.ratio >= LOWEST_INLIER_RATIO


def align(values: np.ndarray, depths: np.ndarray, kind: DepthKind) -> Alignment | None:  # [P], [P] world units
    """Robust affine fit of a map's values at points of known depth; None when there is nothing to fit.

    Starts from medians and their absolute deviations, then Huber's iteratively reweighted least squares on the
    *relative* error, which is what a ratio of depths feels, and at last on the inliers alone.
    """
    good = np.isfinite(values) & np.isfinite(depths) & (depths > 0)
    x, y = values[good].astype(np.float64), depths[good].astype(np.float64)
    if kind == "disparity":
        y = 1.0 / y
    if len(x) <= _FEWEST_POINTS:
        return None
    # A wall seen head-on fills more than half of many pictures: then the deviation from the median is nothing.
    spreads = ((_mad(x), _mad(y)), (_range(x), _range(y)))
    floor_x, floor_y = _LEAST_SPREAD * np.abs(x).max(), _LEAST_SPREAD * np.median(y)
    start = next(((over_x, over_y) for over_x, over_y in spreads if over_x > floor_x and over_y > floor_y), None)
    if start is None:
        return None
    a = start[1] / start[0]
    b = float(np.median(y) - a * np.median(x))
    for trimmed in (False, True):
        for _ in range(_ROUNDS):
            error = (a * x + b) / y - 1
            limit = _HUBER * max(_SIGMA_OF_MAD * float(np.median(np.abs(error))), 1e-4)
            weight = np.minimum(1.0, limit / np.maximum(np.abs(error), 1e-12))
            if trimmed:
                weight = (np.abs(error) <= max(_INLIER, limit)).astype(np.float64)
            fitted = _line(x, y, weight)
            if fitted is None:
                break
            a, b = fitted
    errors = np.abs((a * x + b) / y - 1)
    return Alignment(a, b, int((errors <= _INLIER).sum()), len(x), float(np.median(errors)))


def aligned_depth(values: np.ndarray, kind: DepthKind, alignment: Alignment) -> np.ndarray:  # [h,w] -> [h,w]
    """World depth; 0 where the fit leaves none (behind the camera, or beyond every point by far)."""
    line = alignment.a * values.astype(np.float64) + alignment.b
    if kind == "depth":
        return np.where(np.isfinite(line) & (line > 0), line, 0.0).astype(np.float32)
    smallest = 1e-3 * np.nanmax(np.where(np.isfinite(line), line, np.nan), initial=0.0)
    known = np.isfinite(line) & (line > max(smallest, 1e-12))
    return np.where(known, 1.0 / np.where(known, line, 1.0), 0.0).astype(np.float32)


def visible_points(xyz: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:  # [P,3] -> [V,2] px, [V]
    """Pixels and depths of the points in the picture that no nearer point hides.

    A capture's points come without their tracks here; of each cell of the picture, those near its nearest point stay.
    """
    local = xyz.astype(np.float64) @ camera.camera_from_world[:3, :3].T + camera.camera_from_world[:3, 3]
    ahead = local[:, 2] > 1e-6
    local = local[ahead]
    pixels = local[:, :2] / local[:, 2:] * np.diag(camera.K)[:2] + camera.K[:2, 2]
    size = np.array([camera.width, camera.height])
    inside = ((pixels >= 0) & (pixels < size)).all(axis=1)
    pixels, depths = pixels[inside], local[inside, 2]
    cells = (pixels * (_HIDDEN_CELLS / max(size))).astype(np.int64)
    keys = cells[:, 1] * _HIDDEN_CELLS + cells[:, 0]
    nearest = np.full(_HIDDEN_CELLS**2, np.inf)
    np.minimum.at(nearest, keys, depths)
    seen = depths <= _HIDDEN * nearest[keys]
    return pixels[seen], depths[seen]


def densified(pixels: np.ndarray, depths: np.ndarray, width: int, height: int) -> np.ndarray:  # [V,2] -> [h,w]
    """A depth map through scattered points: inverse depth as a local plane (what flat surfaces are in a picture), by
    weighted least squares at the finest of several scales with enough points; 0 where they do not lie on one."""
    if len(depths) == 0:
        return np.zeros((height, width), np.float32)
    inverse = _local_planes(pixels, 1.0 / depths, width, height)
    columns = np.clip(pixels[:, 0].astype(np.int64), 0, width - 1)
    rows = np.clip(pixels[:, 1].astype(np.int64), 0, height - 1)
    fitted = inverse[rows, columns]
    good = (fitted <= 0) | (np.abs(fitted * depths - 1) <= _INLIER)  # where nothing was fitted, a point may still help
    inverse = _local_planes(pixels[good], 1.0 / depths[good], width, height)
    return np.where(inverse > 0, 1.0 / np.where(inverse > 0, inverse, 1.0), 0.0).astype(np.float32)


def _local_planes(pixels: np.ndarray, values: np.ndarray, width: int, height: int) -> np.ndarray:  # [h,w]
    """Value at each pixel's centre of the plane through the points around it; 0 where there is none."""
    x, y = pixels[:, 0] - 0.5, pixels[:, 1] - 0.5
    terms = (np.ones_like(x), x, y, x * x, x * y, y * y, values, values * x, values * y, values * values)
    found = np.zeros((height, width))
    left = np.ones((height, width), dtype=bool)
    grid_y, grid_x = np.mgrid[:height, :width].astype(np.float64)
    for block in _BLOCKS_PX:
        sigma = _SIGMA_BLOCKS * block
        m = [_blurred(pixels, term, width, height, block=block) for term in terms]
        value, usable = _plane_at(m, grid_x, grid_y, sigma)
        enough = left & (m[0] >= _ENOUGH_WEIGHT)
        found[enough & usable] = value[enough & usable]
        left &= ~enough  # points that lie on no plane are an edge: a coarser scale would only smear it
    return found


def _blurred(pixels: np.ndarray, term: np.ndarray, width: int, height: int, *, block: int) -> np.ndarray:  # [h,w]
    """Gaussian-weighted sums of a term of the points about each pixel; a point weighs 1 at its own place. Wide kernels
    work on sums over blocks, which changes the weights a little and what is summed not at all."""
    columns, rows = -(-width // block), -(-height // block)
    column = np.clip((pixels[:, 0] / block).astype(np.int64), 0, columns - 1)
    row = np.clip((pixels[:, 1] / block).astype(np.int64), 0, rows - 1)
    sums = np.bincount(row * columns + column, weights=term, minlength=rows * columns).reshape(rows, columns)
    blurred = cv2.GaussianBlur(sums, (0, 0), _SIGMA_BLOCKS, borderType=cv2.BORDER_CONSTANT)
    whole = cv2.resize(blurred, (columns * block, rows * block), interpolation=cv2.INTER_LINEAR)
    return whole[:height, :width] * (2 * np.pi * _SIGMA_BLOCKS**2)


def _plane_at(m: list[np.ndarray], x: np.ndarray, y: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """(value, usable) at (x, y) of the weighted least-squares plane with these moments."""
    weight = np.maximum(m[0], 1e-12)
    mx, my, mv = m[1] / weight, m[2] / weight, m[6] / weight
    xx, xy, yy = m[3] / weight - mx * mx, m[4] / weight - mx * my, m[5] / weight - my * my
    vx, vy, vv = m[7] / weight - mv * mx, m[8] / weight - mv * my, m[9] / weight - mv * mv
    damping = 0.003 * sigma**2  # points on one line leave the slope across it open: then it is 0
    xx, yy = xx + damping, yy + damping
    determinant = np.maximum(xx * yy - xy * xy, 1e-12)
    slope_x, slope_y = (vx * yy - vy * xy) / determinant, (vy * xx - vx * xy) / determinant
    away = np.hypot(x - mx, y - my)
    value = mv + slope_x * (x - mx) + slope_y * (y - my)
    spread = np.sqrt(np.maximum(vv - slope_x * vx - slope_y * vy, 0))
    return value, (value > 0) & (spread <= _FAR_FROM_PLANE * np.abs(value)) & (away <= sigma)


def normals_of(depth: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:  # [h,w] -> [h,w,3], [h,w] bool
    """Unit normals in the world, towards the camera, by the cross product of neighbouring points; invalid across
    edges of depth. ``camera`` has the map's size."""
    height, width = depth.shape
    v, u = np.mgrid[:height, :width] + 0.5
    rays = np.stack([(u - camera.K[0, 2]) / camera.K[0, 0], (v - camera.K[1, 2]) / camera.K[1, 1], np.ones_like(u)], 2)
    points = rays * depth[..., None]
    valid = np.zeros((height, width), dtype=bool)
    normals = np.zeros((height, width, 3), dtype=np.float32)
    if height < 3 or width < 3:
        return normals, valid
    middle = depth[1:-1, 1:-1]
    around = (depth[1:-1, :-2], depth[1:-1, 2:], depth[:-2, 1:-1], depth[2:, 1:-1])
    flat = middle > 0
    for neighbour in around:
        flat &= (neighbour > 0) & (np.abs(neighbour - middle) <= _EDGE * middle)
    across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
    normal = np.cross(down, across)  # x right, y down, z ahead: this one looks back at the camera
    length = np.linalg.norm(normal, axis=2)
    flat &= length > 1e-20
    normal = normal / np.maximum(length, 1e-20)[..., None] @ camera.camera_from_world[:3, :3]
    normals[1:-1, 1:-1] = np.where(flat[..., None], normal, 0.0)
    valid[1:-1, 1:-1] = flat
    return normals, valid


def _mad(values: np.ndarray) -> float:
    return float(np.median(np.abs(values - np.median(values))))


def _range(values: np.ndarray) -> float:
    """From the 5th to the 95th percentile."""
    low, high = np.quantile(values, (0.05, 0.95))
    return float(high - low)


def _line(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[float, float] | None:
    """Least squares of ``(a x + b) / y - 1``."""
    weight = weight / (y * y)
    total = weight.sum()
    if not total > 0:
        return None
    mx, my = (weight * x).sum() / total, (weight * y).sum() / total
    spread = (weight * (x - mx) ** 2).sum()
    if not spread > 0:
        return None
    a = float((weight * (x - mx) * (y - my)).sum() / spread)
    return a, float(my - a * mx)
