"""Scores of held-out views: what is compared, saved and said about it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from small_scene import cameras_around, model_of_balls

from splat.evaluate.views import evaluate_views, render_color, to_8bit, write_per_view
from splat.io.png import read_png
from splat.metrics import LpipsMetric, psnr, ssim
from splat.render.registry import rasterizer
from splat.scene.types import Frame

MODEL, PAINTER = model_of_balls(), rasterizer("reference")


def pictures_of(cameras, *, background=None, noise=0):
    rng = np.random.default_rng(0)
    pictures = []
    for camera in cameras:
        pixels = to_8bit(render_color(MODEL, PAINTER, camera, background)).astype(int)
        pictures.append(np.clip(pixels + rng.integers(-noise, noise + 1, pixels.shape), 0, 255).astype(np.uint8))
    return pictures


def test_a_model_that_made_the_photographs_is_perfect_in_8_bits():
    cameras = cameras_around()
    truth = pictures_of(cameras)
    result = evaluate_views(MODEL, PAINTER, cameras, lambda i: Frame(truth[i], None))
    assert [view.name for view in result.per_view] == [camera.name for camera in cameras]
    assert result.psnr_8bit == 100 and result.ssim_8bit == pytest.approx(1)
    assert 50 < result.psnr < 70  # only the rounding of the photographs is left
    assert result.lpips is None and "absent" in result.protocol["lpips"]


def test_scores_are_those_of_the_metrics_and_the_mean_is_over_views():
    cameras = cameras_around(3)
    truth = pictures_of(cameras, noise=30)
    masks = [None, np.random.default_rng(1).integers(0, 256, (24, 33), np.uint8), np.zeros((24, 33), np.uint8)]
    facts = {"images": "images_4", "split": "every 8th"}
    result = evaluate_views(MODEL, PAINTER, cameras, lambda i: Frame(truth[i], masks[i]), protocol=facts)
    for i in (0, 1):
        image = render_color(MODEL, PAINTER, cameras[i], None).clamp(0, 1)
        assert result.per_view[i].psnr == pytest.approx(psnr(image, truth[i], masks[i]), abs=1e-6)
        assert result.per_view[i].ssim == pytest.approx(ssim(image, truth[i], masks[i]), abs=1e-6)
    assert math.isnan(result.per_view[2].psnr)  # everything is masked: no score, and none in the mean
    assert result.psnr == pytest.approx((result.per_view[0].psnr + result.per_view[1].psnr) / 2)
    assert result.protocol["images"] == "images_4" and result.protocol["masked_views"] == "2 of 3"
    assert {"psnr", "ssim", "8bit", "lpips", "split"} <= set(result.protocol)


def test_backgrounds_the_cameras_own_goes_first():
    white = cameras_around(1, background=(1.0, 1.0, 1.0))
    truth = pictures_of(white)
    corner = truth[0][0, 0]
    assert (corner > 250).all()
    result = evaluate_views(MODEL, PAINTER, white, lambda i: Frame(truth[i], None), background=(0.0, 0.0, 0.0))
    assert result.psnr_8bit == 100
    plain = cameras_around(1)
    green = torch.tensor([0.0, 1.0, 0.0])
    truth = pictures_of(plain, background=green)
    assert truth[0][0, 0, 1] > 250 and truth[0][0, 0, 0] < 5
    result = evaluate_views(MODEL, PAINTER, plain, lambda i: Frame(truth[i], None), background=green)
    assert result.psnr_8bit == 100


def test_pictures_and_per_view_file(tmp_path):
    cameras = cameras_around(2)
    truth = pictures_of(cameras, noise=40)
    seen = []
    result = evaluate_views(
        MODEL, PAINTER, cameras, lambda i: Frame(truth[i], None), save_dir=tmp_path / "step_10",
        progress=lambda items: (seen.append(i) or i for i in items),
    )  # fmt: skip
    assert seen == [0, 1]
    assert len(list((tmp_path / "step_10").iterdir())) == 6
    assert np.array_equal(read_png(tmp_path / "step_10/left__001_truth.png"), truth[1])
    render = read_png(tmp_path / "step_10/left__001_render.png")
    assert psnr(render, truth[1]) == pytest.approx(result.per_view[1].psnr_8bit, abs=1e-4)
    error = read_png(tmp_path / "step_10/left__001_error.png").sum(-1)
    distance = np.abs(render.astype(int) - truth[1]).mean(-1)
    assert error[distance == distance.max()].min() > error[distance == distance.min()].max()
    path = write_per_view(tmp_path / "per_view.json", result, step=10)
    content = json.loads(path.read_text())
    assert content["step"] == 10 and content["views"][0]["name"] == "left/000.jpg"
    assert content["mean"]["psnr"] == pytest.approx(result.psnr) and content["mean"]["lpips"] is None


def test_lpips_is_used_when_it_is_there():
    cameras = cameras_around(1)
    truth = pictures_of(cameras, noise=20)
    metric = LpipsMetric("vgg", None, lambda x, y: (x - y).abs().mean())
    result = evaluate_views(MODEL, PAINTER, cameras, lambda i: Frame(truth[i], None), lpips=metric)
    image = render_color(MODEL, PAINTER, cameras[0], None).clamp(0, 1).numpy()
    assert result.lpips == pytest.approx(2 * np.abs(image - truth[0] / 255).mean(), rel=1e-4)
    assert result.protocol["lpips"].startswith("vgg")


def test_no_views_is_no_score():
    result = evaluate_views(MODEL, PAINTER, (), lambda i: pytest.fail("asked for pixels"))
    assert math.isnan(result.psnr) and result.means()["psnr"] is None
    json.dumps(result.to_json(), allow_nan=False)
