"""Lens models by their COLMAP id: names, parameter layouts, projection, and the pinhole each is resampled to.

Formulas follow COLMAP's ``sensor/models.h``. Every model is a function ``bend`` from camera-space rays to
coordinates on the image plane before focal length and principal point: ``pixel = focal * bend(ray) + centre``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Lens:
    """Intrinsics of an image file in COLMAP's convention."""

    model: str
    """COLMAP's name of the model, such as ``OPENCV``."""
    params: tuple[float, ...]
    """The parameters in COLMAP's order, pixels of ``width`` x ``height``."""
    width: int
    height: int
    """Nominal size. A file of another size is the same picture scaled, each axis by its own ratio."""
    turn: tuple[float, ...] | None = None
    """Rotation ``lens_from_pinhole`` by rows; only the sides of a panorama look elsewhere than their lens."""

    @property
    def focal_and_center(self) -> tuple[float, float, float, float]:
        """``fx, fy, cx, cy``; a panorama has its size as focal length and the corner as centre."""
        names = LENS_MODELS[self.model].params
        if names[0] == "f":
            return self.params[0], self.params[0], self.params[1], self.params[2]
        if names[0] == "w":
            return self.params[0], self.params[1], 0.0, 0.0
        return self.params[0], self.params[1], self.params[2], self.params[3]

    @property
    def bend_params(self) -> tuple[float, ...]:
        """What is left of ``params`` after focal lengths and principal point."""
        names = LENS_MODELS[self.model].params
        return self.params[{"f": 3, "w": 2}.get(names[0], 4) :]

    @property
    def is_panorama(self) -> bool:
        """True when the picture closes on itself: left and right edge meet."""
        return LENS_MODELS[self.model].params[0] == "w"

    @property
    def is_pinhole(self) -> bool:
        """True when straight lines stay straight: no resampling is needed."""
        if self.turn is not None:
            return False
        if self.model in ("SIMPLE_PINHOLE", "PINHOLE"):
            return True
        return self.model in _STRAIGHT_WHEN_ZERO and not any(self.bend_params)


@dataclass(frozen=True)
class LensModel:
    """One row of COLMAP's table of camera models."""

    id: int
    params: tuple[str, ...]
    """Parameter names in COLMAP's order."""
    bend: Callable[[np.ndarray, tuple[float, ...]], np.ndarray]  # ([N,3], extra) -> [N,2], nan where undefined


@dataclass(frozen=True, eq=False)
class Pinhole:
    """The undistorted picture of a lens."""

    K: np.ndarray  # [3,3] px
    width: int
    height: int
    fov_deg: tuple[float, float]
    """Horizontal and vertical angle that the pinhole picture covers."""
    lens_fov_deg: tuple[float, float]
    """The same for the file, measured along its axes (at most 2 x 89 degrees)."""


# The canvas keeps the size of the file unless that would cut away more than this factor of the plane.
CANVAS_SLACK = 1.1
# A longer canvas spends most of its pixels on the stretched border of a wide lens; beyond it the view is cropped.
CANVAS_LIMIT = 1.5
_FOLD_ANGLES = np.linspace(0.0, math.radians(89.0), 713)  # an eighth of a degree apart


def project(lens: Lens, rays: np.ndarray) -> np.ndarray:  # [N,3] -> [N,2]
    """Pixel of each pinhole-space ray in the lens's nominal size; nan where the lens does not see the ray."""
    fx, fy, cx, cy = lens.focal_and_center
    if lens.turn is not None:
        rays = np.asarray(rays, dtype=np.float64) @ np.reshape(lens.turn, (3, 3)).T
    with np.errstate(all="ignore"):
        plane = LENS_MODELS[lens.model].bend(np.asarray(rays, dtype=np.float64), lens.bend_params)
    return plane * (fx, fy) + (cx, cy)


@lru_cache(maxsize=256)
def fold_angle(lens: Lens) -> float:
    """Largest angle from the axis, in radians, up to which the picture moves outwards.

    Polynomial distortion turns back on itself outside of the calibrated area; pixels from behind that
    fold show the wrong place and have to be masked.
    """
    limit = float(_FOLD_ANGLES[-1])
    for turn in np.linspace(0.0, 2.0 * math.pi, 16, endpoint=False):
        outward = _outward(lens, turn)
        limit = min(limit, float(_FOLD_ANGLES[len(outward) - 1]))
    return limit


