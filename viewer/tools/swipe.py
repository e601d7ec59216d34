"""The line between picture and photograph, moved by the mouse in the picture itself."""

from __future__ import annotations

from splat.edit.shapes import Point2
from splat.geometry.camera import Camera
from splat.viewer.tools.tool import Tool


class SwipeTool(Tool):
    """The line is where the pointer is; ``look.swipe`` of the page holds it, whoever else sets that."""

    name, title = "swipe", "Swipe"
    hint = "Drag to the left and right: the line between picture and photograph follows."
    catches_strokes = True

    def start(self) -> None:
        self._width = 1

    def stroke_begins(self, at: Point2, camera: Camera, modifier: str | None) -> None:
        self._width = max(camera.width, 1)
        self.stroke_goes(at)

    def stroke_goes(self, to: Point2) -> None:
        self.box.page.change(swipe=round(min(max(to[0] / self._width, 0.0), 1.0), 4))

    def stroke_ends(self, at: Point2) -> None:
        self.stroke_goes(at)
