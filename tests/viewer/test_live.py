"""A viewer beside a real training: it shows the progress, costs nothing without a page, and cannot hurt it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import serving
from helpers import make_tiny_scene

from splat.cli.main import main
from splat.edit.ops import Delete, Select
from splat.edit.shapes import Sphere
from splat.live.commands import Pause, Resume
from splat.viewer.serving import worker
from splat.viewer.serving.pace import Share


def test_nobody_looks_nothing_is_asked_for(trained_live) -> None:
    link, desk = trained_live.link, trained_live.desk
    trained_live.desk.command(Resume()).result(serving.PATIENCE_SECS)
    serving.wait_for(lambda: not link.snapshots.wanted, why="the last request to be answered")
    for asked in (True, False):  # an answer may still be on its way to the desk
        known, step = desk.snapshot, link.news.status.step
        serving.wait_for(lambda step=step: link.news.status.step > step + 3, why="some steps")
        assert asked or desk.snapshot is known
    assert not link.snapshots.wanted


def test_the_page_follows_the_training_and_rests_with_it(browser, trained_live) -> None:
    link = trained_live.link
    with serving.opened(browser, trained_live) as (_, ours):
        seen = ours.last.step
        serving.wait_for(lambda: ours.last.step > seen and ours.last.why == "refresh", why="progress in the picture")
        trained_live.desk.command(Pause()).result(serving.PATIENCE_SECS)
        serving.wait_for(lambda: link.news.status.paused, why="the pause")
        serving.wait_for(
            lambda: ours.last.step == link.news.status.step and ours.last.why != "moving", why="the last step, sharp"
        )
        assert serving.resting(ours).step == link.news.status.step  # nothing to draw while nothing changes
        trained_live.desk.command(Resume()).result(serving.PATIENCE_SECS)
        serving.wait_for(lambda: ours.last.step > seen + 1, why="progress after the pause")
    step = link.news.status.step
    serving.wait_for(lambda: link.news.status.step > step, why="a step without the page")
    serving.wait_for(lambda: not trained_live.link.snapshots.wanted, why="the last request to be answered")


def test_an_edit_is_seen_at_once_whatever_training_is_owed(browser, trained_live, monkeypatch) -> None:
    desk = trained_live.desk
    monkeypatch.setattr(desk, "share", Share(0.0))  # with debts of its own
    with serving.opened(browser, trained_live) as (_, ours):
        desk.share.took(10.0, idle=True)
        assert desk.share.wait_secs(idle=True) > 2 * serving.PATIENCE_SECS
        count = desk.snapshot.model.count
        desk.submit(Select(Sphere((0.0, 0.0, 0.0), 0.7))).result(serving.PATIENCE_SECS)
        gone = desk.session.status.selected
        assert 0 < gone < count
        desk.submit(Delete()).result(serving.PATIENCE_SECS)
        done = trained_live.link.news.status.step
        serving.wait_for(lambda: ours.last.step >= done, why="the picture after the edit")
        assert desk.share.wait_secs(idle=True) > 1, "long before an idle page would have got one"
        desk.undo().result(serving.PATIENCE_SECS)


def test_a_failing_viewer_leaves_the_training_alone(browser, trained_live, monkeypatch, caplog) -> None:
    def broken(*args: Any, **options: Any) -> None:
        raise MemoryError("no room for a picture")

    link = trained_live.link
    with serving.opened(browser, trained_live) as (page, ours):
        monkeypatch.setattr(worker, "draw", broken)
        ours.redraw()
        page.get_by_text("no room for a picture").first.wait_for()
        step = link.news.status.step
        serving.wait_for(lambda: link.news.status.step > step + 3, why="steps after the failure")
        monkeypatch.undo()
        ours.redraw()
        serving.sharp(ours)
    assert link.news.status.ended is None


def test_the_bits_are_the_same_with_a_page_looking_on(browser, tmp_path: Path) -> None:
    """Twice the same run, once with a browser page that moves about while it lasts."""
    from live_training import live_training

    models = []
    for watched in (False, True):
        with live_training(tmp_path / str(watched), paused=watched, steps=400) as served:
            if watched:
                with serving.opened(browser, served) as (page, ours):
                    drawn = ours.last.number
                    served.desk.command(Resume())
                    for x in range(10):
                        page.mouse.move(200 + 10 * x, 300)
                        page.mouse.wheel(0, 40)
                    serving.wait_for(lambda ours=ours, drawn=drawn: ours.last.number > drawn, why="a picture meanwhile")
            serving.wait_for(lambda served=served: served.link.news.status.ended, why="the end")
            assert served.link.news.status.ended == "done"
            models.append(served.host.trainer.state.model)
    assert models[0].rows.keys() == models[1].rows.keys()
    for name, table in models[0].rows.items():
        assert np.array_equal(table.detach().numpy(), models[1].rows[name].detach().numpy()), name


def test_train_tells_the_address_and_writes_the_same_model_without_it(tmp_path, capsys) -> None:
    scene = make_tiny_scene(tmp_path / "tiny")
    told = ["--preset", "cpu", "--steps", "30", "--set", "output.report=false"]
    heard = []
    for name, flags in (("with", ["--port", "0"]), ("without", ["--no-viewer"]), ("quiet", ["-q"])):
        assert main(["train", str(scene), "-o", str(tmp_path / name), *told, *flags]) == 0
        heard.append(capsys.readouterr())
    address = [line for line in heard[0].err.splitlines() if "viewer: http://127.0.0.1:" in line]
    assert len(address) <= 1, "a run that is over before the port is open tells none"
    assert "viewer" not in heard[1].err + heard[2].err
    assert [texts.out for texts in heard] == [f"{tmp_path / name}\n" for name in ("with", "without", "quiet")]
    bits = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("with", "without", "quiet")]
    assert bits[0] == bits[1] == bits[2]


def test_a_viewer_that_cannot_be_is_one_line(tmp_path, capsys, monkeypatch) -> None:
    from splat.cli import viewing

    def broken(self: Any) -> None:
        raise ImportError("No module named 'viser'")

    monkeypatch.setattr(viewing.TrainingViewer, "_made", broken)
    scene = make_tiny_scene(tmp_path / "tiny")
    assert main(["train", str(scene), "-o", str(tmp_path / "run"), "--preset", "cpu", "--steps", "3"]) == 0
    heard = capsys.readouterr().err
    assert heard.count("warning: no viewer (No module named 'viser'); training goes on") == 1
    assert "Traceback" not in heard


def test_the_viewer_of_a_training_opens_and_closes(tmp_path) -> None:
    """Through the class that ``splat train`` uses, waiting for what the command does not wait for."""
    import urllib.request

    from splat.cli.viewer_flags import ViewerOptions
    from splat.cli.viewing import TrainingViewer
    from splat.config.assemble import gather
    from splat.config.build import build_config, nested
    from splat.live.link import Link

    scene = make_tiny_scene(tmp_path / "tiny")
    config = build_config([("test", nested({"capture": str(scene), "render.device": "cpu"}))])
    parts, said = gather(config, lambda _: None), io.StringIO()
    options = ViewerOptions("127.0.0.1", 0, True, 0.5)
    try:
        with TrainingViewer(options, parts, tmp_path, Link(), lambda line: said.write(f"{line}\n")):
            told = serving.wait_for(lambda: "ssh -L" in said.getvalue() and said.getvalue(), why="the address")
            url = told.splitlines()[0].removeprefix("viewer: ")
            with urllib.request.urlopen(url, timeout=serving.PATIENCE_SECS) as answer:
                assert answer.status == 200
    finally:
        parts.close()
    assert not (tmp_path / "edits.json").exists(), "nothing was edited"
