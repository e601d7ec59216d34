"""The compressor as a part of a configuration, and what its run folder holds."""

import json
from pathlib import Path

import pytest
import torch
from helpers_compress import Veil

from splat.cli.main import main
from splat.compress.registry import COMPRESSORS
from splat.config.assemble import check_parts, gather
from splat.config.build import build_config, config_text, effective, flattened, nested
from splat.config.compressing import Shown, drawn_model
from splat.config.docs import setting_docs
from splat.config.goals import size_text
from splat.config.memory import estimate_memory
from splat.config.toml_io import parse_toml
from splat.errors import UserError
from splat.io.formats import read_model
from splat.model.row_edit import RowEdit
from splat.train.events import Stepped

FLAGS = ["--preset", "cpu", "--steps", "12", "--densifier", "none", "--max-splats", "30", "--device", "cpu", "-q",
         "--compressor", "veil", "--compressor.begin", "500", "--compressor.prune-every", "1250"]  # fmt: skip
"""Steps count on the preset's schedule: both fall within the 12."""


@pytest.fixture(autouse=True)
def _known(monkeypatch, tmp_path):
    monkeypatch.setitem(COMPRESSORS, "veil", Veil)
    monkeypatch.chdir(tmp_path)


def config_of(**dotted):
    return build_config([("test", nested({key.replace("__", "."): value for key, value in dotted.items()}))])


def records(run, kind):
    return [r for r in map(json.loads, (Path(run) / "metrics.jsonl").read_text().splitlines()) if r["kind"] == kind]


def test_none_is_the_default_and_old_texts_still_mean_it():
    config = config_of()
    assert config.compressor == COMPRESSORS["none"]()
    old = "\n\n".join(part for part in config_text(config).split("\n\n") if not part.startswith("[compressor]"))
    assert "compressor" in config_text(config) and "compressor" not in old
    assert build_config([("old", parse_toml(old, "old"))]) == config


def test_settings_by_name_survive_the_round_trip_and_stretch_with_the_run():
    config = config_of(compressor__kind="veil", compressor__begin=3000, compressor__pull=0.5, steps=60_000)
    assert config.compressor == Veil(begin=3000, pull=0.5)
    assert build_config([("text", parse_toml(config_text(config), "text"))]) == config
    assert effective(config).compressor == Veil(begin=6000, prune_every=8, pull=0.5)
    assert config_of(compressor__kind="veil", schedule_steps=60_000).compressor == Veil(begin=4, prune_every=8)
    assert flattened(config)["compressor.begin"] == 3000
    assert {doc.key for doc in setting_docs(config)} >= {"compressor.kind", "compressor.begin", "compressor.pull"}


def test_a_size_is_the_goal_of_a_compressor_that_can_aim_and_a_limit_of_splats_elsewhere():
    config = config_of(compressor__kind="veil", target_mb=0.02)
    assert effective(config).compressor.most == 20 and effective(config).max_splats is None
    assert effective(effective(config)) == effective(config) and config.compressor.most == 0
    assert size_text(config) == "size: compressor veil aims at 0.02 MB"
    assert size_text(config_of()) is None and effective(config_of(target_mb=0.1)).max_splats > 1


def test_wrong_names_and_kinds_are_told():
    with pytest.raises(UserError, match=r"unknown setting 'compressor\.begn'; did you mean 'compressor\.begin'"):
        config_of(compressor__kind="veil", compressor__begn=3)
    with pytest.raises(UserError, match="unknown compressor 'vail'; did you mean 'veil'"):
        config_of(compressor__kind="vail")
    with pytest.raises(UserError, match=r"'veil' .*'gef'"):
        check_parts(config_of(compressor__kind="veil", primitive__kind="gef"))
    check_parts(config_of(compressor__kind="veil"))
    with pytest.raises(UserError, match=r"lr_start = 1\.5"):
        config_of(optim__lr_start=1.5)


def test_memory_counts_what_the_compressor_learns(tiny_scene):
    parts = gather(config_of(capture=str(tiny_scene), compressor__kind="veil", render__device="cpu"), lambda _: None)
    parts.close()
    config = parts.config
    bare = estimate_memory(config, parts.scene, cache_bytes=0)
    parts.state.compress.parameters["table"] = torch.zeros(1000)
    with_it = estimate_memory(config, parts.scene, cache_bytes=0, state=parts.state)
    assert with_it.rows - bare.rows == 16 * (bare.splats + 1 + 1000)


