"""``splat info``: counts that are right and a page that says them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from gaussians import model_of, random_model, shared_file
from test_cameras_json import similarity

from splat.io.format_names import file_name
from splat.io.formats import FORMATS, write_model
from splat.io.info import Histogram, count_floaters, describe


def test_it_counts_what_was_planted(tmp_path):
    model = random_model(2000)
    model.rows["means"] = torch.rand(2000, 3, generator=torch.Generator().manual_seed(1)) * 0.5
    model.rows["log_scales"][:] = -5
    model.rows["logit_opacities"][:] = 2
    model.rows["means"][0] = torch.tensor([30.0, 0, 0])  # alone
    model.rows["means"][1] = torch.tensor([0, 40.0, 0])
    model.rows["log_scales"][2:5, 1] = 1.0  # as large as the scene
    model.rows["logit_opacities"][5:12] = -8  # 1 / 2981
    model.rows["sh0"][12] = torch.nan
    header = {"world_from_input": similarity().tolist(), "provenance": {"scene": "garden", "step": 30000}}
    write_model(model, tmp_path / "m.safetensors", header=header)
    info = describe(tmp_path / "m.safetensors")
    assert (info.splats, info.floaters, info.oversized) == (2000, 2, 3)
    assert (info.nearly_invisible, info.non_finite) == (7, 1)
    assert info.box[1][0] == 30 and info.box_98[1][0] < 0.51
    assert sum(info.opacity.counts) == 1999
    text = info.text()
    for part in ("2,000 (gaussian), SH degree 3", "2 floaters", "7 nearly invisible", "garden", "2.5 x"):
        assert part in text, part
    assert json.loads(json.dumps(info.to_json()))["floaters"] == 2


def test_it_tells_what_a_primitive_has_of_its_own(tmp_path):
    model = model_of("gef")
    model.rows["shapes"] = torch.linspace(-1, 2, 40)
    model.rows["shapes"][3] = torch.nan
    write_model(model, tmp_path / "m.safetensors")
    info = describe(tmp_path / "m.safetensors")
    assert list(info.own_fields) == ["shapes"] and info.own_tables == {} and info.non_finite == 1
    shapes = info.own_fields["shapes"]
    assert (shapes.low, shapes.high, sum(shapes.counts)) == (-1, 2, 39)
    assert "40 (gef)" in info.text() and "init_opacity = 0.6" in info.text()

    model = model_of("convex", points=5)
    model.rows["log_sigmas"][:] = math.log(1e-3)
    model.rows["vertices"][0] = torch.nan  # no covariance to take apart
    write_model(model, tmp_path / "m.safetensors")
    info = describe(tmp_path / "m.safetensors")
    assert info.own_tables == {"vertices": (5, 3)} and info.non_finite == 1
    assert set(info.own_fields) == {"deltas, log10", "sigmas, log10", "masks"}
    assert info.own_fields["sigmas, log10"].median == pytest.approx(-3) and info.own_fields["masks"].high == 1
    for line in ("vertices       5 x 3 numbers per splat", "reference_focal = 50.0", "points = 5"):
        assert line in info.text(), line
    assert json.loads(json.dumps(info.to_json()))["own_tables"]["vertices"] == [5, 3]


def test_plain_gaussians_have_nothing_of_their_own(tmp_path):
    write_model(random_model(filter2d="analytic"), tmp_path / "m.ply")
    info = describe(tmp_path / "m.ply")
    assert info.own_fields == info.own_tables == info.settings == {} and "settings" not in info.text()
    assert "analytic: the integral over the pixel" in info.text()


def test_the_3d_filter_counts_as_drawn(tmp_path):
    model = random_model(50)
    model.filter3d = torch.full((50,), 1e3)  # spreads every splat so far that none is seen
    write_model(model, tmp_path / "m.safetensors")
    info = describe(tmp_path / "m.safetensors")
    assert info.has_filter3d and info.nearly_invisible == 50


@pytest.mark.parametrize("count", [0, 1, 3])
def test_tiny_models(tmp_path, count):
    write_model(random_model(count), tmp_path / "m.ply")
    info = describe(tmp_path / "m.ply")
    assert info.splats == count and info.floaters == 0 and "splats" in info.text()


def test_floaters_agree_with_counting_every_pair():
    rng = np.random.default_rng(0)
    means = np.concatenate([rng.normal(0, 1, (300, 3)), rng.uniform(-30, 30, (40, 3))])
    cell = 0.8
    cells = np.floor((means - means.min(0)) / cell)
    near = (np.abs(cells[:, None] - cells[None]) <= 1).all(-1).sum(1) - 1
    assert count_floaters(means, cell) == (near < 3).sum() > 0


def test_bands_that_are_zero_are_not_used(tmp_path):
    model = random_model(30)
    model.rows["sh_rest"][:, 3:] = 0
    model.rows["sh_rest"][4, 2, 1] = 2.5
    write_model(model, tmp_path / "m.ply")
    info = describe(tmp_path / "m.ply")
    assert (info.sh_degree, info.sh_degree_used) == (3, 1) and "of which 1 is used" in info.text()
    assert info.ranges["SH band 1"][1] == 2.5 and info.ranges["SH band 3"] == (0, 0)
    model.rows["sh_rest"][:, 8:] = 1 / 64  # how a format that holds no zero reads one
    write_model(model, tmp_path / "m.ply")
    assert describe(tmp_path / "m.ply").sh_degree_used == 1
    model.rows["sh_rest"][3, 9, 0] = 0
    write_model(model, tmp_path / "m.ply")
    info = describe(tmp_path / "m.ply")
    assert info.sh_degree_used == 3 and "is used" not in info.text()


@pytest.mark.parametrize("name", [name for name, row in FORMATS.items() if row.read and row.write])
def test_every_format_is_described(tmp_path, name):
    path = tmp_path / file_name("m", name)
    write_model(random_model(60), path, format=name, header={"up_axis": [0, 1, 0]})
    info = describe(path.parent if name == "sog-folder" else path)
    assert (info.format, info.splats, info.primitive) == (name, 60, "gaussian")
    stored = sum(file.stat().st_size for file in path.parent.iterdir())
    assert info.size_bytes == stored and info.bits_per_splat == pytest.approx(8 * stored / 60)
    assert bool(info.lost) == (FORMATS[name].fidelity == "lossy") == ("not kept" in info.text())
    assert (info.frame == "as written") == (FORMATS[name].frame == "capture")
    assert f"{stored:,} bytes, {8 * stored / 60:,.1f} bits per splat" in info.text()


def test_what_other_splats_became_is_told(tmp_path):
    write_model(model_of("gef"), tmp_path / "m.ply")
    assert describe(tmp_path / "m.ply").lost == ("these Gaussians stand for other splats: gef (lossy)",)


def test_bytes_by_attribute_are_told_where_a_format_keeps_them_apart(tmp_path):
    header = {"attributes": {"means": 1200, "quats": 300}}
    write_model(random_model(40), tmp_path / "m.safetensors", header=header)
    info = describe(tmp_path / "m.safetensors")
    assert info.attributes == header["attributes"] and "1,200 bytes, 240.0 bits per splat" in info.text()
    for nonsense in ([3], {"means": "many"}, 7):
        write_model(random_model(40), tmp_path / "m.safetensors", header={"attributes": nonsense})
        assert describe(tmp_path / "m.safetensors").attributes == {}


def test_a_sparkline_shows_every_bin():
    assert Histogram(0, 1, 0.5, (0, 1, 100, 50)).sparkline() == " ▁█▄"


def test_a_real_model():
    info = describe(shared_file("splats/converted/playbot31k_sh2.ply"))
    assert (info.format, info.splats, info.sh_degree, info.non_finite) == ("ply", 31_000, 2, 0)
    assert info.bytes_per_splat == pytest.approx(152, abs=0.1)
