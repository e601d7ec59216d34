"""``splat edit``: logs and single operations without a screen, end to end on small files."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from splat.cli.main import main
from splat.edit import ops, shapes
from splat.edit.bench import Bench
from splat.edit.json_ops import op_to_json, read_log, write_log
from splat.edit.session import EditSession, replay
from splat.io.formats import read_model, write_model
from splat.io.png import write_png

sys.path.insert(0, str(Path(__file__).parents[1] / "io"))
from gaussians import random_model

RIGHT = ops.Select(shapes.AttributeRange("x", 0.0, 99.0))
UP = ops.Transform(((1.0, 0, 0, 0), (0, 1.0, 0, -0.5), (0, 0, 1.0, 0), (0, 0, 0, 1.0)))
SETTINGS = ("--save-log", "--scene", "--edit-prior", "--edit-prior-path", "--prior-steps", "--dry-run", "--format")


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "a.safetensors"
    write_model(random_model(50, sh_degree=1), path, header={"up_axis": [0.0, 0.0, 1.0]})
    return path


def text(op) -> str:
    return json.dumps(op_to_json(op))


def rows_of(path: Path) -> dict[str, torch.Tensor]:
    return read_model(path).model.rows


def test_a_log_and_single_operations_one_after_the_other(source, tmp_path, capsys):
    log = write_log(tmp_path / "edits.json", [RIGHT, ops.Delete()])
    before, was = rows_of(source), source.read_bytes()
    left = before["means"][:, 0] < 0
    out = tmp_path / "b.safetensors"
    argv = ["edit", str(source), "--log", str(log), "--op", text(ops.Select(shapes.Everything())), "--op", text(UP)]
    assert main([*argv, "-o", str(out), "--save-log", str(tmp_path / "done.json")]) == 0
    after = rows_of(out)
    assert torch.equal(after["means"], before["means"][left] + torch.tensor([0, -0.5, 0]))
    assert torch.equal(after["quats"], before["quats"][left]) and source.read_bytes() == was
    assert read_model(out).header["up_axis"] == [0, 0, 1] and len(read_log(tmp_path / "done.json")) == 4
    told = capsys.readouterr()
    count = int(left.sum())
    assert told.out.split() == [str(out)]
    assert told.err.splitlines() == [
        f"select attribute: +{50 - count} ({50 - count} of 50 selected)",
        f"delete {50 - count} splats (0 of {count} selected)",
        f"select all: +{count} ({count} of {count} selected)",
        f"move {count} splats ({count} of {count} selected)",
        f"50 splats became {count}",
    ]


def test_an_operation_that_cannot_be_done_is_named_by_its_place(source, tmp_path, capsys):
    log = write_log(tmp_path / "edits.json", [ops.Select(shapes.Everything()), ops.Delete()])
    out = tmp_path / "b.safetensors"
    assert main(["edit", str(source), "--log", str(log), "-o", str(out)]) == 2
    assert f"error: {log}: op 2: delete: no splat would be left" in capsys.readouterr().err
    log = write_log(tmp_path / "edits.json", [ops.Select(shapes.Everything())])
    argv = ["edit", str(source), "--log", str(log), "--op", text(UP), "--op", text(ops.Delete()), "-o", str(out)]
    assert main(argv) == 2 and not out.exists()
    assert "error: --op 2: delete: no splat would be left" in capsys.readouterr().err


def test_why_nothing_changes_is_said(source, tmp_path, capsys):
    out, nowhere = str(tmp_path / "b.safetensors"), ops.Select(shapes.Sphere((99.0, 0.0, 0.0), 1.0))
    assert main(["edit", str(source), "--op", text(nowhere), "--op", text(UP), "-o", out]) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[1] == "move: nothing changes (nothing is selected)"
    assert told[2] == "warning: none of the operations changed anything"
    locked = [ops.Select(shapes.Everything()), ops.Mark("lock"), ops.Select(shapes.Everything()), ops.Delete()]
    argv = [part for op in locked for part in ("--op", text(op))]
    assert main(["edit", str(source), *argv, "-o", out]) == 0
    told = capsys.readouterr().err
    assert "delete: nothing changes (nothing is selected; 50 splats are locked or hidden)" in told
    assert "warning" not in told
    assert main(["edit", str(source), "--op", text(ops.Mark("show")), "-o", out]) == 0
    assert "show: nothing changes\n" in capsys.readouterr().err


def test_headless_is_the_same_as_live(source, tmp_path):
    done = [RIGHT, ops.Recolor(tint=(0.5, 1.0, 1.0)), ops.Duplicate((0.0, 1.0, 0.0)), UP, ops.Mark("hide"),
            ops.Delete(outside=True), ops.Select(shapes.Nothing())]  # fmt: skip
    rows = Bench(read_model(source).model)
    session = EditSession(log=tmp_path / "live.json")
    replay(rows, done, session)
    out = tmp_path / "b.safetensors"
    assert main(["edit", str(source), "--log", str(tmp_path / "live.json"), "-o", str(out), "-q"]) == 0
    assert all(torch.equal(table, rows.model.rows[name]) for name, table in rows_of(out).items())


@pytest.mark.parametrize("name", ["b.ply", "b.sog", "b.spz", "b.splat"])
def test_any_format_by_its_suffix(source, tmp_path, capsys, name):
    out = tmp_path / name
    assert main(["edit", str(source), "--op", text(RIGHT), "--op", text(ops.Delete()), "-o", str(out)]) == 0
    assert len(rows_of(out)["means"]) == int((rows_of(source)["means"][:, 0] < 0).sum())
    assert ("does not keep" in capsys.readouterr().err) == (name != "b.ply")


def test_without_an_output_it_lies_beside_the_source(source, tmp_path, capsys):
    assert main(["edit", str(source), "--op", text(RIGHT), "-q"]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "a-edited.safetensors")]
    assert main(["edit", str(source), "--op", text(RIGHT), "--format", "ply", "-q"]) == 0
    assert (tmp_path / "a-edited.ply").exists()
    assert main(["edit", str(source), "--op", text(RIGHT), "-o", str(tmp_path / "c.ply"), "--dry-run"]) == 0
    assert not (tmp_path / "c.ply").exists()


def test_views_by_name_and_masks_as_pictures(source, tmp_path, tiny_scene, capsys):
    rect = {"kind": "select", "shape": {"kind": "rect", "view": "view_02", "low": [0, 0], "high": [16, 24]}}
    mask = np.zeros((24, 32, 3), np.uint8)
    mask[:, :16] = 255
    write_png(tmp_path / "mask.png", mask)
    shape = {"kind": "mask", "views": ["view_02.png"], "masks": [str(tmp_path / "mask.png")]}
    masked = {"kind": "select", "shape": shape, "reach": "centers"}
    (tmp_path / "op.json").write_text(json.dumps(masked))
    counts = []
    for op in (json.dumps(rect), f"@{tmp_path / 'op.json'}"):
        argv = ["edit", str(source), "--scene", str(tiny_scene), "--op", op, "--op", text(ops.Delete())]
        assert main([*argv, "-o", str(tmp_path / "b.safetensors")]) == 0
        counts.append(len(rows_of(tmp_path / "b.safetensors")["means"]))
    assert counts[0] == counts[1] < 50
    rect["shape"]["view"], argv[argv.index("--op") + 1] = "view_7", json.dumps(rect)
    rect["shape"]["view"] = "view_2"
    assert main(["edit", str(source), "--scene", str(tiny_scene), "--op", json.dumps(rect)]) == 2
    assert "no view is called 'view_2'; did you mean 'view_02.png'?" in capsys.readouterr().err
    assert main(["edit", str(source), "--op", json.dumps(rect)]) == 2
    assert "name the capture with --scene" in capsys.readouterr().err


def test_what_can_be_seen_is_drawn(source, tmp_path, tiny_scene):
    seen = {"kind": "select", "shape": {"kind": "click", "view": "view_03", "at": [16, 12]}, "reach": "visible"}
    argv = ["edit", str(source), "--scene", str(tiny_scene), "--op", json.dumps(seen), "--op", text(ops.Delete())]
    assert main([*argv, "-o", str(tmp_path / "b.safetensors"), "-q"]) == 0
    assert len(rows_of(tmp_path / "b.safetensors")["means"]) == 49


def test_a_prior_solves_drags(source, tmp_path, monkeypatch):
    from splat.edit.prior import refine

    asked = {}

    def solved(model, mask, drag, **how):
        asked.update(how)
        rows = mask.nonzero().squeeze(1)
        return rows, {"means": model.rows["means"][rows] + 1}

    monkeypatch.setattr(refine, "refined_values", solved)
    drag = ops.Drag((ops.Handle((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),))
    argv = ["edit", str(source), "--op", text(RIGHT), "--op", text(drag), "--edit-prior", "none", "--prior-steps", "3"]
    assert main([*argv, "-o", str(tmp_path / "b.safetensors"), "-q"]) == 0
    assert (asked["prior"], asked["path"], asked["steps"], asked["cameras"]) == ("none", None, 3, [])
    before, after = rows_of(source)["means"], rows_of(tmp_path / "b.safetensors")["means"]
    assert torch.equal(after, before + (before[:, :1] >= 0))


@pytest.mark.parametrize(("argv", "told"), [
    ([], "name a run or a model file"), (["a.safetensors"], "nothing to do"),
    (["a.safetensors", "--op", "{"], "--op 1: no JSON"), (["a.safetensors", "--op", "@none.json"], "none.json: cannot"),
    (["a.safetensors", "--op", '{"kind": "erase"}'], "--op 1: kind 'erase' is no operation; choices: select"),
    (["a.safetensors", "--log", "none.json"], "none.json: no such file"),
    (["a.safetensors", "--log", "a.safetensors"], "a.safetensors: no JSON"),
    (["b.safetensors", "--log", "x.json"], "b.safetensors: no such file"),
    (["a.safetensors", "--op", '{"kind": "invert"}', "-o", "a.safetensors"], "source itself"),
    (["a.safetensors", "--op", '{"kind": "invert"}', "-o", "b.odd"], "suffix"),
    (["a.safetensors", "--op", '{"kind": "invert"}', "--opp", "x"], "unknown flag '--opp'; did you mean '--op'"),
    (["a.safetensors", "--op", '{"kind": "invert"}', "--op", '{"kind": "delete"}'], "no splat would be left"),
    (["a.safetensors", "--op", '{"kind": "invert"}', "--edit-prior", "mine"], "unknown edit prior 'mine'"),
    (["a.safetensors", "--op", '{"kind": "invert"}', "--prior-steps", "3"], "belong to --edit-prior"),
])  # fmt: skip
def test_what_is_wrong_is_one_line_and_nothing_is_written(source, monkeypatch, capsys, argv, told):
    monkeypatch.chdir(source.parent)
    assert main(["edit", *argv]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert told in error and error.startswith("splat: error: ")
    assert [path.name for path in source.parent.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("suffix", [".safetensors", ".ply"])
def test_a_log_is_not_done_twice_to_a_model(source, tmp_path, capsys, suffix):
    log, out = write_log(tmp_path / "edits.json", [RIGHT, UP]), tmp_path / f"b{suffix}"
    assert main(["edit", str(source), "--log", str(log), "-o", str(out)]) == 0
    once = rows_of(out)
    again = tmp_path / "c.safetensors"
    assert main(["edit", str(out), "--log", str(log), "--op", text(RIGHT), "--op", text(ops.Delete()),
                 "-o", str(again)]) == 0  # fmt: skip
    assert "first 2 operations are in this model already" in capsys.readouterr().err
    assert torch.equal(rows_of(again)["means"], once["means"][once["means"][:, 0] < 0])
    whole = write_log(tmp_path / "longer.json", [*read_log(log), RIGHT, ops.Delete()])
    assert main(["edit", str(again), "--log", str(whole), "-o", str(tmp_path / "d.safetensors")]) == 0
    assert "first 4 operations" in capsys.readouterr().err
    other = write_log(tmp_path / "other.json", [RIGHT, ops.Invert(), UP])
    assert main(["edit", str(source), "--log", str(other), "-o", str(tmp_path / "e.safetensors")]) == 0
    assert "already" not in capsys.readouterr().err


def test_the_help_page_names_every_operation_and_flag(capsys):
    assert main(["edit", "--help"]) == 0
    page = capsys.readouterr().out
    assert all(f'"kind": "{kind}"' in page for kind in (*ops.OPS, *shapes.SHAPES))
    assert all(flag in page for flag in SETTINGS) and max(map(len, page.splitlines())) <= 120
    for line in page.splitlines():
        if "]}" in line and "..." not in line and "4 x 4" not in line and "VIEW" not in line:
            for part in line.strip().removeprefix("SHAPE: ").split("   "):
                json.loads(part)
