"""``scripts/bench_viewer.py --only browser``: what it makes of the records of a page and of the server."""

from __future__ import annotations

import importlib.util
import sys
import threading
from argparse import Namespace
from itertools import islice
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "viewer"))

pytest.importorskip("viser")

import bench_viewer as bench
import bench_viewer_browser as browser
import bench_viewer_hooks as hooks
import bench_viewer_table as table
import serving

from splat.errors import UserError

A, B, C = (1.0,), (2.0,), (3.0,)
"""Views."""
OFFSET = 50.0


def frame(begun: float, view: tuple[float, ...], why: str = "moving") -> hooks.Frame:
    return hooks.Frame(begun, begun + 0.010, view, why, 640)


def row(came: float, shown: float | None) -> dict[str, float | None]:
    """A picture as the page tells of it."""
    return {"came": 1000 * (came - OFFSET), "shown": None if shown is None else 1000 * (shown - OFFSET)}


def a_browser() -> str:
    """Where it is; skips the test where there is none."""
    try:
        return browser.browser_program((640, 480))
    except UserError as missing:
        pytest.skip(str(missing))


def seen() -> list[hooks.Picture]:
    """A rest at A; a movement at 100.0, of which the server hears at 100.02 (still with A) and 100.04 (B)."""
    almost = (A[0] + 3e-7,)
    frames = [frame(99.0, A, "still"), frame(100.02, almost), frame(100.05, B), frame(100.20, B, "still")]
    rows = [row(99.05, 99.1), row(100.04, 100.06), row(100.065, 100.09), row(100.215, 100.25)]
    return hooks.joined(rows, frames, [], OFFSET)


def test_a_picture_is_the_frame_that_was_on_its_way() -> None:
    pictures = seen()
    assert [one.state for one in pictures] == [(1, 0), (1, 0), (2, 0), (2, 0)]
    assert pictures[2].shown == pytest.approx(100.09)
    # begun, but not yet noted as handed out, when it came; and one that never was shown
    early = hooks.joined([row(100.029, 100.05), row(100.06, None)], [frame(100.02, A), frame(100.055, B)], [], OFFSET)
    assert [one.frame.view for one in early] == [A]
    assert hooks.joined([row(99.0, 99.1)], [frame(100.0, A)], [], OFFSET) == []


def test_a_movement_is_answered_by_the_first_picture_of_another_view() -> None:
    told = hooks.answer(100.0, 101.0, [100.02, 100.04], seen())
    assert {name: round(value) for name, value in told.items()} == {
        "first_ms": 90, "sharp_ms": 250, "to_server_ms": 40, "server_ms": 20, "drawing_ms": 10, "way_back_ms": 5,
        "page_ms": 25,
    }  # fmt: skip
    parts = sum(told[f"{name}_ms"] for name in ("to_server", "server", "way_back", "page"))
    assert parts == pytest.approx(told["first_ms"])
    assert hooks.answer(100.0, 100.1, [100.04], seen()) is None, "no sharp picture before the next movement"
    assert hooks.answer(100.0, 101.0, [], seen()) is None, "the server heard nothing"


def test_a_drag_is_answered_by_a_picture_of_other_rows() -> None:
    frames = [frame(99.0, A, "still"), frame(100.03, A), frame(100.2, A, "still")]
    rows = [row(99.05, 99.1), row(100.05, 100.07), row(100.22, 100.24)]
    told = hooks.answer(100.0, 101.0, [100.01], hooks.joined(rows, frames, [100.025], OFFSET))
    assert round(told["first_ms"]) == 70 and round(told["sharp_ms"]) == 240 and round(told["server_ms"]) == 30
    assert hooks.answer(100.0, 101.0, [100.01], hooks.joined(rows, frames, [], OFFSET)) is None


def test_views_that_differ_in_the_last_bits_are_one() -> None:
    assert hooks.numbered([]) == []
    assert hooks.numbered([(1.0, 0.0), (1.0, 3e-7), (1.2, 0.0), (1.2, 1e-8), (1.0, 0.0)]) == [1, 1, 2, 2, 3]
    creeping = [(4e-6 * i,) for i in range(8)]
    assert hooks.numbered(creeping) == [1, 1, 1, 2, 2, 2, 3, 3], "what creeps has moved after a while"


def test_the_same_picture_counts_once() -> None:
    assert hooks.distinct(seen()) == 1 and hooks.distinct([]) == 0
    frames = [frame(1.0 + i, view) for i, view in enumerate((A, B, B, C, A))]
    rows = [row(1.5 + i, 1.6 + i) for i in range(5)]
    assert hooks.distinct(hooks.joined(rows, frames, [], OFFSET)) == 3


