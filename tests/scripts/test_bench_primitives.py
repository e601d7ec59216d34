"""``scripts/bench_primitives.py``: which trainings it plans, what it shows of them, and one small benchmark whole."""

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

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import bench_primitives as bench
import bench_primitives_crops as crops
import bench_primitives_measure as measure
import bench_primitives_page as pages
import bench_primitives_runs as runs

from splat.errors import UserError
from splat.geometry.camera import Camera
from splat.scene.types import Frame

SETUP = runs.Setup(Path("/captures/desk"), seed=3, flags=("--downscale", "4"))
GAUSSIAN = runs.Training("splats", "gaussian", 100, 500)


# --- trainings -------------------------------------------------------------------------------------------------


def test_a_training_is_one_command_line() -> None:
    given = replace(GAUSSIAN, minutes=1.5, flags=("--sh-degree", "1")).arguments(SETUP)
    pairs = dict(itertools.pairwise(given))
    assert given[0] == "/captures/desk" and given[-4:] == ["--downscale", "4", "--sh-degree", "1"]
    assert [pairs[f"--{name}"] for name in ("preset", "primitive", "steps", "max-splats", "seed", "max-minutes")] == [
        "cpu", "gaussian", "100", "500", "3", "1.5000",
    ]  # fmt: skip
    assert "--max-minutes" not in GAUSSIAN.arguments(SETUP)
    variant = replace(GAUSSIAN, primitive="ges+aa")
    assert variant.arguments(SETUP)[4] == "ges" and variant.name == "splats-ges+aa"


def test_the_scale_trainings_see_full_size_alone() -> None:
    planned = runs.multiscale_trainings(100, 500, {"ges": ("--sh-degree", "1")})
    assert [t.label for t in planned] == [
        "gaussian, classic", "gaussian, aa", "gaussian, mip", "gaussian, analytic", "gaussian, mip + 3D filter",
        "ges, analytic",
    ]  # fmt: skip
    assert all("--resolution.factor=1" in t.arguments(SETUP) for t in planned)
    assert "--resolution.factor=1" not in GAUSSIAN.arguments(SETUP)
    assert [t.name for t in planned if "--render.filter3d=true" in t.arguments(SETUP)] == ["scales-gaussian-mip-3d"]
    assert planned[-1].arguments(SETUP)[-1] == "1"


def test_no_two_trainings_share_a_folder() -> None:
    planned = [runs.Training(b, k, 9, n) for b in ("splats", "share", "time") for k in ("ges", "gef") for n in (5, 9)]
    names = {t.name for t in planned if t.budget == "share" or t.max_splats == 9}
    names |= {t.name for t in runs.multiscale_trainings(9, 9, {})}
    assert len(names) == 4 + 4 + 6


def test_equal_time_counts_steps_by_the_measured_speed() -> None:
    assert runs.same_time(1500, own_secs=30.0, reference_secs=10.0) == 500
    assert runs.same_time(1500, own_secs=5.0, reference_secs=10.0) == 3000
    assert runs.same_time(2, own_secs=100.0, reference_secs=0.1) == 1


@pytest.mark.parametrize(
    ("log", "code", "reason"),
    [
        ("scene: desk\nsplat: error: unknown primitive 'x'\n", 2, "unknown primitive 'x' (exit code 2)"),
        ('Traceback\n  File "a.py", line 1\nValueError: no\nsplat: error: this is a fault of splat 0\n', 1,
         "ValueError: no (exit code 1)"),
        ("step 100/1500\n\n", -9, "step 100/1500 (exit code -9)"),
        ("", -9, "nothing was said (exit code -9)"),
    ],
)  # fmt: skip
def test_a_failure_is_one_line(log: str, code: int, reason: str) -> None:
    assert runs.failure(log, code) == reason


