"""``splat info``: counts that are right and a page that says them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from gaussians import model_of, random_model, shared_file
from test_cameras_json import similarity

from splat.io.formats import write_model
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


def test_a_sparkline_shows_every_bin():
    assert Histogram(0, 1, 0.5, (0, 1, 100, 50)).sparkline() == " ▁█▄"


def test_a_real_model():
    info = describe(shared_file("splats/converted/playbot31k_sh2.ply"))
    assert (info.format, info.splats, info.sh_degree, info.non_finite) == ("ply", 31_000, 2, 0)
    assert info.bytes_per_splat == pytest.approx(152, abs=0.1)
