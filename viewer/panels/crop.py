"""A box in space: only what lies in it is drawn. A gizmo moves and turns it."""

from __future__ import annotations

from typing import Any

import numpy as np

from splat.edit.ops import Select
from splat.edit.shapes import Box
from splat.viewer.picture.look import CropBox
from splat.viewer.serving.page import Page
from splat.viewer.tools.matrices import frozen, rotation

GIZMO, LINES = "/splat/crop/gizmo", "/splat/crop/lines"
GIZMO_PX = 110.0
CORE_PERCENT = (2.0, 98.0)
"""Of the centres along each axis: where a new box begins."""
EDGE_RGB = (255, 255, 255)
_EDGES = np.array([(a, b) for a in range(8) for b in range(8) if a < b and bin(a ^ b).count("1") == 1])
_CORNERS = np.array([[(i >> axis & 1) - 0.5 for axis in range(3)] for i in range(8)])


class CropPanel:
    """A folder of the tab "View"."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.gui = page.client.gui
        self.center, self.size, self.wxyz = np.zeros(3), np.ones(3), np.array([1.0, 0.0, 0.0, 0.0])
        self._placed = False
        self._gizmo: Any = None
        self._lines: Any = None
        with self.gui.add_folder("Crop box"):
            self.on = self.gui.add_checkbox("Crop", False)
            self.handles = self.gui.add_checkbox("Box in the picture", True)
            self.middle = self.gui.add_vector3("Middle", (0.0, 0.0, 0.0), step=0.01, hint="World units")
            self.sides = self.gui.add_vector3("Sides", (1.0, 1.0, 1.0), min=(0.0, 0.0, 0.0), step=0.01)
            self.fit = self.gui.add_button("Fit to the splats")
            self.select = self.gui.add_button("Select what is inside")
        page_guarded = page.guarded
        self.on.on_update(page_guarded(lambda _: self._switched()))
        self.handles.on_update(page_guarded(lambda _: self._show()))
        self.middle.on_update(page_guarded(self._typed))
        self.sides.on_update(page_guarded(self._typed))
        self.fit.on_click(page_guarded(lambda _: self._fit()))
        self.select.on_click(page_guarded(lambda _: self._select()))

    def box(self) -> CropBox:
        return CropBox(frozen(self.world_from_box()), tuple(float(side) for side in self.size))

    def world_from_box(self) -> np.ndarray:  # [4,4]
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation(self.wxyz), self.center
        return pose

    def _switched(self) -> None:
        if self.on.value and not self._placed:
            self._fit()
        else:
            self._changed()

    def _typed(self, event: Any) -> None:
        """A value that a person gave, not one that is shown after the gizmo moved."""
        if event.client_id is None:
            return
        self.center, self.size = np.array(self.middle.value), np.array(self.sides.value)
        self._placed = True
        self._changed()
        if self._gizmo is not None:
            self._gizmo.position = self.page.desk.space.page(self.center)

    def _fit(self) -> None:
        """Around most of the splats; straight to the world's axes."""
        snapshot = self.page.snapshot
        if snapshot is None or not snapshot.model.count:
            return
        points = snapshot.model.rows["means"].detach().cpu().numpy()
        low, high = np.percentile(points[:: max(1, len(points) // 20_000)], CORE_PERCENT, axis=0)
        self.center, self.size = (low + high) / 2, np.maximum(high - low, 1e-6)
        self.wxyz, self._placed = np.array([1.0, 0.0, 0.0, 0.0]), True
        self._write()
        self._changed()
        if self._gizmo is not None:
            self._gizmo.position, self._gizmo.wxyz = self.page.desk.space.page(self.center), tuple(self.wxyz)

    def _select(self) -> None:
        if not self._placed:
            self._fit()
        self.page.toolbox.submit(Select(Box(frozen(self.world_from_box()), tuple(map(float, self.size)))))

    def _write(self) -> None:
        self.middle.value = tuple(round(float(x), 5) for x in self.center)
        self.sides.value = tuple(round(float(x), 5) for x in self.size)

    def _changed(self) -> None:
        self.page.change(crop=self.box() if self.on.value else None)
        self._show()

    def _show(self) -> None:
        """The gizmo and the edges, where they are wanted."""
        wanted = self.on.value and self.handles.value
        self.page.needs_depth("crop", wanted)
        if not wanted:
            for node in (self._gizmo, self._lines):
                if node is not None:
                    node.remove()
            self._gizmo = self._lines = None
            return
        if self._gizmo is None:
            self._gizmo = self.page.overlay.add_transform_controls(
                GIZMO, scale=GIZMO_PX, fixed=True, depth_test=False, disable_sliders=True,
                position=self.page.desk.space.page(self.center), wxyz=self.wxyz,
            )  # fmt: skip
            self._gizmo.on_update(self._moved)
        edges = self.page.desk.space.page(self._edges()).astype(np.float32)
        if self._lines is None:
            self._lines = self.page.overlay.add_line_segments(
                LINES, edges, EDGE_RGB, thickness=1.5, thickness_units="screen"
            )
        else:
            self._lines.points = edges

    def _edges(self) -> np.ndarray:  # [12,2,3]
        corners = (_CORNERS * self.size) @ rotation(self.wxyz).T + self.center
        return corners[_EDGES]

    async def _moved(self, event: Any) -> None:  # async: in order
        self.center = self.page.desk.space.world(np.array(event.target.position))
        self.wxyz = np.array(event.target.wxyz)
        self.page.guarded(self._follow)()

    def _follow(self) -> None:
        self._write()
        self._changed()
