"""What is lost as plain Gaussians: told where something is, and the numbers are those of the pictures."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_scene import cameras_around, model_of_balls

from splat.errors import UserError
from splat.evaluate.conversion import Views, as_gaussians, conversion_loss, ring_views, what_is_lost
from splat.evaluate.views import render_color, to_8bit
from splat.metrics import psnr, ssim
from splat.model.primitives import PRIMITIVES
from splat.model.splat_model import SplatModel
from splat.render.registry import rasterizer
from splat.scene.types import Frame

PAINTER = rasterizer("reference")
CAMERAS = cameras_around(3)


def model_of(kind: str, count: int = 12) -> SplatModel:
    """Balls of any primitive, every field off its start so that its shape matters."""
    size = {"init_radius": 0.7} if kind == "convex" else {"init_scale": 0.7}
    primitive = PRIMITIVES[kind](init_opacity=0.8, **size).fitted(30.0)
    rng = torch.Generator().manual_seed(5)
    rows = primitive.start(torch.randn(count, 3, generator=rng) * 0.5, torch.rand(count, 3, generator=rng),
                           sh_degree=0, generator=rng)  # fmt: skip
    if "shapes" in rows:
        rows["shapes"] = torch.linspace(-1, 1, count)
    return SplatModel(primitive, rows, 0)


@pytest.mark.parametrize("kind", PRIMITIVES)
def test_lossy_primitives_lose_and_exact_ones_do_not(kind):
    model = model_of(kind)
    loss = conversion_loss(model, PAINTER, Views(CAMERAS, "held-out views"))
    if model.primitive.export == "exact":
        assert what_is_lost(model) is None and loss is None
        for camera in CAMERAS:
            pictures = [render_color(each, PAINTER, camera, None) for each in (model, as_gaussians(model))]
            assert torch.allclose(*pictures, atol=1e-5)
        return
    assert kind in loss.what and loss.views == 3 and 15 < loss.psnr < 70
    assert "against the photographs" not in loss.text() and f"{loss.psnr:.2f} dB between both" in loss.text()


def test_the_numbers_are_those_of_the_pictures():
    model = model_of("gef")
    truth = [to_8bit(render_color(model_of_balls(), PAINTER, camera, None)) for camera in CAMERAS]
    mask = np.zeros(truth[0].shape[:2], np.uint8)
    mask[4:20] = 255
    masks = [None, mask, np.zeros_like(mask)]  # the last leaves nothing to compare
    views = Views(CAMERAS, "held-out views", lambda i: Frame(truth[i], masks[i]))
    loss = conversion_loss(model, PAINTER, views, background=(1.0, 1.0, 1.0))
    white = (1.0, 1.0, 1.0)
    trained = [render_color(model, PAINTER, camera, white).clamp(0, 1) for camera in CAMERAS]
    exported = [render_color(as_gaussians(model), PAINTER, camera, white).clamp(0, 1) for camera in CAMERAS]
    assert loss.psnr == pytest.approx(np.mean([psnr(*pair) for pair in zip(trained, exported, strict=True)]))
    for pictures, found_psnr, found_ssim in (
        (trained, loss.psnr_model, loss.ssim_model), (exported, loss.psnr_gaussians, loss.ssim_gaussians),
    ):  # fmt: skip
        for found, score in ((found_psnr, psnr), (found_ssim, ssim)):
            expected = [score(pictures[i], truth[i], masks[i]) for i in (0, 1)]
            assert found == pytest.approx(np.mean(expected), abs=1e-9)
    assert loss.psnr_model != loss.psnr_gaussians
    text = loss.text()
    assert f"{loss.psnr_model:.2f} becomes {loss.psnr_gaussians:.2f} dB" in text and "\n" not in text
    assert json.loads(json.dumps(loss.to_json()))["ssim_model"] == loss.ssim_model


def test_a_filter_that_other_viewers_do_not_know_is_a_loss_too():
    model = model_of_balls()
    model.filter2d = "analytic"
    assert what_is_lost(model) == "other viewers draw filter2d analytic as aa"
    assert as_gaussians(model).filter2d == "aa"
    for known in ("classic", "aa", "mip"):
        model.filter2d = known
        assert what_is_lost(model) is None and as_gaussians(model).filter2d == known


def test_the_3d_filter_is_part_of_the_gaussians():
    model = replace(model_of("gef"), filter3d=torch.full((12,), 0.3))
    gaussians = as_gaussians(model)
    assert gaussians.filter3d is None and (gaussians.scales > replace(model, filter3d=None).scales.min()).all()
    assert conversion_loss(model, PAINTER, Views(CAMERAS[:1], "x")).psnr > 15


def test_what_cannot_be_drawn_says_why():
    model = model_of("gef")
    model.filter2d = "analytic"
    with pytest.raises(UserError, match="analytic"):
        conversion_loss(model, PAINTER, Views(CAMERAS, "x"))


@pytest.mark.parametrize("up", [(0.0, -1.0, 0.0), (0.0, 0.0, 2.0), (0.3, 0.5, -0.1)])
def test_a_ring_sees_the_whole_model_from_every_side(up):
    model = model_of_balls(200)
    model.rows["means"] = model.rows["means"] * 7 + torch.tensor([40.0, -3, 8])
    model.rows["means"][0] = torch.nan
    views = ring_views(model, up=up)
    means = model.rows["means"][1:].double().numpy()
    axis = np.asarray(up) / np.linalg.norm(up)
    for camera in views.cameras:
        points = means @ camera.camera_from_world[:3, :3].T + camera.camera_from_world[:3, 3]
        pixels = points @ camera.K.T
        pixels = pixels[:, :2] / points[:, 2:]
        seen = (points[:, 2] > 0) & (pixels > 0).all(1) & (pixels < (camera.width, camera.height)).all(1)
        assert seen.mean() > 0.9
        assert -camera.camera_from_world[1, :3] @ axis > 0.9  # upright
        assert (camera.center_world - np.median(means, 0)) @ axis > 0  # from above
    around = np.stack([camera.camera_from_world[2, :3] for camera in views.cameras])
    assert np.linalg.norm(around.mean(0)) < 0.5 and math.isclose(np.linalg.norm(around[0]), 1)
    assert len(views.cameras) == 8 and views.frame_of is None
    assert ring_views(replace(model, rows={"means": torch.zeros(0, 3)})).cameras == ()