def test_decoding_is_done_once_for_a_state(monkeypatch):
    from helpers_train import Restless, fresh_state

    calls = []
    finished = Veil.finished
    monkeypatch.setattr(Veil, "finished", lambda *args: calls.append(args[2]) or finished(*args))
    state, shown = fresh_state(Restless()), Shown(Veil())
    state.compress = Veil().start(state.model, seed=0)
    state.step = 5
    first = shown(state)
    assert first.step == 5 and first.model is shown(state).model is not state.model and len(calls) == 1
    shown.forget(Stepped(state, 0.0, 0.0, 0.0, 0.0, {}))
    assert shown(state).model is first.model
    state.apply(RowEdit.keep(torch.arange(12) > 3))  # a viewer's, between two steps
    assert shown(state).model.count < first.model.count and len(calls) == 2
    state.step = 6
    shown.forget(Stepped(state, 0.0, 0.0, 0.0, 0.0, {}))
    assert shown._model is None
    shown(state)
    assert len(calls) == 3


def test_a_viewer_sees_what_training_draws():
    from helpers_train import Restless, fresh_state

    state = fresh_state(Restless())
    state.compress = Veil().start(state.model, seed=0)
    assert drawn_model(Veil(), state).rows["sh0"] is state.model.rows["sh0"]
    state.step = 2
    model = drawn_model(Veil(), state)
    faint = model.rows["logit_opacities"] < state.model.rows["logit_opacities"] - 4
    assert torch.equal(faint, state.compress.rows["veil"] <= 0) and not model.rows["sh0"].requires_grad


def test_a_run_shows_and_writes_what_its_small_file_holds(tiny_scene):
    assert main(["train", str(tiny_scene), "-o", "run", *FLAGS]) == 0
    (pack,) = records("run", "pack")
    small, native = read_model("run/model.spack"), read_model("run/model.safetensors")
    ply = read_model("run/point_cloud/iteration_12/point_cloud.ply")
    assert small.model.count == native.model.count == ply.model.count == pack["splats"] < 30
    assert pack["size_bytes"] == Path("run/model.spack").stat().st_size and pack["compressor"] == "veil"
    assert (small.header["compressor"], small.header["provenance"]["step"]) == ("veil", 12)
    means = [torch.sort(each.model.rows["means"].norm(dim=1)).values for each in (small, native)]
    assert torch.allclose(*means, atol=1e-3)
    assert main(["eval", "run", "-q", "--no-images", "--json", "again.json"]) == 0
    assert json.loads(Path("again.json").read_text())["psnr"] == pytest.approx(records("run", "eval")[-1]["psnr"])
    Path("run/model.safetensors").unlink()  # the checkpoint then tells the same
    assert main(["eval", "run", "-q", "--no-images", "--json", "third.json"]) == 0
    again, third = (json.loads(Path(name).read_text()) for name in ("again.json", "third.json"))
    assert third["psnr"] == again["psnr"] and third["splats"] == again["splats"]
    assert main(["train", str(tiny_scene), "-o", "run", *FLAGS[:-6], "--overwrite"]) == 0
    assert not Path("run/model.spack").exists()


@pytest.mark.parametrize("kill_at", [3, 8])
def test_a_killed_run_resumes_to_the_same_files(tiny_scene, monkeypatch, kill_at):
    from splat.train.trainer import Trainer

    flags = [str(tiny_scene), *FLAGS, "--output.checkpoint-every", "2", "--densifier", "mcmc"]
    assert main(["train", "-o", "whole", *flags]) == 0
    step = Trainer._step

    class Killed(BaseException):
        pass

    def dying(self):
        if self.state.step == kill_at:
            raise Killed
        yield from step(self)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, "_step", dying)
        main(["train", "-o", "killed", *flags])
    assert main(["train", "--resume", "killed", "-q"]) == 0
    for name in ("model.safetensors", "model.spack", "checkpoints/step_12.safetensors"):
        ours, theirs = ((Path(run) / name).read_bytes() for run in ("killed", "whole"))
        assert ours == theirs or name.startswith("checkpoints"), name
    with pytest.raises(UserError, match=r"compressor\.kind cannot change on resume"):
        from splat.cli.commands.train import resumed_config

        resumed_config(config_of(), {"compressor.kind": "veil"})
