"""Where the camera stands and what it turns about: the selection in the middle, back to the start, a double click."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import viser

from splat.viewer.serving.page import Page
from splat.viewer.tools.toolbox import Toolbox

FRAME_MARGIN, FRAMED = 1.5, 0.75
"""Room around a framed selection, and the share of it that counts: what lies far behind would push it away."""
DOUBLE_SECS, DOUBLE_SHARE = 0.45, 0.01
"""Two clicks this close, in time and as a share of the picture, are one double click."""


def build(page: Page) -> None:
    """Buttons where the caller stands, and the keys of SuperSplat."""
    box: Toolbox = page.toolbox
    group = page.client.gui.add_button_group("Camera", ("Selection", "First view"),
                                             hint="Keys F, Shift+F; a double click turns about that point")  # fmt: skip
    group.on_click(page.guarded(lambda event: frame(page, box) if event.target.value == "Selection" else reset(page)))
    page.on_key("Frame the selection", "F", lambda: frame(page, box))
    page.on_key("Back to the first view", "F", lambda: reset(page), "shift")
    DoubleClick(page, box)


def frame(page: Page, box: Toolbox) -> None:
    """Put the selection in the middle of the picture, and all of it in sight."""
    center = box.center()
    if center is None:
        page.notify("Nothing is selected that could be framed. Shift+F goes back to the first view.")
        return
    camera = page.camera()
    slope = min(camera.width / camera.focal_px[0], camera.height / camera.focal_px[1]) / 2
    least = 0.1 / page.desk.space.scale
    page.look_at(center, max(FRAME_MARGIN * box.size(FRAMED) / slope, least))


def reset(page: Page) -> None:
    """Stand where the page began."""
    start = page.client._viser_server.initial_camera

    def go_back(camera: viser.CameraHandle) -> None:
        camera.up_direction = start.up
        camera.position, camera.look_at = start.position, start.look_at
        camera.fov = start.fov

    page.move_camera(go_back)


class DoubleClick:
    """Two quick clicks on one place turn the camera towards it and about it from then on, where no tool is active."""

    def __init__(self, page: Page, box: Toolbox) -> None:
        self.page, self.box = page, box
        self._last: tuple[float, np.ndarray] | None = None

        @page.client.scene.on_click()
        async def _(event: Any) -> None:  # async: called in order, on the server's thread
            self.clicked(time.monotonic(), np.asarray(event.screen_pos, float))

    def clicked(self, now: float, at: np.ndarray) -> None:  # seconds, [2] shares of the picture
        last, self._last = self._last, (now, at)
        if self.page.tool or last is None or now - last[0] > DOUBLE_SECS or np.abs(at - last[1]).max() > DOUBLE_SHARE:
            return
        self._last = None
        camera = self.page.camera()
        pixel = float(at[0] * camera.width), float(at[1] * camera.height)

        def turn() -> None:
            picked = self.box.picked(pixel, camera)
            if picked is not None:
                self.page.look_at(picked.at)

        self.box.runner.do(turn)
