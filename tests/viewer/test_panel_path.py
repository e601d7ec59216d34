"""The camera path panel in a browser: keys from views, their file, a flight, and a video that shows what is drawn."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import serving
from hands import choose, press, tab, tick, type_into
from pageless import visited

from splat.geometry.keyframe_json import path_to_text, read_path
from splat.geometry.keyframes import CameraPath
from splat.viewer.output.movie import shots
from splat.viewer.panels import path as path_panel
from splat.viewer.picture.draw import draw


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving.serve(serving.ball(), run_dir=tmp_path_factory.mktemp("run")) as found:
        yield found


@pytest.fixture
def panel(page):
    """The browser page at the path's tab."""
    tab(page, "Path")
    page.get_by_role("button", name="Add a key here").wait_for()
    return page


def view(shown, number: int):
    """One of several views around the ball."""
    here, angle = shown.camera(), 0.5 * number
    pose = here.camera_from_world.copy()
    pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    pose[:3, 3] = (0, 0, 5)
    return here.posed(pose)


def add_keys(page, shown, count: int) -> None:
    for i in range(count):
        serving.flown(shown, view(shown, i))
        press(page, "Add a key here")
        serving.wait_for(lambda i=i: len(nodes(shown)) == i + 1, why=f"key {i}")
    serving.heard(shown, page)


def nodes(shown) -> list[str]:
    return list(serving.nodes(shown, "/splat/path/key_"))


def saved(page, served):
    with page.expect_download():
        press(page, "Save")
    return read_path(served.desk.run_dir / "paths" / "path.json")


def test_keys_become_a_file_a_flight_and_a_video(panel, shown, served):
    add_keys(panel, shown, 3)
    serving.node(shown, "/splat/path/line")
    folder = served.desk.run_dir
    panel.get_by_text("File", exact=True).click()
    with panel.expect_download() as got:
        press(panel, "Save")
    path = read_path(folder / "paths" / "path.json")
    assert len(path.keys) == 3 and path.duration_secs == 4 and path.size == (1280, 720)
    assert json.loads(Path(got.value.path()).read_text())["format"] == "splat-path"
    places = np.array([key.position for key in path.keys])
    np.testing.assert_allclose(np.linalg.norm(places, axis=1), 5, atol=1e-2)

    choose(panel, "Size", "own")
    type_into(panel, "Frames per second", "4")
    type_into(panel, "Own size, px", "96", "64")
    press(panel, "Write the video")
    video = folder / "exports" / "path_0.mp4"
    panel.get_by_role("button", name="Download", exact=True).wait_for()
    frames = frames_of(video)
    assert len(frames) == 17 and frames[0].shape == (64, 96, 3)
    drawn = shots(replace(path, fps=4.0), shown.look, size=(96, 64))
    for (camera, look), frame in list(zip(drawn, frames, strict=True))[::8]:
        wanted = draw(served.desk.snapshot, camera, look, rasterizer=served.desk.rasterizer).rgb
        assert wanted.std() > 20 and np.abs(wanted.astype(float) - frame).mean() < 6
    with panel.expect_download() as got:
        press(panel, "Download")
    assert Path(got.value.path()).read_bytes() == video.read_bytes()

    tick(panel, "Loop")  # a flight without an end: somebody slow has to press the button before that
    serving.wait_for(lambda: saved(panel, served).loop, why="a loop")
    before = shown.camera().center_world
    press(panel, "Play")
    serving.wait_for(lambda: np.linalg.norm(shown.camera().center_world - before) > 0.3, why="a flight")
    press(panel, "Pause")
    panel.get_by_role("button", name="Play", exact=True).wait_for()


