"""Selecting by a solid in space that is moved and sized first: sphere and box."""

from __future__ import annotations

from typing import Any

import numpy as np

from splat.edit.shapes import Box, Point2, Sphere
from splat.geometry.camera import Camera
from splat.viewer.tools.matrices import frozen, rotation
from splat.viewer.tools.overlay import LIGHT
from splat.viewer.tools.tool import Tool

GIZMO_PX = 90.0
"""Length of a gizmo's axes on the screen."""
START_SHARE = 0.15
"""Radius of a new sphere, and half a side of a new box, as a share of the distance from the camera."""


class _Solid(Tool):
    """Stands where it was clicked, moved by a gizmo; Enter selects what is inside."""

    catches_clicks = True
    turns = False

    def start(self) -> None:
        self.center: np.ndarray | None = getattr(self, "center", None)  # it stands where it was left
        self.wxyz = getattr(self, "wxyz", np.array([1.0, 0.0, 0.0, 0.0]))
        self._gizmo: Any = None
        self._lines: Any = None
        if self.center is None:
            self.center = self.box.center()
        self._build()

    def stop(self) -> None:
        for node in (self._gizmo, self._lines):
            if node is not None:
                node.remove()
        self._gizmo = self._lines = None

    def click(self, at: Point2, camera: Camera, modifier: str | None) -> None:
        picked = self.box.picked(at, camera)
        if picked is not None:
            self.stop()
            self.center = picked.at
            self._build()
            self.box.announce()  # a size may have been chosen

    def changed(self) -> None:
        self._show()

    def unit_lines(self) -> np.ndarray:  # [S,2,3]
        """Of the solid with half size 1 at the origin."""
        raise NotImplementedError

    def half_size(self) -> np.ndarray:  # [3], world
        raise NotImplementedError

    def _build(self) -> None:
        if self.center is None:
            return
        self.choose(START_SHARE * self.box.view_distance(self.center))
        space, scene = self.box.page.desk.space, self.box.page.client.scene
        self._gizmo = scene.add_transform_controls(
            f"/splat/tools/{self.name}", scale=GIZMO_PX, fixed=True, depth_test=False,
            disable_rotations=not self.turns, disable_sliders=True, position=space.page(self.center), wxyz=self.wxyz,
        )  # fmt: skip
        self._gizmo.on_update(self._moved)
        self._show()

    def choose(self, length: float) -> None:
        """Take ``length`` (world units) as the size where none was chosen."""
        raise NotImplementedError

    async def _moved(self, event: Any) -> None:
        self.center = self.box.page.desk.space.world(np.array(event.target.position))
        self.wxyz = np.array(event.target.wxyz)
        self.box.runner.newest("solid", self._show)

    def _show(self) -> None:
        if self.center is None or self._gizmo is None:
            return
        lines = self.unit_lines() * self.half_size() @ rotation(self.wxyz).T + self.center
        lines = self.box.page.desk.space.page(lines).astype(np.float32)
        if self._lines is None:
            self._lines = self.box.page.client.scene.add_line_segments(
                f"/splat/tools/{self.name}_lines", lines, LIGHT, thickness=2.0, thickness_units="screen"
            )
        else:
            self._lines.points = lines


def rings() -> np.ndarray:  # [S,2,3]
    """A circle of radius 1 about every axis."""
    turn = np.linspace(0, 2 * np.pi, 65)
    ring = np.stack([np.cos(turn), np.sin(turn), np.zeros_like(turn)], -1)
    three = [np.roll(ring, axis, axis=-1) for axis in range(3)]
    return np.concatenate([np.stack([ring[:-1], ring[1:]], 1) for ring in three])


class SphereTool(_Solid):
    name, title = "sphere", "Sphere"
    hint = "Click the middle, move it by the arrows, set the radius; Enter selects (Shift, Ctrl or both as elsewhere)."

    def choose(self, length: float) -> None:
        self.box.options.radius = self.box.options.radius or length

    def unit_lines(self) -> np.ndarray:
        return rings()

    def half_size(self) -> np.ndarray:
        return np.full(3, self.box.options.radius)

    def apply(self, modifier: str | None) -> None:
        if self.center is not None:
            self.box.select(Sphere(tuple(map(float, self.center)), float(self.box.options.radius)), modifier)


class BoxTool(_Solid):
    name, title = "box", "Box"
    hint = "Click the middle, move and turn it, set the sides; Enter selects (Shift, Ctrl or both as elsewhere)."
    turns = True

    def choose(self, length: float) -> None:
        if min(self.box.options.size) <= 0:
            self.box.options.size = (2 * length,) * 3

    def unit_lines(self) -> np.ndarray:
        corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1], indexing="ij")).reshape(3, 8).T.astype(float)
        pairs = [(a, b) for a in range(8) for b in range(a + 1, 8) if (corners[a] != corners[b]).sum() == 1]
        return corners[np.array(pairs)]

    def half_size(self) -> np.ndarray:
        return np.asarray(self.box.options.size) / 2

    def apply(self, modifier: str | None) -> None:
        if self.center is not None:
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = rotation(self.wxyz), self.center
            self.box.select(Box(frozen(pose), tuple(map(float, self.box.options.size))), modifier)


TOOLS = (SphereTool, BoxTool)
