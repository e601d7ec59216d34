"""Pages in a real browser: they open with the token, show what the server drew, and do not disturb each other."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import pytest
import serving

from splat.viewer import panels
from splat.viewer.picture.draw import Drawn, draw
from splat.viewer.serving import worker

LEFT, LOW = slice(10, 420), slice(200, 440)
"""Columns and rows of the window that neither the controls nor a notification cover."""
CORNERS = {(0, 0): (230, 40, 40), (0, 1): (40, 230, 40), (1, 0): (40, 40, 230), (1, 1): (230, 230, 40)}


def test_a_page_opens_with_the_token_and_loads_nothing_from_elsewhere(browser, served) -> None:
    asked: list[str] = []
    context = serving.new_context(browser, (600, 400))
    before = set(serving.known_pages(served))
    try:
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(served.url, wait_until="commit")
        serving.wait_for(lambda: set(serving.known_pages(served)) - before, why="a page")
        page.get_by_text("Help").first.wait_for()
        assert "token" not in page.url
        (cookie,) = context.cookies()
        assert cookie["name"] == f"splat-{served.viewer.server.port}"
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
    finally:
        context.close()
        serving.wait_for(lambda: set(serving.known_pages(served)) <= before, why="the page to be gone")
    own = f"http://127.0.0.1:{served.viewer.server.port}/"
    assert [url for url in asked if not url.startswith((own, f"blob:{own}", "data:"))] == []


@pytest.mark.parametrize("query", ["", "?token=wrong"])
def test_no_page_without_the_token(browser, served, query: str) -> None:
    context = serving.new_context(browser)
    try:
        page = context.new_page()
        answer = page.goto(f"http://127.0.0.1:{served.viewer.server.port}/{query}")
        assert answer.status == 403
        assert "address that splat printed" in page.content()
        assert page.locator("canvas").count() == 0
    finally:
        context.close()


def test_a_foreign_page_cannot_connect(browser, served) -> None:
    """With the cookie in the browser: only the Origin tells the two apart."""
    with serving.opened(browser, served) as (page, _):
        other = page.context.new_page()
        other.goto("about:blank")
        url = f"ws://127.0.0.1:{served.viewer.server.port}"
        said = other.evaluate("""url => new Promise(done => {
            const socket = new WebSocket(url, 'viser-v1.1.1')
            socket.onopen = () => done('open')
            socket.onerror = () => done('refused')
        })""", url)  # fmt: skip
        assert said == "refused"


def test_the_page_shows_what_the_server_drew(page, shown, served) -> None:
    frame = serving.sharp(shown)
    assert (frame.width, frame.height) == serving.SIZE and frame.scale == 1
    again = draw(served.desk.snapshot, frame.camera, frame.look, rasterizer=served.desk.rasterizer)
    assert np.array_equal(again.rgb, frame.drawn.rgb) and again.rgb.std() > 20
    serving.wait_for(lambda: apart(page, frame.drawn.rgb) < 4, why="the browser to show the picture")


def test_the_picture_stands_the_right_way_round(page, shown, monkeypatch) -> None:
    monkeypatch.setattr(worker, "draw", painted_corners)
    shown.redraw()
    wanted = np.array([CORNERS[1, 0], CORNERS[0, 0]])

    def seen() -> bool:
        window = serving.pixels(page)
        return np.abs(window[[440, 180], [10, 10]].astype(int) - wanted).max() < 12

    serving.wait_for(seen, why="the colours of the left corners")


def test_depth_is_sent_while_somebody_needs_it_and_hides_what_is_behind(browser, served, monkeypatch) -> None:
    """Grey pictures: near on the left, nothing right of that; a red dot of the page stands in between, twice. In a
    small window, as the browser draws them without a GPU."""
    asked: list[bool] = []

    def halves(snapshot: Any, camera: Any, look: Any, *, want_depth: bool, **options: Any) -> Drawn:
        asked.append(want_depth)
        rgb = np.full((camera.height, camera.width, 3), 90, np.uint8)
        depth = np.zeros((camera.height, camera.width), np.float32)
        depth[:, : camera.width // 4] = 1.0  # of the world
        return Drawn(rgb, depth if want_depth else None, camera, None)

    with serving.opened(browser, served, size=(700, 300)) as (page, ours):
        monkeypatch.setattr(worker, "draw", halves)
        camera, distance = ours.camera(), 2.0
        for name, share in (("left", 0.12), ("right", 0.37)):
            ray = np.linalg.solve(camera.K, [share * camera.width, 0.8 * camera.height, 1.0])
            place = camera.center_world + camera.world_from_camera[:3, :3] @ ray * distance
            ours.overlay.add_point_cloud(
                f"/splat/{name}", points=np.array([served.desk.space.page(place)], np.float32), colors=(255, 0, 0),
                point_size=0.2 * served.desk.space.scale, point_shape="circle",
            )  # fmt: skip

        def red() -> list[bool]:
            window = serving.pixels(page).astype(int)[170:]
            reds = (window[..., 0] > 1.8 * window[..., 1] + 20) & (window[..., 0] > 100)
            return [bool(reds[:, :170].any()), bool(reds[:, 180:330].any())]

        ours.redraw()
        serving.wait_for(lambda: red() == [True, True], why="both dots")
        assert not any(asked)
        ours.needs_depth("test", True)
        serving.wait_for(lambda: red() == [False, True], why="the left dot to be hidden")
        ours.needs_depth("test", False)
        serving.wait_for(lambda: not asked[-1], why="a picture without depth")


def test_moving_lowers_the_resolution_and_stillness_restores_it(page, shown, monkeypatch) -> None:
    seen: list[tuple[str, float]] = []

    def slow(snapshot: Any, camera: Any, look: Any, **options: Any) -> Drawn:
        time.sleep(0.2 * camera.width * camera.height / (serving.SIZE[0] * serving.SIZE[1]))
        seen.append((shown._worker._plan.why, camera.width / serving.SIZE[0]))
        return draw(snapshot, camera, look, **options)

    monkeypatch.setattr(worker, "draw", slow)
    serving.resting(shown)
    shown.redraw()
    serving.wait_for(lambda: seen and seen[-1][0] == "still", why="a first slow picture")
    page.mouse.move(200, 300)
    page.mouse.down()
    places = itertools.cycle([*range(200, 300, 5), *range(300, 200, -5)])

    def lowered() -> bool:
        page.mouse.move(next(places), 300)
        return any(why == "moving" and share < 0.6 for why, share in seen)

    serving.wait_for(lowered, why="smaller pictures")
    page.mouse.up()
    frame = serving.sharp(shown)
    assert frame.scale == 1 and (frame.width, frame.height) == serving.SIZE
    assert serving.pixels(page).shape[:2] == serving.SIZE[::-1]


def test_a_failure_is_told_on_the_page_and_the_rest_goes_on(page, shown, served, monkeypatch, caplog) -> None:
    last = serving.resting(shown).number

    def broken(*args: Any, **options: Any) -> Drawn:
        raise RuntimeError("the picture fell down")

    monkeypatch.setattr(worker, "draw", broken)
    shown.redraw()
    page.get_by_text("the picture fell down").first.wait_for()
    serving.wait_for(lambda: "the picture fell down" in caplog.text, why="a line in the log")
    assert shown.last.number == last, "the last good picture stays"
    monkeypatch.undo()
    shown.redraw()
    serving.wait_for(lambda: shown.last.number > last, why="a picture after the failure")
    assert served.host._loop.thread.is_alive()


def test_a_failing_callback_is_told_on_the_page(page, shown, caplog) -> None:
    """Whether it was guarded by its panel or not."""
    gui = shown.client.gui
    gui.add_button("Break it").on_click(lambda _: 1 / 0)
    gui.add_button("Break more").on_click(shown.guarded(lambda _: {}["a key that is not there"]))
    page.get_by_role("button", name="Break it").click()
    page.get_by_text("division by zero").first.wait_for()
    page.get_by_role("button", name="Break more").click()
    page.get_by_text("a key that is not there").first.wait_for()
    serving.wait_for(lambda: "ZeroDivisionError" in caplog.text and "KeyError" in caplog.text, why="lines in the log")


def test_a_panel_that_fails_leaves_a_line_and_the_others_stand(browser, served, monkeypatch, caplog) -> None:
    monkeypatch.setattr(panels, "PANELS", ("nowhere:build", "help:wrong", "help:build"))
    with serving.opened(browser, served) as (page, ours):
        page.get_by_text("panel 'nowhere' failed").wait_for()
        page.get_by_text("panel 'help' failed").wait_for()
        page.get_by_text("Ctrl+K opens").wait_for()
        assert ours.last is not None
    assert "nowhere" in caplog.text


def test_a_page_is_told_when_its_program_ends(browser, tmp_path) -> None:
    context = serving.new_context(browser)
    page = context.new_page()
    with serving.serve(serving.ball(50), run_dir=tmp_path) as served:
        page.goto(served.url, wait_until="commit")
        page.get_by_role("tab", name="Help").wait_for()
    page.get_by_text(f"'splat view {tmp_path}' opens the run").wait_for()
    context.close()


def test_two_pages_have_their_own_looks(browser, served, page, shown) -> None:
    with serving.opened(browser, served) as (other, second):
        shown.change(background=(1.0, 0.0, 0.0))
        second.change(background=(0.0, 0.0, 1.0))
        first_frame, second_frame = serving.sharp(shown), serving.sharp(second)
        assert first_frame.drawn.rgb[-1, 0].astype(int) @ (1, -1, -1) > 240
        assert second_frame.drawn.rgb[-1, 0].astype(int) @ (-1, -1, 1) > 240
        serving.wait_for(lambda: apart(page, first_frame.drawn.rgb) < 4, why="red behind the first")
        serving.wait_for(lambda: apart(other, second_frame.drawn.rgb) < 4, why="blue behind the second")
        still, here = serving.resting(shown), second.camera().center_world
        for x in range(5):  # who moves here draws nothing there
            other.mouse.move(200 + 20 * x, 300)
            other.mouse.wheel(0, 60)
        serving.wait_for(lambda: not np.allclose(second.camera().center_world, here), why="the second to move")
        serving.resting(second)
        assert shown.last is still


def test_shortcuts_reach_the_server_and_stand_in_the_list(page, shown) -> None:
    pressed: list[str] = []
    shown.on_key("Try it", "Y", lambda: pressed.append("Y"))
    shown.on_key("Try more", "Y", lambda: pressed.append("shift+Y"), "shift")
    with pytest.raises(ValueError, match="'Try it'"):
        shown.on_key("Try again", "Y", lambda: None)
    page.mouse.click(200, 300)
    serving.heard(shown, page)
    page.keyboard.press("y")
    serving.wait_for(lambda: pressed, why="Y")
    page.keyboard.press("Shift+Y")
    serving.wait_for(lambda: "shift+Y" in pressed, why="shift+Y")


def test_the_page_flies_to_a_camera_and_looks_at_a_point(page, shown, served) -> None:
    here = shown.camera()
    turned = here.posed(np.linalg.inv(np.linalg.inv(here.camera_from_world) @ nudge()))
    serving.flown(shown, turned)
    assert np.allclose(shown.camera().camera_from_world, turned.camera_from_world, atol=1e-4)
    shown.look_at((0.0, 0.0, 0.0), distance=3.0)

    def looks() -> bool:
        now = shown.camera()
        return np.allclose(now.center_world + 3 * now.camera_from_world[2, :3], 0, atol=1e-3)

    serving.wait_for(looks, why="the view")
    serving.heard(shown, page)
    assert looks()


def nudge() -> np.ndarray:  # [4,4]
    angle = 0.2
    made = np.eye(4)
    made[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    made[:3, 3] = (0.3, -0.1, 0.2)
    return made


def painted_corners(snapshot: Any, camera: Any, look: Any, **options: Any) -> Drawn:
    rgb = np.zeros((camera.height, camera.width, 3), np.uint8)
    for (row, column), color in CORNERS.items():
        rows = slice(row * camera.height // 2, (row + 1) * camera.height // 2)
        rgb[rows, column * camera.width // 2 : (column + 1) * camera.width // 2] = color
    return Drawn(rgb, None, camera, None)


def apart(page: Any, rgb: np.ndarray) -> float:
    """Mean difference between the window and a picture of its size, in levels."""
    return float(np.abs(serving.pixels(page)[LOW, LEFT].astype(float) - rgb[LOW, LEFT]).mean())
