"""Where do several views miss the same thing? Windows of largest error, and what lies in more than one of them.

Two definitions of "the same" (specs: densifiers 4.1 CRD, 4.4): a splat that is drawn into the windows of several
views, or a box that the corner rays of two windows span. The second knows nothing of what hides what, so it is gated:
rays that pass each other, meet behind a camera or span something large give no box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from splat.densify.protocol import Look, Probe
from splat.geometry.camera import Camera

_ERROR_STEPS = 2**24
"""Errors are rounded to this many steps before they are summed: running sums of integers are exact, so the same
window wins on every device and number of threads. 2^39 pixels fit into 63 bits."""
_LEAST_SIDE_PX = 3
_PARALLEL = 1e-12
"""Squared sine below which two rays have no common perpendicular worth the name."""


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels, the last column and row excluded."""

    left: int
    top: int
    width: int
    height: int

    def mask(self, height: int, width: int, device: torch.device | str = "cpu") -> Tensor:  # [H,W] 0 or 1
        inside = torch.zeros(height, width, device=device)
        inside[self.top : self.top + self.height, self.left : self.left + self.width] = 1
        return inside

    def corners(self) -> np.ndarray:  # [4,2] px: top left, top right, bottom left, bottom right
        """Outer corners of the corner pixels."""
        right, bottom = self.left + self.width, self.top + self.height
        return np.array([[self.left, self.top], [right, self.top], [self.left, bottom], [right, bottom]], np.float64)


@dataclass(frozen=True, eq=False)
class Box:
    """Axis-aligned, world units."""

    low: np.ndarray  # [3]
    high: np.ndarray  # [3]

    def holds(self, points: Tensor) -> Tensor:  # [N,3] -> [N] bool
        low, high = (torch.as_tensor(end, dtype=points.dtype, device=points.device) for end in (self.low, self.high))
        return ((points >= low) & (points <= high)).all(dim=1)


@dataclass(frozen=True)
class Gates:
    """What two windows must fulfil to be of one thing."""

    near: float
    """Least distance of a crossing from both cameras, world units."""
    gap_px: float
    """Largest distance between two corner rays, in pixels of either camera at the crossing's depth."""
    diagonal: float
    """Largest diagonal of the box, world units."""


# -- windows ---------------------------------------------------------------------------------------------------------


