"""The tab "Cameras": flying to views, comparing with photographs, the worst ones."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import serving
import torch
from controls import check, choose, control, nudge, offered, press, tab
from helpers import make_tiny_scene

from splat.model.gaussian import GaussianPrimitive
from splat.model.splat_model import SplatModel
from splat.scene.open import open_scene
from splat.viewer.figures.scores import ViewScore, measured, psnr
from splat.viewer.panels.cameras import CamerasPanel, score_label, summary_text
from splat.viewer.panels.frusta import HELD_OUT_RGB, TRAIN_RGB, Frusta, typical_size
from splat.viewer.picture.look import Look
from splat.viewer.picture.thumbnails import shrunk
from splat.viewer.serving.page import quaternion_of


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The tiny capture with splats at its points."""
    scene = open_scene(make_tiny_scene(tmp_path_factory.mktemp("capture")))
    rows = GaussianPrimitive(init_opacity=0.9, init_scale=0.6).start(
        torch.from_numpy(scene.points.xyz).float(), torch.from_numpy(scene.points.rgb).float() / 255, sh_degree=0,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    with serving.serve(SplatModel(GaussianPrimitive(), rows, 0), scene=scene) as found:
        yield found


def stands_at(shown, camera) -> bool:
    now = shown.camera()
    turned = quaternion_of(now.world_from_camera[:3, :3]) @ quaternion_of(camera.world_from_camera[:3, :3])
    return bool(np.allclose(now.center_world, camera.center_world, atol=1e-4) and abs(turned) > 1 - 1e-8)


def frusta(shown) -> dict:
    return serving.nodes(shown, "/splat/cameras/")


def test_a_click_on_a_frustum_flies_to_exactly_that_camera(page, shown, served) -> None:
    scene = served.desk.scene
    assert not frusta(shown) and not shown.wants_depth  # nothing is sent of cameras nobody asked for
    tab(page, "Cameras")
    check(page, "Show cameras")
    serving.wait_for(lambda: len(frusta(shown)) == len(scene.cameras), why="the frusta")
    serving.wait_for(
        lambda: all(serving.drawn_on(node) is not None for node in frusta(shown).values()), why="the thumbnails"
    )
    assert shown.wants_depth
    for index in range(len(scene.cameras)):
        node = frusta(shown)[f"/splat/cameras/{index}"]
        assert np.allclose(node.position, served.desk.space.page(scene.cameras[index].center_world), atol=1e-5)
        assert tuple(node.color) == (HELD_OUT_RGB if index in scene.test_indices else TRAIN_RGB)
    # Far back, so that all of them are in sight; then a click where the picture of one is.
    middle = np.mean([camera.center_world for camera in scene.cameras], axis=0)
    shown.look_at(middle, distance=3.0)
    serving.wait_for(lambda: np.isclose(np.linalg.norm(shown.camera().center_world - middle), 3.0), why="some distance")
    serving.heard(shown, page)
    aimed = scene.cameras[2]
    page.mouse.click(*seen_at(shown, aimed))
    serving.wait_for(lambda: stands_at(shown, aimed), why="the flight")
    serving.wait_for(lambda: not all(node.visible for node in frusta(shown).values()), why="a free view")
    check(page, "Show cameras")
    serving.wait_for(lambda: not any(node.visible for node in frusta(shown).values()), why="an empty picture")
    assert not shown.wants_depth


def seen_at(shown, camera) -> np.ndarray:  # [2] px
    """Where the middle of the picture of a frustum stands in the window."""
    space, here = shown.desk.space, shown.camera()
    positions = space.page(np.array([known.center_world for known in shown.desk.scene.cameras]))
    ahead = camera.center_world + camera.camera_from_world[2, :3] * space.world(typical_size(positions)) * 0.9
    local = here.camera_from_world[:3, :3] @ ahead + here.camera_from_world[:3, 3]
    return (here.K @ local)[:2] / local[2]


def test_views_are_stepped_through_and_all_of_a_picture_is_in_sight(page, shown, served) -> None:
    cameras = served.desk.scene.cameras
    tab(page, "Cameras")
    press(page, "▶")
    serving.wait_for(lambda: stands_at(shown, cameras[0]), why="the first view")
    press(page, "▶")
    serving.wait_for(lambda: stands_at(shown, cameras[1]), why="the second view")
    press(page, "◀")
    serving.wait_for(lambda: stands_at(shown, cameras[0]), why="the first view again")
    press(page, "◀")
    serving.wait_for(lambda: stands_at(shown, cameras[-1]), why="the last view")
    now, taken = shown.camera(), cameras[-1]
    assert now.width / now.focal_px[0] >= taken.width / taken.focal_px[0] - 1e-6
    assert now.height / now.focal_px[1] >= taken.height / taken.focal_px[1] - 1e-6
    held_out = served.desk.scene.test_cameras[0]
    choose(page, "View", f"{held_out.name} (held out)")
    serving.wait_for(lambda: stands_at(shown, held_out), why="the held-out view")
    page.mouse.click(200, 300)
    page.keyboard.press("PageDown")
    following = cameras[(cameras.index(held_out) + 1) % len(cameras)]
    serving.wait_for(lambda: stands_at(shown, following), why="the key")


def test_the_photograph_is_laid_beside_the_picture(page, shown, served) -> None:
    camera = served.desk.scene.cameras[0]
    tab(page, "Cameras")
    choose(page, "With", "Photo")
    serving.wait_for(lambda: shown.look.compare == camera.name and shown.look.compare_with == "photo", why="the photo")
    serving.wait_for(lambda: stands_at(shown, camera), why="the place it was taken from")
    frame = serving.sharp(shown)
    middle = frame.width // 2
    assert (frame.drawn.rgb[frame.height // 2, middle - 1 : middle + 1] == 255).all()  # the line
    nudge(page, "Swipe")
    serving.wait_for(lambda: shown.look.swipe == pytest.approx(0.49), why="the swipe")
    serving.wait_for(lambda: shown.toolbox.tool is not None, why="the mouse to have the line")
    serving.node(shown, "/splat/tools/plane")
    serving.heard(shown, page)
    page.mouse.move(400, 200)
    page.mouse.down()
    page.mouse.move(300, 210, steps=4)
    page.mouse.move(200, 220, steps=4)
    page.mouse.up()
    width = shown.camera().width
    serving.wait_for(lambda: abs(shown.look.swipe - 200 / width) < 0.01, why="the line under the pointer")
    serving.heard(shown, page)
    assert stands_at(shown, camera)  # the camera did not turn
    control(page, "Swipe").locator(f"[role=slider][aria-valuenow='{round(shown.look.swipe, 2):g}']").wait_for()
    page.keyboard.press("Escape")
    serving.wait_for(lambda: shown.tool == "", why="the mouse to be the camera's")
    shown.look_at(camera.center_world + camera.camera_from_world[2, :3], distance=3.0)  # elsewhere
    page.get_by_text("only from where it was taken").locator("visible=true").wait_for()
    choose(page, "With", "Error")
    serving.wait_for(lambda: shown.look.compare_with == "error", why="the error")
    serving.wait_for(lambda: stands_at(shown, camera), why="the way back")
    press(page, "▶")
    serving.wait_for(lambda: shown.look.compare == served.desk.scene.cameras[1].name, why="the next photograph")
    choose(page, "With", "Off")
    serving.wait_for(lambda: shown.look.compare is None and shown.tool == "", why="no photograph")


def test_the_worst_views_are_measured_while_pictures_go_on(page, shown, served) -> None:
    desk, scene = served.desk, served.desk.scene
    tab(page, "Cameras")
    press(page, "Measure all views")
    page.get_by_text("held out: ").wait_for()
    expected = sorted((score for score in measured(desk, desk.snapshot)), key=lambda score: score.psnr)
    shown_labels = offered(page, "Worst first")
    assert [" ".join(label.split()) for label in shown_labels[1:]] == [
        " ".join(score_label(score).split()) for score in expected
    ]
    page.keyboard.press("Escape")
    for place, score in enumerate(expected[:2], start=1):
        control(page, "Worst first").click()
        page.get_by_role("option").nth(place).click()
        there = next(camera for camera in scene.cameras if camera.name == score.name)
        serving.wait_for(lambda there=there: stands_at(shown, there), why=f"the view {score.name}")


def test_a_nudge_of_the_line_is_not_taken_back_before_it_was_heard() -> None:
    """The slider knows of it first; what it does runs on another thread than what lets the slider follow the mouse."""
    page = SimpleNamespace(look=Look(compare="a", swipe=0.5))
    swipe, dragged, elsewhere = (SimpleNamespace(value=0.5, visible=True) for _ in range(3))
    panel = SimpleNamespace(page=page, swipe=swipe, dragged=dragged, elsewhere=elsewhere, current=None, _followed=0.5)
    swipe.value = 0.49
    CamerasPanel._follow_compare(panel)
    assert swipe.value == 0.49
    page.look = Look(compare="a", swipe=0.3)  # the mouse has it
    CamerasPanel._follow_compare(panel)
    assert swipe.value == 0.3


def at_once(actions) -> None:
    """Each on a thread of its own."""
    threads = [threading.Thread(target=action) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class SlowList(list):
    def index(self, *found):
        time.sleep(0.01)  # whoever asks at once gets the same answer
        return super().index(*found)


def test_three_steps_at_once_are_three_steps() -> None:
    cameras = SlowList(SimpleNamespace(name=name) for name in "abcde")
    panel = CamerasPanel.__new__(CamerasPanel)  # its behaviour, without a page that shows it
    panel.scene, panel.current, panel._lock = SimpleNamespace(cameras=cameras), cameras[0], threading.RLock()
    panel.labels, panel.view = {camera.name: camera for camera in cameras}, SimpleNamespace(value="a")
    panel.page = SimpleNamespace(look=Look(), fly_to=lambda camera: None)
    panel._show_thumbnail = lambda: None
    at_once([lambda: panel.step(1)] * 3)
    assert panel.current is cameras[3] and panel.view.value == "d"


def test_a_measurement_that_is_begun_again_counts_nothing_of_the_one_before() -> None:
    panel = CamerasPanel.__new__(CamerasPanel)
    panel.scores, panel._done = [], 0
    panel.scene, panel.progress = SimpleNamespace(cameras=[1]), SimpleNamespace(value=0.0)

    def run():
        panel._measuring = iter([ViewScore("new", 1.0, False)])  # somebody presses the button meanwhile
        yield ViewScore("old", 2.0, False)

    panel._measuring = run()
    assert panel._measure_one() and not panel.scores
    assert panel._measure_one() and [score.name for score in panel.scores] == ["new"]


def test_cameras_that_are_hidden_while_they_are_made_stay_hidden(served) -> None:
    hidden = threading.Event()

    def add_camera_frustum(name: str, *, visible: bool, **rest) -> SimpleNamespace:
        if not hidden.is_set():
            hiding.start()
            time.sleep(0.05)
            hidden.set()
        return SimpleNamespace(visible=visible, on_click=lambda _: None)

    page = SimpleNamespace(
        desk=served.desk, overlay=SimpleNamespace(add_camera_frustum=add_camera_frustum), guarded=lambda f: f,
        needs_depth=lambda owner, on: None,
        client=SimpleNamespace(camera=SimpleNamespace(position=np.full(3, 100.0))),
    )  # fmt: skip
    frusta = Frusta(page, lambda camera: None)
    hiding = threading.Thread(target=lambda: frusta.show(False))
    frusta.show(True)
    frusta.tick()
    hiding.join()
    assert frusta.nodes and not any(node.visible for node in frusta.nodes.values())
    assert not frusta.tick(), "nothing is made while nobody looks"
    frusta.show(True)
    while frusta.tick():
        pass
    assert frusta.is_complete and all(node.visible for node in frusta.nodes.values())


def test_scores_and_their_words(served) -> None:
    desk, snapshot = served.desk, served.host.snapshot()
    camera = desk.scene.cameras[0]
    assert 10 < psnr(snapshot, camera, desk.photo(camera), desk.rasterizer) < 40
    scores = [ViewScore("a", 20.0, False), ViewScore("b", 22.0, False), ViewScore("c", 30.5, True)]
    assert summary_text(scores) == "2 training: **21.00 dB** · 1 held out: **30.50 dB**"
    assert score_label(scores[2]) == "30.50 dB  c (held out)"


def test_frusta_are_as_large_as_the_gaps_allow() -> None:
    line = np.stack([np.arange(5), np.zeros(5), np.zeros(5)], 1) * 0.1
    assert typical_size(line) == pytest.approx(0.025)
    assert typical_size(line * 100) == typical_size(np.zeros((3, 3))) * 2 == 0.25


def test_thumbnails_are_averages() -> None:
    pixels = np.zeros((30, 400, 3), np.uint8)
    pixels[:, ::2] = 200
    small = shrunk(pixels, 100)
    assert small.shape == (7, 100, 3) and (small == 100).all()
    assert shrunk(pixels[:2], 100).shape == (1, 100, 3)
    assert np.array_equal(shrunk(pixels, 400), pixels)