@lru_cache(maxsize=256)
def pinhole_of(lens: Lens) -> Pinhole:
    """The pinhole a lens is undistorted to: same scale at the optical axis, same principal point, same size.

    The size grows only when a wide lens would lose more than a tenth of its plane, and by at most half
    in each direction: what a still wider lens sees beyond that is cropped.
    Raises ValueError when the lens has no pinhole picture (a panorama, or broken parameters).
    """
    _, _, cx, cy = lens.focal_and_center
    if lens.is_panorama and lens.turn is None:
        raise ValueError(f"{lens.model} sees all around: no single pinhole holds it; take its panorama_sides")
    if lens.is_panorama:
        return _panorama_side(lens)
    step = 1e-4  # small against any distortion, large against rounding
    near_axis = np.array([[step, 0.0, 1.0], [0.0, step, 1.0], [0.0, 0.0, 1.0]])
    (right, _), (_, down), (centre_x, centre_y) = project(lens, near_axis)
    focal = np.array([(right - centre_x) / step, (down - centre_y) / step])
    if not (np.isfinite(focal).all() and (focal > 0).all()):
        raise ValueError(f"{lens.model} with parameters {lens.params} has no scale at its centre")
    sides = [_edge_tangent(lens, turn) for turn in (math.pi, 0.0, -math.pi / 2, math.pi / 2)]
    left, right = _canvas_sides(focal[0] * np.array(sides[:2]), cx, lens.width)
    top, bottom = _canvas_sides(focal[1] * np.array(sides[2:]), cy, lens.height)
    width, height = round(left + right), round(top + bottom)
    K = np.array([[focal[0], 0.0, left], [0.0, focal[1], top], [0.0, 0.0, 1.0]])
    covered = (_angle(left, right, focal[0]), _angle(top, bottom, focal[1]))
    seen = tuple(math.degrees(math.atan(sides[i]) + math.atan(sides[i + 1])) for i in (0, 2))
    return Pinhole(K, width, height, covered, (seen[0], seen[1]))


def panorama_sides(lens: Lens) -> dict[str, Lens]:
    """The six square pinholes of 90 degrees that together show all of a panorama, by name."""
    return {name: replace(lens, turn=tuple(turn)) for name, turn in _SIDES.items()}


def _panorama_side(lens: Lens) -> Pinhole:
    """Half the side is the focal length (90 degrees); at its centre it has the panorama's own scale."""
    size = round(lens.params[0] / math.pi)
    if size < 1:
        raise ValueError(f"{lens.model} of {lens.params[0]:g} px is too small to be cut into sides")
    half = size / 2
    return Pinhole(np.array([[half, 0, half], [0, half, half], [0, 0, 1.0]]), size, size, (90.0, 90.0), (90.0, 90.0))


def pinhole_matrix(lens: Lens) -> np.ndarray:  # [3,3]
    fx, fy, cx, cy = lens.focal_and_center
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def _angle(before: float, after: float, focal: float) -> float:
    return math.degrees(math.atan(before / focal) + math.atan(after / focal))


def _canvas_sides(needed: np.ndarray, centre: float, size: int) -> tuple[float, float]:
    """Pixels before and after the principal point along one axis."""
    own = np.array([centre, size - centre])
    if needed.sum() <= CANVAS_SLACK * size:
        return float(own[0]), float(own[1])
    grown = np.clip(needed, own, np.maximum(own, CANVAS_LIMIT * own))
    return float(grown[0]), float(grown[1])


def _outward(lens: Lens, turn: float) -> np.ndarray:  # [M], M <= len(_FOLD_ANGLES)
    """Distance on the plane at each angle along one direction, cut where it stops growing."""
    direction = np.array([math.cos(turn), math.sin(turn)])
    rays = np.column_stack([np.sin(_FOLD_ANGLES)[:, None] * direction, np.cos(_FOLD_ANGLES)])
    with np.errstate(all="ignore"):
        plane = LENS_MODELS[lens.model].bend(rays, lens.bend_params) @ direction
        stops = np.flatnonzero(~(np.diff(plane) > 0))
    return plane[: stops[0] + 1] if len(stops) else plane


def _edge_tangent(lens: Lens, turn: float) -> float:
    """Tangent of the angle at which the picture's edge is met along one axis direction."""
    fx, fy, cx, cy = lens.focal_and_center
    reach = _outward(lens, turn)
    rooms = {0: (lens.width - cx) / fx, 1: (lens.height - cy) / fy, 2: cx / fx, 3: cy / fy}
    room = rooms[round(turn / (math.pi / 2)) % 4]
    return math.tan(float(np.interp(room, reach, _FOLD_ANGLES[: len(reach)])))


