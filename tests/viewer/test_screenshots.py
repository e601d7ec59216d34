"""A picture of every panel, checked for what has to be seen on it. The user's page (``viewer/README.md``) shows them.

``SPLAT_WRITE_SCREENSHOTS=RUN`` makes them anew for that page from a run of scenes/nook, otherwise a tiny training is
looked at, and the pictures of the page must only be there.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import serving
from hands import choose, press, tab, tick
from live_training import live_training

from splat.edit.ops import Select
from splat.edit.shapes import Box, Nothing
from splat.live.commands import Pause, Resume, Step

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "viewer" / "screenshots"
SIZE = (1280, 800)
MOST_BYTES = 100_000
RUN = os.environ.get("SPLAT_WRITE_SCREENSHOTS", "")
BASKET = ((0.28, -0.09, 0.745), (0.76, 0.36, 1.25))
"""Corners of a box about it, world units of scenes/nook."""
BASKET_POINTS = ((0.462, 0.083, 1.064), (0.32, -0.12, 1.08), (0.615, 0.131, 0.84), (0.516, 0.195, 0.765),
                 (0.454, 0.23, 0.8))  # fmt: skip
"""The top of its handle, where that is pulled to, and places low on the side."""
LEFT = 900
"""Left of the controls, px."""


@dataclass(frozen=True)
class Stage:
    """The browser page, ours, and the viewer of a training."""

    page: Any
    ours: Any
    served: serving.Served

    def command(self, command: Any) -> None:
        self.served.desk.command(command).result(serving.PATIENCE_SECS)

    def heard(self) -> None:
        """Until the browser shows what it was told."""
        assert self.ours.toolbox.runner.idle(serving.PATIENCE_SECS)
        serving.heard(self.ours, self.page)

    def take(self, key: str, tool: str) -> None:
        self.page.keyboard.press(key)
        serving.wait_for(lambda: self.ours.tool == tool, why=f"the tool {tool}")
        self.heard()

    def pause(self) -> None:
        self.command(Pause())
        serving.wait_for(lambda: self.served.desk.status.paused, why="the pause")

    def nodes(self, under: str) -> dict[str, Any]:
        return serving.nodes(self.ours, under)

    def seen(self, point: Any) -> tuple[float, float]:
        """Where a world point stands in the window, px."""
        camera = self.ours.camera()
        x, y, z = camera.K @ (camera.camera_from_world @ np.append(point, 1))[:3]
        return float(x / z), float(y / z)

    def click(self, *at: tuple[float, float]) -> None:
        for place in at:
            self.page.mouse.click(*place)
            serving.said(self.page)
            self.heard()

    def drag(self, *way: tuple[float, float]) -> None:
        self.page.mouse.move(*way[0])
        self.page.mouse.down()
        for place in way[1:]:
            self.page.mouse.move(*place, steps=2)
            time.sleep(0.05)  # the page tells of moves at most every 50 ms
        self.page.mouse.up()


@pytest.fixture(scope="module")
def stage(browser, tmp_path_factory):
    settings = {"capture": ROOT / "scenes" / "nook", "start_from": RUN, "max_splats": 40_000} if RUN else {}
    # Otherwise it takes as many steps as are asked for: each picture is always the same.
    with live_training(tmp_path_factory.mktemp("shots"), paused=not RUN, **settings) as served:
        with serving.opened(browser, served, size=SIZE) as (page, ours):
            page.get_by_text("Software WebGL").locator("xpath=ancestor::div[.//button][1]").locator("button").click()
            yield Stage(page, ours, served)


def training(stage: Stage) -> None:
    tab(stage.page, "Training")
    if RUN:
        stage.command(Resume())
    while len(stage.served.link.news.curve("loss")) < (60 if RUN else 6):
        time.sleep(1.0) if RUN else stage.command(Step(count=10))
    stage.page.locator(".u-title", has_text="loss").wait_for()
    time.sleep(2.0 if RUN else 0.0)
    stage.pause()
    stage.page.get_by_role("button", name="Resume").wait_for()


def display(stage: Stage) -> None:
    tab(stage.page, "View")
    choose(stage.page, "Mode", "depth")


def cameras(stage: Stage) -> None:
    tab(stage.page, "Cameras")
    tick(stage.page, "Show cameras")
    choose(stage.page, "With", "Error")
    count = len(stage.served.desk.scene.cameras)

    def pictured() -> int:
        return sum(serving.drawn_on(node) is not None for node in stage.nodes("/splat/cameras/").values())

    serving.wait_for(lambda: pictured() == count, why="the thumbnails")
    stage.page.mouse.move(SIZE[0] - 6, SIZE[1] - 6)  # no hint in the way
    time.sleep(25.0 if RUN else 0.0)  # pictures of sixty cameras are much for a browser without a GPU


def inspect(stage: Stage) -> None:
    tab(stage.page, "Inspect")
    press(stage.page, "Pick a splat")
    serving.wait_for(lambda: stage.ours.tool == "inspect", why="the tool")
    stage.heard()
    stage.click((400, 400))
    stage.page.get_by_text(re.compile(r"^\d+ \(row")).wait_for()


def selecting(stage: Stage) -> None:
    tab(stage.page, "Edit")
    choose(stage.page, "Reach", "Visible only")
    stage.page.locator("canvas[data-engine]").click(position={"x": 200, "y": 700})  # keys go to the picture
    stage.take("r", "rect")
    stage.drag((330, 300), (400, 380), (560, 500))
    serving.wait_for(lambda: stage.served.desk.session.status.selected > 0, why="a selection")
    stage.page.keyboard.press("Escape")
    serving.wait_for(lambda: stage.ours.tool == "", why="no tool")
    stage.page.get_by_text(re.compile("selected")).first.wait_for()


def dragging(stage: Stage) -> None:
    """The basket of scenes/nook is bent by its handle, on another capture whatever is there."""
    tab(stage.page, "Edit")
    if RUN:
        stage.ours.look_at(np.mean(BASKET, axis=0), distance=1.5)
        stage.ours.change(show_selection=False)  # what it looks like shall be seen, not the tint
        low, high = np.array(BASKET)
        pose = np.eye(4)
        pose[:3, 3] = (low + high) / 2
        box = Box(tuple(map(tuple, pose.tolist())), tuple((high - low).tolist()))
        stage.served.desk.submit(Select(box)).result(serving.PATIENCE_SECS)
        stage.heard()
        time.sleep(1.0)
        held, pulled, *stays = (stage.seen(point) for point in BASKET_POINTS)
        stage.page.locator("canvas[data-engine]").click(position={"x": 200, "y": 700})
    else:
        selecting(stage)
        held, pulled, stays = (440, 360), (500, 310), [(450, 470)]
    stage.take("g", "drag")
    pins = stage.ours.toolbox.tool.pins  # a new list each time
    stage.click(held)
    serving.wait_for(lambda: len(stage.ours.toolbox.tool.pins) == len(pins) + 1, why="a handle")
    stage.page.keyboard.down("Shift")
    stage.click(*stays)
    stage.page.keyboard.up("Shift")
    serving.wait_for(lambda: len(stage.ours.toolbox.tool.pins) == len(pins) + 1 + len(stays), why="anchors")
    stage.heard()
    stage.drag(held, *(tuple(np.array(held) + (np.array(pulled) - held) * part) for part in (0.3, 0.6, 1.0)))
    serving.wait_for(lambda: any("rag" in text for text in stage.served.desk.session.status.undo[-1:]), why="the drag")
    time.sleep(2.0 if RUN else 0.0)


def measuring(stage: Stage) -> None:
    tab(stage.page, "Measure")
    press(stage.page, "Measure between two points")
    serving.wait_for(lambda: stage.ours.tool == "measure", why="the tool")
    stage.heard()
    for number, place in enumerate(((240, 520), (690, 330))):
        stage.click(place)
        serving.node(stage.ours, f"/splat/measure/point_{number}")
    stage.page.locator("strong", has_text=re.compile(r"^\d+\.\d+$")).locator("visible=true").first.wait_for()


def path(stage: Stage) -> None:
    tab(stage.page, "Path")
    here = stage.ours.camera()
    for number, camera in enumerate(in_sight(here, stage.served.desk.scene.cameras)):
        serving.flown(stage.ours, camera)
        press(stage.page, "Add a key here")
        serving.node(stage.ours, f"/splat/path/key_{number}")
    serving.flown(stage.ours, here)


def in_sight(here: Any, cameras: Any) -> list[Any]:
    """Five cameras that stand in the picture of ``here``, from left to right; of those that do not, where there are
    fewer than two."""
    found = []
    for camera in cameras:
        x, y, z = here.K @ (here.camera_from_world @ np.append(camera.center_world, 1))[:3]
        if z > 0.5 and 60 < x / z < LEFT - 60 and 60 < y / z < SIZE[1] - 60:
            found.append((x / z, camera))
    chosen = [camera for _, camera in sorted(found, key=lambda pair: pair[0])]
    chosen = chosen if len(chosen) > 1 else list(cameras)
    return chosen[:: max(len(chosen) // 5, 1)][:5]


def export(stage: Stage) -> None:
    tab(stage.page, "Export")
    for name in ("spz", "ply"):
        choose(stage.page, "Format", name)
        press(stage.page, "Write the file")
        stage.page.get_by_text(f"{name}, ").wait_for()


def preview(stage: Stage) -> None:
    tab(stage.page, "View")
    choose(stage.page, "In the browser", "Always")
    stage.page.get_by_text("a light copy, not the true picture").first.wait_for()
    time.sleep(4.0 if RUN else 0.0)


def help_(stage: Stage) -> None:
    tab(stage.page, "Help")


SHOTS: dict[str, tuple[Callable[[Stage], None], tuple[str, ...]]] = {
    "training": (training, ("Curves", "Settings of this run", "Save a checkpoint", "Most splats")),
    "view": (display, ("Mode", "SH degree", "Crop box")),
    "cameras": (cameras, ("Show cameras", "Compare", "Worst views")),
    "inspect": (inspect, ("Histogram", "Select it")),
    "edit": (selecting, ("Select", "Change", "Rectangle")),
    "drag": (dragging, ("Select", "Change")),
    "measure": (measuring, ("Its true length", "From this view", "Save the picture")),
    "path": (path, ("Keys", "Way", "Play", "Write the video")),
    "export": (export, ("Publish as a web page", "size")),
    "preview": (preview, ("Splats at most", "light copy")),
    "help": (help_, ("what it does",)),
}
"""Name -> how to get there, and words that stand on the panel then."""


@pytest.mark.parametrize("name", SHOTS)
def test_a_panel_shows_what_it_has_to(name: str, stage: Stage) -> None:
    go, words = SHOTS[name]
    serving.sharp(stage.ours)
    view = stage.ours.camera()
    try:
        go(stage)
        if name != "preview":  # where nothing is streamed
            serving.wait_for(lambda: stage.ours.last.why != "moving", why="a sharp picture")
        time.sleep(0.5 if RUN else 0.0)
        for text in words:
            stage.page.get_by_text(text, exact=False).locator("visible=true").first.wait_for()
        (picture,) = serving.wait_for(lambda: shown_whole(stage), why="a picture and controls that are not blank")
        if RUN:
            FOLDER.mkdir(exist_ok=True)
            (FOLDER / f"{name}.jpg").write_bytes(small_jpeg(picture))
    finally:
        leave(stage, name, view)
    kept = FOLDER / f"{name}.jpg"
    assert kept.exists() and kept.stat().st_size < MOST_BYTES, f"{kept} (SPLAT_WRITE_SCREENSHOTS=RUN makes it)"
    assert jpeg_size(kept) == SIZE


def shown_whole(stage: Stage) -> tuple[np.ndarray] | None:
    """What the window shows, unless the picture or the controls are still blank."""
    stage.heard()
    picture = serving.pixels(stage.page)
    assert picture.shape == (SIZE[1], SIZE[0], 3)
    drawn = picture[:, :LEFT].std() > 3  # the tiny capture is grey for the most part
    return (picture,) if drawn and picture[:, LEFT + 60 :].std() > 12 else None


def test_the_page_shows_every_screenshot() -> None:
    text = (ROOT / "viewer" / "README.md").read_text(encoding="utf8")
    shown = set(re.findall(r"\(screenshots/(\w+)\.jpg\)", text))
    assert shown == set(SHOTS) == {file.stem for file in FOLDER.glob("*.jpg")}


def leave(stage: Stage, name: str, view: Any) -> None:
    """As it was before."""
    stage.page.keyboard.press("Escape")
    stage.ours.set_tool("")
    stage.ours.change(mode="color", compare=None, show_selection=True)
    if name == "drag":
        stage.served.desk.undo().result(serving.PATIENCE_SECS)
    box = stage.page.get_by_label("Show cameras", exact=True).locator("visible=true")
    if box.count() and box.first.is_checked():
        box.first.click()
        serving.said(stage.page)
    if name == "preview":
        choose(stage.page, "In the browser", "Off")
    if name == "inspect":
        press(stage.page, "Forget it")
    for left in range(len(stage.nodes("/splat/path/key_")), 0, -1):
        press(stage.page, "Delete")
        serving.wait_for(lambda left=left: len(stage.nodes("/splat/path/key_")) < left, why="a key to go")
    stage.ours.client.scene.remove_by_name("/splat/measure")
    stage.served.desk.submit(Select(Nothing())).result(serving.PATIENCE_SECS)
    serving.flown(stage.ours, view)


def small_jpeg(picture: np.ndarray) -> bytes:
    from PIL import Image

    for quality in (85, 78, 70, 60, 50, 40, 30):
        packed = io.BytesIO()
        Image.fromarray(picture).save(packed, "JPEG", quality=quality, optimize=True)
        if packed.tell() < MOST_BYTES:
            return packed.getvalue()
    raise AssertionError("a screenshot of more than 100 kB")


def jpeg_size(file: Path) -> tuple[int, int]:
    from PIL import Image

    with Image.open(file) as image:
        return image.size
