from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from splat.cli.commands.train import layers_of
from splat.config.assemble import check_parts, gather, loop_settings, stats_needed
from splat.config.build import build_config, effective, nested
from splat.config.goals import (
    FILE_HEAD_BYTES,
    limiting_flag,
    most_splats,
    row_bytes,
    size_text,
    splats_within,
    within_views,
)
from splat.config.memory import estimate_memory
from splat.densify.adaptive import AdaptiveDensity
from splat.densify.registry import DENSIFIERS
from splat.errors import UserError
from splat.io.native_file import write_native
from splat.model.primitives import PRIMITIVES


@dataclass(frozen=True)
class Doubling(AdaptiveDensity):
    """Puts a second point beside each, and draws strided late in the run."""

    kind: ClassVar[str] = "doubling"

    stride: int = 1

    def needs(self, step):
        return frozenset({"visible"} if step < 10 else {"visible", "blend_max"})

    def plan(self, step):
        return replace(super().plan(step), stride=self.stride if step > 15 else 1)

    def prepared(self, xyz, rgb):
        return torch.cat([xyz, xyz + 0.01]), torch.cat([rgb, rgb])


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setitem(DENSIFIERS, "doubling", Doubling)


def config_of(scene="", **dotted):
    given = {key.replace("__", "."): value for key, value in dotted.items()}
    defaults = {"capture": str(scene), "render.device": "cpu", "steps": 20, "schedule_steps": 20}
    return build_config([("test", nested(defaults | given))])


@pytest.mark.parametrize(("kind", "filter3d"), [
    (kind, on) for kind in sorted(PRIMITIVES) for on in (False, True) if not on or "filter3d" in PRIMITIVES[kind].can
])  # fmt: skip
def test_the_file_stays_below_the_size_and_uses_it(tiny_scene, tmp_path, kind, filter3d):
    target = (FILE_HEAD_BYTES + 9000) / 1e6
    config = config_of(tiny_scene, primitive__kind=kind, target_mb=target, render__filter3d=filter3d)
    parts = gather(config, lambda line: None)
    parts.close()
    model, count = parts.state.model, splats_within(config)
    rows = torch.arange(count) % model.count
    model.rows = {name: table[rows] for name, table in model.rows.items()}
    model.filter3d = torch.ones(count) if filter3d else None
    tables = [*model.rows.values(), *([model.filter3d] if filter3d else [])]
    assert row_bytes(config) == sum(table[0].numel() * table.element_size() for table in tables)
    write_native(model, tmp_path / "model.safetensors", {"provenance": {"settings": "x" * 4000}})
    size = (tmp_path / "model.safetensors").stat().st_size
    assert target * 1e6 - FILE_HEAD_BYTES < size < target * 1e6
    assert 9000 - row_bytes(config) < count * row_bytes(config) <= 9000


def test_the_tighter_limit_holds_and_is_named():
    room = (FILE_HEAD_BYTES + 100 * 236) / 1e6
    for flags, most, flag in (
        ({"target_mb": room}, 100, "--target-mb"),
        ({"target_mb": room, "max_splats": 70}, 70, "--max-splats"),
        ({"target_mb": room, "max_splats": 700}, 100, "--target-mb"),
        ({"max_splats": 700}, 700, "--max-splats"),
        ({}, None, "--max-splats"),
    ):
        config = config_of(**flags)
        assert (most_splats(config), limiting_flag(config)) == (most, flag)
        assert effective(config).max_splats == most and config.max_splats == flags.get("max_splats")
        assert effective(effective(config)) == effective(config)
        assert (size_text(config) is None) == ("target_mb" not in flags)
    assert most_splats(config_of(target_mb=room, optim__sh_degree=0)) == 100 * 236 // 56


def test_a_size_without_room_for_a_splat_is_refused():
    with pytest.raises(UserError, match=r"target_mb = 0.01 does not fit: one splat and the header take 0.0166"):
        effective(config_of(target_mb=0.01))
    for name in ("target_mb", "target_psnr"):
        with pytest.raises(UserError, match=f"{name} = -1.0 does not fit: it must be above 0"):
            config_of(**{name: -1})


