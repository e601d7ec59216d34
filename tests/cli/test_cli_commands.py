import json
from pathlib import Path

import numpy as np
import pytest
import torch

from splat.cli.commands import doctor
from splat.cli.main import main
from splat.io.formats import read_model
from splat.io.png import read_png


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    from helpers import make_tiny_scene

    folder = tmp_path_factory.mktemp("commands")
    scene = make_tiny_scene(folder / "tiny")
    assert main(["train", str(scene), "-o", str(folder / "run"), "--preset", "cpu", "--steps", "20", "-q"]) == 0
    return folder / "run"


def test_eval_gives_the_numbers_of_the_training(run, tmp_path, capsys):
    assert main(["eval", str(run), "--json", str(tmp_path / "scores.json")]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    trained = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if '"eval"' in line][-1]
    for name in ("psnr", "ssim", "psnr_8bit", "ssim_8bit", "step", "splats"):
        assert scores[name] == trained[name], name
    assert scores["protocol"] and len(scores["views"]) == 1
    assert "mean" in capsys.readouterr().out


def test_eval_of_the_exported_ply_gives_the_same_score(run, tmp_path):
    ply = run / "point_cloud" / "iteration_20" / "point_cloud.ply"
    scores = []
    for flags in ([], ["--model", str(ply)]):
        assert main(["eval", str(run), *flags, "-q", "--no-images", "--json", str(tmp_path / "s.json")]) == 0
        scores.append(json.loads((tmp_path / "s.json").read_text())["psnr"])
    assert abs(scores[0] - scores[1]) < 1e-3


def test_eval_after_an_interruption_takes_the_checkpoint(run, tmp_path, capsys):
    import shutil

    stopped = tmp_path / "stopped"
    shutil.copytree(run, stopped)
    (stopped / "model.safetensors").unlink()
    assert main(["eval", str(stopped), "--no-images"]) == 0
    assert "step_20.safetensors" in capsys.readouterr().err


def test_render_writes_the_views_asked_for(run, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(
            ["render", str(run), "--views", "orbit", "--frames", "3", "--channels", "color,depth,alpha", "-o", str(out)]
        )
        == 0
    )
    written = capsys.readouterr().out.split()
    assert len(written) == 9 and all(Path(path).is_file() for path in written)
    assert main(["render", str(run), "-o", str(out), "-q"]) == 0
    (truth,) = capsys.readouterr().out.split()
    assert np.array_equal(read_png(truth), read_png(run / "renders" / "step_20" / "view_01_render.png"))


def test_render_of_a_model_file_takes_its_views_from_a_capture(run, tmp_path, capsys):
    ply = run / "point_cloud" / "iteration_20" / "point_cloud.ply"
    assert main(["render", str(ply)]) == 2
    assert "--scene" in capsys.readouterr().err
    argv = ["render", str(ply), "--scene", str(run.parent / "tiny"), "-o", str(tmp_path / "out"), "-q"]
    assert main(argv) == 0
    (picture,) = capsys.readouterr().out.split()
    ours = read_png(run / "renders" / "step_20" / "view_01_render.png")
    assert np.abs(read_png(picture).astype(int) - ours).max() <= 1


def test_render_names_unknown_views(run, capsys):
    assert main(["render", str(run), "--views", "obrit"]) == 2
    assert "orbit" in capsys.readouterr().err


def test_export_from_run_and_file_and_back(run, tmp_path, capsys):
    ply, native = tmp_path / "model.ply", tmp_path / "model.safetensors"
    assert main(["export", str(run), "-o", str(ply)]) == 0
    assert main(["export", str(ply), "--format", "native", "-o", str(native)]) == 0
    assert capsys.readouterr().out.split() == [str(ply), str(native)]
    ours, theirs = read_model(run).model, read_model(native).model
    assert ours.count == theirs.count
    assert torch.allclose(ours.rows["means"], theirs.rows["means"])


@pytest.mark.parametrize(("flags", "reason"), [
    (["-o", "x.splat9"], "suffix"), (["--format", "sog9"], "choices"), (["--fromat", "ply"], "did you mean '--format'"),
])  # fmt: skip
def test_export_refuses_what_it_cannot_write(run, capsys, flags, reason):
    assert main(["export", str(run), *flags]) == 2
    assert reason in capsys.readouterr().err


def test_export_does_not_write_onto_its_source(run, capsys):
    assert main(["export", str(run / "model.safetensors"), "--format", "native"]) == 2
    assert "source itself" in capsys.readouterr().err


def test_info_describes_run_and_ply(run, capsys):
    assert main(["info", str(run)]) == 0
    assert "splats" in capsys.readouterr().out
    assert main(["info", str(run / "point_cloud/iteration_20/point_cloud.ply"), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["splats"] == read_model(run).model.count


@pytest.mark.parametrize("command", ["eval", "render", "export", "info", "sfm"])
def test_commands_without_their_argument_say_what_to_name(command, capsys):
    assert main([command]) == 2
    assert "name" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["eval", "render", "export", "info", "sfm"])
def test_commands_on_nothing_are_one_line(command, tmp_path, capsys):
    assert main([command, str(tmp_path / "nothing")]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "nothing" in err


def test_doctor_names_the_backends(capsys):
    assert main(["doctor", "--strict"]) == 0
    out = capsys.readouterr().out
    for name in (
        "native CPU core",
        "isa",
        "torch",
        "numpy",
        "C++ compiler",
        "nvcc",
        "GPU",
        "LPIPS",
        "pycolmap",
        "ready to train",
    ):
        assert name in out


def test_doctor_gives_the_fix_for_what_is_missing(monkeypatch, capsys):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name: None if name in ("pycolmap", "plyfile") else real(name)
    )
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "fix: pip install plyfile" in out and "fix: pip install pycolmap" in out and "missing: plyfile" in out
    assert main(["doctor", "--strict"]) == 2


def test_a_finished_run_knows_when_and_why_its_splats_were_made(run, tmp_path):
    import shutil

    from splat.cli.opening import past_of, run_model
    from splat.edit.protection import Protection, Shield
    from splat.io.tensors import load_tensors, save_tensors
    from splat.train.checkpoint import latest

    opened = run_model(run, print)
    checkpoint = latest(run, print)
    labels, protection = past_of(run, opened)
    assert not protection
    assert torch.equal(labels.born, checkpoint.labels["born"]) and not labels.flags.any()
    assert labels.names == tuple(checkpoint.label_scalars["names"]) and labels.count == opened.model.count
    other = shutil.copytree(run, tmp_path / "other")
    path = other / "checkpoints" / "step_20.safetensors"
    tensors, header = load_tensors(path)
    left_out = Protection({4: Shield({0: np.ones(3, np.uint8)})}).tensors()
    save_tensors(path, {**tensors, **{f"protection.{name}": table for name, table in left_out.items()}}, header)
    assert past_of(other, opened)[1].shields.keys() == {4}
    opened.model.rows["means"] = opened.model.rows["means"] + 1  # changed since
    assert past_of(other, opened)[0].names == ("start",)
    path.write_bytes(b"broken")
    assert past_of(other, run_model(run, print))[0].names == ("start",)
