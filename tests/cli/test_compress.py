"""``splat compress``: what it writes, what it says of it, and what it refuses."""

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_compress import Veil

from splat.cli.compression import ply_bytes
from splat.cli.main import main
from splat.compress.registry import COMPRESSORS
from splat.io.formats import read_model, write_model

SHORT = ["--preset", "cpu", "--steps", "12", "--densifier", "none", "--max-splats", "30", "--device", "cpu", "-q"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from helpers import make_tiny_scene

    folder = tmp_path_factory.mktemp("compress")
    scene = make_tiny_scene(folder / "tiny")
    assert main(["train", str(scene), "-o", str(folder / "run"), *SHORT]) == 0
    return folder / "run"


@pytest.fixture(autouse=True)
def _known(monkeypatch, tmp_path):
    monkeypatch.setitem(COMPRESSORS, "veil", Veil)
    monkeypatch.chdir(tmp_path)


def packed(*argv) -> dict:
    """Run it; returns what it wrote of it."""
    assert main(["compress", *map(str, argv), "--json", "told.json"]) in (0, 1)
    return json.loads(Path("told.json").read_text())


def files_of(run: Path) -> dict[str, bytes]:
    return {str(file.relative_to(run)): file.read_bytes() for file in run.rglob("*") if file.is_file()}


def test_a_run_is_trained_through_the_compressor_packed_and_measured(trained, capsys):
    before = files_of(trained)
    told = packed(trained, "--compressor", "veil", "--steps", 8, "-o", "small.spack")
    out, err = capsys.readouterr()
    assert out == "small.spack\n" and files_of(trained) == before
    loaded = read_model("small.spack")
    assert (loaded.header["compressor"], loaded.model.count) == ("veil", told["splats"])
    assert told["steps"] == 8 and told["compressor"]["begin"] == 1 and told["compressor"]["prune_every"] == 4
    assert told["splats"] < told["model"]["splats"] == 30
    assert told["size_bytes"] == Path("small.spack").stat().st_size
    assert told["bits_per_splat"] == pytest.approx(8 * told["size_bytes"] / told["splats"])
    assert told["psnr_drop"] == pytest.approx(told["model"]["psnr"] - told["decoded"]["psnr"])
    assert "held-out views (1), against the photographs" in told["views"]
    assert "training 8 steps through 'veil'" in err and "times smaller than the PLY" in err
    assert re.search(r"small\.spack: .* bits per splat, PSNR \d", err)
    assert main(["eval", str(trained), "--model", "small.spack", "-q", "--no-images", "--json", "e.json"]) == 0
    scores = json.loads(Path("e.json").read_text())
    assert scores["psnr"] == pytest.approx(told["decoded"]["psnr"], abs=1e-4)
    assert scores["ssim"] == pytest.approx(told["decoded"]["ssim"], abs=1e-5)


def test_it_repeats_to_the_byte(trained):
    for name in ("one", "two"):
        packed(trained, "--compressor", "veil", "--steps", 5, "-o", f"{name}.spack", "-q")
    packed(trained, "--compressor", "veil", "--steps", 5, "--seed", 9, "-o", "other.spack", "-q")
    one, two, other = (Path(f"{name}.spack").read_bytes() for name in ("one", "two", "other"))
    assert one == two != other


def test_the_size_of_the_ply_is_that_of_a_ply(trained):
    model = read_model(trained).model
    write_model(model, "m.ply")
    size = Path("m.ply").stat().st_size
    assert 0 < size - ply_bytes(model) < 4000


def test_without_steps_the_model_is_packed_as_it_is(trained):
    told = packed(trained, "--compressor", "veil", "--steps", 0, "-o", "small.spack")
    start = Veil().start(read_model(trained).model, seed=0)
    assert told["steps"] == 0 and told["splats"] == int((start.rows["veil"] > 0).sum())
    ours = set(read_model("small.spack").model.rows["means"].norm(dim=1).mul(100).round().tolist())
    theirs = set(read_model(trained).model.rows["means"].norm(dim=1).mul(100).round().tolist())
    assert len(ours - theirs) <= 1  # none of them moved by more than a rounding


def test_a_lone_file_is_measured_against_its_own_pictures(trained, capsys, monkeypatch):
    monkeypatch.setattr("splat.evaluate.conversion.RING_SIZE_PX", (64, 48))
    Path("alone").mkdir()
    write_model(read_model(trained).model, "alone/m.ply", header={"world_from_input": np.eye(4).tolist()})
    told = packed("alone/m.ply", "--compressor", "veil")
    assert capsys.readouterr().out == "alone/m.spack\n" and told["steps"] == 0
    assert told["model"]["psnr"] is None and 0 < told["decoded"]["psnr"] < 100
    assert "against the model's own pictures" in told["views"] and told["psnr_drop"] is None
    assert read_model("alone/m.spack").header["world_from_input"] == np.eye(4).tolist()
    assert main(["compress", "alone/m.ply", "--compressor", "veil", "--steps", "3"]) == 2
    assert "name the capture with --scene" in capsys.readouterr().err
    told = packed("alone/m.ply", "--compressor", "veil", "--steps", 3, "--scene", trained.parent / "tiny", "-q")
    assert told["steps"] == 3 and "photographs" in told["views"]


def test_other_formats_hold_what_the_training_through_it_left(trained):
    told = packed(trained, "--compressor", "veil", "--steps", 4, "-o", "small.ply", "-q")
    packed(trained, "--compressor", "veil", "--steps", 4, "-o", "small.spack", "-q")
    ply, spack = (read_model(f"small.{name}").model for name in ("ply", "spack"))
    assert ply.count == spack.count == told["splats"]
    assert told["decoded"]["psnr"] == pytest.approx(json.loads(Path("told.json").read_text())["decoded"]["psnr"], abs=1)


def test_the_default_takes_the_last_of_the_table_and_none_packs_plainly(trained):
    told = packed(trained, "-q", "-o", "a.spack", "--steps", 2)
    assert told["compressor"]["kind"] == list(COMPRESSORS)[-1] == "veil"
    told = packed(trained, "-q", "-o", "b.spack", "--compressor", "none")
    assert (told["steps"], told["splats"]) == (0, 30) and told["times_smaller"] > 1
    assert read_model("b.spack").header["compressor"] == "none"


def test_goals_go_to_the_compressor_and_a_missed_one_is_told(trained, capsys):
    told = packed(trained, "--compressor", "veil", "--steps", 2, "--target-mb", 0.02, "-o", "a.spack")
    assert told["compressor"]["most"] == 10 and told["splats"] <= 10
    assert told["goal"] == {"size_bytes": 20_000, "psnr_drop": None}
    assert "searching settings of 'veil' on 5 training views" in capsys.readouterr().err
    argv = ["compress", str(trained), "-o", "b.spack", "--steps", "0"]
    assert main([*argv, "--target-mb", "0.0011"]) == 1  # the last of the table can search, so it is taken
    assert Path("b.spack").exists() and "the goal was 1,100" in capsys.readouterr().err
    assert main([*argv, "--max-psnr-drop", "1e-9"]) in (0, 1)
    assert main([*argv, "--target-mb", "0.0005"]) == 2
    assert "'veil' needs 1000 bytes" in capsys.readouterr().err
    assert main([*argv, "--target-mb", "1", "--compressor", "none"]) == 2
    assert "'none' cannot search for a size; choose --compressor" in capsys.readouterr().err
    write_model(read_model(trained).model, "m.ply")
    assert main(["compress", "m.ply", "--max-psnr-drop", "0.2"]) == 2
    assert "wants photographs" in capsys.readouterr().err


@pytest.mark.parametrize(("argv", "reason"), [
    ([], "name a run or a model file"), (["gone"], "no such file"), (["RUN", "--compressor", "vail"], "mean 'veil'"),
    (["RUN", "--target-mb", "1", "--max-psnr-drop", "1"], "two goals"), (["RUN", "--target-mb", "0"], "above 0"),
    (["RUN", "--steps", "-1"], "packs the model as it is"), (["RUN", "-o", "m.obj"], "no format is written"),
    (["RUN", "-o", "RUN/model.safetensors"], "the source itself"), (["RUN", "--format", "obj"], "not known"),
    (["RUN", "--compressor", "veil", "--compressor.begn", "2"], "did you mean 'compressor.begin'"),
])  # fmt: skip
def test_what_cannot_be_done_is_one_line(trained, capsys, argv, reason):
    assert main(["compress", *(word.replace("RUN", str(trained)) for word in argv)]) == 2
    err = capsys.readouterr().err
    assert reason in err.splitlines()[-1] and len(err.splitlines()) <= 2
    assert not list(Path().glob("*.spack"))


def test_parts_that_do_not_fit_are_refused_before_training(trained, tiny_scene, capsys):
    assert main(["train", str(tiny_scene), "-o", "gef", *SHORT, "--primitive", "gef"]) == 0
    assert main(["compress", "gef", "--compressor", "veil"]) == 2
    assert "'veil' cannot veil primitive 'gef'" in capsys.readouterr().err


def test_an_interrupted_training_leaves_nothing(trained, monkeypatch, capsys):
    update = Veil.update

    def interrupted(self, state, step):
        update(self, state, step)
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Veil, "update", interrupted)
    assert main(["compress", str(trained), "--compressor", "veil", "--steps", "400", "-o", "a.spack"]) == 130
    out, err = capsys.readouterr()
    assert "nothing was written" in err and out == "" and not Path("a.spack").exists()


def test_a_mip_filtered_model_keeps_its_filter(tiny_scene):
    assert main(["train", str(tiny_scene), "-o", "run", *SHORT, "--render.filter3d", "--filter2d", "mip"]) == 0
    for steps in (0, 2):
        packed("run", "--compressor", "veil", "--steps", steps, "-o", "a.spack", "-q")
        model = read_model("a.spack").model
        assert model.filter2d == "mip" and model.filter3d is not None
        assert torch.isfinite(model.filter3d).all() and bool((model.filter3d > 0).all())
