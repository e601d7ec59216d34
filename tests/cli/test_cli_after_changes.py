"""What a training was told on its way holds for all that comes after it: its background, its edits."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from splat.cli.conversion import open_stage
from splat.cli.main import main
from splat.cli.opening import open_model
from splat.edit.json_ops import op_line, read_log, write_log
from splat.edit.marks import EditMark
from splat.edit.ops import Delete, Select
from splat.edit.session import EditSession, edit_command
from splat.edit.shapes import AttributeRange
from splat.io.formats import read_model, write_model
from splat.io.header import background_of_header, background_text
from splat.live.commands import Change

COLOUR = (0.25, 0.5, 1.0)
SHORT = ["--preset", "cpu", "--steps", "6", "--densifier", "none", "--max-splats", "30", "--device", "cpu", "-q"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Trained before a colour that was set after two steps, with splats deleted."""
    from helpers import make_tiny_scene

    from splat.train import orders

    folder = tmp_path_factory.mktemp("changed")
    scene = make_tiny_scene(folder / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        obey, log = orders.Orders.obey, folder / "run" / "edits.json"

        def told(self):
            if self._state.step == 2:
                session = EditSession(log=log)
                for command in (Change("background", list(COLOUR)),
                                edit_command(session, Select(AttributeRange("x", 0.0, 99.0))),
                                edit_command(session, Delete())):  # fmt: skip
                    self._commands.put(command)
            yield from obey(self)

        patch.setattr(orders.Orders, "obey", told)
        assert main(["train", str(scene), "-o", str(folder / "run"), "--no-viewer", *SHORT]) == 0
    return folder / "run"


@pytest.fixture
def stopped(run, tmp_path) -> Path:
    """The same with nothing but its checkpoint."""
    copy = tmp_path / "stopped"
    shutil.copytree(run, copy)
    (copy / "model.safetensors").unlink()
    return copy


def scores(*argv) -> dict:
    out = Path(argv[0]).parent / "scores.json"
    assert main(["eval", *map(str, argv), "-q", "--no-images", "--json", str(out)]) == 0
    return json.loads(out.read_text())


def test_the_model_file_and_the_checkpoint_say_the_background(run, stopped):
    assert open_model(run, print).background == open_model(stopped, print).background == COLOUR
    ply = next(run.glob("point_cloud/*/point_cloud.ply"))
    assert background_of_header(read_model(ply).header) == COLOUR


def test_eval_measures_before_the_background_the_run_ended_with(run, stopped):
    trained = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if '"eval"' in line][-1]
    for source in (run, stopped):
        assert scores(source)["psnr"] == trained["psnr"]
    assert scores(run, "--optim.background", "black")["psnr"] != trained["psnr"]


def test_render_draws_the_background_the_run_ended_with(run, stopped, tmp_path, capsys):
    for number, source in enumerate((run, stopped)):
        assert main(["render", str(source), "-o", str(tmp_path / str(number)), "-q"]) == 0
        (path,) = capsys.readouterr().out.split()
        truth = run / "renders" / "step_6" / "view_01_render.png"
        assert Path(path).read_bytes() == truth.read_bytes()
    told = []
    for flags in (["--background", "white"], ["--optim.background", "white"],
                  ["--background", "white", "--optim.background", "black"]):  # fmt: skip
        assert main(["render", str(run), "-o", str(tmp_path / "white"), *flags, "-q"]) == 0
        told.append(Path(capsys.readouterr().out.split()[0]).read_bytes())
    assert told[0] == told[1] == told[2] != truth.read_bytes()


def test_exports_are_measured_before_it(run):
    with open_stage(run, open_model(run, print), print) as stage:
        assert stage.background == COLOUR


def test_an_edited_file_of_the_run_keeps_it(run, tmp_path):
    out = tmp_path / "edited.safetensors"
    op = json.dumps({"kind": "select", "shape": {"kind": "all"}})
    assert main(["edit", str(run), "--op", op, "-o", str(out), "-q"]) == 0
    assert background_of_header(read_model(out).header) == COLOUR


def test_compress_does_not_train_edits_away(run, tmp_path, capsys):
    out = tmp_path / "small.spack"
    argv = ["compress", str(run), "--compressor", "rvq", "-o", str(out)]
    assert main(argv) == 0
    told = capsys.readouterr().err
    assert "contradict what was edited by hand: it is packed as it is" in told and "training " not in told
    header, whole = read_model(out).header, read_model(run / "model.safetensors").header
    assert header["provenance"]["edits"] == whole["provenance"]["edits"]
    assert background_of_header(header) == COLOUR
    assert main([*argv, "--steps", "1"]) == 0
    assert "warning: the photographs contradict" in capsys.readouterr().err


def test_compress_listens_to_a_background_that_is_asked_for(run, tmp_path, capsys):
    told = []
    for number, flags in enumerate([[], ["--optim.background", "white"]]):
        out = tmp_path / f"{number}.spack"
        assert main(["compress", str(run), "--compressor", "rvq", "--steps", "1", *flags, "-o", str(out)]) == 0
        told.append(re.search(r"PLY: .* PSNR (\S+),", capsys.readouterr().err)[1])
        assert background_of_header(read_model(out).header) == (COLOUR if number == 0 else None)
    assert told[0] != told[1]


def test_compress_trains_where_something_was_selected_only(run, tmp_path, capsys):
    copy = tmp_path / "selected"
    shutil.copytree(run, copy)
    ops = [op for op in read_log(copy / "edits.json") if op.kind == "select"] * 2
    write_log(copy / "edits.json", ops)
    held = open_model(copy, print)
    header = EditMark().after([op_line(op) for op in ops]).in_header(held.header)
    write_model(held.model, copy / "model.safetensors", format="native", header=header)
    assert main(["compress", str(copy), "--compressor", "rvq", "--steps", "1", "-o", str(tmp_path / "s.spack")]) == 0
    told = capsys.readouterr().err
    assert "contradict" not in told and "training 1 steps" in told


@pytest.mark.parametrize("text", [None, "torn", '{"format": "splat-edits", "version": 1, "ops": []}'])
def test_compress_does_not_train_edits_away_of_which_the_log_does_not_tell(run, tmp_path, capsys, text):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "edits.json").unlink()
    if text is not None:
        (copy / "edits.json").write_text(text)
    assert main(["compress", str(copy), "--compressor", "rvq", "-o", str(tmp_path / "small.spack")]) == 0
    assert "contradict what was edited by hand: it is packed as it is" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "red", "1 2", "0 0 2", "0 0 nan", "-1 0 0", "1 1 1 1", 3, None, "0 0 1e999"])
def test_a_background_that_is_none_is_passed_over(text):
    assert background_of_header({"provenance": {"background": text}}) is None


@pytest.mark.parametrize(
    "colour", [(0, 0, 0), (-0.0, 0.5, 1), (1, 1.0, 0.1), (1e-7, 0.3333333333333333, 0.7000000000000001)]
)
def test_a_background_comes_back_as_it_was(colour):
    assert background_of_header({"provenance": {"background": background_text(colour)}}) == colour


def test_a_checkpoint_knows_its_edits_without_the_log(run, stopped):
    whole = open_model(run, print).header["provenance"]["edits"]
    for text in (None, "torn", '{"format": "splat-edits", "version": 1, "ops": []}'):
        (stopped / "edits.json").unlink(missing_ok=True)
        if text is not None:
            (stopped / "edits.json").write_text(text)
        assert open_model(stopped, print).header["provenance"]["edits"] == whole
