"""Numbers of single splats, and how numbers are spread over all of them."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splat.edit.lifting import splat_at
from splat.edit.ops import Select
from splat.edit.shapes import AttributeRange
from splat.live.snapshot import Snapshot
from splat.viewer.figures.picked import rings, table
from splat.viewer.panels.spread import SpreadPanel
from splat.viewer.panels.suspects import SuspectsPanel
from splat.viewer.picture.modes.projected import projected
from splat.viewer.picture.modes.view import View
from splat.viewer.serving.page import BEAT_SECS, Page

TOOL = "inspect"
RINGS = "/splat/inspect/rings"
RING_RGB = (255, 255, 255)
NOBODY = "*Click a splat to read its values.*"


def build(page: Page) -> None:
    """The tab "Inspect"."""
    with page.tabs.add_tab("Inspect"):
        PickPanel(page)
        SpreadPanel(page)
        SuspectsPanel(page)


class PickPanel:
    """Reads one splat, and follows it by its number while rows move."""

    def __init__(self, page: Page) -> None:
        self.page, self.gui = page, page.client.gui
        self.id: int | None = None
        self._shown: Any = None
        self._node: Any = None
        self._lock = threading.RLock()
        """Clicks come on several threads, and the page's own follows the model."""
        self.pick = self.gui.add_button("Pick a splat", icon="pointer", hint="Key I; Escape ends")
        self.values = self.gui.add_markdown(NOBODY)
        self.actions = self.gui.add_button_group("", ("Look at it", "Select it", "Forget it"), visible=False)
        self.pick.on_click(page.guarded(lambda _: self.toggle()))
        self.actions.on_click(page.guarded(self._acted))
        page.toolbox.others[TOOL] = ("Pick a splat", "Click a splat to read its values on the tab Inspect.")
        page.on_key("Pick a splat", "I", self.toggle)
        page.client.scene.on_click()(page.guarded(self._clicked))
        page.every(BEAT_SECS, self.refresh)

    def toggle(self) -> None:
        self.page.set_tool("" if self.page.tool == TOOL else TOOL)

    def read(self, x: float, y: float) -> None:
        """Read the splat that shows most at a place of the canvas, (0, 0) to (1, 1)."""
        snapshot, camera = self.page.snapshot, self.page.camera()
        if snapshot is None:
            return
        view = View(snapshot, camera, self.page.look, self.page.desk.rasterizer)
        drawn = None if view.left_out is None else ~view.left_out
        row = splat_at(snapshot.model, camera, x * camera.width, y * camera.height, self.page.desk.rasterizer,
                       drawn=drawn)  # fmt: skip
        with self._lock:
            self.id = None if row is None else int(snapshot.labels.ids[row])
            self._shown = None
            self.refresh()

    def refresh(self) -> None:
        """Show the values of now, when something has changed."""
        with self._lock:
            self._refresh()

    def _refresh(self) -> None:
        snapshot = self.page.snapshot
        if snapshot is None:
            return
        frame = self.page.last
        state = (self.id, snapshot.version, None if frame is None else frame.number)
        if state == self._shown:
            return
        self._shown = state
        row = None if self.id is None else row_called(snapshot, self.id)
        self.actions.visible = row is not None
        if row is None:
            self.values.content = NOBODY if self.id is None else f"*Splat {self.id} is gone.*"
            self._mark(None)
            return
        text = table(snapshot, row, radii_px=self._radii_px(snapshot, row), eye=self.page.camera().center_world)
        if self.values.content != text:
            self.values.content = text
        self._mark(self.page.desk.space.page(rings(snapshot.model, row)).astype(np.float32))

    def _radii_px(self, snapshot: Snapshot, row: int) -> Tensor:  # [2], ascending
        view = View(snapshot, self.page.camera(), self.page.look, self.page.desk.rasterizer)
        with torch.no_grad():
            spread = projected(view, torch.tensor([row], device=snapshot.model.device)).spread[0]
        return torch.linalg.eigvalsh(spread).clamp_min(0).sqrt()

    def _mark(self, lines: np.ndarray | None) -> None:
        if lines is None:
            if self._node is not None:
                self._node.remove()
                self._node = None
        elif self._node is None:
            self._node = self.page.overlay.add_line_segments(
                RINGS, lines, RING_RGB, thickness=1.5, thickness_units="screen"
            )
        elif not np.array_equal(self._node.points, lines):
            self._node.points = lines

    def _acted(self, event: Any) -> None:
        snapshot, number = self.page.snapshot, self.id
        if snapshot is None or number is None:
            return
        if event.target.value == "Forget it":
            with self._lock:
                self.id = None
                self.refresh()
        elif event.target.value == "Look at it":
            row = row_called(snapshot, number)
            if row is not None:
                self.page.look_at(snapshot.model.rows["means"][row].detach().cpu().numpy())
        else:
            self.page.toolbox.submit(Select(AttributeRange("id", float(number), float(number))))

    def _clicked(self, event: Any) -> None:
        if self.page.tool == TOOL:
            self.read(*map(float, event.screen_pos))


def row_called(snapshot: Snapshot, number: int) -> int | None:
    """Where the splat called ``number`` stands; None when it is gone."""
    found = (snapshot.labels.ids == number).nonzero()
    return int(found[0, 0]) if len(found) else None
