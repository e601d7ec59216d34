"""What plain Gaussians lose is told after a training and after an export, with the numbers of the pictures."""

import json
import re
import shutil
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import torch

from splat.cli.main import main
from splat.cli.opening import run_model
from splat.geometry.rotations import matrix_from_quat
from splat.io.formats import read_model, write_model
from splat.report.run_folder import read_run

SHORT = ["--preset", "cpu", "--steps", "12", "--rasterizer", "reference", "--densifier", "none", "--max-splats", "30"]


def train(scene: Path, run: Path, *flags: str) -> Path:
    assert main(["train", str(scene), "-o", str(run), *SHORT, *flags]) == 0
    return run


def exports(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "export"]


@pytest.fixture(scope="module")
def lossy(tmp_path_factory) -> Path:
    from helpers import make_tiny_scene

    folder = tmp_path_factory.mktemp("lossy")
    scene = make_tiny_scene(folder / "tiny")
    return train(scene, folder / "run", "--primitive", "convex", "-q")


def told(argv: list[str], capsys) -> list[str]:
    capsys.readouterr()
    assert main(argv) == 0
    return [line for line in capsys.readouterr().err.splitlines() if "dB between both" in line]


def test_a_training_records_what_its_ply_lost(lossy, tmp_path):
    (record,) = exports(lossy)
    run = read_run(lossy)
    assert run.finish["reason"] == "done" and run.export == record
    assert (record["step"], record["views"], record["source"]) == (12, 1, "held-out views")
    assert record["psnr_model"] == pytest.approx(run.evals[-1]["psnr"])
    assert record["ssim_model"] == pytest.approx(run.evals[-1]["ssim"], abs=1e-5)
    page = (lossy / "report.html").read_text()
    assert "Export as plain Gaussians" in page and f"{record['psnr_gaussians']:.2f} dB" in page
    ply = lossy / "point_cloud" / "iteration_12" / "point_cloud.ply"
    argv = ["eval", str(lossy), "--model", str(ply), "-q", "--no-images", "--json", str(tmp_path / "s.json")]
    assert main(argv) == 0
    scores = json.loads((tmp_path / "s.json").read_text())
    assert scores["psnr"] == pytest.approx(record["psnr_gaussians"], abs=1e-3)
    assert (scores["primitive"], scores["filter2d"], scores["protocol"]["filter2d"]) == ("gaussian", *2 * ("classic",))


def test_the_line_after_a_training_and_the_one_after_an_export_agree(tiny_scene, tmp_path, capsys):
    run = train(tiny_scene, tmp_path / "run", "--primitive", "gef")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("PLY: ")]
    assert len(lines) == 1 and "held-out views: 1" in lines[0] and "against the photographs" in lines[0]
    assert told(["export", str(run), "-o", str(tmp_path / "m.ply")], capsys) == [lines[0].removeprefix("PLY: ")]


@pytest.mark.parametrize("flags", [["--primitive", "ges"], ["--filter2d", "mip"]])
def test_where_nothing_is_lost_nothing_is_told(tiny_scene, tmp_path, capsys, flags):
    run = train(tiny_scene, tmp_path / "run", *flags)
    assert "PLY:" not in capsys.readouterr().err and exports(run) == []
    assert "Export as plain" not in (run / "report.html").read_text()
    assert told(["export", str(run), "-o", str(tmp_path / "m.ply")], capsys) == []


def test_a_filter_others_do_not_know_is_told_and_returns_from_every_file(tiny_scene, tmp_path, capsys):
    run = train(tiny_scene, tmp_path / "run", "--filter2d", "analytic")
    assert "PLY: other viewers draw filter2d analytic as aa: PSNR" in capsys.readouterr().err
    ply = run / "point_cloud" / "iteration_12" / "point_cloud.ply"
    assert read_model(run).model.filter2d == read_model(ply).model.filter2d == "analytic"
    (run / "model.safetensors").unlink()
    assert run_model(run, print).model.filter2d == "analytic"
    (line,) = told(["export", str(ply), "-o", str(tmp_path / "other.ply")], capsys)
    assert "held-out views: 1)" in line