def test_how_far_a_stroke_is_behind_the_mouse() -> None:
    """Four messages; the third replaces the second before that was worked on."""
    page = {
        "mouse": [{"at": 1000 * (t - OFFSET), "heard": 1000 * (t - OFFSET) + 2} for t in (100.0, 100.1, 100.2, 100.3)],
        "sent": [{"at": 1000 * (t - OFFSET) + 3, "type": hooks.DRAG, "phase": "update"}
                 for t in (100.0, 100.1, 100.2, 100.3)]
        + [{"at": 0.0, "type": hooks.CAMERA, "phase": None}, {"at": 0.0, "type": hooks.DRAG, "phase": "end"}],
    }  # fmt: skip
    jobs = [hooks.Job(0, 100.01, 100.02, 100.03), hooks.Job(2, 100.21, 100.22, 100.24)]
    frames = [frame(99.5, A), frame(100.04, A), frame(100.25, A), frame(100.28, A, "still")]
    rows = [row(99.6, 99.7), row(100.06, 100.07), row(100.265, 100.27), row(100.3, 100.32)]
    pictures = hooks.joined(rows, frames, [100.029, 100.239], OFFSET)
    assert [round(lag) for lag in hooks.lags(page, jobs, pictures, OFFSET)] == [70, 70]


def test_the_clock_is_read_by_the_quickest_question() -> None:
    times = iter([10.0, 10.5, 20.0, 20.02, 30.0, 30.4])
    here = iter([3000.0, 13010.0, 23000.0])
    offset, error = hooks.clock_offset(lambda: next(here), lambda: next(times), tries=3)
    assert (offset, error) == (pytest.approx(7.0), pytest.approx(0.01))


def test_spreads_and_rounds() -> None:
    assert hooks.spread([]) == {}
    ten = hooks.spread(list(range(1, 12)))
    assert ten == {"median": 6.0, "p10": 2.0, "p90": 10.0, "count": 11}
    rounds = [{"x": [1.0, 3.0], "n": 2.0, "unanswered": 1}, {"x": [2.0], "n": 4.0, "unanswered": 2},
              {"n": 9.0, "unanswered": 0, "none": None}]  # fmt: skip
    pooled = browser.pooled(rounds)
    assert pooled["x"]["median"] == 2 and pooled["x"]["count"] == 3
    assert pooled["n"] == 4 and pooled["unanswered"] == 3 and pooled["none"] is None


def test_the_mouse_goes_round() -> None:
    spots = list(islice(browser.circle((100.0, 50.0), 10.0, 0.5), 13))
    assert spots[0] == (110.0, 50.0)
    assert all((x - 100) ** 2 + (y - 50) ** 2 == pytest.approx(100) for x, y in spots)


def test_a_viewer_of_the_benchmark_leaves_nothing_behind() -> None:
    model, before = serving.ball(50), set(threading.enumerate())
    with browser.served(model) as (viewer, url):
        assert url.startswith("http://127.0.0.1:") and viewer.desk is not None
    left = set(threading.enumerate()) - before
    assert not [thread.name for thread in left if thread.daemon and thread.name.startswith("splat-")]


def test_what_is_missing_is_told(capsys, monkeypatch) -> None:
    call = ["--only", "drag", "browser", "--rounds", "1", "--secs", "1"]
    monkeypatch.setattr(bench, "drag_cost", lambda *_: pytest.fail("measured before all that is needed was found"))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "playwright" else find(name))
    assert bench.main(call) == 2
    assert "playwright" in (said := capsys.readouterr().err) and "splat[test]" in said
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: object())
    monkeypatch.setattr(browser.shutil, "which", lambda _: None)
    monkeypatch.delenv("SPLAT_CHROMIUM", raising=False)
    assert bench.main(call) == 2
    assert "SPLAT_CHROMIUM" in capsys.readouterr().err
    assert bench.main([*call, "--size", "320x240"]) == 2
    assert "too narrow" in capsys.readouterr().err


@pytest.mark.slow
def test_a_drag_in_a_browser(monkeypatch) -> None:
    program = a_browser()
    monkeypatch.setattr(browser, "MOVES", 2)
    monkeypatch.setattr(browser, "SETTLE_SECS", 0.2)
    monkeypatch.setattr(browser, "REST_SECS", 0.2)
    with browser.chromium(program) as opened, browser.served(serving.ball(400)) as (viewer, url):
        with browser.seated(opened, viewer, url, (640, 480)) as seat:
            found = browser.drags(seat, 200, 0.3)
    assert found["splats"] == 400 and found["rows"] >= 200
    single, stream = found["single"], found["stream"]
    assert single["unanswered"] == 0 and single["first_ms"][0] >= single["server_ms"][0] > 0 < single["event_ms"][0]
    assert stream["per_sec"]["mouse_events"] > 0 and seat.jobs and stream["cores"]["viewer"] > 0


@pytest.mark.slow
def test_everything_in_a_browser(monkeypatch) -> None:
    """Measured once, by short movements."""
    a_browser()
    monkeypatch.setattr(browser, "DRAGGED", (200,))
    monkeypatch.setattr(browser, "MOVES", 2)
    args = Namespace(size=(640, 480), rounds=1, secs=0.5, model=None, dragged=[])
    found = browser.measured_in_browser(args, lambda url: {"unanswered": 0})
    orbit = found["orbit"]
    assert orbit["single"]["first_ms"]["count"] + orbit["single"]["unanswered"] == 1
    assert orbit["stream"]["per_sec"]["mouse_events"] > 0 and orbit["stream_off"]["per_sec"]["pictures"] == 0
    text = table.table({"cores": 2, "size": "640x480", "load": {}, "browser": found})
    assert "first picture is" in text and "stream off" in text and "without a page: event" in text
