"""The training panel on a running training: every control reaches it, and what it does is shown."""

from __future__ import annotations

import numpy as np
import pytest
import serving
from hands import choose, press, row_of, slide, tab, tick, type_into

from splat.live.commands import SETTINGS, Pause, Resume
from splat.live.news import Status
from splat.viewer.figures.curves import MOST_POINTS, condition, duration, figures, thinned


@pytest.fixture
def live(browser, trained_live):
    """The browser page at the training's tab, our page, and the link."""
    trained_live.desk.command(Resume()).result(serving.PATIENCE_SECS)
    with serving.opened(browser, trained_live, size=(900, 900)) as (page, ours):
        tab(page, "Training")
        yield page, ours, trained_live.link


def test_pause_step_and_resume(live) -> None:
    page, _, link = live
    press(page, "Pause")
    serving.wait_for(lambda: link.news.status.paused, why="the pause")
    page.get_by_role("button", name="Resume").wait_for()
    step = link.news.status.step
    press(page, "Step, then pause")
    serving.wait_for(lambda: link.news.status.step == step + 1, why="one step")
    type_into(page, "Steps", "5")
    press(page, "Step, then pause")
    serving.wait_for(lambda: link.news.status.step == step + 6, why="five steps")
    page.get_by_text(f"{step + 6:,} of ").first.wait_for()
    serving.wait_for(lambda: link.news.status.paused, why="the pause after five steps")
    press(page, "Resume")
    serving.wait_for(lambda: link.news.status.step > step + 8, why="the training to go on")


def test_a_checkpoint_is_saved(live, trained_live) -> None:
    page, _, _ = live
    press(page, "Save a checkpoint")
    page.get_by_text("checkpoint of step").first.wait_for()
    assert list((trained_live.desk.run_dir / "checkpoints").glob("step_*.safetensors"))


def test_every_setting_reaches_the_training(live) -> None:
    page, _, link = live

    def now(name: str):
        return (link.news.status.settings or {}).get(name)

    slide(page, "Learning rates x", "End")
    serving.wait_for(lambda: now("lr_scale") == 3.0, why="the learning rate")
    tick(page, "Splats appear and vanish")
    serving.wait_for(lambda: now("densify") is False, why="densification to stop")
    type_into(page, "Most splats", "350")
    serving.wait_for(lambda: now("max_splats") == 350, why="the budget")
    choose(page, "SH degree", "0")
    serving.wait_for(lambda: now("sh_degree") == 0, why="the SH degree")
    type_into(page, "Background", "rgb(255, 0, 0)")
    serving.wait_for(lambda: now("background") == (1.0, 0.0, 0.0), why="the background")
    assert set(link.news.status.settings) == set(SETTINGS)
    slide(page, "Training's share", "ArrowLeft", 5)
    serving.wait_for(lambda: live[1].desk.share.training == pytest.approx(0.45), why="the share of time")


def test_another_page_sees_what_is_in_force(live, browser, trained_live) -> None:
    page, _, link = live
    with serving.opened(browser, trained_live, size=(900, 900)) as (other, _):
        tab(other, "Training")
        slide(other, "Learning rates x", "Home")
        serving.wait_for(lambda: link.news.status.settings["lr_scale"] == 0.05, why="the learning rate")
        row_of(page, "Learning rates x").locator("[role=slider][aria-valuenow='0.05']").wait_for()


def test_stopping_asks_first(live) -> None:
    page, _, link = live
    press(page, "Stop ...")
    page.get_by_text("An interrupted one leaves a checkpoint").wait_for()
    press(page, "Go on training")
    step = link.news.status.step
    serving.wait_for(lambda: link.news.status.step > step + 2, why="steps")
    assert link.news.status.ended is None


def test_the_stop_reaches_the_training(browser, tmp_path) -> None:
    from live_training import live_training

    with live_training(tmp_path) as served, serving.opened(browser, served, size=(900, 900)) as (page, _):
        tab(page, "Training")
        press(page, "Stop ...")
        press(page, "Interrupt")
        serving.wait_for(lambda: served.link.news.status.ended, why="the end")
        page.get_by_text("over (").first.wait_for()
        page.locator("button[disabled]", has_text="Save a checkpoint").wait_for()


def test_curves_are_drawn(live, trained_live) -> None:
    page, _, link = live
    serving.wait_for(lambda: len(link.news.curve("loss")) > 3, why="points of the curve")
    trained_live.desk.command(Pause()).result(serving.PATIENCE_SECS)
    serving.wait_for(lambda: link.news.status.paused, why="the pause")
    page.locator(".u-title", has_text="loss").wait_for()
    page.locator(".u-title", has_text="thousands of splats").wait_for()
    assert page.locator(".uplot canvas").count() >= 2
    held_out = page.locator(".u-title", has_text="held-out").locator("visible=true")
    curves = int(len(link.news.curve("psnr_held_out")) > 1)  # one evaluation is no curve
    serving.wait_for(lambda: held_out.count() == curves, why="the curve of held-out views, if there is one")
    trained_live.desk.command(Resume()).result(serving.PATIENCE_SECS)


def test_a_page_after_the_end_still_has_the_curves(browser) -> None:
    with serving.serve(serving.ball(50)) as served:
        for step in range(5):
            served.link.news.add("loss", step, 1.0 / (step + 1))
        with serving.opened(browser, served) as (page, _):
            page.get_by_text("The training is over.").wait_for()
            page.locator(".u-title", has_text="loss").wait_for()


# --- without a browser -----------------------------------------------------------------------------------------------


def test_long_curves_are_thinned_to_means():
    steps, values = thinned([(i, float(i % 2)) for i in range(6000)])
    assert len(steps) == MOST_POINTS and steps[-1] == 5999
    assert np.abs(values[:-1] - 0.5).max() < 0.1 and (np.diff(steps) > 0).all()


def test_short_and_broken_curves():
    for points in ([], [(3, 1.0)], [(1, float("nan")), (2, 5.0)]):
        steps, values = thinned(points)
        assert len(steps) == len(values) == 2 and np.isfinite(values).all()


def test_figures_say_only_what_is_known():
    assert figures(Status(splats=5)) == [("splats", "5")]
    told = dict(figures(Status(10, 100, 2.5, 36.0, 4.0, 1234, 5_000_000, 0.1, 22.5, True)))
    assert told == {"step": "10 of 100", "speed": "2.50 steps/s", "left": "0:36", "trained for": "0:04",
                    "splats": "1,234", "memory": "5 MB", "loss": "0.1000",
                    "held out": "22.50 dB"}  # fmt: skip
    both = dict(figures(Status(psnr=22.5, psnr_is_held_out=True, psnr_step=1000, psnr_training=24.0)))
    assert (both["PSNR"], both["held out"]) == ("24.00 dB (training views)", "22.50 dB at step 1,000")
    assert dict(figures(Status(psnr=20.0)))["PSNR"] == "20.00 dB (training views)"
    assert (duration(3723), duration(-1)) == ("1:02:03", "0:00")
    words = [condition(Status(paused=True)), condition(Status()), condition(Status(ended="done")),
             condition(Status(), standing=True)]  # fmt: skip
    assert words == ["paused", "running", "over (done)", "nothing trains"]
