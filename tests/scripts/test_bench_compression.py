"""``scripts/bench_compression.py``: what it plans, what it makes of the answers, and one small benchmark whole."""

from __future__ import annotations

import itertools
import json
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import bench_compression as bench
import bench_compression_extras as extras
import bench_compression_npm as npm
import bench_compression_runs as runs
import bench_compression_sorting as sorting
from bench_primitives_runs import Setup

from splat.compress.grid import GridCompressor
from splat.errors import UserError
from splat.io.formats import write_model
from splat.model.primitives import PRIMITIVES
from splat.model.splat_model import SplatModel

SETUP = Setup(Path("/captures/desk"), seed=3, flags=("--downscale", "4"))
BASE = runs.Training("base", "base", 300, "budget", 500, ("--sh-degree", "1"))
SIZE, QUALITY = runs.Goal("--target-mb", 1.5), runs.Goal("--max-psnr-drop", 0.2)


@pytest.fixture
def compressors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three that differ in what they can aim at."""
    kinds = {"none": (), "box": (), "both": ("size", "quality"), "sized": ("size",)}
    table = {kind: SimpleNamespace(aims=frozenset(aims)) for kind, aims in kinds.items()}
    monkeypatch.setattr(runs, "COMPRESSORS", table)


def _model(count: int = 100) -> SplatModel:
    """Alike where near in space."""
    generator = torch.Generator().manual_seed(2)
    primitive = PRIMITIVES["gaussian"]()
    means = torch.rand(count, 3, generator=generator) * 4 - 2
    rows = {"means": means, "log_scales": means - 3, "quats": torch.randn(count, 4, generator=generator),
            "logit_opacities": torch.randn(count, generator=generator), "sh0": means[:, None] / 2,
            "sh_rest": torch.zeros(count, 3, 3)}  # fmt: skip
    specs = {spec.name: spec for spec in primitive.fields(1)}
    rows = {name: rows[name].reshape(count, *specs[name].shape).contiguous() for name in specs}
    return SplatModel(primitive, rows, 1, "classic", None)


class _HeldOut:
    """Draws nothing."""

    def model(self, path: Path) -> SplatModel:
        from splat.io.formats import read_model

        return read_model(path).model

    def scores(self, model: SplatModel) -> dict[str, float]:
        return {"psnr": 20.0 - model.count / 1000, "ssim": 0.5}


def _base(tmp_path: Path) -> runs.Base:
    ply = tmp_path / "base.ply"
    write_model(_model(), ply)
    scores = {"psnr": 20.0, "ssim": 0.5, "splats": 100, "ply_bytes": 10_000}
    return runs.Base(tmp_path, _HeldOut(), ply, scores, "stamp")  # type: ignore[arg-type]


# --- what is run -----------------------------------------------------------------------------------------------


def test_a_training_is_one_command_line() -> None:
    more = runs.replaced(BASE, name="train-rvq", label="rvq", more=("--compressor", "rvq"))
    pairs = dict(itertools.pairwise(more.arguments(SETUP)))
    names = ("preset", "densifier", "steps", "seed", "max-splats", "downscale", "sh-degree", "compressor")
    assert [pairs[f"--{name}"] for name in names] == ["cpu", "budget", "300", "3", "500", "4", "1", "rvq"]
    assert (more.name, more.label, more.steps) == ("train-rvq", "rvq", 300)
    like = runs.Training("base", "base", 300, "budget", 500, like=Path("/run/config.toml")).arguments(SETUP)
    assert like[1:3] == ["--config", "/run/config.toml"] and not {"--steps", "--preset", "--max-splats"} & set(like)


def test_goals_go_to_those_who_can_aim_at_them(compressors: None) -> None:
    found = [(p.compressor, p.goal, p.steps) for p in runs.packings(["box", "both", "sized"], [0, 9], [SIZE, QUALITY])]
    assert [(kind, goal) for kind, goal, steps in found if steps == 9] == [
        ("box", None), ("both", None), ("both", SIZE), ("both", QUALITY), ("sized", None), ("sized", SIZE),
    ]  # fmt: skip
    assert len(found) == 12
    again = runs.trainings(["box", "both"], BASE, [SIZE, QUALITY], {"box": ("--compressor.x=1",)})
    assert [(kind, t.name, t.flags[2:]) for kind, t in again] == [
        ("box", "train-box", ("--compressor", "box", "--compressor.x=1")),
        ("both", "train-both", ("--compressor", "both")),
        ("both", "train-both-1.5mb", ("--compressor", "both", "--target-mb", "1.5")),
    ]  # fmt: skip
    with pytest.raises(UserError, match="box, both, sized"):
        runs.compressor_kinds(["none"])
    assert runs.compressor_kinds(None) == ["box", "both", "sized"]


def test_a_packing_is_one_command_line() -> None:
    packing = runs.Packing("budget", 50, SIZE, ("--device", "cpu"))
    given = packing.arguments(Path("RUN"), Path("out.spack"), Path("said.json"))
    pairs = dict(itertools.pairwise(given))
    assert given[:2] == ["compress", "RUN"] and packing.label == "budget, 1.5 MB, 50 steps"
    names = ("compressor", "steps", "target-mb", "device", "json")
    assert [pairs[f"--{name}"] for name in names] == ["budget", "50", "1.5", "cpu", "said.json"]
    plans = [runs.Packing("rvq", steps, goal) for steps in (0, 50) for goal in (None, SIZE, QUALITY)]
    assert len({p.name for p in plans}) == len({p.label for p in plans}) == len(plans)


def test_a_row_is_told_against_the_base(tmp_path: Path) -> None:
    line = {"format": "spz", "path": "a.spz", "splats": 50, "size_bytes": 2000, "bits_per_splat": 1, "psnr": 19.5,
            "ssim": 0.4, "encode_secs": 0.1, "decode_secs": 0.2, "lost": ["rounded", "up axis"]}  # fmt: skip
    row = runs.export_row(line, _base(tmp_path))
    assert (row["mb"], row["bits_per_splat"], row["bytes_per_base_splat"]) == (0.002, 320, 20)
    assert (row["times_smaller"], row["drop"], row["notes"]) == (5, 0.5, "rounded; up axis")
    lost = runs.export_row(line | {"path": None, "lost": ["not written: too many"]}, _base(tmp_path))
    assert (lost["status"], lost["reason"]) == ("failed", "too many")
    unseen = runs.export_row(line | {"psnr": None}, _base(tmp_path))
    assert unseen["drop"] is None and unseen["status"] == "ok"


def test_answers_of_compress_become_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = {"splats": 90, "size_bytes": 900, "decoded": {"psnr": 19.9, "ssim": 0.4},
            "secs": {"search": 1.0, "train": 2.0, "encode": 0.3, "decode": 0.4}}  # fmt: skip
    answers = iter([(0, said), (1, said), (2, None)])

    def fake(arguments: list[str], log: Path) -> int:
        code, answer = next(answers)
        log.write_text("splat: error: no such thing\n")
        if answer is not None:
            Path(arguments[arguments.index("--json") + 1]).write_text(json.dumps(answer))
        return code

    monkeypatch.setattr(runs, "splat", fake)
    rows = [runs.packed(runs.Packing("box", 5, SIZE), _base(tmp_path), tmp_path)[0] for _ in range(3)]
    assert [row["status"] for row in rows] == ["ok", "ok", "failed"]
    assert [row.get("notes") for row in rows] == ["", "missed its goal", None]
    assert rows[2]["reason"] == "no such thing (exit code 2)"  # nor is the answer before it taken for its own
    assert rows[0]["train_secs"] == 3.0 and rows[0]["encode_secs"] == 0.3 and rows[0]["goal"] == "size"


def test_notes_are_taken_over_if_the_base_is_the_same(tmp_path: Path) -> None:
    made: list[int] = []

    def call(key: str, *, resume: bool = True, status: str = "ok") -> list[dict]:
        return runs.recorded(
            tmp_path / "note.json", [key], lambda: made.append(1) or [{"status": status}], resume=resume
        )

    assert call("a") == [{"status": "ok"}] and len(made) == 1
    assert call("a") == [{"status": "ok", "reused": True}] and len(made) == 1
    assert call("a", resume=False) and len(made) == 2
    assert call("b", status="failed") and call("b", status="failed") and len(made) == 4
    (tmp_path / "note.json").write_text('{"key": ["b"], "ro')
    assert call("b") and len(made) == 5


# --- the other tool --------------------------------------------------------------------------------------------


def _tool(path: Path, words: str) -> Path:
    path.write_text(f"#!/bin/sh\n{words}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


def test_what_the_other_tool_writes_is_judged_as_it_decodes(tmp_path: Path) -> None:
    at = _base(tmp_path)
    copies = _tool(tmp_path / "copies", 'for last; do before="$file"; file="$last"; done; cp "$before" "$file"')
    (row,) = npm.made_by_others("compressed-ply", copies, at, tmp_path / "files")
    assert row["status"] == "ok" and row["size_bytes"] == at.ply.stat().st_size
    assert row["psnr"] == pytest.approx(19.9) and row["drop"] == pytest.approx(0.1) and row["splats"] == 100
    assert row["encode_secs"] > 0 and (tmp_path / "files/other-compressed-ply.compressed.ply").exists()
    breaks = _tool(tmp_path / "breaks", "echo no memory >&2; exit 3")
    (row,) = npm.made_by_others("sog", breaks, at, tmp_path / "files")
    assert (row["status"], row["reason"]) == ("failed", "splat-transform: no memory (exit code 3)")
    (row,) = npm.made_by_others("sog", "no node", at, tmp_path / "files")
    assert (row["status"], row["reason"]) == ("skipped", "no node")


def test_without_npm_the_reason_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert npm.find_tool() == "no splat-transform: node and npm not installed"
    for name in ("node", "npm"):
        _tool(tmp_path / name, "echo no network >&2; exit 1")
    monkeypatch.setenv("SPLAT_NPM", str(tmp_path / "npm-home"))
    assert "cannot be installed: no network" in str(npm.find_tool())
    assert list((tmp_path / "npm-home").iterdir()) == []  # nothing half done stays
    command = tmp_path / f"npm-home/splat-transform-{npm.VERSION}/node_modules/.bin/splat-transform"
    command.parent.mkdir(parents=True)
    _tool(command, "true")
    assert npm.find_tool() == command


# --- sorting ---------------------------------------------------------------------------------------------------


def test_orders_are_told_against_chance() -> None:
    model = _model(30 * 30 + 7)  # seven too many for the square
    random, morton, grid = sorting.sorting_rows("base", model, sorting.ORDERS, GridCompressor(), seed=1)
    assert [row["order"] for row in (random, morton, grid)] == list(sorting.ORDERS)
    assert random["near"] == random["turns"] == 1 and random["splats"] == 900
    assert grid["near"] < morton["near"] < 1
    assert set(random["bytes"]) == set(model.rows) and morton["bytes"]["means"] < random["bytes"]["means"]
    assert random["bytes_per_splat"] == sum(random["bytes"].values()) / 900


def test_a_file_has_the_order_it_is_given() -> None:
    model = sorting.squared(_model(81))
    order = sorting.ORDERS["random"](model, 5)
    compressor = GridCompressor()
    sizes = sorting.sizes(model, order, compressor)
    assert sizes != sorting.sizes(model, torch.arange(81), compressor)
    arranged = SplatModel(
        model.primitive, {name: table[order] for name, table in model.rows.items()}, 1, "classic", None
    )
    assert sizes == sorting.sizes(arranged, torch.arange(81), compressor)


# --- whole -----------------------------------------------------------------------------------------------------


def _args(*given: str):
    return bench.parse(["desk", "--out", "out", *given])


def test_the_call_becomes_jobs(compressors: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def jobs(*given: str) -> list[runs.Job]:
        made = bench.Bench(Path("desk"), "desk", _args(*given), progress=runs.Progress(0))
        return made.jobs(2_000_000)

    assert [job.said for job in jobs("--methods", "formats", "--formats", "ply,spz")] == [
        "export as ply", "export as spz",
    ]  # fmt: skip
    assert [job.said for job in jobs("--methods", "formats")] == ["export as every format"]
    sized = jobs("--methods", "training", "--compressors", "sized", "--bytes-per-splat", "20", "5", "--target-mb", "40")
    assert [job.row["method"] for job in sized] == ["sized", "sized, 40 MB", "sized, 10 MB"]
    many = jobs("--masks", "--mask-weights", "1e-4", "2e-4", "--sorting")
    assert [job.into for job in many].count("masks") == 4 and [job.into for job in many].count("sorting") == 1
    for wrong in (["--run", "x"], ["--fine-tune", "-1"], ["--target-mb", "0"], ["--methods", "magic"]):
        with pytest.raises(SystemExit):
            _args(*wrong)


def test_masks_are_told_against_the_training_without(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench.Bench(Path("desk"), "desk", _args("--masks", "--mask-weights", "1e-3"), progress=runs.Progress(0))
    asked: list[runs.Training] = []

    def fake(training: runs.Training, *_, **__) -> dict:
        asked.append(training)
        splats, psnr = (600, 19.9) if "--compressor" in training.flags else (900, 20.0)
        return {"status": "ok", "reason": "", "splats": splats, "psnr": psnr, "ssim": 0.5, "run": training.name}

    monkeypatch.setattr(bench, "trained", fake)
    plain, _, masked = extras.mask_jobs(made)
    (first,), (second,) = plain.do(lambda _: None), masked.do(lambda _: None)
    assert first["removed"] == 0 and second["removed"] == pytest.approx(1 / 3) and second["drop"] == pytest.approx(0.1)
    assert [t.densifier for t in asked] == ["adaptive"] * 2 and asked[0].max_splats is None
    assert "--compressor.mask-weight=0.001" in asked[1].flags and asked[0].flags == ()


def test_what_fails_is_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "trained", lambda *_, **__: {"status": "failed", "reason": "no pictures"})
    call = [str(tmp_path), "--out", str(tmp_path / "out"), "--methods", "formats"]
    assert bench.main(call) == 1
    page = (tmp_path / "out" / "index.html").read_text()
    assert "No base model: no pictures" in page
    assert bench.main([str(tmp_path / "absent"), "--out", str(tmp_path / "out")]) == 2
    assert bench.main([str(tmp_path), "--out", str(tmp_path / "out"), "--compressors", "magic"]) == 2
    assert bench.main([str(tmp_path), "--out", str(tmp_path / "out"), "--train-flags", "magic=--x"]) == 2

    made = bench.Bench(tmp_path, "desk", _args(), progress=runs.Progress(1))
    rows = made._tried(runs.Job("x", lambda _: 1 / 0, row={"group": "after", "method": "m"}), lambda _: None)
    assert rows[0]["status"] == "failed" and rows[0]["method"] == "m" and "ZeroDivision" in rows[0]["reason"]


def test_a_small_benchmark(tiny_scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench"
    call = [str(tiny_scene), "--out", str(out), "--steps", "4", "--max-splats", "40", "--methods", "formats",
            "--formats", "ply", "--sorting"]  # fmt: skip
    monkey = pytest.MonkeyPatch()
    monkey.setattr(extras, "compressor_kinds", lambda _: [])  # the base's orders alone
    try:
        assert bench.main(call) == 0
        found = json.loads((out / "results.json").read_text())
        (row,) = found["rows"]
        assert row["drop"] == pytest.approx(0, abs=1e-3) and row["times_smaller"] == pytest.approx(1, rel=0.2)
        assert [line["order"] for line in found["sorting"]] == list(sorting.ORDERS)
        assert bench.main(["--combine", str(out), str(out), "--out", str(tmp_path / "all")]) == 0
        assert len(json.loads((tmp_path / "all" / "results.json").read_text())["captures"]) == 2
        capsys.readouterr()
        assert bench.main([*call, "--resume"]) == 0
        assert capsys.readouterr().err.count("was finished before") == 2
    finally:
        monkey.undo()