def _run_folder(folder: Path, *, reason: str = "done", speeds: tuple[float, ...] = (1.0, 40.0, 50.0, 90.0)) -> Path:
    lines = [{"kind": "start", "step": 0, "views_test": 2, "machine": "a machine"}]
    lines += [{"kind": "train", "step": 1 + 50 * i, "its_per_sec": speed, "elapsed_secs": 2.0 * i, "splats": 7}
              for i, speed in enumerate(speeds)]  # fmt: skip
    lines.append({"kind": "eval", "step": lines[-1]["step"], "psnr": 20.5, "ssim": 0.75, "protocol": {"sizes": "8x8"}})
    lines.append({"kind": "finish", "step": lines[-1]["step"], "reason": reason})
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "model.safetensors").write_bytes(bytes(3_000_000))
    for step in (50, 151):
        ply = folder / "point_cloud" / f"iteration_{step}" / "point_cloud.ply"
        ply.parent.mkdir(parents=True)
        ply.write_bytes(bytes(20_000 * step))
    return folder


def test_a_run_folder_becomes_a_row(tmp_path: Path) -> None:
    row = runs.read_row(_run_folder(tmp_path / "run"))
    shown = ("psnr", "ssim", "splats", "steps", "train_secs", "steps_per_sec", "native_mb", "ply_mb", "views", "sizes")
    assert [row[name] for name in shown] == [20.5, 0.75, 7, 151, 6.0, 50.0, 3.0, 3.02, 2, "8x8"]


def test_only_the_same_finished_training_is_skipped(tmp_path: Path) -> None:
    folder, note = _run_folder(tmp_path / "run"), tmp_path / "run.json"
    assert not runs.is_finished(folder, note, ["--steps", "9"])
    note.write_text(json.dumps({"arguments": ["--steps", "9"]}))
    assert runs.is_finished(folder, note, ["--steps", "9"])
    assert not runs.is_finished(folder, note, ["--steps", "10"])
    stopped = _run_folder(tmp_path / "stopped", reason="stopped")
    assert not runs.is_finished(stopped, note, ["--steps", "9"])
    (folder / "model.safetensors").unlink()
    assert not runs.is_finished(folder, note, ["--steps", "9"])


def test_flags_for_one_primitive() -> None:
    found = bench.flags_by_kind(["convex=--densifier mcmc", "ges=--preset 'my own'", "convex=--sh-degree 1"])
    assert found == {"convex": ("--densifier", "mcmc", "--sh-degree", "1"), "ges": ("--preset", "my own")}
    with pytest.raises(UserError, match="does not fit"):
        bench.flags_by_kind(["--densifier=mcmc"])


# --- measuring -------------------------------------------------------------------------------------------------


def test_smaller_views_are_averaged_and_their_cameras_resized() -> None:
    photo = np.zeros((8, 16, 3), np.uint8)
    photo[:, ::2] = 200
    mask = np.full((8, 16), 255, np.uint8)
    mask[:4] = 0
    camera = Camera("a", np.eye(4), np.array([[10.0, 0, 8], [0, 10, 4], [0, 0, 1]]), 16, 8)
    small, frame = measure.smaller(camera, Frame(photo, mask), 4)
    assert (small.width, small.height, small.focal_px) == (4, 2, (2.5, 2.5))
    assert (frame.pixels == 100).all() and frame.mask.tolist() == [[0] * 4, [255] * 4]
    assert measure.smaller(camera, Frame(photo, mask), 1)[1].pixels is photo


def test_edges_and_flat_parts_of_a_photograph() -> None:
    photo = np.zeros((20, 40, 3), np.uint8)
    photo[:, 20:] = 255
    edges, flat = measure.edge_masks(photo)
    assert edges[:, 19:21].all() and edges.sum() == 40
    assert not flat[:, 19:21].any() and flat[:, :19].all()
    steep = measure.steepness(photo)
    assert steep[5, 19] == pytest.approx(0.25) and steep[5, 5] == 0
    assert np.array_equal(measure.steepness(photo.transpose(1, 0, 2)), steep.T)


def test_models_take_turns_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []

    class Clocked:
        def __init__(self, model: str, _: object) -> None:
            self.model = model

        def seconds(self, camera: int) -> float:
            calls.append((self.model, camera))
            slow = 100.0 if len(calls) == 3 else 1.0  # one slow moment changes no median
            return slow * {"a": 0.25, "b": 0.5}[self.model]

    monkeypatch.setattr(measure, "Drawing", Clocked)
    found = measure.frames_per_second({"a": "a", "b": "b"}, SimpleNamespace(cameras=(1, 2)), rounds=3)
    assert found == {"a": 4.0, "b": 2.0}
    assert calls[:2] == [("a", 1), ("b", 1)]  # warm up
    assert calls[2:6] == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert calls[6:10] == [("b", 1), ("a", 1), ("b", 2), ("a", 2)]


