"""What stands above the tabs, and the first things that hands try: framing, double click, the brush's ring."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import serving
from hands import press, row_of, tab
from tooling import Hands

from splat.edit.ops import Select
from splat.edit.session import SessionStatus
from splat.edit.shapes import Sphere
from splat.viewer.panels.export import marked_text
from splat.viewer.panels.framing import DOUBLE_SECS, DoubleClick
from splat.viewer.panels.selecting import show_number
from splat.viewer.panels.status import FIRST_STEPS, hint_text, mode_text
from splat.viewer.panels.training import opened_figures
from splat.viewer.picture.look import Look

AT = (230, 290)


@pytest.fixture
def hands(opened: tuple[Any, Any], served: serving.Served) -> Hands:
    return Hands(*opened, served)


def test_the_tool_and_the_mode_are_told_on_every_tab(hands: Hands) -> None:
    page = hands.page
    page.get_by_text("Left drag turns").wait_for()
    page.get_by_role("tab", name="Model").wait_for()
    for name in ("Cameras", "Path"):
        tab(page, name)
        hands.take("r", "rect")
        page.get_by_text("Drag a rectangle.").wait_for()
        page.keyboard.press("Escape")
        page.get_by_text("Left drag turns").wait_for()
    page.keyboard.press("i")
    page.get_by_text("to read its values on the tab").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("m")
    page.get_by_text("mean distance along the view").wait_for()
    page.get_by_text("world units").wait_for()
    page.keyboard.press("Shift+M")
    page.get_by_text("mean distance along the view").wait_for(state="hidden")


def test_what_has_nothing_to_do_says_so(opened, served) -> None:
    page, ours = opened
    served.desk.submit(Select(Sphere((50.0, 0, 0), 0.1))).result(serving.PATIENCE_SECS)
    page.keyboard.press("Delete")
    page.get_by_text("Nothing is selected: draw around it first").first.wait_for()
    assert not ours.desk.session.status.selected


def test_the_camera_turns_about_what_is_clicked_twice_and_comes_back(hands: Hands) -> None:
    ours = hands.ours
    start = np.array(ours.client.camera.look_at)
    hands.page.mouse.dblclick(*AT)
    serving.wait_for(lambda: not np.allclose(ours.client.camera.look_at, start, atol=1e-3), why="another middle")
    hands.page.keyboard.press("Shift+F")
    serving.wait_for(lambda: np.allclose(ours.client.camera.look_at, start, atol=1e-3), why="the first view")
    first = ours.client._viser_server.initial_camera
    serving.wait_for(lambda: np.allclose(ours.client.camera.position, first.position, atol=1e-3), why="its place")


def test_the_ring_of_the_brush_follows_the_pointer(hands: Hands) -> None:
    page = hands.page
    hands.take("b", "brush")
    page.mouse.move(*AT)
    ring = page.locator("#splat-brush")
    ring.wait_for()
    place = ring.bounding_box()
    radius = hands.box.options.brush_px
    assert place["width"] == pytest.approx(2 * radius, abs=0.5)
    assert (place["x"] + radius, place["y"] + radius) == pytest.approx(AT, abs=1)
    color = ring.evaluate("ring => getComputedStyle(ring).borderColor")
    page.keyboard.down("Shift")
    assert ring.evaluate("ring => getComputedStyle(ring).borderColor") != color, "it adds"
    page.keyboard.up("Shift")
    page.keyboard.press("Escape")
    ring.wait_for(state="hidden")


def test_the_size_of_a_sphere_is_shown_once_it_stands(hands: Hands) -> None:
    tab(hands.page, "Edit")
    press(hands.page, "Sphere")
    hands.heard()
    hands.click(AT)
    serving.wait_for(lambda: hands.box.tool.center is not None, why="the sphere")
    hands.heard()
    shown = float(row_of(hands.page, "Radius").locator("input").first.input_value())
    assert shown == pytest.approx(hands.box.options.radius, rel=0.02) and shown > 0


def test_points_that_were_not_all_given_are_forgotten(hands: Hands) -> None:
    page = hands.page
    tab(page, "Measure")
    press(page, "From three points on the ground")
    page.get_by_text("Click 3 points of a surface").wait_for()
    page.get_by_text("Click three points of the ground.").wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("Click 3 points of a surface").wait_for(state="hidden")
    page.get_by_text("Click two points of a surface.").wait_for()


# --- without a browser -----------------------------------------------------------------------------------------------


def test_words_above_the_tabs() -> None:
    def box(said: Any) -> Any:
        return SimpleNamespace(says=lambda: said)

    assert hint_text(box(None)) == FIRST_STEPS
    assert hint_text(box(("Lasso", "Draw."))) == "**Lasso**: Draw. *Escape ends.*"
    assert mode_text(Look()) == ""
    assert mode_text(Look(mode="depth")).startswith("Shown: **depth**, ")
    assert "**error** of a.jpg" in mode_text(Look(mode="depth", compare="a.jpg", compare_with="error"))


def test_an_export_says_what_becomes_of_hidden_splats() -> None:
    some = SessionStatus(hidden=1200, selected=3)
    assert "1,200 hidden splats are written, too" in marked_text("all", some)
    assert marked_text("shown", some) == "1,200 hidden splats are left out."
    assert marked_text("selection", some) == "3 splats are selected."
    assert marked_text("all", SessionStatus()) == marked_text("shown", SessionStatus()) == ""


def test_two_clicks_are_double_only_when_close() -> None:
    turned: list[Any] = []
    page = SimpleNamespace(
        tool="", look_at=turned.append, camera=lambda: SimpleNamespace(width=100, height=50),
        client=SimpleNamespace(scene=SimpleNamespace(on_click=lambda: lambda callback: callback)),
    )  # fmt: skip
    box = SimpleNamespace(
        picked=lambda at, camera: SimpleNamespace(at=at), runner=SimpleNamespace(do=lambda job: job()),
    )  # fmt: skip
    clicks, here, there = DoubleClick(page, box), np.array([0.5, 0.5]), np.array([0.6, 0.5])
    clicks.clicked(0.0, here)
    clicks.clicked(2 * DOUBLE_SECS, here)
    clicks.clicked(2.1 * DOUBLE_SECS, there)
    assert not turned
    clicks.clicked(2.2 * DOUBLE_SECS, there)
    assert turned == [(60.0, 25.0)]
    clicks.clicked(2.3 * DOUBLE_SECS, there)
    assert len(turned) == 1, "three are not two twice"
    page.tool = "lasso"
    clicks.clicked(2.4 * DOUBLE_SECS, there)
    assert len(turned) == 1


@pytest.mark.parametrize(("size", "digits"), [(0.279, 3), (12.0, 2), (0.0004, 6), (3000.0, 0), (0.0, 3)])
def test_lengths_are_shown_with_digits_that_fit_them(size: float, digits: int) -> None:
    handle = SimpleNamespace()
    show_number(handle, size, size)
    assert (handle.value, handle.precision) == (size, digits) and handle.step > 0


def test_an_opened_model_is_told_in_figures() -> None:
    model = serving.ball(1200)
    rows = dict(opened_figures(SimpleNamespace(model=model, step=1500)))
    assert rows == {"splats": "1,200", "primitive": "gaussian", "SH degree": "1", "trained for": "1,500 steps"}
    assert "trained for" not in dict(opened_figures(SimpleNamespace(model=model, step=0)))
