"""The tools of one page: which is active, what it hears of the mouse, and how its operations are sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splat.edit.lifting import splat_at
from splat.edit.ops import Op, Select
from splat.edit.shapes import Shape, ViewSpec
from splat.geometry.camera import Camera
from splat.model.labels import HIDDEN, SELECTED
from splat.viewer.tools import gizmo, handles, marquee, points, solids
from splat.viewer.tools.combine import combined
from splat.viewer.tools.options import Options
from splat.viewer.tools.overlay import ScreenLines
from splat.viewer.tools.preview import Preview
from splat.viewer.tools.runner import Runner
from splat.viewer.tools.screen import at_depth, pixel, project
from splat.viewer.tools.swipe import SwipeTool
from splat.viewer.tools.tool import Tool
from splat.viewer.tools.toolplane import ToolPlane

TOOLS: Mapping[str, type[Tool]] = {
    tool.name: tool
    for tool in (*marquee.TOOLS, *points.TOOLS, *solids.TOOLS, *gizmo.TOOLS, handles.DragTool, SwipeTool)
}
"""In the order of the panel."""


@dataclass(frozen=True)
class Picked:
    """What lies under the pointer."""

    row: int
    """Of the snapshot's model."""
    at: np.ndarray  # [3] world: on the pointer's ray, as deep as the splat's centre