# --- crops -----------------------------------------------------------------------------------------------------


def test_window_means_are_means_of_windows() -> None:
    values = np.random.default_rng(0).random((20, 33))
    found = crops.window_means(values, 7, stride=3)
    assert found.shape == (5, 9)
    assert found[2, 4] == pytest.approx(values[6:13, 12:19].mean())


def _pictures() -> dict[str, dict[str, np.ndarray]]:
    """Two views of 160x160: stripes at the left top of one, black below; the models differ at the right bottom."""
    flat = np.full((160, 160, 3), 120, np.uint8)
    noisy = np.clip(flat + np.random.default_rng(1).integers(-9, 9, flat.shape), 0, 255).astype(np.uint8)
    striped = noisy.copy()
    striped[:64, np.flatnonzero(np.arange(64) % 4 < 2)] = 255
    striped[80:, :80] = 0
    noisy[80:150, 80:150] = 120
    other = noisy.copy()
    other[90:, 90:] = 200
    return {"one": {"photo": striped, "a": striped, "b": striped}, "two": {"photo": noisy, "a": noisy, "b": other}}


def test_crops_are_chosen_by_numbers() -> None:
    chosen = crops.choose(_pictures(), edges=1, smooth=1, disagreement=1)
    assert [(w.title, w.view) for w in chosen] == [
        ("hardest edges", "one"), ("smoothest", "two"), ("largest disagreement", "two"),
    ]  # fmt: skip
    edges, smooth, disagreement = chosen
    assert (edges.x, edges.y, edges.side) == (0, 0, 64)  # the black part has no edges, but is not "smooth" either
    assert (smooth.x, smooth.y) == (80, 80) and (disagreement.x, disagreement.y) == (96, 96)


def test_one_model_disagrees_with_nobody() -> None:
    for names in (("photo", "a"), ("photo", "a", "same")):
        alone = {view: {name: shots.get(name, shots["a"]) for name in names} for view, shots in _pictures().items()}
        assert {w.title for w in crops.choose(alone)} == {"hardest edges", "smoothest"}


def test_one_part_is_not_shown_twice() -> None:
    pictures = {"two": _pictures()["two"]}
    chosen = crops.choose(pictures, edges=2, smooth=0, disagreement=0)
    assert len(chosen) == 1
    same = crops.choose(pictures, edges=0, smooth=1, disagreement=0)[0]
    assert not crops._overlap(same, replace(same, view="other")) and crops._overlap(same, replace(same, x=same.x + 8))
    assert not crops._overlap(same, replace(same, x=same.x + 16))
    small = {"v": {"photo": np.zeros((20, 30, 3), np.uint8), "a": np.zeros((20, 30, 3), np.uint8)}}
    assert [w.side for w in crops.choose(small, edges=1, smooth=0, disagreement=0)] == [20]


@pytest.mark.parametrize(("side", "count", "zoom"), [(64, 5, 3), (64, 7, 2), (22, 7, 4), (64, 2, 4), (64, 12, 2)])
def test_crops_fit_the_page(side: int, count: int, zoom: int) -> None:
    assert crops.zoom_for(side, count) == zoom


# --- tables and page -------------------------------------------------------------------------------------------


def _row(primitive: str, budget: str = "splats", **changes) -> dict:
    row = {
        "budget": budget, "primitive": primitive, "label": primitive, "filters": "", "steps_asked": 100,
        "max_splats": 500, "status": "ok", "run": f"{budget}-{primitive}", "psnr": 20.0, "ssim": 0.5, "splats": 500,
        "steps": 100, "train_secs": 65.0, "steps_per_sec": 9.5, "native_mb": 0.25, "ply_mb": 0.5, "frames_per_sec": 60,
    }  # fmt: skip
    return row | changes


