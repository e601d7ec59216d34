from dataclasses import replace

import pytest

from splat.config.build import build_config, config_text, differences, effective, flattened, nested, preset_config
from splat.config.docs import setting_docs
from splat.config.presets import preset_folder, preset_names, preset_purpose
from splat.config.schema import TrainConfig
from splat.config.toml_io import parse_toml
from splat.errors import UserError


def config_of(**dotted) -> TrainConfig:
    return build_config([("test", nested({key.replace("__", "."): value for key, value in dotted.items()}))])


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_builds_and_reads_back_equal(name):
    config = preset_config(name)
    assert config.preset == name
    assert build_config([("text", parse_toml(config_text(config), "text"))]) == config
    assert preset_purpose(name).endswith(".") or ":" in preset_purpose(name)
    assert len((preset_folder() / f"{name}.toml").read_text().splitlines()) <= 40


def test_the_four_presets_are_there():
    assert {"default", "fast", "cpu", "quality"} <= set(preset_names())


def test_the_default_preset_is_the_reference_recipe():
    config = preset_config("default")
    assert (config.steps, config.optim.ssim_weight, config.optim.sh_every, config.max_splats) == (
        30_000,
        0.2,
        1000,
        None,
    )
    plain = config.densifier
    assert (plain.kind, plain.refine_start, plain.refine_stop, plain.refine_every) == ("adaptive", 500, 15_000, 100)


@pytest.mark.parametrize(("key", "near"), [
    ("stps", "steps"), ("densifier.grow_gard", "densifier.grow_grad"), ("densifer.grow_grad", "densifier.grow_grad"),
    ("scene.test_evry", "scene.test_every"), ("grow_grad", "densifier.grow_grad"), ("render.devise", "render.device"),
])  # fmt: skip
def test_an_unknown_setting_names_the_nearest(key, near):
    with pytest.raises(UserError, match=f"some file: unknown setting '{key}'; did you mean '{near}'"):
        build_config([("some file", nested({key: 1}))])


@pytest.mark.parametrize("key", ["scene.seed", "scene.allow_sfm", "scene.on_message"])
def test_fields_filled_in_from_elsewhere_are_no_settings(key):
    with pytest.raises(UserError, match="unknown setting"):
        build_config([("flags", nested({key: 1}))])


@pytest.mark.parametrize(("dotted", "reason"), [
    ({"steps": 0}, "above 0"), ({"max_minutes": -1}, "above 0"), ({"densifier.kind": "mcmcm"}, "did you mean 'mcmc'"),
    ({"primitive.kind": "cube"}, "choices: gaussian"), ({"render.device": "tpu"}, "auto, cpu, cuda"),
    ({"scene": 3}, "'scene' is a section"), ({"densifier.refine_every": "often"}, "whole number"),
    ({"scene.downscale": -2}, "downscale"),
])  # fmt: skip
def test_values_that_do_not_fit_are_user_errors_of_one_line(dotted, reason):
    with pytest.raises(UserError, match=reason) as caught:
        build_config([("flags", nested(dotted))])
    assert "\n" not in str(caught.value)


def test_later_layers_win_and_another_kind_forgets_the_settings_of_the_first():
    first = ("preset", {"densifier": {"kind": "adaptive", "grow_scale": 0.5}, "seed": 1})
    assert build_config([first, ("flags", {"seed": 2})]).densifier.grow_scale == 0.5
    config = build_config([first, ("flags", {"densifier": {"kind": "mcmc", "cap": 7}, "seed": 2})])
    assert (config.densifier.kind, config.densifier.cap, config.seed) == ("mcmc", 7, 2)
    with pytest.raises(UserError, match=r"densifier\.grow_scale"):
        build_config([("flags", {"densifier": {"kind": "mcmc", "grow_scale": 1}})])


def test_a_densifier_brings_the_start_it_was_tuned_with_unless_told_otherwise():
    assert config_of(densifier__kind="mcmc").primitive.init_opacity == 0.5
    told = config_of(densifier__kind="mcmc", primitive__init_opacity=0.2).primitive
    assert (told.init_opacity, told.init_scale) == (0.2, 0.1)
    assert config_of().primitive.init_opacity == 0.1


def test_defaults_follow_schedule_steps_and_what_was_written_stands():
    config = config_of(schedule_steps=3000, steps=3000, densifier__refine_start=77)
    assert config.densifier.refine_start == 77
    assert config.densifier.refine_stop == 1500 and config.optim.sh_every == 100
    assert effective(config) == config


def test_steps_stretch_every_schedule():
    base = config_of(steps=60_000, resolution__factor=2, resolution__until=500)
    config = effective(base)
    assert (config.densifier.refine_start, config.densifier.refine_stop) == (1000, 30_000)
    assert (config.optim.sh_every, config.resolution.until) == (2000, 1000)
    assert config.output == base.output and config.steps == config.schedule_steps == 60_000


def test_no_stretched_step_becomes_zero_and_zero_stays_off():
    config = effective(config_of(steps=10, optim__sh_every=0))
    assert config.optim.sh_every == 0
    assert effective(config_of(steps=2)).optim.sh_every == 1


def test_differences_name_what_changed_and_nothing_else():
    base = preset_config("cpu")
    changed = replace(base, steps=5, capture="/somewhere", densifier=replace(base.densifier, growth=2.0))
    assert differences(changed, base) == {"steps": (5, base.steps), "densifier.growth": (2.0, base.densifier.growth)}
    assert differences(base, base) == {}


def test_every_setting_is_documented():
    documented = {doc.key: doc for doc in setting_docs(config_of())}
    assert set(flattened(config_of())) <= set(documented)
    undocumented = [key for key, doc in documented.items() if not doc.text and not key.startswith("densifier.refine")]
    assert undocumented == []
