"""Scores of files are those of their pictures; what matters most is what is seen most."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_scene import cameras_around, model_of_balls

from splat.errors import UserError
from splat.evaluate.conversion import Views
from splat.evaluate.decoded import SUM_WEIGHT, picture_score, seen_importance
from splat.evaluate.views import render_color, to_8bit
from splat.io.selection import Selection, selected
from splat.metrics import psnr, ssim
from splat.render.registry import rasterizer
from splat.render.types import CameraBatch, RenderOptions
from splat.scene.types import Frame

PAINTER = rasterizer("reference")
CAMERAS = cameras_around(3)
WHITE = (1.0, 1.0, 1.0)


def test_against_photographs_masks_count_and_nothing_else_is_drawn():
    model = model_of_balls()
    truth = [to_8bit(render_color(model_of_balls(9), PAINTER, camera, None)) for camera in CAMERAS]
    mask = np.zeros(truth[0].shape[:2], np.uint8)
    mask[4:20] = 255
    masks = [None, mask, np.zeros_like(mask)]  # the last leaves nothing to compare
    score = picture_score(model, PAINTER, Views(CAMERAS, "x", lambda i: Frame(truth[i], masks[i])), background=WHITE)
    images = [render_color(model, PAINTER, camera, WHITE).clamp(0, 1) for camera in CAMERAS]
    for found, measure in ((score.psnr, psnr), (score.ssim, ssim)):
        assert found == pytest.approx(np.mean([measure(images[i], truth[i], masks[i]) for i in (0, 1)]), abs=1e-9)


def test_without_photographs_the_reference_is_the_truth():
    model = model_of_balls()
    changed = replace(model, rows={**model.rows, "sh0": model.rows["sh0"] + 0.05})
    views = Views(CAMERAS, "x")
    assert picture_score(model, PAINTER, views, reference=model).psnr == 100
    score = picture_score(changed, PAINTER, views, reference=model)
    pairs = [[render_color(each, PAINTER, camera, None).clamp(0, 1) for each in (changed, model)] for camera in CAMERAS]
    assert score.psnr == pytest.approx(np.mean([psnr(*pair) for pair in pairs])) and score.psnr < 60
    with pytest.raises(ValueError, match="reference"):
        picture_score(model, PAINTER, views)


def test_no_view_gives_no_score_and_what_cannot_be_drawn_says_why():
    model = model_of_balls()
    score = picture_score(model, PAINTER, Views((), "x"), reference=model)
    assert math.isnan(score.psnr) and math.isnan(score.ssim)
    with pytest.raises(UserError, match="nonsense"):
        picture_score(replace(model, filter2d="nonsense"), PAINTER, Views(CAMERAS, "x"), reference=model)


@pytest.mark.parametrize("name", ["reference", "native"])
def test_importance_is_summed_over_the_views(name):
    painter, model = rasterizer(name), model_of_balls(30)
    found = seen_importance(painter, CAMERAS, background=WHITE)(model)
    expected = torch.zeros(30)
    for camera in CAMERAS:
        options = RenderOptions(sh_degree=0, stats=frozenset({"max_contrib", "blend_sum"}))
        stats = PAINTER.render(model.render_inputs(), CameraBatch.of(camera), options).stats
        expected += stats.max_contrib[0] + SUM_WEIGHT * stats.blend_sum[0]
    assert expected.max() > 10 and torch.allclose(found, expected, rtol=0.02, atol=0.5)


def test_what_no_view_sees_goes_first_however_opaque_and_large():
    model = model_of_balls(30)
    model.rows["means"][:5] = torch.tensor([0.0, 50, 0])  # far below every picture
    model.rows["log_scales"][:5] = 0.5
    model.rows["logit_opacities"][:5] = 9
    kept, _ = selected(model, Selection(max_splats=25), importance=seen_importance(PAINTER, CAMERAS))
    assert torch.equal(kept.rows["means"], model.rows["means"][5:])
    blind, _ = selected(model, Selection(max_splats=25))
    assert torch.equal(blind.rows["means"][:5], model.rows["means"][:5])


def test_a_rasterizer_without_these_statistics_says_so(monkeypatch):
    monkeypatch.setattr(type(PAINTER), "supports", lambda *given: "no." if given[2].stats else None)
    with pytest.raises(UserError, match="no"):
        seen_importance(PAINTER, CAMERAS)(model_of_balls())