def test_keys_are_moved_timed_and_deleted(panel, shown, served):
    add_keys(panel, shown, 3)
    panel.get_by_text("File", exact=True).click()
    before = saved(panel, served)

    def became(why: str, told) -> None:
        serving.wait_for(lambda: told(saved(panel, served)), why=why)

    def places(path) -> list:
        return [key.position for key in path.keys]

    press(panel, "Earlier")
    became("another order", lambda path: places(path) == [places(before)[i] for i in (0, 2, 1)])
    type_into(panel, "Seconds to the next", "3.5")
    became("the seconds", lambda path: path.keys[1].secs == 3.5)
    type_into(panel, "Stay, seconds", "1")
    became("the stay", lambda path: path.keys[1].hold_secs == 1.0)
    tick(panel, "Loop")
    became("the loop", lambda path: path.loop)
    choose(panel, "Timing", "even")
    became("the timing", lambda path: path.timing == "even")
    choose(panel, "Ease", "keys")
    became("the ease", lambda path: path.ease == "keys")
    press(panel, "Delete")
    became("one key fewer", lambda path: places(path) == places(before)[:2])
    serving.wait_for(lambda: len(nodes(shown)) == 2, why="one key fewer in the picture")
    press(panel, "Go there")
    serving.wait_for(lambda: np.allclose(shown.camera().center_world, view(shown, 1).center_world, atol=1e-2))


def test_files_are_opened_and_bad_ones_told(panel, shown, tmp_path, served):
    add_keys(panel, shown, 2)
    panel.get_by_text("File", exact=True).click()
    path = saved(panel, served)
    file, wrong = tmp_path / "other.json", tmp_path / "wrong.json"
    file.write_text(path_to_text(replace(path, keys=path.keys * 2, tension=0.5)))
    wrong.write_text('{"format": "splat-path", "version": 9}')
    upload = panel.locator("input[type=file]")
    upload.set_input_files(str(wrong))
    panel.get_by_text("wrong.json: version is 9; choices: 1").first.wait_for()
    assert len(nodes(shown)) == 2
    upload.set_input_files(str(file))
    serving.wait_for(lambda: len(nodes(shown)) == 4, why="the keys of the file")
    choose(panel, "In the run folder", "path")
    serving.wait_for(lambda: len(nodes(shown)) == 2, why="the keys of the run's file")


# without a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture
def bare(served, monkeypatch):
    """A page that only speaks, and its panel with two keys."""
    made = []

    class Kept(path_panel.PathPanel):
        def __init__(self, page) -> None:
            made.append(self)
            super().__init__(page)

    monkeypatch.setattr(path_panel, "PathPanel", Kept)
    with visited(served) as (client, ours):
        for _ in range(2):
            made[0].add()
        yield client, ours, made[0]


def types(client, handle, value) -> None:
    client.send("GuiUpdateMessage", uuid=handle._impl.uuid, updates={"value": value})


def test_what_is_typed_while_the_controls_are_filled_is_heard(bare, monkeypatch) -> None:
    client, ours, panel = bare
    times = CameraPath.key_times.fget

    def slowly(path):
        time.sleep(0.05)
        return times(path)

    monkeypatch.setattr(CameraPath, "key_times", property(slowly))
    types(client, panel._secs, 3.5)
    types(client, panel._hold, 1.25)
    types(client, panel._tension, 0.4)
    serving.heard(ours)

    def arrived() -> bool:
        key = panel.path.keys[panel.chosen]
        return (key.secs, key.hold_secs, panel.path.tension) == (3.5, 1.25, 0.4)

    serving.wait_for(arrived, 5.0, why="all three")
    assert (panel._secs.value, panel._hold.value, panel._tension.value) == (3.5, 1.25, 0.4)


def test_a_number_that_is_about_to_be_heard_is_not_written_over(bare) -> None:
    _, _, panel = bare
    panel._secs._impl.value = 4.0  # as viser does before it calls anybody
    panel._way("loop", True)
    assert panel._secs.value == 4.0
    panel.choose(0)
    panel.edit(secs=7.0)
    assert panel._secs.value == 7.0


def test_a_key_is_known_by_its_number_whatever_its_time_was(bare) -> None:
    client, _, panel = bare
    panel.choose(0)
    types(client, panel._list, "2: at 77.0 s")
    serving.wait_for(lambda: panel.chosen == 1, why="the second key")
    serving.wait_for(lambda: panel._list.value == "2: at 2.0 s", why="its name")
    types(client, panel._list, "9: at 77.0 s")
    serving.wait_for(lambda: panel._list.value == "2: at 2.0 s", why="the last key")


def frames_of(file) -> list[np.ndarray]:
    stream, frames = cv2.VideoCapture(str(file)), []
    while True:
        good, frame = stream.read()
        if not good:
            return frames
        frames.append(frame[..., ::-1])
