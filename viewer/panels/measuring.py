"""The measuring panel: distances between points that are clicked, scale and up of exported files, screenshots."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import viser

from splat.errors import UserError
from splat.geometry.camera import Camera
from splat.geometry.keyframe_json import SIDES_PX
from splat.io.placement import Placement
from splat.io.png import png_bytes
from splat.viewer.figures.measure import distance, normal_of, scale_from, surface_point
from splat.viewer.output.movie import key_at
from splat.viewer.output.placement import (
    direction_in_input,
    direction_in_world,
    length_in_input,
    place,
    placement_of,
)
from splat.viewer.picture.draw import draw
from splat.viewer.serving.page import Page

TOOLS = {"measure": 2, "up": 3}
"""Name of the tool -> points it asks for."""
ROOT = "/splat/measure"
POINT_RGB, LINE_RGB = (90, 220, 120), (90, 220, 120)
POINT_UNITS = 0.02
"""Radius of a point, page units."""
START = "Click two points of a surface."
BEAT_SECS = 1.0


def build(page: Page) -> MeasuringPanel:
    with page.tabs.add_tab("Measure"):
        return MeasuringPanel(page)


class MeasuringPanel:
    """What is measured stays with the desk (``placement``) and goes into exported files; rows stay where they are."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._lock = threading.Lock()
        self.points: list[np.ndarray] = []
        """Clicked so far, world."""
        self.measured: float | None = None
        """Last distance, units of the capture."""
        gui = page.client.gui
        self._tool = gui.add_button("Measure between two points", icon="ruler-measure")
        self._told = gui.add_markdown(START)
        with gui.add_folder("Scale of exported files"):
            self._known = gui.add_number("Its true length", initial_value=1.0, min=1e-6, step=0.01,
                                         hint="In the unit you want")  # fmt: skip
            self._take = gui.add_button("Set the scale", disabled=True)
        with gui.add_folder("Up"):
            self._plane = gui.add_button("From three points on the ground", icon="triangle")
            self._view = gui.add_button("From this view", icon="camera-up")
        self._forget = gui.add_button("Forget scale and up", color="gray")
        self._stand = gui.add_markdown("")
        with gui.add_folder("Screenshot"):
            self._screenshot_controls()
        for button, action in (
            (self._tool, lambda: self._start("measure")), (self._plane, lambda: self._start("up")),
            (self._view, self.up_from_view), (self._take, self.set_scale), (self._forget, self.forget),
        ):  # fmt: skip
            button.on_click(page.guarded(lambda _, action=action: action()))
        page.toolbox.others |= {
            "measure": ("Measure", "Click two points of a surface."), "up": ("Up", "Click three points of the ground."),
        }  # fmt: skip
        page.toolbox.listen(self._tool_changed)
        page.client.scene.on_click()(page.guarded(self._clicked))
        page.every(BEAT_SECS, self._follow)
        self._follow()

    def _screenshot_controls(self) -> None:
        gui = self._page.client.gui
        self._size = gui.add_vector2("Size, px", initial_value=(1920, 1080), min=(SIDES_PX[0],) * 2,
                                     max=(SIDES_PX[1],) * 2, step=1)  # fmt: skip
        button = gui.add_button("Save the picture", icon="photo-down", hint="PNG, drawn anew at that size")
        button.on_click(self._page.guarded(lambda _: self.screenshot()))

    # points ----------------------------------------------------------------------------------------------

    def _start(self, tool: str) -> None:
        self._clear()
        self._page.set_tool(tool)
        self._told.content = f"Click {TOOLS[tool]} points of a surface; Escape ends it."

    def _tool_changed(self) -> None:
        """Points that were not all given when the tool ended mean nothing."""
        wanted = max(TOOLS.values()) if self._told.content.startswith(f"Click {TOOLS['up']}") else TOOLS["measure"]
        if self._page.tool not in TOOLS and self._told.content.startswith("Click") and len(self.points) < wanted:
            self._clear()
            self._told.content = START

    def _clicked(self, event: viser.SceneClickEvent) -> None:
        tool = self._page.tool
        if tool not in TOOLS:
            return
        with self._lock:
            point = self._seen_at(self._page.camera(), *event.screen_pos)
            if point is None:
                self._page.notify("there is nothing under that point")
                return
            if len(self.points) >= TOOLS[tool]:
                self._clear()
            self.points.append(point)
            self._show()
            if len(self.points) == TOOLS[tool]:
                self._measured() if tool == "measure" else self._up_from_points()

    def _seen_at(self, camera: Camera, x: float, y: float) -> np.ndarray | None:  # [3]
        snapshot = self._page.snapshot
        if snapshot is None:
            return None
        look = replace(self._page.look, mode="color", compare=None)
        drawn = draw(snapshot, camera, look, rasterizer=self._page.desk.rasterizer, want_depth=True)
        return surface_point(camera, drawn.depth, x, y)

    def _measured(self) -> None:
        desk = self._page.desk
        self.measured = length_in_input(desk, distance(*self.points))
        self._take.disabled = False
        scale = placement_of(desk).scale
        unscaled = " units of the capture" if scale == 1 else f" ({self.measured:.4g} in the capture)"
        self._told.content = f"**{self.measured * scale:.4g}**{unscaled}"
        self._label(f"{self.measured * scale:.4g}")

    def _up_from_points(self) -> None:
        points = np.array(self.points)
        self._page.set_tool("")
        self._set_up(normal_of(points, self._page.camera().center_world))
        self._told.content = "The plane through the three points is level now."

    def _clear(self) -> None:
        self.points = []
        for name in ("line", "label", *(f"point_{i}" for i in range(3))):
            self._page.overlay.remove_by_name(f"{ROOT}/{name}")

    def _show(self) -> None:
        scene, space = self._page.overlay, self._page.desk.space
        places = [space.page(point) for point in self.points]
        for i, at in enumerate(places):
            scene.add_icosphere(f"{ROOT}/point_{i}", POINT_UNITS, POINT_RGB, position=tuple(at))
        if len(places) > 1:
            segments = np.stack([places[:-1], places[1:]], axis=1).astype(np.float32)
            scene.add_line_segments(f"{ROOT}/line", segments, LINE_RGB, thickness=2.0, thickness_units="screen")

    def _label(self, text: str) -> None:
        middle = self._page.desk.space.page(np.mean(self.points, axis=0))
        self._page.overlay.add_label(f"{ROOT}/label", text, position=tuple(middle))

    # what follows ----------------------------------------------------------------------------------------

    def set_scale(self) -> None:
        """The last distance is as long as was typed."""
        if self.measured is None:
            raise UserError("measure a distance first")
        known = float(self._known.value)
        why = f"{self.measured:.4g} of the capture are {known:g}"
        scale = scale_from(known, self.measured)
        self._placed(replace(placement_of(self._page.desk), scale=scale, why=why))
        self._told.content = f"**{known:g}**: {why}"
        if len(self.points) > 1:
            self._label(f"{known:g}")

    def up_from_view(self) -> None:
        """Up is what is up on the page now."""
        self._set_up(-self._page.camera().camera_from_world[1, :3])

    def _set_up(self, up_world: np.ndarray) -> None:
        up = direction_in_input(self._page.desk, up_world)
        self._placed(replace(placement_of(self._page.desk), up=up))
        self._page.client.camera.up_direction = tuple(direction_in_world(self._page.desk, up))

    def forget(self) -> None:
        """Neither scale nor up is known by hand any more, and no points are shown."""
        self._clear()
        self._told.content = START
        self._placed(Placement())
        self._page.client.camera.up_direction = tuple(self._page.desk.space.up)

    def _placed(self, placement: Placement) -> None:
        place(self._page.desk, placement)
        self._follow()

    def _follow(self) -> None:
        """Another page may have changed it."""
        known = placement_of(self._page.desk)
        up = "as photographed" if known.up is None else f"({', '.join(f'{part:.3f}' for part in known.up)}), by hand"
        scale = "1" if known.scale == 1 else f"{known.scale:.5g} ({known.why})"
        content = f"Exported files: scale {scale}; up {up}. The model here stays as it is."
        if content != self._stand.content:
            self._stand.content = content

    def screenshot(self) -> None:
        """The view as it is drawn now, at the size that was asked for, as a PNG to the browser."""
        snapshot, page = self._page.snapshot, self._page
        if snapshot is None:
            raise UserError("there is no model yet")
        width, height = (int(side) for side in self._size.value)
        camera = key_at(page.camera()).camera(width, height)
        drawn = draw(snapshot, camera, page.look, rasterizer=page.desk.rasterizer, desk=page.desk)
        page.client.send_file_download(f"view_{snapshot.step}.png", png_bytes(drawn.rgb), save_immediately=True)
