"""``scripts/bench_densifiers.py``: which trainings it plans, what it makes of them, and one small benchmark whole."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import bench_densifiers as bench
import bench_densifiers_page as pages
import bench_densifiers_runs as runs
import bench_densifiers_tables as tables
import bench_densifiers_truth as truth
from bench_primitives_runs import Setup

from splat.densify.registry import DENSIFIERS
from splat.errors import UserError
from splat.geometry.camera import Camera

SETUP = Setup(Path("/captures/desk"), seed=3, flags=("--downscale", "4"))
PLAN = runs.Plan(
    ("adaptive", "mcmc", "mcmc+calm"), (0, 1), 300, 500, shares=(0.5,), third=("turbo",), capped=frozenset({"mcmc"}),
    ablations=(("mcmc", ""), ("mcmc", "noise=0"), ("geotex", ""), ("geotex", "a=1")), curve=4,
    flags_of={"mcmc+calm": ("--densifier.noise=0",)},
)  # fmt: skip


# --- trainings -------------------------------------------------------------------------------------------------


def test_a_training_is_one_command_line() -> None:
    made = runs.Training("splats", "mcmc+calm", 7, 100, 500, 1.5, flags=("--sh-degree", "1"), evals=(50, 100))
    given = made.arguments(SETUP)
    pairs = dict(itertools.pairwise(given))
    names = ("preset", "primitive", "densifier", "steps", "seed", "max-splats", "max-minutes", "downscale", "sh-degree")
    assert given[0] == "/captures/desk" and made.name == "splats-mcmc+calm-s7"
    assert [pairs[f"--{name}"] for name in names] == [
        "cpu", "gaussian", "mcmc", "100", "7", "500", "1.5000", "4", "1",
    ]  # fmt: skip
    assert given.index("--output.eval-at=50,100") > given.index("--output.eval-at=")  # the later one counts
    free = replace(made, max_splats=None, minutes=None, evals=()).arguments(SETUP)
    assert not {"--max-splats", "--max-minutes"} & set(free)


def test_who_needs_a_limit_is_not_trained_without_one() -> None:
    assert [(t.densifier, t.seed, t.max_splats) for t in PLAN.at_equal_steps()] == [
        ("adaptive", 0, None), ("adaptive", 1, None),
    ]  # fmt: skip
    assert runs.capped_kinds() >= {"mcmc"} and "adaptive" not in runs.capped_kinds()
    assert "adaptive" in runs.capped_kinds(["adaptive"])


def test_seeds_take_turns() -> None:
    assert [(t.seed, t.densifier) for t in PLAN.at_equal_splats()] == [
        (0, "adaptive"), (0, "mcmc"), (0, "mcmc+calm"), (1, "adaptive"), (1, "mcmc"), (1, "mcmc+calm"),
    ]  # fmt: skip
    assert PLAN.at_equal_splats()[2].flags == ("--densifier.noise=0",)


def test_a_third_a_share_and_the_curves() -> None:
    assert {(t.densifier, t.steps, t.max_splats) for t in PLAN.at_a_third()} == {("turbo", 100, 500)}
    assert {(t.steps, t.max_splats) for t in PLAN.at_shares()} == {(300, 250)}
    assert [t.evals for t in PLAN.curves()] == [(75, 150, 225, 300)] * 3  # of the first seed alone
    assert replace(PLAN, steps=2).curves()[0].evals == (1, 2)
    assert replace(PLAN, curve=0).curves() == [] and replace(PLAN, densifiers=()).at_a_third() == []


def test_an_ablation_trains_what_does_not_stand_elsewhere() -> None:
    todo = [(t.label, t.seed, t.flags) for t in PLAN.changed()]
    assert todo[:3] == [
        ("mcmc, noise=0", 0, ("--densifier.noise=0",)), ("geotex", 0, ()), ("geotex, a=1", 0, ("--densifier.a=1",)),
    ]  # fmt: skip
    assert len(todo) == 6


def test_the_plan_counts_its_trainings_and_gives_each_a_folder() -> None:
    parts = (PLAN.at_equal_splats(), PLAN.at_equal_steps(), PLAN.at_a_third(), PLAN.at_shares(), PLAN.curves(),
             PLAN.changed(), PLAN.each("time", PLAN.densifiers[1:]))  # fmt: skip
    names = [training.name for part in parts for training in part]
    assert len(set(names)) == len(names) == PLAN.count()
    assert PLAN.count() - replace(PLAN, equal_time=False).count() == 4
    assert not [name for name in names if "/" in name or " " in name]


def test_ablations_are_read_from_the_call() -> None:
    assert runs.ablations([["mcmc", " noise = 0;cap=5  &optim.lr_scales=0; "]]) == (
        ("mcmc", ""), ("mcmc", "noise = 0"), ("mcmc", "cap=5 &optim.lr_scales=0"),
    )  # fmt: skip
    assert runs.change_flags("cap=5 & optim.lr_scales=0") == ("--densifier.cap=5", "--optim.lr_scales=0")
    assert runs.change_flags("") == ()
    for text in ("", " ; ", "noise", "--steps 5", "noise=0;noise=0"):
        with pytest.raises(UserError, match="--ablate"):
            runs.ablations([["mcmc", text]])


def test_the_default_is_every_densifier_that_fits_but_none() -> None:
    found = runs.fitting("gaussian")
    assert found[0] == "adaptive" and "mcmc" in found and not {"none", "convex"} & set(found)
    assert set(found) < set(DENSIFIERS) and "convex" in runs.fitting("convex")
    with pytest.raises(UserError, match="gaussian"):
        runs.fitting("cube")


def test_seconds_are_read_off_a_runs_clock() -> None:
    marks = [(10, 1.0), (30, 2.0)]
    assert [runs.seconds_at(step, marks) for step in (0, 5, 10, 20, 30, 50)] == [0, 0.5, 1, 1.5, 2, 3]
    assert runs.seconds_at(5, []) == 0


# --- the call --------------------------------------------------------------------------------------------------


def _plan(*given: str) -> runs.Plan:
    return bench.plan_from(bench.parse(["desk", "--out", "out", *given]))


def test_the_call_becomes_a_plan() -> None:
    plan = _plan("--densifiers", "adaptive", "turbo", "turbo+x", "--seeds", "2", "--seed", "5", "--steps", "30")
    assert plan.seeds == (5, 6) and plan.third == ("turbo", "turbo+x") and plan.steps == 30
    assert _plan().densifiers == tuple(runs.fitting("gaussian")) and len(_plan().seeds) == 3
    alone = _plan("--ablate", "mcmc", "noise=0")
    assert alone.densifiers == () and alone.count() == 2 * 3
    assert _plan("--densifiers", "mcmc", "--third").third == ()
    for wrong in (["--densifiers", "mcmc", "mcmc"], ["--train-flags", "mcmc+x=--sh-degree 1"], ["--primitive", "cube"]):
        with pytest.raises(UserError):
            _plan(*wrong)


def test_captures_are_told_apart_and_find_their_truth(tmp_path: Path) -> None:
    assert bench.names_of([Path("/a/desk"), Path("/b/desk"), Path("/a/fox")]) == ["desk", "desk-2", "fox"]
    assert bench.truth_of(["fox=/d"], "fox", single=False) == Path("/d")
    assert bench.truth_of(["/d"], "fox", single=True) == Path("/d")
    assert bench.truth_of(["fox=/d"], "desk", single=True) is None and bench.truth_of([], "fox", single=True) is None
    for captures, given in (((".",), "fox=/d"), ((".", str(tmp_path)), "/d"), (("absent",), "/d")):
        assert bench.main([*captures, "--out", str(tmp_path / "out"), "--truth", given]) == 2
    assert not (tmp_path / "out").exists()


# --- truth -----------------------------------------------------------------------------------------------------


def _camera(name: str, x: float = 0.0) -> Camera:
    pose = np.eye(4)
    pose[0, 3] = -x
    return Camera(name, pose, np.array([[10.0, 0, 8], [0, 10, 4], [0, 0, 1]]), 16, 8)


def test_far_splats_are_far_in_every_view() -> None:
    wall = torch.full((4, 8), 2.0)  # half the pictures' size
    wall[0, 0] = 0.0  # nothing there
    depths = [(_camera("a"), wall), (_camera("b", x=1.0), torch.full((8, 16), 3.0))]
    means = torch.tensor([
        [0, 0, 2.0], [0, 0, 2.05],  # on the wall of a, and a little behind
        [0.9, 0, 3.0],  # behind the wall of a, on that of b
        [0, 0, 1.0],  # afloat for both
        [1.6, 0, 2.0],  # just outside a, afloat for b
        [-0.7, -0.35, 1.0],  # where a knows nothing, and outside b
        [0, 0, -2.0], [50, 0, 2.0],  # behind the cameras, and in no view
        [0, 0, 1.0],  # afloat, but too faint to count
    ])  # fmt: skip
    opacities = torch.tensor([0.9] * 8 + [0.04])
    assert truth.far_splats(means, opacities, depths, 0.1) == {"far": 2, "far_percent": 40.0}
    assert truth.far_splats(means, opacities, depths, 0.01) == {"far": 3, "far_percent": 60.0}
    assert truth.far_splats(means[6:], opacities[6:], depths[:1], 2.0) == {"far": 0, "far_percent": 0.0}


def test_depth_files_are_read_in_the_captures_own_units(tmp_path: Path) -> None:
    scene = SimpleNamespace(cameras=(_camera("a.jpg"), _camera("b.jpg"), _camera("c.jpg")),
                            world_from_input=np.diag([2.0, 2.0, 2.0, 1.0]))  # fmt: skip
    held_out = SimpleNamespace(scene=scene)
    with pytest.raises(UserError, match=r"a\.npy"):
        truth.read_depths(tmp_path, held_out)
    np.save(tmp_path / "a.npy", np.array([[1.0, np.nan], [-3.0, np.inf]]))
    np.savez(tmp_path / "c.npz", depth=np.full((3, 3), 4, np.float32))
    found = truth.read_depths(tmp_path, held_out)
    assert [camera.name for camera, _ in found] == ["a.jpg", "c.jpg"]
    assert found[0][1].tolist() == [[2.0, 0.0], [0.0, 0.0]] and found[1][1].unique().tolist() == [8.0]
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(UserError, match="shape"):
        truth.read_depths(tmp_path, held_out)


# --- tables and page -------------------------------------------------------------------------------------------


def _row(densifier: str, psnr: float, seed: int = 0, budget: str = "splats", **changes) -> dict:
    row = {
        "budget": budget, "densifier": densifier, "label": densifier, "change": "", "seed": seed, "steps_asked": 100,
        "max_splats": 500, "status": "ok", "run": f"{budget}-{densifier}-s{seed}", "psnr": psnr, "ssim": 0.5,
        "splats": 500, "steps": 100, "train_secs": 10.0, "steps_per_sec": 9.5, "ended": "done", "reason": "",
        "clock": [(50, 4.0), (100, 10.0)],
    }  # fmt: skip
    return row | changes


def _rows() -> list[dict]:
    lost = {"status": "failed", "reason": "no <such> thing | here"}
    points = [{"step": 50, "psnr": 18.0, "ssim": 0.4, "splats": 300}, {"step": 100, "psnr": 20.0, "splats": 500}]
    return [
        *(_row("adaptive", psnr, i) for i, psnr in enumerate((20.0, 20.3, 19.9))),
        *(_row("adaptive", 20.5, i, "steps", max_splats=None, splats=900) for i in range(3)),
        _row("mcmc", 21.0), _row("mcmc", 21.4, 1), _row("mcmc", 0.0, 2, **lost),
        *(_row("adaptive", 20.0, i, "time") for i in range(2)),
        _row("mcmc", 20.6, 0, "time", ended="time", steps=70), _row("mcmc", 20.8, 1, "time"),
        _row("mcmc", 0.0, 0, "third", **lost),
        _row("adaptive", 20.0, 0, "curve", points=points), _row("mcmc", 0.0, 0, "curve", **lost),
    ]  # fmt: skip


def _results(name: str = "desk & chair", rows: list[dict] | None = None) -> dict:
    rows = _rows() if rows is None else rows
    return {
        "capture": name, "machine": "a machine", "views": 2, "views_train": 9, "sizes": "8x8", "load": 3.0,
        "settings": {"preset": "cpu", "primitive": "gaussian", "steps": 100, "max_splats": 500, "seeds": [0, 1, 2],
                     "densifiers": ["adaptive", "mcmc"], "flags": [], "flags_of": {}},
        "summary": tables.summarised(rows), "curves": bench.curves(rows), "rows": rows,
        "notes": ["Not measured: <something>"],
    }  # fmt: skip


def test_seeds_become_a_median_and_a_spread() -> None:
    first, free, mcmc, *_ = tables.summarised(_rows())
    assert (first["label"], first["seeds"], first["failed"]) == ("adaptive", 3, [])
    assert first["psnr"]["median"] == 20.0 and first["psnr"]["spread"] == pytest.approx(0.4)
    assert free["budget"] == "steps" and free["splats"] == {"median": 900, "spread": 0, "values": [900] * 3}
    assert mcmc["seeds"] == 2 and mcmc["failed"] == ["seed 2: no <such> thing | here"]
    assert mcmc["psnr"]["median"] == pytest.approx(21.2)
    assert tables.middle([7, None, float("nan")]) == {"median": 7, "spread": None, "values": [7]}
    assert tables.middle([None]) is None


def test_curves_take_the_time_of_the_run_nobody_looked_at() -> None:
    rows = [row | {"clock": [(100, 99.0)]} if row["seed"] else row for row in _rows()]
    (curve,) = bench.curves(rows)
    assert [(point["secs"], point["psnr"]) for point in curve["points"]] == [(4.0, 18.0), (10.0, 20.0)]


def test_every_line_of_a_table_has_every_column() -> None:
    rows = [row for row in _rows() if row["densifier"] == "adaptive"]
    first, second = tables.markdown([_results(), _results("fox", rows)]).split("\n\n")
    assert len({line.replace("\\|", "").count("|") for line in first.splitlines()}) == 1
    assert "| desk & chair | equal splats | adaptive | 20.00 (0.40) | 0.5000 | 500 | 10.0 s |" in first
    assert "| desk & chair | equal time | mcmc (clock stopped 1 of 2) | 20.70 (0.20) |" in first
    assert "failed: seed 0: no <such> thing \\| here |" in first
    assert len(first.splitlines()) == 2 + 6 + 3
    assert second.splitlines()[2:] == []  # fox compares nothing


def test_captures_together_are_told_against_the_first_densifier() -> None:
    worse = [row | {"psnr": row["psnr"] - 1.5} if row["densifier"] == "mcmc" else row for row in _rows()]
    both = [_results(), _results("fox", worse)]
    assert "| equal splats | mcmc | +1.20 | -0.30 | +0.45 |" in tables.markdown(both)
    assert "| equal splats | adaptive | +0.00 | +0.00 | +0.00 |" in tables.markdown(both)
    assert tables.mean([1.0, None]) is None and tables.signed(-0.001) == "+0.00"


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.strong: list[str] = []
        self.lines = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "img")
        assert not [value for name, value in attrs if name in ("src", "href", "srcset")]
        self.lines += tag == "polyline"
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.lines += tag == "polyline"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if "b" in self.open and "td" in self.open:
            self.strong.append(data)


def test_the_page_is_whole_in_itself() -> None:
    reader = _Reader()
    document = pages.page([_results()])
    reader.feed(document)
    text = " ".join(reader.text)
    assert reader.open == [] and "url(" not in document and "@import" not in document
    for said in ("desk & chair", "seed 2: no <such> thing | here", "<something>", "of 100: clock stopped 1 of 2",
                 "+1.20", "(0.40)", "load of the machine", "No curve of mcmc", "A third of the steps"):  # fmt: skip
        assert said in text
    assert reader.lines == 2  # adaptive over time and over splats; mcmc has one point in the second
    assert reader.strong == ["21.20", "20.70"]  # the better of two that differ
    again = _Reader()
    again.feed(pages.page([_results(), _results("fox")]))
    assert again.open == [] and "PSNR against the first densifier" in again.text


# --- whole -----------------------------------------------------------------------------------------------------


def _fake_train(secs: dict[str, float], asked: list):
    def train(training, setup, folder, *, resume=False, watch=None):
        asked.append(training)
        row = _row(training.densifier, 20.0, training.seed, training.budget, run=training.name, reused=resume)
        row |= {"steps_asked": training.steps, "steps": training.steps, "max_splats": training.max_splats}
        row |= {"label": training.label, "change": training.change}
        if training.evals:
            row["points"] = [{"step": step, "psnr": 1.0, "ssim": 0.1, "splats": 5} for step in training.evals]
        if training.densifier == "broken":
            return row | {"status": "failed", "reason": "no"}
        return row | {"train_secs": secs[training.densifier] + training.seed}

    return train


def test_the_tables_share_their_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[runs.Training] = []
    monkeypatch.setattr(bench, "train", _fake_train({"adaptive": 10.0, "mcmc": 20.0, "turbo": 4.0}, asked))
    call = [str(tmp_path), "--out", str(tmp_path / "out"), "--seeds", "3", "--steps", "300", "--densifiers", "adaptive",
            "broken", "mcmc", "turbo", "--ablate", "mcmc", "noise=0", "--capped", "turbo"]  # fmt: skip
    assert bench.main(call) == 1
    summary = json.loads((tmp_path / "out" / "results.json").read_text())["summary"]
    found = {title: [line["label"] for line in lines] for title, lines in tables.tables(summary)}
    everyone = ["adaptive", "broken", "mcmc", "turbo"]
    assert found == {
        "Equal steps": everyone, "Equal splats": everyone, "Equal time": everyone,
        "A third of the steps": ["adaptive", "turbo"], "mcmc with one thing changed": ["mcmc", "mcmc, noise=0"],
    }  # fmt: skip
    timed = {t.densifier: (t.steps, t.minutes) for t in asked if t.budget == "time"}
    steps = {"mcmc": round(300 * 11 / 21), "turbo": round(300 * 11 / 5)}  # medians of 10, 11, 12 and so on
    assert timed == {kind: (count, pytest.approx(1.2 * 11 / 60)) for kind, count in steps.items()}
    assert {t.densifier for t in asked if t.budget == "steps"} == {"adaptive", "broken"}
    assert len(asked) == 3 * 4 + 3 * 2 + 3 + 3 * 2 + 3 + 4  # splats, steps, third, time, ablation, curves


def test_without_the_first_nothing_sets_the_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[runs.Training] = []
    monkeypatch.setattr(bench, "train", _fake_train({"mcmc": 20.0}, asked))
    call = [str(tmp_path), "--out", str(tmp_path / "out"), "--seeds", "1", "--densifiers", "broken", "mcmc", "--curve",
            "0", "--no-equal-steps"]  # fmt: skip
    assert bench.main(call) == 1
    assert [t.budget for t in asked] == ["splats", "splats"]
    assert "No equal time: broken" in (tmp_path / "out" / "index.html").read_text()
    assert "[2/3]" in capsys.readouterr().err


def test_a_small_benchmark(tiny_scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, depth = tmp_path / "bench", tmp_path / "depth"
    depth.mkdir()
    for image in (tiny_scene / "images").iterdir():
        np.save(depth / f"{image.stem}.npy", np.full((3, 4), 1e-3))  # nothing is that close
    call = [str(tiny_scene), "--out", str(out), "--steps", "4", "--max-splats", "40", "--densifiers", "adaptive",
            "--seeds", "1", "--no-equal-steps", "--curve", "2", "--truth", str(depth)]  # fmt: skip
    assert bench.main(call) == 0
    found = json.loads((out / "results.json").read_text())
    (line,) = found["summary"]
    assert line["psnr"]["median"] == found["rows"][0]["psnr"] and line["far_percent"]["median"] == 100
    (curve,) = found["curves"]
    assert [point["step"] for point in curve["points"]] == [2, 4]
    # Looking on the way changes nothing: the last point is the score of the run nobody looked at.
    assert curve["points"][-1]["psnr"] == line["psnr"]["median"]
    assert 0 < curve["points"][0]["secs"] < curve["points"][1]["secs"]
    assert bench.main(["--combine", str(out), str(out), "--out", str(tmp_path / "all")]) == 0
    assert len(json.loads((tmp_path / "all" / "results.json").read_text())["captures"]) == 2
    capsys.readouterr()
    assert bench.main([*call, "--resume"]) == 0
    assert capsys.readouterr().err.count("was finished before") == 2
