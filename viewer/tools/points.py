"""Selecting by one click: a splat, a region of like colour, everything of a colour."""

from __future__ import annotations

from splat.edit.attributes import ATTRIBUTES
from splat.edit.shapes import Click, ColorRange, Flood, Point2, ViewSpec
from splat.geometry.camera import Camera
from splat.viewer.tools.tool import Tool


class ClickTool(Tool):
    name, title = "click", "Pick one"
    hint = "Click a splat. Shift adds, Ctrl takes away."
    catches_clicks = True

    def click(self, at: Point2, camera: Camera, modifier: str | None) -> None:
        self.box.select(Click(ViewSpec.of(camera), at), modifier)


class FloodTool(Tool):
    name, title = "flood", "Flood"
    hint = "Click: what is seen in the connected region of like colour. Shift adds, Ctrl takes away."
    catches_clicks = True

    def click(self, at: Point2, camera: Camera, modifier: str | None) -> None:
        self.box.select(Flood(ViewSpec.of(camera), at, self.box.options.tolerance), modifier)


class EyedropperTool(Tool):
    name, title = "eyedropper", "Like it"
    hint = "Click: every splat of a base colour like that of the splat under the pointer. Shift adds, Ctrl takes away."
    catches_clicks = True

    def click(self, at: Point2, camera: Camera, modifier: str | None) -> None:
        picked = self.box.picked(at, camera)
        if picked is not None:
            snapshot = self.box.page.desk.snapshot
            red, green, blue = (
                float(ATTRIBUTES[name].values(snapshot.model, snapshot.labels)[picked.row])
                for name in ("red", "green", "blue")
            )
            self.box.select(ColorRange((red, green, blue), self.box.options.tolerance), modifier)


TOOLS = (ClickTool, FloodTool, EyedropperTool)
