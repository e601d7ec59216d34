"""Selecting by drawing on the picture: rectangle, lasso, polygon, brush."""

from __future__ import annotations

import numpy as np

from splat.edit.shapes import Brush, Lasso, Point2, Rect, ViewSpec
from splat.geometry.camera import Camera
from splat.viewer.tools.cursor import BrushCursor
from splat.viewer.tools.screen import chain, circle, rectangle, swept, thinned
from splat.viewer.tools.tool import Tool

CLOSE_PX = 10.0
"""A click this near the first corner of a polygon closes it."""


class RectTool(Tool):
    name, title = "rect", "Rectangle"
    hint = "Drag a rectangle. Shift adds, Ctrl takes away, both keep what is in both."
    catches_rectangles = True

    def rectangle(self, low: Point2, high: Point2, view: ViewSpec, modifier: str | None) -> None:
        self.box.select(Rect(view, *rectangle(low, high)), modifier)


class _Stroke(Tool):
    """Gathers the points of a stroke and shows them."""

    catches_strokes = True

    def start(self) -> None:
        self.points: list[Point2] = []
        self.camera: Camera | None = None
        self.modifier: str | None = None

    def stop(self) -> None:
        self.camera = None
        self.box.lines.clear()

    def stroke_begins(self, at: Point2, camera: Camera, modifier: str | None) -> None:
        self.points, self.camera, self.modifier = [at], camera, modifier
        self._draw()

    def stroke_goes(self, to: Point2) -> None:
        if self.camera is not None:
            self.points.append(to)
            self._draw()

    def stroke_ends(self, at: Point2) -> None:
        camera, self.camera = self.camera, None
        if camera is None:
            return
        points = thinned([*self.points, at])
        self.box.lines.clear()
        self.finished(tuple(points), ViewSpec.of(camera))

    def outline(self, points: list[Point2]) -> np.ndarray:
        raise NotImplementedError

    def finished(self, points: tuple[Point2, ...], view: ViewSpec) -> None:
        raise NotImplementedError

    def _draw(self) -> None:
        points, camera = list(self.points), self.camera
        if camera is not None:
            self.box.runner.newest("stroke", lambda: self._show(points, camera))

    def _show(self, points: list[Point2], camera: Camera) -> None:
        if self.camera is camera:  # the stroke is not over
            self.box.lines.show(self.outline(thinned(points)), camera)


class LassoTool(_Stroke):
    name, title = "lasso", "Lasso"
    hint = "Draw around what you want. Shift adds, Ctrl takes away, both keep what is in both."

    def outline(self, points: list[Point2]) -> np.ndarray:
        return chain(points, closed=True)

    def finished(self, points: tuple[Point2, ...], view: ViewSpec) -> None:
        if len(points) >= 3:
            self.box.select(Lasso(view, points), self.modifier)


class BrushTool(_Stroke):
    name, title = "brush", "Brush"
    hint = "Paint over what you want; [ and ] change the size. Shift adds, Ctrl takes away, both keep what is in both."

    def start(self) -> None:
        super().start()
        self.cursor = getattr(self, "cursor", None) or BrushCursor(self.box.page)
        self.changed()

    def stop(self) -> None:
        self.cursor.hide()
        super().stop()

    def changed(self) -> None:
        self.cursor.show(self.box.options.brush_px)

    def outline(self, points: list[Point2]) -> np.ndarray:
        return swept(points, self.box.options.brush_px)

    def finished(self, points: tuple[Point2, ...], view: ViewSpec) -> None:
        self.box.select(Brush(view, points, self.box.options.brush_px), self.modifier)


class PolygonTool(Tool):
    name, title = "polygon", "Polygon"
    hint = ("Click corner after corner; click the first one again or press Enter to close, Backspace takes one back. "
            "Shift, Ctrl or both with the first corner as with other tools.")  # fmt: skip
    catches_clicks = True

    def start(self) -> None:
        self.points: list[Point2] = []
        self.view: ViewSpec | None = None
        self.modifier: str | None = None

    def stop(self) -> None:
        self.start()
        self.box.lines.clear()

    def click(self, at: Point2, camera: Camera, modifier: str | None) -> None:
        view = ViewSpec.of(camera)
        if self.points and view != self.view:
            self.box.page.notify("The view has moved: the polygon begins anew.")
            self.points = []
        if not self.points:
            self.view, self.modifier = view, modifier
        elif len(self.points) >= 3 and np.hypot(*np.subtract(at, self.points[0])) <= CLOSE_PX:
            return self.apply(None)
        self.points.append(at)
        self._show(camera)

    def back(self) -> None:
        if self.points:
            self.points.pop()
            self._show(self.box.page.camera())

    def apply(self, modifier: str | None) -> None:
        if len(self.points) >= 3 and self.view is not None:
            shape, modifier = Lasso(self.view, tuple(self.points)), self.modifier or modifier
            self.stop()
            self.box.select(shape, modifier)

    def _show(self, camera: Camera) -> None:
        marks = [circle(point, 4.0, 12) for point in self.points]
        self.box.lines.show(np.concatenate([chain(self.points, closed=len(self.points) > 2), *marks])
                            if self.points else np.zeros((0, 2, 2)), camera)  # fmt: skip


TOOLS = (RectTool, LassoTool, PolygonTool, BrushTool)
