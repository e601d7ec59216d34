"""The view of a page, as its browser tells it: any number may stand there, and it comes while others read it."""

from __future__ import annotations

from typing import Any

import numpy as np
import viser

from splat.errors import UserError
from splat.geometry.camera import Camera
from splat.viewer.picture.space import Space

MOST_PIXELS = 2_500_000
"""A larger canvas gets a picture of this many, stretched."""
MOST_SIDE_PX = 8192
"""Nor is a side longer, however narrow the canvas is."""
FARTHEST = 1e12
"""Page units from the origin: in float32 the square of a distance is still finite."""
FOV_LIMITS = (1e-3, 3.14)  # vertical, radians
STILL = 1e-5
"""Of the distance to what is looked at, and radians: what moves less shows the same picture. A pixel of 4,000 is 20
times as much; the browser's rounding a thirtieth."""


class Sight:
    """The camera of one client. Read from any thread."""

    def __init__(self, client: viser.ClientHandle, space: Space) -> None:
        self._client, self._space = client, space
        self._drawn: Any = None

    def camera(self) -> Camera:
        """In the world's frame, at the size of the canvas (within the limits). UserError for what is no view."""
        return self._camera(self._client.camera._state)

    def to_draw(self) -> Camera:
        """As ``camera``, of which a picture is made now."""
        self._drawn = self._client.camera._state
        return self._camera(self._drawn)

    def is_news(self) -> bool:
        """Whether the view is another than in the last picture. The browser tells a movement twice: at once, still with
        the place it comes from but for its last bits, and a moment later."""
        return self._drawn is None or not _alike(self._drawn, self._client.camera._state)

    @property
    def aspect(self) -> float:
        """Width of the canvas by its height."""
        width, height = canvas_size(self._client.camera.image_width, self._client.camera.image_height)
        return width / height

    def _camera(self, seen: Any) -> Camera:
        """``seen`` is taken once: every message of the page makes a new one."""
        position, wxyz = _numbers(seen.position, 3), _numbers(seen.wxyz, 4)
        fits = position is not None and wxyz is not None and np.isfinite(seen.fov)
        if not fits or np.abs(position).max() > FARTHEST or not np.abs(wxyz).max() > 1e-6:
            raise UserError(f"the page's camera is no view: position {seen.position}, wxyz {seen.wxyz}, fov {seen.fov}")
        width, height = canvas_size(seen.image_width, seen.image_height)
        fov = float(np.clip(seen.fov, *FOV_LIMITS))
        return self._space.camera(wxyz=wxyz, position=position, fov=fov, width=width, height=height)


def canvas_size(width: int, height: int) -> tuple[int, int]:
    """At least one pixel, and no more than the limits, in the same proportion as far as that goes."""
    width, height = (min(max(side, 1), 1 << 20) for side in (width, height))
    shrink = min(1.0, (MOST_PIXELS / (width * height)) ** 0.5, MOST_SIDE_PX / max(width, height))
    return max(round(width * shrink), 1), max(round(height * shrink), 1)


def _alike(drawn: Any, seen: Any) -> bool:
    """Whether two states of a camera give the same picture; what is no view is like nothing."""
    if any(getattr(drawn, name) != getattr(seen, name) for name in ("fov", "image_width", "image_height")):
        return False
    before, after = ([_numbers(state.position, 3), _numbers(state.wxyz, 4), _numbers(state.look_at, 3)]
                     for state in (drawn, seen))  # fmt: skip
    if any(numbers is None for numbers in (*before, *after)):
        return False
    moved, turned, _ = (np.abs(new - old).max() for old, new in zip(before, after, strict=True))
    return bool(moved <= STILL * np.linalg.norm(after[0] - after[2]) and turned <= STILL)


def _numbers(values: np.ndarray, count: int) -> np.ndarray | None:  # [count] float64
    if np.shape(values) != (count,):
        return None
    numbers = np.asarray(values, np.float64)
    return numbers if np.isfinite(numbers).all() else None