def test_far_from_the_origin_the_frames_of_files_are_minded(tmp_path, capsys):
    from helpers import make_tiny_scene

    scene = make_tiny_scene(tmp_path / "far")
    shift = np.array([5000.0, 0, 0])
    images, points = scene / "sparse/0/images.txt", scene / "sparse/0/points3D.txt"
    images.write_text("".join(map(_shifted_pose, images.read_text().splitlines(keepends=True), repeat(shift))))
    points.write_text("".join(map(_shifted_point, points.read_text().splitlines(keepends=True), repeat(shift))))
    run = train(scene, tmp_path / "run", "--filter2d", "analytic")
    err = capsys.readouterr().err
    assert "shifted by" in err
    (line,) = [line for line in err.splitlines() if line.startswith("PLY: ")]
    ply = run / "point_cloud" / "iteration_12" / "point_cloud.ply"
    for source in (run, ply):
        (again,) = told(["export", str(source), "-o", str(tmp_path / "m.ply")], capsys)
        between = [float(re.search(r"PSNR ([0-9.]+) dB", text)[1]) for text in (line, again)]
        assert between[0] == pytest.approx(between[1], abs=0.3)  # float32 so far out
    shutil.rmtree(scene)
    (again,) = told(["export", str(run), "-o", str(tmp_path / "m.ply")], capsys)
    # Cameras that miss the model would see two empty pictures: 100 dB.
    assert "cameras.json" in again and float(re.search(r"PSNR ([0-9.]+) dB", again)[1]) < 90


def _shifted_pose(line: str, shift: np.ndarray) -> str:
    """x_camera = R x + t: with every x moved by ``shift``, t loses R shift."""
    words = line.split()
    if len(words) < 10:
        return line
    rotation = matrix_from_quat(torch.tensor([[float(word) for word in words[1:5]]], dtype=torch.float64))[0].numpy()
    moved = np.array(words[5:8], float) - rotation @ shift
    return " ".join([*words[:5], *map(repr, moved.tolist()), *words[8:]]) + "\n"


def _shifted_point(line: str, shift: np.ndarray) -> str:
    words = line.split()
    return " ".join([words[0], *map(repr, (np.array(words[1:4], float) + shift).tolist()), *words[4:]]) + "\n"


def test_views_are_found_without_the_capture_too(lossy, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(lossy, run)
    config = run / "config.toml"
    config.write_text(config.read_text().replace(str(lossy.parent / "tiny"), "/nowhere"))
    (line,) = told(["export", str(run), "-o", str(tmp_path / "a.ply")], capsys)
    assert "views of cameras.json: 6)" in line and "photographs" not in line
    alone = tmp_path / "alone.safetensors"
    shutil.copy(run / "model.safetensors", alone)
    (line,) = told(["export", str(alone), "-o", str(tmp_path / "b.ply")], capsys)
    assert "views from a ring around it: 8)" in line
    (inside,) = told(["export", str(lossy / "model.safetensors"), "-o", str(tmp_path / "c.ply")], capsys)
    assert "held-out views: 1)" in inside


def test_quiet_and_native_exports_measure_nothing(lossy, tmp_path, capsys):
    assert told(["export", str(lossy), "-q", "-o", str(tmp_path / "m.ply")], capsys) == []
    assert told(["export", str(lossy), "-o", str(tmp_path / "m.safetensors")], capsys) == []


def test_an_export_that_cannot_be_drawn_is_written_all_the_same(lossy, tmp_path, capsys, monkeypatch):
    from splat.render.reference import ReferenceRasterizer

    monkeypatch.setattr(ReferenceRasterizer, "supports", lambda *_: "no.")
    monkeypatch.setattr("splat.cli.conversion.choose_device", lambda *_: ("cpu", ReferenceRasterizer()))
    assert main(["export", str(lossy), "-o", str(tmp_path / "m.ply")]) == 0
    assert "warning: what was lost was not measured: no." in capsys.readouterr().err
    assert read_model(tmp_path / "m.ply").model.count == 30


@pytest.mark.parametrize("rasterizer", ["native", "reference"])
def test_a_filter_that_does_not_fit_the_primitive_is_one_line(lossy, tmp_path, capsys, rasterizer):
    wrong = tmp_path / "wrong.safetensors"
    loaded = read_model(lossy)
    write_model(replace(loaded.model, filter2d="aa"), wrong, header=loaded.header)
    for argv in (["eval", str(lossy), "--filter2d", "aa", "--no-images"],
                 ["render", str(lossy), "--model", str(wrong), "-o", str(tmp_path / "out")]):  # fmt: skip
        assert main([*argv, "-q", "--rasterizer", rasterizer]) == 2
        err = capsys.readouterr().err
        assert len(err.splitlines()) == 1 and "convex" in err and "classic" in err


def test_a_checkpoint_opens_with_the_settings_that_were_fitted_to_the_capture(lossy, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(lossy, run)
    finished = run_model(run, print)
    (run / "model.safetensors").unlink()
    stopped = run_model(run, print)
    assert stopped.source.parent.name == "checkpoints"
    assert stopped.model.primitive == finished.model.primitive
    assert finished.model.primitive.reference_focal == pytest.approx(30.0)
