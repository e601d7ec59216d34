"""What a tool is: the meaning of the mouse while it is active."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from splat.edit.shapes import Point2, ViewSpec

if TYPE_CHECKING:
    from splat.geometry.camera import Camera
    from splat.viewer.tools.toolbox import Toolbox


class Tool:
    """One per page and name, made when first used. ``start`` and ``stop`` come in turns; everything that a tool hangs
    into the page it takes away in ``stop``. All methods are called on the toolbox's own thread, in order."""

    name: ClassVar[str]
    title: ClassVar[str]
    hint: ClassVar[str]
    """One line for the page: what to do now."""
    catches_strokes: ClassVar[bool] = False
    """Whether left drags are strokes; otherwise they move the camera."""
    catches_clicks: ClassVar[bool] = False
    catches_rectangles: ClassVar[bool] = False

    def __init__(self, box: Toolbox) -> None:
        self.box = box

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def stroke_begins(self, at: Point2, camera: Camera, modifier: str | None) -> None: ...

    def stroke_goes(self, to: Point2) -> None: ...

    def stroke_ends(self, at: Point2) -> None: ...

    def rectangle(self, low: Point2, high: Point2, view: ViewSpec, modifier: str | None) -> None: ...

    def click(self, at: Point2, camera: Camera, modifier: str | None) -> None: ...

    def apply(self, modifier: str | None) -> None:
        """Enter."""

    def back(self) -> None:
        """Backspace: the last step within the tool."""

    def clear(self) -> None:
        """Everything that was placed goes."""

    def changed(self) -> None:
        """Other rows, another selection or another option."""


Make = Callable[["Toolbox"], Tool]
