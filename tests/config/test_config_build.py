from dataclasses import replace
from typing import get_args, get_type_hints

import pytest

from splat.config.assemble import check_parts
from splat.config.build import build_config, config_text, differences, effective, flattened, nested, preset_config
from splat.config.docs import setting_docs
from splat.config.presets import preset_folder, preset_names, preset_purpose, read_preset
from splat.config.schema import RenderConfig, TrainConfig
from splat.config.toml_io import parse_toml
from splat.errors import UserError
from splat.model.filter2d import FILTERS_2D
from splat.model.primitives import PRIMITIVES


def config_of(**dotted) -> TrainConfig:
    return build_config([("test", nested({key.replace("__", "."): value for key, value in dotted.items()}))])


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_builds_and_reads_back_equal(name):
    config = preset_config(name)
    assert config.preset == name
    assert build_config([("text", parse_toml(config_text(config), "text"))]) == config
    assert preset_purpose(name).endswith(".") or ":" in preset_purpose(name)
    assert len((preset_folder() / f"{name}.toml").read_text().splitlines()) <= 40


def test_the_presets_are_there():
    published = {"ges", "convex-light", "convex-indoor", "convex-outdoor"}
    assert {"default", "fast", "cpu", "quality"} | published <= set(preset_names())


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


def test_the_ges_preset_is_the_published_recipe():
    """Specs, primitives 2.4: only the threshold, the loss, and ten thousand more steps at the end."""
    config = preset_config("ges")
    assert effective(config) == config and config.steps == 40_000
    assert (config.optim.detail_weight, config.optim.ssim_weight, config.optim.sh_every) == (0.5, 0.2, 1000)
    assert config.densifier == replace(preset_config("default").densifier, grow_grad=3e-4)
    ges = config.primitive
    assert (ges.kind, ges.lr_shapes, ges.shape_strength) == ("ges", 1e-3, 0.1)
    assert (ges.shape_reset_every, ges.shape_reset_stop) == (1000, 15_000)


@pytest.mark.parametrize(("name", "row", "rates", "stop"), [
    ("light", (9.5e-4, 0.63, 0.88, 0.01), (5e-4, 4.5e-3), 9000),
    ("indoor", (9e-4, 0.70, 0.85, 0.02), (4e-4, 4.5e-3), 9500),
    ("outdoor", (1e-3, 0.60, 0.88, 0.01), (5e-4, 4e-3), 9000),
])  # fmt: skip
def test_the_convex_presets_are_the_published_recipes(name, row, rates, stop):
    """Specs, primitives 3.8; rates of vertices there are for scenes of some 5 units."""
    config = preset_config(f"convex-{name}")
    convex, densifier = config.primitive, config.densifier
    assert (convex.kind, densifier.kind, densifier.capture, densifier.refine_stop) == ("convex", "convex", name, stop)
    assert row == (convex.init_sharpness, convex.child_scale, convex.child_sharpness, convex.mask_threshold)
    assert (convex.points, convex.init_opacity, convex.init_radius, convex.init_smoothness) == (6, 0.1, 1.2, 0.1)
    assert (convex.lr_sigmas, convex.lr_deltas, convex.lr_opacities, convex.lr_masks) == (rates[1], 5e-3, 0.01, 0.01)
    for first, last in ((convex.lr_vertices, convex.lr_vertices_final), (convex.lr_means, convex.lr_means_final)):
        assert (5 * first, last) == (pytest.approx(rates[0]), pytest.approx(first / 100))
    check_parts(config)


@pytest.mark.parametrize("kind", sorted(PRIMITIVES))
@pytest.mark.parametrize("preset", ["cpu", "fast"])
def test_every_primitive_fits_the_small_presets(preset, kind):
    layers = [(preset, read_preset(preset)), ("flags", {"primitive": {"kind": kind}})]
    config = build_config(layers)
    check_parts(config)
    assert (config.primitive.kind, config.densifier.kind, config.primitive.init_opacity) == (kind, "budget", 0.5)
    assert effective(config) == config
    assert build_config([("text", parse_toml(config_text(config), "text"))]) == config


def test_what_does_not_fit_together_is_refused_before_training():
    convex = {"primitive": {"kind": "convex"}}
    with pytest.raises(UserError, match=r"render\.filter3d .*'convex'"):
        check_parts(build_config([("quality", read_preset("quality")), ("flags", convex)]))
    with pytest.raises(UserError, match=r"densifier 'convex' .*'gaussian'"):
        check_parts(build_config([("p", read_preset("convex-light")), ("flags", {"primitive": {"kind": "gaussian"}})]))


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
    ({"primitive.kind": "cube"}, "choices: .*gaussian"), ({"render.device": "tpu"}, "auto, cpu, cuda"),
    ({"scene": 3}, "'scene' is a section"), ({"densifier.refine_every": "often"}, "whole number"),
    ({"scene.downscale": -2}, "downscale"), ({"optim.detail_weight": 0.9}, "0 to 0.8"),
    ({"optim.detail_weight": -0.1}, "0 to 0.8"), ({"optim.detail_levels": 1}, "2 at least"),
    ({"optim.ssim_weight": 1.0, "optim.detail_weight": 0.1}, "0 to 0 "), ({"render.filter2d": "box"}, "mip, analytic"),
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


def test_the_schedule_of_a_primitive_stretches_like_a_densifiers():
    assert config_of(primitive__kind="ges", steps=60_000).primitive.shape_reset_every == 1000
    assert effective(config_of(primitive__kind="ges", steps=60_000)).primitive.shape_reset_every == 2000
    shorter = config_of(primitive__kind="ges", steps=15_000, schedule_steps=15_000, primitive__shape_reset_stop=9)
    assert (shorter.primitive.shape_reset_every, shorter.primitive.shape_reset_stop) == (500, 9)
    assert effective(shorter) == shorter


def test_the_choices_of_the_screen_filter_are_those_of_the_table():
    assert get_args(get_type_hints(RenderConfig)["filter2d"]) == tuple(FILTERS_2D)


def test_no_stretched_step_becomes_zero_and_zero_stays_off():
    config = effective(config_of(steps=10, optim__sh_every=0))
    assert config.optim.sh_every == 0
    assert effective(config_of(steps=2)).optim.sh_every == 1


def test_differences_name_what_changed_and_nothing_else():
    base = preset_config("cpu")
    changed = replace(base, steps=5, capture="/somewhere", densifier=replace(base.densifier, cap=7))
    assert differences(changed, base) == {"steps": (5, base.steps), "densifier.cap": (7, base.densifier.cap)}
    assert differences(base, base) == {}


def test_every_setting_is_documented():
    documented = {doc.key: doc for doc in setting_docs(config_of())}
    assert set(flattened(config_of())) <= set(documented)
    undocumented = [key for key, doc in documented.items() if not doc.text and not key.startswith("densifier.refine")]
    assert undocumented == []
