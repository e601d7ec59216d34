"""The camera path in the picture: its line, and a frustum per key."""

from __future__ import annotations

from collections.abc import Callable
from math import radians

import numpy as np

from splat.geometry.keyframes import CameraPath
from splat.viewer.serving.page import Page

ROOT = "/splat/path"
LINE_RGB, KEY_RGB, CHOSEN_RGB = (250, 190, 60), (250, 190, 60), (90, 200, 250)
POINTS_PER_KEY, MOST_POINTS = 24, 1200
FRUSTUM_UNITS = 0.25
"""Size of a frustum, page units (a scene is about four)."""
_PX = 2.0


class PathNodes:
    """Draws a path; ``chosen(number)`` is told when a key is clicked."""

    def __init__(self, page: Page, chosen: Callable[[int], None]) -> None:
        self._page, self._tell = page, chosen
        self._drawn = 0
        self._visible = True
        self._root = page.overlay.add_frame(ROOT, show_axes=False)
        self._switch = page.client.gui.add_checkbox("Show the path", initial_value=True)
        self._switch.on_update(page.guarded(lambda _: self.hide(False)))

    def show(self, path: CameraPath, chosen: int) -> None:
        """``path`` in the world's frame; ``chosen`` is the key at hand."""
        scene = self._page.overlay
        with self._page.client.atomic():
            self._line(path)
            for number, key in enumerate(path.keys):
                node = scene.add_camera_frustum(
                    f"{ROOT}/key_{number}", radians(key.fov_deg), 1.6, scale=FRUSTUM_UNITS, thickness=_PX,
                    thickness_units="screen", color=CHOSEN_RGB if number == chosen else KEY_RGB, wxyz=key.wxyz,
                    position=tuple(self._page.desk.space.page(key.position)),
                )  # fmt: skip
                node.on_click(self._page.guarded(lambda _, number=number: self._tell(number)))
            for number in range(len(path.keys), self._drawn):
                scene.remove_by_name(f"{ROOT}/key_{number}")
            self._drawn = len(path.keys)

    def hide(self, on: bool) -> None:
        """While the page itself flies along it."""
        visible = bool(self._switch.value) and not on
        if visible != self._visible:
            self._visible = self._root.visible = visible

    def _line(self, path: CameraPath) -> None:
        if len(path.keys) < 2:
            self._page.overlay.remove_by_name(f"{ROOT}/line")
            return
        count = min(POINTS_PER_KEY * len(path.keys), MOST_POINTS)
        at = path.at(np.linspace(0, path.duration_secs * (1 - 1e-9), count))
        points = self._page.desk.space.page(np.array([key.position for key in at])).astype(np.float32)
        self._page.overlay.add_line_segments(
            f"{ROOT}/line", np.stack([points[:-1], points[1:]], axis=1), LINE_RGB, thickness=_PX,
            thickness_units="screen",
        )  # fmt: skip