def pixel_error(color: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:  # [H,W,3] x 2, [H,W] -> [H,W]
    """Mean absolute difference over the channels; 0 where the mask is."""
    error = (color - target).abs().mean(dim=2)
    return error if mask is None else error * mask


def worst_window(error: Tensor, *, share: float) -> Window | None:  # [H,W] in 0..1
    """The window of ``share`` of each side of the picture whose mean error is largest (the upper left of equals);
    None where there is no error at all."""
    height, width = error.shape
    rows, columns = (min(max(round(side * share), _LEAST_SIDE_PX), side) for side in (height, width))
    steps = (error.double().nan_to_num(0.0).clamp(0, 1) * _ERROR_STEPS).round().to(torch.int64)
    running = torch.zeros(height + 1, width + 1, dtype=torch.int64, device=error.device)
    running[1:, 1:] = steps.cumsum(0).cumsum(1)
    bands = running[rows:] - running[:-rows]
    sums = (bands[:, columns:] - bands[:, :-columns]).cpu()
    largest = int(sums.max())
    if largest <= 0:
        return None
    top, left = (sums == largest).nonzero()[0].tolist()
    return Window(left, top, columns, rows)


@dataclass(frozen=True, eq=False)
class Sighting:
    """The worst window of one training view, and how much each splat is drawn into it."""

    view: int
    window: Window
    blend: Tensor  # [N] sum of the blend weights over the window's pixels
    width: int
    height: int


def sighting(probe: Probe, view: int, *, share: float) -> Sighting | None:
    """Look at a view and at its worst window; None where the picture has no error."""
    found: list[Window | None] = []

    def worst(color: Tensor, target: Tensor) -> Tensor:  # -> [1,H,W]
        found.append(worst_window(pixel_error(color, target), share=share))
        return _window_map(found[-1], color)

    look = probe.look(view, stats=frozenset({"weighted_blend"}), maps=worst)
    window = found[-1]
    if look.mask is not None:
        window = worst_window(pixel_error(look.color, look.target, look.mask), share=share)
        if window is not None and window != found[-1]:  # the first choice lay where nothing counts
            look = _look_again(probe, view, window)
    if window is None:
        return None
    return Sighting(view, window, _blend_of(look), look.width, look.height)


def _look_again(probe: Probe, view: int, window: Window) -> Look:
    return probe.look(
        view, stats=frozenset({"weighted_blend"}), maps=lambda color, target: _window_map(window, color)
    )  # fmt: skip


def _window_map(window: Window | None, picture: Tensor) -> Tensor:  # [H,W,3] -> [1,H,W]
    height, width = picture.shape[:2]
    if window is None:
        return torch.zeros(1, height, width, device=picture.device)
    return window.mask(height, width, picture.device)[None]


def _blend_of(look: Look) -> Tensor:  # [N]
    blend = look.stats.weighted_blend
    if blend is None:
        raise ValueError("the probe was asked for weighted_blend and did not deliver it")
    return blend[0, 0]


# -- the same splats -------------------------------------------------------------------------------------------------


def seen_together(sightings: Sequence[Sighting], *, least_blend: float) -> tuple[Tensor, Tensor] | None:
    """Splats drawn with more than ``least_blend`` (a sum over pixels) into the windows of two views or more [N] bool,
    and how much: the second largest of their sums [N]. None with fewer than two sightings."""
    if len(sightings) < 2:
        return None
    second = torch.stack([one.blend for one in sightings]).topk(2, dim=0).values[1]
    return second > least_blend, second


# -- the same place --------------------------------------------------------------------------------------------------


def boxes_of(sightings: Sequence[Sighting], cameras: Sequence[Camera], gates: Gates) -> list[Box]:
    """Boxes of all pairs of windows that pass the gates; ``cameras`` are those of all training views."""
    seen = [(cameras[one.view].resized(one.width, one.height), one.window) for one in sightings]
    pairs = ((first, second) for place, first in enumerate(seen) for second in seen[place + 1 :])
    boxes = (crossed_box(*first, *second, gates) for first, second in pairs)
    return [box for box in boxes if box is not None]


def crossed_box(
    first: Camera, first_window: Window, second: Camera, second_window: Window, gates: Gates
) -> Box | None:  # fmt: skip
    """The box around the points where matching corner rays of two windows pass each other, or None where a gate
    closes."""
    ours, theirs = corner_rays(first, first_window), corner_rays(second, second_window)
    crossings = [ray_crossing(*our, *their) for our, their in zip(ours, theirs, strict=True)]
    points = [found.point for found in crossings if found is not None and _passes(found, first, second, gates)]
    if len(points) < len(ours):
        return None
    low, high = np.min(points, axis=0), np.max(points, axis=0)
    return Box(low, high) if np.linalg.norm(high - low) <= gates.diagonal else None


def corner_rays(camera: Camera, window: Window) -> list[tuple[np.ndarray, np.ndarray]]:
    """Origin [3] and unit direction [3], world, of the rays through the window's four corners."""
    pixels = np.concatenate([window.corners(), np.ones((4, 1))], axis=1)
    directions = pixels @ np.linalg.inv(camera.K).T @ camera.world_from_camera[:3, :3].T
    return [(camera.center_world, direction / np.linalg.norm(direction)) for direction in directions]


@dataclass(frozen=True, eq=False)
class Crossing:
    """Where two rays pass each other."""

    point: np.ndarray  # [3] middle of the common perpendicular
    gap: float
    """Length of the perpendicular, world units."""
    along: tuple[float, float]
    """Distance from either origin; negative behind it."""


def ray_crossing(
    origin_a: np.ndarray, direction_a: np.ndarray, origin_b: np.ndarray, direction_b: np.ndarray
) -> Crossing | None:  # fmt: skip
    """Common perpendicular of two lines of unit direction; None for parallel ones.

    From (a + s u - b - t v) . u = 0 and . v = 0, with c = u.v and w = b - a: s = (w.u - c w.v) / (1 - c^2) and
    t = (c w.u - w.v) / (1 - c^2).
    """
    cosine, between = direction_a @ direction_b, origin_b - origin_a
    sine_squared = 1 - cosine**2
    if sine_squared < _PARALLEL:
        return None
    along_a = (between @ direction_a - cosine * (between @ direction_b)) / sine_squared
    along_b = (cosine * (between @ direction_a) - between @ direction_b) / sine_squared
    on_a, on_b = origin_a + along_a * direction_a, origin_b + along_b * direction_b
    return Crossing((on_a + on_b) / 2, float(np.linalg.norm(on_a - on_b)), (float(along_a), float(along_b)))


def _passes(found: Crossing, first: Camera, second: Camera, gates: Gates) -> bool:
    if min(found.along) < gates.near:
        return False
    pixel_world = min(
        along / max(camera.focal_px) for along, camera in zip(found.along, (first, second), strict=True)
    )  # the size of one pixel out there
    return found.gap < gates.gap_px * pixel_world


# -- how far apart ---------------------------------------------------------------------------------------------------


def median_angle(
    cameras: Sequence[Camera], centre: np.ndarray, *, weights: Sequence[float] | None = None
) -> float | None:  # fmt: skip
    """Median angle, degrees, under which pairs of cameras are seen from ``centre [3]``; a pair counts as often as the
    product of its cameras' weights. None without a pair."""
    offsets = np.array([camera.center_world - centre for camera in cameras]).reshape(-1, 3)
    distances = np.linalg.norm(offsets, axis=1)
    usable = np.isfinite(distances) & (distances > 0)
    counts = np.ones(len(cameras)) if weights is None else np.array(weights, np.float64)
    counts = counts[usable]
    directions = offsets[usable] / distances[usable, None]
    first, second = np.triu_indices(len(directions), 1)
    if first.size == 0:
        return None
    angles = np.degrees(np.arccos(np.clip((directions[first] * directions[second]).sum(axis=1), -1, 1)))
    order = np.argsort(angles, kind="stable")
    running = (counts[first] * counts[second])[order].cumsum()
    return float(angles[order][np.searchsorted(running, running[-1] / 2)])


def middle_of(points: Tensor) -> np.ndarray:  # [N,3] -> [3]
    """Median of every coordinate over the finite rows: unlike the origin of the world, a place of the scene."""
    points = points.detach()
    finite = points[torch.isfinite(points).all(dim=1)]
    if finite.shape[0] == 0:
        return np.zeros(3)
    return finite.double().median(dim=0).values.cpu().numpy()
