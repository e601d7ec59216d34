"""``splat view`` and ``splat train --keep-viewer`` as processes: what they print, and how they end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import serving
from helpers import make_tiny_scene

from splat.cli.commands import train, view
from splat.cli.main import main
from splat.cli.viewer_flags import edit_log_path
from splat.cli.viewing import EndSignal, TrainingViewer, cut_log
from splat.edit.json_ops import read_log, write_log
from splat.edit.ops import Delete, Invert, Select
from splat.edit.shapes import Everything
from splat.errors import UserError
from splat.io.formats import write_model
from splat.live.link import Link
from splat.viewer.serving import app

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def running(*argv: str) -> Iterator[subprocess.Popen]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "splat.cli.main", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def heard_until(process: subprocess.Popen, word: str) -> str:
    """What it says up to a line with ``word``."""
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if word in line:
            return "".join(lines)
    raise AssertionError(f"never said {word!r}: {''.join(lines)}")


def address(heard: str) -> str:
    return re.search(r"viewer: (http://\S+)", heard)[1]


def test_view_opens_a_file_and_ends_with_ctrl_c(tmp_path) -> None:
    path = tmp_path / "ball.ply"
    write_model(serving.ball(30), path)
    with running("view", str(path), "--port", "0", "--device", "cpu", "--log") as process:
        heard = heard_until(process, "ssh -L")
        assert "30 gaussian splats" in heard
        with urllib.request.urlopen(address(heard), timeout=serving.PATIENCE_SECS) as answer:
            assert answer.status == 200 and "splat-" in answer.headers["Set-Cookie"]
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=serving.PATIENCE_SECS)
    assert process.returncode == 0 and out == "" and "Traceback" not in rest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ball.ply"], "nothing was edited, nothing written"


def test_view_goes_on_where_its_log_ends(tmp_path) -> None:
    path = tmp_path / "ball.ply"
    write_model(serving.ball(30), path)
    write_log(tmp_path / "ball.ply.edits.json", [Select(Everything())])
    with running("view", str(path), "--port", "0", "--device", "cpu", "--log") as process:
        assert "0 of 1 edits are in the model, 1 were done again" in heard_until(process, "ssh -L")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=serving.PATIENCE_SECS)


@pytest.mark.parametrize(("told", "behind"), [([], 0.0), (["--set", "optim.background=white"], 1.0)])
def test_a_page_begins_before_the_background_of_the_run(tmp_path, monkeypatch, told, behind: float) -> None:
    class Asked(Exception):
        pass

    def viewer(*_, background, **__):
        assert background == (behind,) * 3
        raise Asked

    monkeypatch.setattr(app, "Viewer", viewer)
    path = tmp_path / "ball.ply"
    write_model(serving.ball(30), path)
    with pytest.raises(Asked):
        view.run([str(path), "--port", "0", "--device", "cpu", *told])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_signals_while_a_viewer_is_open(number: int, code: int) -> None:
    before = signal.getsignal(number)
    with EndSignal() as end:
        os.kill(os.getpid(), number)
        assert end.wait() == code
    assert signal.getsignal(number) is before


@pytest.mark.slow
def test_a_training_can_stay_to_be_looked_at(tmp_path) -> None:
    scene, folder = make_tiny_scene(tmp_path / "tiny"), tmp_path / "run"
    told = ["--preset", "cpu", "--steps", "3", "--set", "output.report=false", "--device", "cpu"]
    with running("train", str(scene), "-o", str(folder), *told, "--port", "0", "--keep-viewer") as process:
        heard = heard_until(process, "stays open")
        assert process.stdout.readline() == f"{folder}\n"
        with urllib.request.urlopen(address(heard), timeout=serving.PATIENCE_SECS) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=serving.PATIENCE_SECS)
    assert process.returncode == 0 and "Traceback" not in rest


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--port", "70000"], "--port 70000"), (["--host", "203.0.113.1"], "203.0.113.1"),
        (["--scene", "/no/such/capture"], "/no/such/capture"), (["--log", "/no/such/folder/x.json"], "/no/such/folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(tmp_path, capsys, flags: list[str], words: str) -> None:
    path = tmp_path / "ball.ply"
    write_model(serving.ball(3), path)
    assert main(["view", str(path), *flags]) == 2
    assert words in capsys.readouterr().err


def test_no_model_no_page(tmp_path, capsys) -> None:
    assert main(["view", str(tmp_path / "nothing")]) == 2
    assert main(["view"]) == 2
    assert main(["train", str(tmp_path), "--viewer-share", "1.5"]) == 2
    heard = capsys.readouterr().err
    assert "no such file" in heard and "name a run" in heard and "--viewer-share 1.5" in heard


def test_the_help_tells_every_flag() -> None:
    for flag in ("--host", "--port", "--no-token"):
        assert flag in view.HELP and flag in train.HELP
    assert "--viewer-share" in train.HELP and "--keep-viewer" in train.HELP and "--log" in view.HELP


def test_a_resumed_run_keeps_the_part_of_its_log_that_it_remembers(tmp_path) -> None:
    path, ops = tmp_path / "edits.json", [Select(Everything()), Delete(), Invert()]
    said = []
    cut_log(path, 0, said.append)
    write_log(path, ops)
    cut_log(path, 3, said.append)
    assert read_log(path) == ops and not said
    cut_log(path, 1, said.append)
    assert read_log(path) == ops[:1]
    assert len(said) == 1 and "2 of 3 edits came after the checkpoint" in said[0] and "edits_forgotten.json" in said[0]
    assert read_log(tmp_path / "edits_forgotten.json") == ops, "somebody's work is never lost"
    cut_log(path, 0, said.append)
    assert not path.exists() and read_log(tmp_path / "edits_forgotten_2.json") == ops[:1]
    path.write_text("torn")
    cut_log(path, 2, said.append)
    assert not path.exists() and (tmp_path / "edits_forgotten_3.json").read_text() == "torn" and len(said) == 3


def test_where_a_log_goes(tmp_path) -> None:
    file = tmp_path / "a.ply"
    assert edit_log_path(None, file) is None
    assert edit_log_path("", file) == tmp_path / "a.ply.edits.json"
    assert edit_log_path("", tmp_path) == tmp_path / "edits.json"
    assert edit_log_path(str(tmp_path / "b.json"), file) == tmp_path / "b.json"
    with pytest.raises(UserError):
        edit_log_path(str(tmp_path), file)


@pytest.mark.parametrize("flags", [["--no-viewer"], ["-q"]])
def test_no_viewer_cannot_be_kept(tmp_path, capsys, flags) -> None:
    assert main(["train", str(tmp_path), "--keep-viewer", *flags]) == 2
    assert "--keep-viewer keeps a viewer open" in capsys.readouterr().err


def test_keeping_what_never_opened_ends_at_once(tmp_path) -> None:
    with TrainingViewer(None, None, tmp_path, Link(), print) as viewer:
        assert viewer.keep() == 0
