"""Runs that start from a model: where it comes from, how it is fitted, and that they repeat and resume."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from splat.cli.main import main
from splat.config.assemble import gather, loop_settings
from splat.config.build import build_config, effective, nested
from splat.config.starting import in_training_frame, start_layer, with_sh_degree
from splat.errors import UserError
from splat.geometry.rng import keyed_generator
from splat.io.formats import LoadedModel, read_model, write_model
from splat.model.primitives import PRIMITIVES
from splat.model.splat_model import SplatModel
from splat.optim.schedule import learning_rates

FLAGS = ["--preset", "cpu", "--steps", "10", "--densifier", "none", "--device", "cpu", "-q"]
FINE = ["--start-from", "start.safetensors", "--optim.lr-start", "1"]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def model_of(kind="gaussian", count=25, degree=1, **more) -> SplatModel:
    generator = keyed_generator(0, "start", 0)
    primitive = PRIMITIVES[kind]()
    rows = primitive.start(
        torch.randn(count, 3, generator=generator), torch.rand(count, 3, generator=generator), sh_degree=degree,
        generator=generator,
    )  # fmt: skip
    rows["sh_rest"] = torch.randn(rows["sh_rest"].shape, generator=generator)
    rows["logit_opacities"] = torch.linspace(-2, 2, count)
    return SplatModel(primitive, rows, degree, **more)


def gathered(scene, path, **dotted):
    said = []
    settings = {"capture": str(scene), "start_from": str(path), "densifier.kind": "none", "render.device": "cpu"}
    layers = [(str(path), start_layer(path)), ("test", nested(settings | dotted))]
    parts = gather(build_config(layers), said.append)
    parts.close()
    return parts, said


def test_the_rows_of_the_file_are_the_rows_of_the_start(tiny_scene):
    write_model(model_of(), "start.safetensors")
    parts, _ = gathered(tiny_scene, "start.safetensors", **{"optim.sh_degree": 1})
    for name, table in read_model("start.safetensors").model.rows.items():
        assert torch.equal(parts.state.model.rows[name], table), name
    settings = loop_settings(effective(parts.config))
    assert settings.sh_degree_at(1) == 1 and settings.lr_start == 0


def test_bands_are_added_as_zeros_or_left_away(tiny_scene):
    model = model_of(degree=2)
    assert torch.equal(with_sh_degree(model, 1).rows["sh_rest"], model.rows["sh_rest"][:, :3])
    more = with_sh_degree(model, 3).rows["sh_rest"]
    assert torch.equal(more[:, :8], model.rows["sh_rest"]) and not more[:, 8:].any() and more.shape[1] == 15
    write_model(model, "start.safetensors")
    parts, _ = gathered(tiny_scene, "start.safetensors")
    assert parts.state.model.sh_degree == 3 and parts.state.model.rows["sh_rest"].shape == (25, 15, 3)


def test_files_are_moved_into_the_training_frame(tiny_scene):
    model, shift = model_of(), np.eye(4)
    shift[:3, 3] = (10, 0, 0)
    parts, _ = gathered_scene(tiny_scene)
    scene = replace(parts.scene, world_from_input=shift)
    means = model.rows["means"]
    capture = in_training_frame(LoadedModel(model, {"format": "ply"}), scene)
    assert torch.allclose(capture.rows["means"], means + torch.tensor([10.0, 0, 0]), atol=1e-5)
    same = in_training_frame(LoadedModel(model, {"format": "splat-model", "world_from_input": shift.tolist()}), scene)
    assert same is model
    other = shift.copy()
    other[:3, 3] = (4, 0, 0)
    moved = in_training_frame(LoadedModel(model, {"format": "splat-model", "world_from_input": other.tolist()}), scene)
    assert torch.allclose(moved.rows["means"], means + torch.tensor([6.0, 0, 0]), atol=1e-5)


def gathered_scene(scene):
    write_model(model_of(), "frame.safetensors")
    return gathered(scene, "frame.safetensors")


def test_primitive_and_filters_are_those_of_the_file_unless_told_otherwise(tiny_scene):
    write_model(model_of("ges", filter2d="mip", filter3d=torch.full((25,), 0.01)), "start.safetensors")
    parts, said = gathered(tiny_scene, "start.safetensors")
    assert (parts.config.primitive.kind, parts.config.render.filter2d) == ("ges", "mip")
    assert parts.config.render.filter3d and parts.state.model.filter3d.shape == (25,) and not said
    with pytest.raises(UserError, match=r"holds ges splats.*'gaussian'.*--primitive ges"):
        gathered(tiny_scene, "start.safetensors", **{"primitive.kind": "gaussian"})
    _, said = gathered(tiny_scene, "start.safetensors", **{"render.filter2d": "classic"})
    assert any("made for filter2d mip" in line and "trained with filter2d classic" in line for line in said)


def test_settings_that_shape_the_rows_must_fit(tiny_scene):
    write_model(model_of("convex"), "start.safetensors")
    gathered(tiny_scene, "start.safetensors")
    with pytest.raises(UserError, match=r"field 'vertices' is \(6, 3\).*need \(8, 3\)"):
        gathered(tiny_scene, "start.safetensors", **{"primitive.points": 8})


def test_a_limit_keeps_the_most_opaque(tiny_scene):
    write_model(model_of(), "start.safetensors")
    parts, said = gathered(tiny_scene, "start.safetensors", max_splats=10)
    assert torch.equal(parts.state.model.rows["logit_opacities"], torch.linspace(-2, 2, 25)[15:])
    assert any("most opaque" in line and "--max-splats" in line for line in said)


def test_nothing_to_start_from_is_one_line(tiny_scene, capsys):
    argv = ["train", str(tiny_scene), "-o", "run", *FLAGS]
    assert main([*argv, "--start-from", "gone.ply"]) == 2
    assert "gone.ply: no such file" in capsys.readouterr().err
    write_model(model_of(count=0), "none.safetensors")
    assert main([*argv, "--start-from", "none.safetensors"]) == 2
    assert "no splats to start from" in capsys.readouterr().err and not Path("run").exists()


def test_rates_start_where_they_are_told_to(tiny_scene):
    write_model(model_of(), "start.safetensors")
    parts, _ = gathered(tiny_scene, "start.safetensors", **{"optim.lr_start": 1.0, "steps": 100})
    settings = loop_settings(effective(parts.config))
    specs = parts.config.primitive.fields(3)
    last = learning_rates(specs, 100, 100, 2.0)
    assert all(learning_rates(specs, settings.rate_step(step), 100, 2.0) == last for step in (0, 1, 100))
    half = replace(settings, lr_start=0.5)
    assert (half.rate_step(0), half.rate_step(100), replace(settings, lr_start=0.0).rate_step(7)) == (50, 100, 7)


def test_such_a_run_repeats_resumes_and_does_not_need_the_file_again(tiny_scene, monkeypatch):
    from splat.train.trainer import Trainer

    argv = ["train", str(tiny_scene), *FLAGS, "--output.checkpoint-every", "4"]
    assert main([*argv, "-o", "first"]) == 0
    Path("first/model.safetensors").rename("start.safetensors")
    assert main([*argv, *FINE, "-o", "whole"]) == 0
    start, whole = read_model("start.safetensors").model, read_model("whole").model
    moved = (start.rows["means"] - whole.rows["means"]).norm(dim=1)
    assert start.count == whole.count and 0 < float(moved.max()) < 1e-3  # the last rate is a hundredth of the first
    assert main(["train", "--config", "whole/config.toml", "-o", "again", "-q"]) == 0
    step = Trainer._step

    class Killed(BaseException):
        pass

    def dying(self):
        if self.state.step == 6:
            raise Killed
        yield from step(self)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, "_step", dying)
        main([*argv, *FINE, "-o", "killed"])
    Path("start.safetensors").unlink()
    assert main(["train", "--resume", "killed", "-q"]) == 0
    files = {(Path(name) / "model.safetensors").read_bytes() for name in ("whole", "again", "killed")}
    assert len(files) == 1
    scores = [json.loads(line) for line in Path("whole/metrics.jsonl").read_text().splitlines()]
    assert scores[0]["kind"] == "start" and scores[0]["splats"] == start.count
