"""model.safetensors: exact rows, a header that remembers, and refusals that say what to do."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from gaussians import model_of, random_model

from splat.errors import UserError
from splat.io.native_file import VERSION, read_native, write_native
from splat.io.tensors import load_tensors, save_tensors
from splat.model.gaussian import GaussianPrimitive
from splat.model.primitives import PRIMITIVES


@pytest.mark.parametrize("sh_degree", [0, 1, 2, 3])
def test_round_trip_is_exact(tmp_path, sh_degree):
    model = random_model(sh_degree=sh_degree, filter2d="mip")
    model.primitive = GaussianPrimitive(init_opacity=0.25)
    model.filter3d = torch.rand(model.count)
    model.requires_grad_()
    header = {"world_from_input": np.eye(4).tolist(), "up_axis": [0, -1, 0], "provenance": {"step": 7}}
    write_native(model, tmp_path / "m.safetensors", header)
    back, said = read_native(tmp_path / "m.safetensors")
    assert back.primitive == model.primitive
    assert (back.sh_degree, back.filter2d) == (sh_degree, "mip")
    assert list(back.rows) == list(model.rows)
    assert all(torch.equal(back.rows[name], model.rows[name]) for name in model.rows)
    assert torch.equal(back.filter3d, model.filter3d)
    assert {key: said[key] for key in header} == header and said["count"] == model.count


def test_no_splats(tmp_path):
    write_native(random_model(0), tmp_path / "m.safetensors")
    assert read_native(tmp_path / "m.safetensors")[0].count == 0


def rewritten(tmp_path, *, drop: str = "", tensors: dict | None = None, **header):
    """A valid file with some of its header or tables changed."""
    path = tmp_path / "m.safetensors"
    write_native(random_model(), path)
    table, said = load_tensors(path)
    table.pop(drop, None)
    save_tensors(path, table | (tensors or {}), said | header)
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": VERSION + 1}, rf"newer splat \(format {VERSION + 1}, this one reads up to {VERSION}\)"),
        ({"version": "1"}, "format version '1'"),
        ({"format": "something"}, "not a splat model"),
        ({"primitive": "surfel9"}, "primitive 'surfel9' is not known here; choices: .*gaussian"),
        ({"primitive": ["gaussian"]}, "choices: .*gaussian"),
        ({"settings": {"init_opacty": 0.1}}, "no setting 'init_opacty'; did you mean 'init_opacity'"),
        ({"settings": [1]}, "not an object"),
        ({"sh_degree": 7}, "SH degree 7"),
        ({"sh_degree": 2}, "field 'sh_rest'"),
        ({"filter2d": "sharp"}, "choices: classic, aa, mip, analytic"),
        ({"filter2d": ["mip"]}, "choices: classic"),
        ({"settings": {"init_opacity": "much"}}, "setting 'init_opacity' .* is 'much', not like 0.1"),
        ({"settings": {"init_opacity": True}}, "is True, not like 0.1"),
        ({"drop": "rows.quats"}, "miss quats"),
        ({"tensors": {"rows.quats": torch.zeros(3, 4)}}, "different numbers of rows"),
        ({"tensors": {"filter3d": torch.zeros(())}}, "different numbers of rows"),
        ({"tensors": {"rows.quats": torch.zeros(40, 3)}}, "field 'quats'"),
        ({"tensors": {"rows.quats": torch.zeros(40, 4, dtype=torch.int32)}}, "field 'quats'"),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path, change, words):
    path = rewritten(tmp_path, **change)
    with pytest.raises(UserError) as caught:
        read_native(path)
    assert re.search(words, str(caught.value)), caught.value
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", PRIMITIVES)
def test_every_primitive_returns_with_its_settings_and_rows(tmp_path, kind):
    model = model_of(kind, **({"points": 4, "masks": False} if kind == "convex" else {}))
    write_native(model, tmp_path / "m.safetensors")
    back, header = read_native(tmp_path / "m.safetensors")
    assert back.primitive == model.primitive and header["primitive"] == kind
    assert getattr(back.primitive, "reference_focal", 50.0) == 50.0
    assert list(back.rows) == list(model.rows) and header["warnings"] == []
    assert all(torch.equal(back.rows[name], model.rows[name]) for name in model.rows)


@pytest.mark.parametrize(("settings", "words"), [
    ({"points": 5}, r"field 'vertices' is \(6, 3\) per row; .* needs \(5, 3\)"),
    ({"points": 20}, "settings of primitive 'convex' are wrong: points = 20"),
    ({"points": "six"}, "setting 'points' of primitive 'convex' is 'six', not like 6"),
    ({"reference_focal": -3}, "settings of primitive 'convex' are wrong: reference_focal"),
    ({"reference_focal": "far"}, "settings of primitive 'convex' are wrong"),
    ({"masks": "yes"}, "setting 'masks' of primitive 'convex' is 'yes', not like True"),
])  # fmt: skip
def test_wrong_convexes_are_refused(tmp_path, settings, words):
    path = tmp_path / "m.safetensors"
    write_native(model_of("convex"), path)
    tables, header = load_tensors(path)
    save_tensors(path, tables, header | {"settings": header["settings"] | settings})
    with pytest.raises(UserError, match=words):
        read_native(path)


def test_a_3d_filter_belongs_to_primitives_that_take_one(tmp_path):
    model = model_of("convex")
    model.filter3d = torch.ones(model.count)
    write_native(model, tmp_path / "m.safetensors")
    with pytest.raises(UserError, match="Mip 3D filter, which primitive 'convex' does not take"):
        read_native(tmp_path / "m.safetensors")


def test_a_table_nobody_asked_for_is_reported(tmp_path):
    path = rewritten(tmp_path, tensors={"rows.color_of_mood": torch.zeros(40)})
    model, header = read_native(path)
    assert model.count == 40 and "color_of_mood" in header["warnings"][0]