@pytest.fixture
def results(tmp_path: Path) -> dict:
    scores = [{"scale": s, "psnr": 20.0 + s, "ssim": 0.5} for s in (1, 8)]
    failed = {"status": "failed", "reason": "no <such> thing | here"}
    pictures = _pictures()
    return {
        "capture": "desk & chair", "machine": "a machine", "views": 2, "views_train": 9, "sizes": "8x8", "load": 3.0,
        "settings": {"preset": "cpu", "steps": 100, "max_splats": 500, "seed": 0, "flags": [], "flags_of": {}},
        "rows": [
            _row("gaussian"), _row("gef", psnr=21.5, native_mb=0.75), _row("convex", **failed),
            _row("gaussian", "share", max_splats=250), _row("gaussian", "time"), _row("gef", "time", steps=80),
        ],
        "scales": [_row("gaussian", "scales", filters="mip", scores=scores), _row("ges", "scales", **failed)],
        "crops": crops.write_crops(crops.choose(pictures), pictures, tmp_path / "crops"), "scale_crops": [],
        "notes": ["Not measured: <something>"],
    }  # fmt: skip


def test_every_line_of_a_table_has_every_column(results: dict) -> None:
    first, second = pages.markdown([results, results]).split("\n\n")
    for text, lines in ((first, 2 + 2 * 6), (second, 2 + 2 * 2)):
        rows = text.strip().splitlines()
        assert len(rows) == lines
        assert len({row.replace("\\|", "").count("|") for row in rows}) == 1
    assert "| desk & chair | at most 250 splats | gaussian | 20.00 |" in first
    assert "failed: no <such> thing \\| here |" in first
    assert "| desk & chair | gaussian | mip | 21.00 / 0.500 | 28.00 / 0.500 |" in second


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.strong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe")
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in ("img", "br", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if "b" in self.open and "td" in self.open:
            self.strong.append(data)


def test_the_page_is_whole_in_itself(results: dict, tmp_path: Path) -> None:
    reader = _Reader()
    document = pages.page([results], [tmp_path])
    reader.feed(document)
    text = " ".join(reader.text)
    assert reader.open == [] and "url(" not in document and "@import" not in document
    assert len(reader.addresses) == 3 * len(results["crops"])  # photo, a, b
    assert all(address.startswith("data:image/png;base64,") for address in reader.addresses)
    for said in ("desk & chair", "no <such> thing | here", "<something>", "80 of 100", "+1.50", "load of the machine"):
        assert said in text
    # The better of two numbers is stressed, where there are two that differ; files are better small.
    assert reader.strong == ["0.25", "21.50", "21.00", "28.00"]


def test_combining_keeps_the_order_and_names_what_is_absent(results: dict, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        content = {**results, "capture": name, "crops": []}
        (tmp_path / name / "results.json").write_text(json.dumps(content))
    out = tmp_path / "all"
    call = ["--combine", str(tmp_path / "second"), str(tmp_path / "first"), "--out", str(out)]
    assert bench.main(call) == 1  # a row of each has failed
    lines = (out / "table.md").read_text().splitlines()
    assert lines[2].startswith("| second |") and lines[8].startswith("| first |")
    assert [c["capture"] for c in json.loads((out / "results.json").read_text())["captures"]] == ["second", "first"]
    assert bench.main(["--combine", str(tmp_path / "third"), "--out", str(out)]) == 2


# --- whole -----------------------------------------------------------------------------------------------------


def test_a_small_benchmark(tiny_scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench"
    call = [
        str(tiny_scene),
        "--out",
        str(out),
        "--steps",
        "4",
        "--max-splats",
        "40",
        "--primitives",
        "gaussian",
        "none",
    ]
    assert bench.main(call) == 1
    found = json.loads((out / "results.json").read_text())
    trained, failed, timed, _ = found["rows"]
    assert "unknown primitive 'none'" in failed["reason"] and found["notes"] == []
    assert trained["steps"] == 4 and trained["frames_per_sec"] > 0 and timed["run"] == trained["run"]
    assert trained["ply_psnr"] == pytest.approx(trained["psnr"], abs=1e-3)
    assert len(list((out / "crops").iterdir())) == sum(len(crop["cells"]) for crop in found["crops"]) > 0
    assert "data:image/png" in (out / "index.html").read_text()
    capsys.readouterr()
    assert bench.main([*call[:-1], "--resume"]) == 0
    assert "was finished before" in capsys.readouterr().err