def test_the_size_is_told_and_limits_start_and_estimate(tiny_scene):
    said = []
    config = config_of(tiny_scene, target_mb=(FILE_HEAD_BYTES + 10 * 236) / 1e6)
    parts = gather(config, said.append)
    parts.close()
    assert parts.state.model.count == 10
    assert "size: at most 10 splats; model.safetensors stays below 0.018744 MB with 10 of 236 bytes each" in said
    assert any("drawn at random (--target-mb)" in line for line in said)
    assert estimate_memory(config, parts.scene, cache_bytes=0).splats == 10


def test_the_target_reaches_the_loop():
    assert loop_settings(effective(config_of(target_psnr=28.5))).target_psnr == 28.5
    assert loop_settings(config_of()).target_psnr is None


def test_a_densifier_may_prepare_the_points_before_the_limit(tiny_scene):
    said = []
    plain = gather(config_of(tiny_scene), said.append)
    doubled = gather(config_of(tiny_scene, densifier__kind="doubling"), said.append)
    limited = gather(config_of(tiny_scene, densifier__kind="doubling", max_splats=plain.state.model.count + 3),
                     said.append)  # fmt: skip
    count = plain.state.model.count
    for parts in (plain, doubled, limited):
        parts.close()
    assert doubled.state.model.count == 2 * count and limited.state.model.count == count + 3
    assert torch.equal(doubled.state.model.rows["means"][:count], plain.state.model.rows["means"])
    assert f"densifier doubling makes {2 * count} start points of {count}" in said
    assert f"starting from {count + 3} of {2 * count} points, drawn at random (--max-splats)" in said


def test_strides_and_an_analytic_filter_are_refused_before_training():
    fine = {"densifier__kind": "doubling", "densifier__stride": 2}
    check_parts(config_of(**fine))
    check_parts(config_of(densifier__kind="doubling", render__filter2d="analytic"))
    with pytest.raises(UserError, match="'doubling' draws strided pictures, which filter2d 'analytic' has no exact"):
        check_parts(config_of(**fine, render__filter2d="analytic"))


def test_statistics_of_any_step_are_known_before_training():
    assert stats_needed(config_of(densifier__kind="doubling")) == {"visible", "blend_max"}
    assert stats_needed(config_of(densifier__kind="none")) == frozenset()


def test_the_header_has_room(tiny_scene, monkeypatch, tmp_path):
    """What a run writes beside the rows is well below what is kept free for it."""
    from splat.cli.main import main

    monkeypatch.chdir(tmp_path)
    flags = ["--steps", "2", "--target-mb", "0.02", "-q", "--device", "cpu"]
    assert main(["train", str(tiny_scene), "-o", "run", *flags]) == 0
    size, config = Path("run/model.safetensors").stat().st_size, config_of(target_mb=0.02)
    assert size < 20_000 and size - splats_within(config) * row_bytes(config) < FILE_HEAD_BYTES / 2


@pytest.mark.parametrize(("per_view", "views", "steps"), [(None, 2, 3000), (70, 22, 1540), (70, 97, 3000), (0.1, 2, 1)])
def test_few_views_take_fewer_steps(per_view, views, steps):
    config = build_config([("", {"steps": 3000, "steps_per_view": per_view})])
    bounded = within_views(config, views)
    assert (bounded.steps, bounded.steps_per_view) == (steps, None)
    assert within_views(bounded, 1) == bounded, "what was given stays when the run goes on"


def test_a_preset_bounds_its_steps_and_whoever_asks_for_steps_gets_them(tiny_scene):
    said = []
    for given, steps in (({}, None), ({"steps": "400"}, 400)):
        _, layers = layers_of(Namespace(preset="cpu", config=None), {"capture": str(tiny_scene), **given})
        parts = gather(build_config(layers), said.append)
        views = len(parts.scene.train_indices)
        assert parts.config.steps == (steps or 70 * views) and parts.config.steps_per_view is None
        parts.close()
    assert [line for line in said if "few views" in line] == [
        f"few views: {70 * views:,} steps instead of 3,000 (more would overfit; --steps N has the last word)"
    ]