def _perspective(rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    depth = np.where(rays[:, 2] > 0, rays[:, 2], np.nan)
    return rays[:, 0] / depth, rays[:, 1] / depth


def _equidistant(rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image radius equals the angle from the axis."""
    across = np.hypot(rays[:, 0], rays[:, 1])
    angle = np.arctan2(across, rays[:, 2])
    on_axis = 1.0 / np.where(rays[:, 2] > 0, rays[:, 2], np.nan)
    scale = np.where(across > 1e-12, angle / np.maximum(across, 1e-300), on_axis)
    return rays[:, 0] * scale, rays[:, 1] * scale


def _polynomial(r2: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
    """``1 + k1 r^2 + k2 r^4 + ...``"""
    total = np.zeros_like(r2)
    for coefficient in reversed(coefficients):
        total = (total + coefficient) * r2
    return 1.0 + total


def _tangential(x: np.ndarray, y: np.ndarray, p1: float, p2: float) -> tuple[np.ndarray, np.ndarray]:
    """Brown-Conrady decentring, in OpenCV's order of the two coefficients."""
    r2, xy = x * x + y * y, x * y
    return 2 * p1 * xy + p2 * (r2 + 2 * x * x), 2 * p2 * xy + p1 * (r2 + 2 * y * y)


def _bend_none(rays: np.ndarray, _: tuple[float, ...]) -> np.ndarray:
    return np.column_stack(_perspective(rays))


def _bend_radial(rays: np.ndarray, k: tuple[float, ...]) -> np.ndarray:
    x, y = _perspective(rays)
    factor = _polynomial(x * x + y * y, k)
    return np.column_stack([x * factor, y * factor])


def _bend_opencv(rays: np.ndarray, extra: tuple[float, ...]) -> np.ndarray:
    """OPENCV (k1 k2 p1 p2) and FULL_OPENCV (then k3 and the denominator k4 k5 k6)."""
    k1, k2, p1, p2, *more = extra
    x, y = _perspective(rays)
    r2 = x * x + y * y
    factor = _polynomial(r2, (k1, k2, *more[:1])) / _polynomial(r2, tuple(more[1:]))
    dx, dy = _tangential(x, y, p1, p2)
    return np.column_stack([x * factor + dx, y * factor + dy])


def _bend_fisheye(rays: np.ndarray, k: tuple[float, ...]) -> np.ndarray:
    x, y = _equidistant(rays)
    factor = _polynomial(x * x + y * y, k)
    return np.column_stack([x * factor, y * factor])


def _bend_thin_prism(rays: np.ndarray, extra: tuple[float, ...]) -> np.ndarray:
    k1, k2, p1, p2, k3, k4, sx1, sy1 = extra
    x, y = _equidistant(rays)
    r2 = x * x + y * y
    factor = _polynomial(r2, (k1, k2, k3, k4))
    dx, dy = _tangential(x, y, p1, p2)
    return np.column_stack([x * factor + dx + sx1 * r2, y * factor + dy + sy1 * r2])


def _bend_rad_tan_thin_prism(rays: np.ndarray, extra: tuple[float, ...]) -> np.ndarray:
    """Radial first; the tangential and prism terms act on the radially bent point (p0 belongs to x here)."""
    k, (p0, p1), (s0, s1, s2, s3) = extra[:6], extra[6:8], extra[8:]
    x, y = _equidistant(rays)
    factor = _polynomial(x * x + y * y, k)
    x, y = x * factor, y * factor
    r2 = x * x + y * y
    dx, dy = _tangential(x, y, p1, p0)
    return np.column_stack([x + dx + s0 * r2 + s1 * r2 * r2, y + dy + s2 * r2 + s3 * r2 * r2])


def _bend_fov(rays: np.ndarray, extra: tuple[float, ...]) -> np.ndarray:
    """Devernay and Faugeras 2001: ``r_d = atan(2 r tan(omega / 2)) / omega``."""
    (omega,) = extra
    x, y = _perspective(rays)
    r = np.hypot(x, y)
    if abs(omega) < 1e-6:
        return np.column_stack([x, y])
    spread = 2.0 * math.tan(omega / 2.0)
    factor = np.where(r > 1e-9, np.arctan(r * spread) / np.maximum(r * omega, 1e-300), spread / omega)
    return np.column_stack([x * factor, y * factor])


def _bend_division(rays: np.ndarray, extra: tuple[float, ...]) -> np.ndarray:
    """Fitzgibbon 2001: ``r_u = r_d / (1 + k r_d^2)``, solved for the smaller root."""
    (k,) = extra
    x, y = _perspective(rays)
    factor = 2.0 / (1.0 + np.sqrt(1.0 - 4.0 * k * (x * x + y * y)))
    return np.column_stack([x * factor, y * factor])


def _bend_eucm(rays: np.ndarray, extra: tuple[float, ...]) -> np.ndarray:
    """Enhanced unified camera model (Khomutenko et al. 2016)."""
    alpha, beta = extra
    x, y, z = rays.T
    depth = alpha * np.sqrt(beta * (x * x + y * y) + z * z) + (1.0 - alpha) * z
    depth = np.where(depth > 0, depth, np.nan)
    return np.column_stack([x / depth, y / depth])


def _bend_panorama(rays: np.ndarray, _: tuple[float, ...]) -> np.ndarray:
    """Longitude and latitude as fractions of the picture."""
    x, y, z = rays.T
    longitude = np.arctan2(x, z) / (2.0 * math.pi) + 0.5
    latitude = np.arctan2(y, np.hypot(x, z)) / math.pi + 0.5
    return np.column_stack([longitude, latitude])


# Rows of lens_from_pinhole: where the pinhole's x (right), y (down) and z (ahead) lie in the panorama's axes.
_SIDES: dict[str, tuple[float, ...]] = {
    "front": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    "right": (0, 0, 1, 0, 1, 0, -1, 0, 0),
    "back": (-1, 0, 0, 0, 1, 0, 0, 0, -1),
    "left": (0, 0, -1, 0, 1, 0, 1, 0, 0),
    "up": (1, 0, 0, 0, 0, -1, 0, 1, 0),
    "down": (1, 0, 0, 0, 0, 1, 0, -1, 0),
}
_F, _FXY = ("f", "cx", "cy"), ("fx", "fy", "cx", "cy")
_OPENCV = ("k1", "k2", "p1", "p2")
_RTTP = ("k0", "k1", "k2", "k3", "k4", "k5", "p0", "p1", "s0", "s1", "s2", "s3")

LENS_MODELS: dict[str, LensModel] = {
    "SIMPLE_PINHOLE": LensModel(0, _F, _bend_none),
    "PINHOLE": LensModel(1, _FXY, _bend_none),
    "SIMPLE_RADIAL": LensModel(2, (*_F, "k"), _bend_radial),
    "RADIAL": LensModel(3, (*_F, "k1", "k2"), _bend_radial),
    "OPENCV": LensModel(4, (*_FXY, *_OPENCV), _bend_opencv),
    "OPENCV_FISHEYE": LensModel(5, (*_FXY, "k1", "k2", "k3", "k4"), _bend_fisheye),
    "FULL_OPENCV": LensModel(6, (*_FXY, *_OPENCV, "k3", "k4", "k5", "k6"), _bend_opencv),
    "FOV": LensModel(7, (*_FXY, "omega"), _bend_fov),
    "SIMPLE_RADIAL_FISHEYE": LensModel(8, (*_F, "k"), _bend_fisheye),
    "RADIAL_FISHEYE": LensModel(9, (*_F, "k1", "k2"), _bend_fisheye),
    "THIN_PRISM_FISHEYE": LensModel(10, (*_FXY, *_OPENCV, "k3", "k4", "sx1", "sy1"), _bend_thin_prism),
    "RAD_TAN_THIN_PRISM_FISHEYE": LensModel(11, (*_FXY, *_RTTP), _bend_rad_tan_thin_prism),
    "SIMPLE_DIVISION": LensModel(12, (*_F, "k"), _bend_division),
    "DIVISION": LensModel(13, (*_FXY, "k"), _bend_division),
    "SIMPLE_FISHEYE": LensModel(14, _F, _bend_fisheye),
    "FISHEYE": LensModel(15, _FXY, _bend_fisheye),
    "EUCM": LensModel(16, (*_FXY, "alpha", "beta"), _bend_eucm),
    "EQUIRECTANGULAR": LensModel(17, ("w", "h"), _bend_panorama),
}
LENS_NAMES_BY_ID: dict[int, str] = {model.id: name for name, model in LENS_MODELS.items()}
_STRAIGHT_WHEN_ZERO = ("SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "SIMPLE_DIVISION", "DIVISION")
