"""Drag-editing: handles take the selection along, anchors hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from splat.edit.drag.drag import DragSession
from splat.edit.ops import Drag, Handle
from splat.edit.shapes import Point2, Point3
from splat.geometry.camera import Camera
from splat.model.labels import HIDDEN, LOCKED
from splat.viewer.tools.screen import in_view_plane, pixel, project
from splat.viewer.tools.solids import GIZMO_PX, rings
from splat.viewer.tools.tool import Tool

HANDLE_COLOR, ANCHOR_COLOR = (255, 120, 0), (40, 140, 255)
BALL_PX = 7.0
ANCHOR_SHARE = 0.15
"""Radius of an anchor where handles are points, against the selection's."""
SIZED_BY = 0.75
"""Part of the selection that its size is taken from: a lasso takes some of what lies far behind along."""
MISSED = 0.25
"""Of a way: a handle that stays back by more stands where what it holds came to, not where the mouse went."""
TOLD = 0.01
"""Of the selection's size: a handle that misses its place by more, and by more than its radius, is told."""
NO_TURN = (1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Pin:
    """A handle or an anchor as it stands in the picture."""

    at: Point3
    """World."""
    radius: float
    is_anchor: bool


class DragTool(Tool):
    """Clicks place, drags take along. One operation per drag; then everything that was placed stands where it came to,
    and the next drag starts from there."""

    name, title = "drag", "Drag"
    hint = "Click the selection to place handles (orange) and anchors (blue), then drag a handle."
    catches_clicks = True

    def __init__(self, box: Any) -> None:
        super().__init__(box)
        self.pins: list[Pin] = []
        self.last: int | None = None
        """Index of the handle chosen last, which the gizmo turns."""
        self._balls: list[Any] = []
        self._rings: list[Any] = []
        self._gizmo: Any = None
        self._session: DragSession | None = None
        self._ids: torch.Tensor | None = None
        self._held: tuple[int, Point2, Camera] | None = None
        """Which handle, from where on the screen, in which view."""
        self._before: list[tuple[int, list[Pin]]] = []
        """(length of the undo list after a drag, the pins before it): they go back with it."""

    def start(self) -> None:
        self._show_all()
        if not bool(self.box.selected().any()):
            self.box.page.notify("Nothing is selected: select first what shall be deformed.")

    def stop(self) -> None:
        self._let_go()
        self.box.preview.end()
        self._hide_all()

    def changed(self) -> None:
        undo = len(self.box.page.desk.session.status.undo)
        while self._before and undo < self._before[-1][0]:
            _, self.pins = self._before.pop()
            self.last = None
        if self._held is None:
            self._show_all()

    def clear(self) -> None:
        self._let_go()
        self.box.preview.end()
        self._before.clear()
        self._set([])

    def back(self) -> None:
        """Take the pin placed last away."""
        if self.pins:
            self._set([*self.pins[:-1]])

    def click(self, at: Point2, camera: Camera, modifier: str | None) -> None:
        picked = self.box.picked(at, camera)
        if picked is None:
            return
        options = self.box.options
        is_anchor = (options.place == "anchor") != (modifier == "shift")  # Shift places the other kind
        share = options.handle_share
        if is_anchor and share == 0:  # one point that stays holds next to nothing
            share = ANCHOR_SHARE
        radius = share * self.box.size(SIZED_BY)
        self._set([*self.pins, Pin(tuple(map(float, picked.at)), radius, is_anchor)])
        if not is_anchor:
            self.last = len(self.pins) - 1
            self._show_all()

    # --- dragging --------------------------------------------------------------------------------------------------

    def grab(self, index: int) -> None:
        """Begin to drag handle ``index`` (in ``pins``): build what answers every move."""
        snapshot, mask = self.box.page.desk.snapshot, self.box.selected()
        self._let_go()
        if snapshot is None or not bool(mask.any()):
            self.box.page.notify("Nothing is selected: select first what shall be deformed.")
            return
        frozen = snapshot.labels.having(LOCKED | HIDDEN)
        operation = self.operation(index, self.pins[index].at, NO_TURN)
        self._status = self.box.page.desk.session.status
        self._session = DragSession(snapshot.model, mask, operation, frozen=frozen)
        self._ids = snapshot.labels.ids[self._session.rows]

    def pull(self, index: int, to: Point3, turn: tuple[float, ...] = NO_TURN) -> None:
        """Show the selection with handle ``index`` at ``to`` (world)."""
        if self._session is not None and self.box.options.live:
            values = self._session.move(self.operation(index, to, turn).handles)
            self.box.preview.show(self._ids, values)

    def drop(self, index: int, to: Point3, turn: tuple[float, ...] = NO_TURN) -> None:
        """One operation for the whole drag."""
        if self._session is None:
            return
        if not self.box.is_as_left(self._status):
            self._let_go()
            self.box.preview.end()
            self._shown = None  # the ball goes back
            return self._show_all()
        operation = self.operation(index, to, turn)
        landed = self._landed(index, operation)
        behind = missed_text(operation.handles, self._session.missed(operation.handles), self.box.size(SIZED_BY))
        self._let_go()
        before = self.pins
        after = [replace(pin, at=landed) if i == index else pin for i, pin in enumerate(before)]
        reply = self.box.submit(operation)
        self.box.preview.end_after(reply)
        reply.add_done_callback(lambda done: self._committed(done, before))
        self._set(after)
        if behind:
            self.box.page.notify(behind)

    def _landed(self, index: int, operation: Drag) -> Point3:
        """Where the handle stands after the drag: at its target, if what it holds can come there at all."""
        start, to = self.pins[index].at, next(h.to for h in operation.handles if h.at == self.pins[index].at)
        self._session.move(operation.handles)
        landed = self._session.carried(start)
        missed = np.linalg.norm(np.subtract(landed, to)) > MISSED * np.linalg.norm(np.subtract(to, start))
        return landed if missed else to

    def operation(self, index: int, to: Point3, turn: tuple[float, ...]) -> Drag:
        """The drag of one handle; the others keep their places."""
        options = self.box.options
        handles = [
            Handle(pin.at, tuple(map(float, to)), pin.radius, tuple(map(float, turn))) if i == index
            else Handle(pin.at, pin.at, pin.radius)
            for i, pin in enumerate(self.pins) if not pin.is_anchor
        ]  # fmt: skip
        anchors = tuple(Handle(pin.at, pin.at, pin.radius) for pin in self.pins if pin.is_anchor)
        return Drag(tuple(handles), anchors, options.mode, options.band, options.nodes, options.smooth_rotations)

    def _committed(self, reply: Any, before: list[Pin]) -> None:
        if reply.cancelled() or reply.exception() is not None:
            self.box.runner.do(lambda: self._set(before))
        else:
            self._before.append((len(reply.result().undo), before))

    def _let_go(self) -> None:
        self._session = self._ids = self._held = None

    # --- what is seen ----------------------------------------------------------------------------------------------

    def _set(self, pins: list[Pin]) -> None:
        self.pins = pins
        if self.last is not None and (self.last >= len(pins) or pins[self.last].is_anchor):
            self.last = None
        self._show_all()

    def _hide_all(self) -> None:
        for node in (*self._balls, *self._rings, self._gizmo):
            if node is not None:
                node.remove()
        self._balls, self._rings, self._gizmo, self._shown = [], [], None, None

    _shown: Any = None

    def _show_all(self) -> None:
        state = (tuple(self.pins), self.last, self.box.options.turn_handles)
        if self.box.tool is not self or state == self._shown:
            return
        self._hide_all()
        self._shown = state
        page = self.box.page
        camera, space = page.camera(), page.desk.space
        for index, pin in enumerate(self.pins):
            _, depth = project(camera, np.array(pin.at))
            radius = BALL_PX * max(float(depth), 1e-3) / camera.focal_px[0] * space.scale
            ball = page.client.scene.add_icosphere(
                f"/splat/tools/pin{index}", radius=radius, color=ANCHOR_COLOR if pin.is_anchor else HANDLE_COLOR,
                position=space.page(pin.at), cast_shadow=False, receive_shadow=False,
            )  # fmt: skip
            self._balls.append(ball)
            self._rings.append(self._reach_of(index, pin))
            if not pin.is_anchor:
                ball.on_drag("left")(self._follows(index))
        if self.last is not None and self.box.options.turn_handles:
            self._gizmo = page.client.scene.add_transform_controls(
                "/splat/tools/pin_gizmo", scale=GIZMO_PX, fixed=True, depth_test=False, disable_sliders=True,
                position=space.page(self.pins[self.last].at),
            )  # fmt: skip
            self._gizmo.on_update(self._turned(self.last))

    def _reach_of(self, index: int, pin: Pin) -> Any:
        """The node of three rings about what a pin takes hold of."""
        space, at = self.box.page.desk.space, np.array(pin.at)
        lines = space.page(at + pin.radius * rings()) - space.page(at)
        return self.box.page.client.scene.add_line_segments(
            f"/splat/tools/pin{index}_reach", lines.astype(np.float32), ANCHOR_COLOR if pin.is_anchor else HANDLE_COLOR,
            thickness=1.5, thickness_units="screen", position=space.page(pin.at),
        )  # fmt: skip

    def _follows(self, index: int) -> Any:
        async def dragged(event: Any) -> None:
            camera = self.box.page.camera()
            at = pixel(event.end_screen_pos, camera)
            if event.phase == "start":
                self.box.runner.do(lambda: self._begin(index, at, camera))
            elif event.phase == "update":
                self.box.runner.newest("drag", lambda: self._go(at))
            else:
                self.box.runner.do(lambda: self._end(at))

        return dragged

    def _begin(self, index: int, at: Point2, camera: Camera) -> None:
        self.last = index
        self.grab(index)
        if self._session is not None:
            self._held = (index, at, camera)

    def _target(self, at: Point2) -> tuple[int, Point3]:
        index, start, camera = self._held
        return index, tuple(map(float, in_view_plane(camera, start, at, np.array(self.pins[index].at))))

    def _go(self, at: Point2) -> None:
        if self._held is not None:
            index, to = self._target(at)
            for node in (self._balls[index], self._rings[index]):
                node.position = self.box.page.desk.space.page(to)
            self.pull(index, to)

    def _end(self, at: Point2) -> None:
        if self._held is not None:
            index, to = self._target(at)
            self.drop(index, to)

    def _turned(self, index: int) -> Any:
        async def turned(event: Any) -> None:
            to = tuple(map(float, self.box.page.desk.space.world(np.array(event.target.position))))
            wxyz = np.array(event.target.wxyz)  # the gizmo starts unturned
            turn = tuple(map(float, wxyz / np.linalg.norm(wxyz)))
            if event.phase == "start":
                self.box.runner.do(lambda: self.grab(index))
            elif event.phase == "update":
                self.box.runner.newest("drag", lambda: self.pull(index, to, turn))
            else:
                self.box.runner.do(lambda: self.drop(index, to, turn))

        return turned


def missed_text(handles: Sequence[Handle], missed: Sequence[float], size: float) -> str:
    """What to tell after a drag after which handles are ``missed`` (world units) away from their places; "" where that
    is too little to be seen. ``size``: radius of the selection."""
    behind = [gap for handle, gap in zip(handles, missed, strict=True) if gap > max(handle.radius, TOLD * size)]
    if not behind:
        return ""
    who = "The handle misses its" if len(handles) == 1 else f"{len(behind)} of {len(handles)} handles miss their"
    most = f"{max(behind):.3g}" if len(behind) == 1 else f"up to {max(behind):.3g}"
    share = f", {max(behind) / size:.0%} of the selection's size" if size else ""
    return f"{who} place by {most} (world units{share}): what is held there could not follow all the way."
