"""Moving, turning and scaling the selection by a gizmo: shown while the mouse moves, one operation on release."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from splat.edit.moving import moved_values
from splat.edit.ops import Transform
from splat.edit.shapes import Point2
from splat.geometry.camera import Camera
from splat.live.snapshot import Snapshot
from splat.viewer.tools.matrices import UNTURNED, about, between, frozen, is_identity, long_axes, quaternion
from splat.viewer.tools.screen import at_depth, in_view_plane, pixel, project
from splat.viewer.tools.solids import GIZMO_PX
from splat.viewer.tools.tool import Tool

NODE = "/splat/tools/gizmo"
KNOB_PX, KNOB_COLOR = 8.0, (60, 210, 255)
LEAST_SCALE, MOST_SCALE = 0.01, 100.0
FOLLOW_SHARE = 0.01
"""Of the distance to the camera: how far the middle may be from the pivot."""


class _GizmoTool(Tool):
    """Stands at the pivot: the middle of the selection, or a point that was clicked."""

    catches_clicks = True

    def start(self) -> None:
        self.pivot: np.ndarray | None = None
        self._nodes: list[Any] = []
        self._held: tuple[Snapshot, Tensor] | None = None
        """The snapshot and its selected rows [R] while the mouse holds the gizmo."""
        self._follows = True
        """Whether the gizmo is placed for the selection, not for what it did itself."""
        self.changed()
        if self.pivot is None:
            self.box.page.notify("Nothing is selected: the gizmo waits for a selection.")

    def stop(self) -> None:
        self.box.preview.end()
        self._remove()
        self.box.options.pick_pivot = False

    def changed(self) -> None:
        if self._held is not None:
            return
        center = self.box.center()
        if center is None:
            self.pivot = None
            self._remove()
            return
        pivot = self.box.pivot(center)
        if self.pivot is None or self._is_off(pivot):
            self._place(pivot)

    def click(self, at: Point2, camera: Camera, modifier: str | None) -> None:
        if self.box.options.pick_pivot:
            picked = self.box.picked(at, camera)
            if picked is not None:
                self.box.options.pick_pivot, self.box.clicked_pivot = False, picked.at
                self._place(picked.at)

    def back(self) -> None:
        """The pivot is the middle of the selection again."""
        self.box.clicked_pivot = None
        self.changed()

    # --- for the three gizmos --------------------------------------------------------------------------------------

    def build(self, pivot: np.ndarray) -> list[Any]:
        """The gizmo's nodes at ``pivot`` (world)."""
        raise NotImplementedError

    def hold(self) -> None:
        self._status = self.box.page.desk.session.status
        snapshot = self.box.page.desk.snapshot
        rows = None if snapshot is None else self.box.selected().nonzero().squeeze(1)
        self._held = None if rows is None or len(rows) == 0 else (snapshot, rows)

    def show(self, similarity: np.ndarray) -> None:
        """The selection as it would be."""
        if self._held is not None and self.box.options.live:
            snapshot, rows = self._held
            values = moved_values(snapshot.model, rows, torch.as_tensor(similarity))
            self.box.preview.show(snapshot.labels.ids[rows], values)

    def release(self, similarity: np.ndarray) -> None:
        """One operation; the pivot goes along."""
        held, self._held = self._held, None
        if held is None or is_identity(similarity):
            self.box.preview.end()
        elif not self.box.is_as_left(self._status):
            self.box.preview.end()
            self._remove()
            self.pivot = None
            return self.changed()
        else:
            self.box.preview.end_after(self.box.submit(Transform(frozen(similarity))))
        if self.pivot is not None:
            pivot = similarity[:3, :3] @ self.pivot + similarity[:3, 3]
            if self.box.clicked_pivot is not None:
                self.box.clicked_pivot = pivot
            self._follows = False
            self._place(pivot)
            self._follows = True

    def _is_off(self, center: np.ndarray) -> bool:
        """Far enough to follow: while training goes on the middle drifts, and a gizmo must not slip away under the
        mouse."""
        return bool(np.linalg.norm(center - self.pivot) > FOLLOW_SHARE * self.box.view_distance(center))

    def _place(self, pivot: np.ndarray) -> None:
        self._remove()
        self.pivot = pivot
        self._nodes = self.build(pivot)

    def _remove(self) -> None:
        for node in self._nodes:
            node.remove()
        self._nodes = []