class Toolbox:
    """One per page. What comes from the mouse runs on the thread of ``runner``, in order; an exception becomes a
    message on the page."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.options = Options()
        self.runner = Runner(page.guarded)
        self.lines = ScreenLines(page)
        self.preview = Preview(page)
        self.plane = ToolPlane(self)
        self.others: dict[str, tuple[str, str]] = {}
        """Title and hint of tools that catch their clicks themselves, by name; filled by their panels."""
        self._made: dict[str, Tool] = {}
        self._listeners: list[Callable[[], None]] = []
        self.name = ""
        """Of the tool that was asked for last."""
        self.tool: Tool | None = None
        """The one at work."""
        self.clicked_pivot: np.ndarray | None = None  # [3] world
        """What gizmos turn and scale about; None = the middle of the selection."""
        self.tab: Any = None
        """Where the panels of tools stand."""
        page.add_close(self._close)
        self._unsubscribe = page.desk.on_snapshot(lambda *_: self.runner.newest("changed", self._changed))

    def use(self, name: str) -> None:
        """Make a tool active; "" = none, the mouse moves the camera. A name that is not in ``TOOLS`` is that of another
        panel, which catches its clicks itself."""
        self.name = name
        self.runner.do(lambda: self._use(name))

    def toggle(self, name: str) -> None:
        """Make a tool active; the active one gives the mouse back to the camera."""
        self.use("" if self.name == name else name)

    def says(self) -> tuple[str, str] | None:
        """Title and hint of the active tool; None where the mouse moves the camera."""
        return self.others.get(self.name) if self.tool is None else (self.tool.title, self.tool.hint)

    def set(self, **options: Any) -> None:
        """Change options; the active tool follows."""
        for key, value in options.items():
            setattr(self.options, key, value)
        self.runner.newest("changed", self._changed)

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` when another tool is active or has chosen its size, on the toolbox's thread."""
        self._listeners.append(listener)

    def announce(self) -> None:
        """Call those who listen."""
        for listener in self._listeners:
            listener()

    # --- from the mouse and the keys -------------------------------------------------------------------------------

    def stroke(self, phase: str, screen: tuple[float, float], modifier: str | None) -> None:
        camera = self.page.camera()
        at = pixel(screen, camera)
        if phase == "start":
            self._tell(lambda tool: tool.stroke_begins(at, camera, modifier))
        elif phase == "update":
            self._tell(lambda tool: tool.stroke_goes(at))
        else:
            self._tell(lambda tool: tool.stroke_ends(at))

    def clicked(self, screen: tuple[float, float], modifier: str | None) -> None:
        camera = self.page.camera()
        self._tell(lambda tool: tool.click(pixel(screen, camera), camera, modifier))

    def drawn(self, low: tuple[float, float], high: tuple[float, float], modifier: str | None) -> None:
        camera = self.page.camera()
        self._tell(lambda tool: tool.rectangle(pixel(low, camera), pixel(high, camera), ViewSpec.of(camera), modifier))

    def apply(self, modifier: str | None = None) -> None:
        self._tell(lambda tool: tool.apply(modifier))

    def back(self) -> None:
        self._tell(lambda tool: tool.back())

    def clear(self) -> None:
        self._tell(lambda tool: tool.clear())

    # --- to the model ----------------------------------------------------------------------------------------------

    def select(self, shape: Shape, modifier: str | None) -> Future:
        return self.submit(Select(shape, combined(modifier, self.options.combine), self.options.reach))

    def submit(self, op: Op) -> Future:
        """Send an operation; a refusal is told on the page."""
        return self.told(self.page.desk.submit(op))

    def is_as_left(self, status: object) -> bool:
        """Whether nobody has edited since the session's status was ``status``; told on the page if somebody has. All
        pages share one selection: what one began with must not end with another's."""
        if self.page.desk.session.status is status:
            return True
        self.page.notify("Something else was selected or edited meanwhile (in another page?): nothing was done.")
        return False

    def told(self, reply: Future) -> Future:
        reply.add_done_callback(self._answered)
        return reply

    def picked(self, at: tuple[float, float], camera: Camera) -> Picked | None:
        """The splat that shows most at a pixel, among those that are not hidden; None where there is none."""
        snapshot = self.page.desk.snapshot
        if snapshot is None:
            return None
        shown = ~snapshot.labels.having(HIDDEN)
        row = splat_at(snapshot.model, camera, *at, self.page.desk.rasterizer, drawn=shown)
        if row is None:
            self.page.notify("There is nothing under the pointer.")
            return None
        _, depth = project(camera, snapshot.model.rows["means"][row].numpy(force=True))
        return Picked(row, at_depth(camera, np.array(at), float(depth)))

    def selected(self) -> Tensor:  # [N] bool
        """Of the newest snapshot; nothing where there is none yet."""
        snapshot = self.page.desk.snapshot
        return torch.zeros(0, dtype=torch.bool) if snapshot is None else snapshot.labels.having(SELECTED)

    def selected_means(self) -> np.ndarray:  # [R,3] world
        rows = self.selected()
        if not bool(rows.any()):
            return np.zeros((0, 3))
        return self.page.desk.snapshot.model.rows["means"][rows].double().numpy(force=True)

    def center(self) -> np.ndarray | None:
        """Middle [3] (world) of the selection, of each axis the median: a stray splat does not pull it away."""
        rows = self.selected()
        if not bool(rows.any()):
            return None
        return self.page.desk.snapshot.model.rows["means"][rows].median(dim=0).values.double().numpy(force=True)

    def size(self, share: float = 0.95) -> float:
        """Radius about ``center`` (world units) within which this share of the selection lies; 0 without one."""
        center, rows = self.center(), self.selected()
        if center is None:
            return 0.0
        means = self.page.desk.snapshot.model.rows["means"][rows].numpy(force=True)
        return float(np.quantile(np.linalg.norm(means - center, axis=1), share))

    def pivot(self, center: np.ndarray) -> np.ndarray:  # [3] world
        """What the selection with the middle ``center`` is turned and scaled about."""
        return center if self.clicked_pivot is None else self.clicked_pivot

    def view_distance(self, point: np.ndarray) -> float:
        """From the page's camera to a world point, world units."""
        return float(np.linalg.norm(self.page.camera().center_world - point))

    # --- inside ----------------------------------------------------------------------------------------------------

    def _tell(self, what: Callable[[Tool], None]) -> None:
        tool = self.tool
        if tool is not None:
            self.runner.do(lambda: what(tool) if self.tool is tool else None)

    def _use(self, name: str) -> None:
        before = self.tool
        if before is not None and before.name == name:
            return
        if before is not None:
            self.tool = None
            before.stop()
        if name in TOOLS:  # others have tools of their own
            if name not in self._made:
                self._made[name] = TOOLS[name](self)
            tool = self.tool = self._made[name]
            self.page.desk.refresh()
            tool.start()
        tool = self.tool
        self.plane.catch(
            strokes=tool is not None and tool.catches_strokes,
            clicks=tool is not None and tool.catches_clicks,
            rectangles=tool is not None and tool.catches_rectangles,
        )
        self.announce()

    def _changed(self) -> None:
        if self.tool is not None:
            self.tool.changed()

    def _answered(self, reply: Future) -> None:
        problem = None if reply.cancelled() else reply.exception()
        if problem is not None:
            self.page.failed(problem)

    def _close(self) -> None:
        self._unsubscribe()
        self.runner.close()
