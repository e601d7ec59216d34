"""Looking into a training that goes on: modes that need photographs or the history of splats, and a picked splat."""

from __future__ import annotations

import pytest
import serving
from controls import choose, press, tab

from splat.viewer.picture.modes import MODES


@pytest.fixture
def both(browser, trained_live):
    with serving.opened(browser, trained_live) as found:
        yield found


def test_every_mode_is_drawn_of_a_running_training(both, trained_live, caplog) -> None:
    _, shown = both
    for mode in MODES:
        shown.change(mode=mode)
        serving.wait_for(lambda mode=mode: shown.last.look.mode == mode, why=mode)
    assert "the viewer failed" not in caplog.text
    assert trained_live.desk.is_training


def test_a_splat_is_followed_and_views_are_measured_while_steps_go_on(both, trained_live) -> None:
    page, shown = both
    shown.change(mode="color")
    tab(page, "Inspect")
    press(page, "Pick a splat")
    serving.wait_for(lambda: shown.tool == "inspect", why="the tool")

    def reads_one() -> bool:
        page.mouse.click(330, 230)
        serving.heard(shown, page)
        return page.get_by_text("made by").is_visible()

    serving.wait_for(reads_one, why="a splat")
    step = trained_live.desk.status.step
    serving.wait_for(lambda: trained_live.desk.status.step > step + 20, why="more steps")
    page.get_by_text("made by").or_(page.get_by_text("is gone")).first.wait_for()
    tab(page, "View")
    choose(page, "Mode", "reason")
    page.get_by_text("start", exact=True).wait_for()
    tab(page, "Cameras")
    press(page, "Measure all views")
    page.get_by_text("training: ").wait_for()
    assert trained_live.desk.is_training