class _AxesTool(_GizmoTool):
    """The page's own gizmo, with the arrows or the rings."""

    rings = False

    def start(self) -> None:
        self._frame, self._axes = np.array(UNTURNED), "world"
        super().start()

    def changed(self) -> None:
        if self._held is None and self._axes != self.box.options.axes:
            self._remove()
            self.pivot = None
        super().changed()

    def build(self, pivot: np.ndarray) -> list[Any]:
        self._axes = self.box.options.axes
        if self._axes == "world":
            self._frame = np.array(UNTURNED)
        elif self._follows:
            self._frame = quaternion(long_axes(self.box.selected_means()))
        node = self.box.page.client.scene.add_transform_controls(
            NODE, scale=GIZMO_PX, fixed=True, depth_test=False, disable_axes=self.rings, disable_sliders=self.rings,
            disable_rotations=not self.rings, position=self.box.page.desk.space.page(pivot), wxyz=self._frame,
        )  # fmt: skip
        node.on_update(self._updated)
        return [node]

    async def _updated(self, event: Any) -> None:
        position = self.box.page.desk.space.world(np.array(event.target.position))
        wxyz = np.array(event.target.wxyz)
        if event.phase == "start":
            self.box.runner.do(self.hold)
        elif event.phase == "update":
            self.box.runner.newest("gizmo", lambda: self.show(self._similarity(position, wxyz)))
        else:
            self.box.runner.do(lambda: self._let_go(position, wxyz))

    def _let_go(self, position: np.ndarray, wxyz: np.ndarray) -> None:
        similarity, self._frame = self._similarity(position, wxyz), wxyz
        self.release(similarity)

    def _similarity(self, position: np.ndarray, wxyz: np.ndarray) -> np.ndarray:
        if self.pivot is None:
            return np.eye(4)
        return between(self._frame, self.pivot, wxyz, position)


class MoveTool(_AxesTool):
    name, title = "move", "Move"
    hint = "Drag an arrow or a square of the gizmo."


class RotateTool(_AxesTool):
    name, title = "rotate", "Turn"
    hint = "Drag a ring of the gizmo."
    rings = True


class ScaleTool(_GizmoTool):
    name, title = "scale", "Scale"
    hint = "Drag the knob away from the pivot or towards it."

    def build(self, pivot: np.ndarray) -> list[Any]:
        page = self.box.page
        camera = page.camera()
        center, depth = project(camera, pivot)
        self._knob = at_depth(camera, center + np.array([GIZMO_PX, 0]), float(depth))  # world
        world_per_px = float(depth) / camera.focal_px[0]
        knob = page.client.scene.add_icosphere(
            f"{NODE}_knob", radius=float(KNOB_PX * world_per_px * page.desk.space.scale), color=KNOB_COLOR,
            position=page.desk.space.page(self._knob),
            cast_shadow=False, receive_shadow=False,
        )  # fmt: skip
        knob.on_drag("left")(self._dragged)
        arm = page.client.scene.add_line_segments(
            f"{NODE}_arm", self._arm(pivot, self._knob), KNOB_COLOR, thickness=3.0, thickness_units="screen"
        )
        return [knob, arm]

    async def _dragged(self, event: Any) -> None:
        camera = self.box.page.camera()
        at = pixel(event.end_screen_pos, camera)
        if event.phase == "start":
            self.box.runner.do(lambda: self._begin(at))
        elif event.phase == "update":
            self.box.runner.newest("gizmo", lambda: self._go(at, camera))
        else:
            self.box.runner.do(lambda: self._end(at, camera))

    def _begin(self, at: Point2) -> None:
        self._from = at
        self.hold()

    def _go(self, at: Point2, camera: Camera) -> None:
        if self.pivot is None or len(self._nodes) != 2:
            return
        knob = in_view_plane(camera, self._from, at, self._knob)
        self._nodes[0].position = self.box.page.desk.space.page(knob)
        self._nodes[1].points = self._arm(self.pivot, knob)
        self.show(self._similarity(at, camera))

    def _end(self, at: Point2, camera: Camera) -> None:
        self.release(self._similarity(at, camera))

    def _similarity(self, at: Point2, camera: Camera) -> np.ndarray:
        """The scale by which the pointer has come away from the pivot on the screen."""
        if self.pivot is None:
            return np.eye(4)
        center, _ = project(camera, self.pivot)
        before = max(float(np.linalg.norm(np.subtract(self._from, center))), 1.0)
        scale = float(np.linalg.norm(np.subtract(at, center))) / before
        return about(self.pivot, scale=float(np.clip(scale, LEAST_SCALE, MOST_SCALE)))

    def _arm(self, pivot: np.ndarray, knob: np.ndarray) -> np.ndarray:  # [1,2,3] page
        return self.box.page.desk.space.page(np.stack([pivot, knob])[None]).astype(np.float32)


TOOLS = (MoveTool, RotateTool, ScaleTool)
