"""From pixels to splats, against the gradient of what is blended."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers_editing import VIEW, camera_at, model_of, random_model

from splat.edit.lifting import is_seen, lifted, seen_weight
from splat.model.primitives import PRIMITIVES
from splat.render.reference import ReferenceRasterizer
from splat.render.registry import rasterizer
from splat.render.types import CameraBatch, RenderOptions

NATIVE = rasterizer("native")
CAMERA = VIEW.camera()
OTHER = camera_at((2.0, 0.2, -2.5), size=(64, 48))


def mask_of(camera, seed: int = 0) -> torch.Tensor:
    soft = torch.rand(camera.height, camera.width, generator=torch.Generator().manual_seed(seed))
    soft[:, : camera.width // 3] = 0
    return soft


def gradient(model, camera, mask: torch.Tensor) -> torch.Tensor:
    """d/df_i of sum(mask * blended f): the blend weights, because features are blended linearly."""
    inputs = model.render_inputs()
    features = torch.zeros(model.count, 1, dtype=inputs.means.dtype, requires_grad=True)
    options = RenderOptions(sh_degree=0, filter2d=model.filter2d)
    cameras = CameraBatch.of(camera, dtype=inputs.means.dtype)
    drawn = ReferenceRasterizer().render(replace(inputs, features=features), cameras, options).features[0, ..., 0]
    (drawn * mask.to(drawn)).sum().backward()
    return features.grad[:, 0]


@pytest.mark.parametrize("kind", sorted(PRIMITIVES))
def test_weights_are_the_gradient_of_blended_features(kind):
    model, mask = model_of(kind), mask_of(CAMERA)
    ours = seen_weight(model, CAMERA, mask, NATIVE)
    assert torch.allclose(ours, gradient(model, CAMERA, mask), rtol=1e-3, atol=1e-4) and float(ours.max()) > 1


def test_weights_are_what_a_picture_of_ones_is_blended_of():
    model = random_model(60)
    ones = torch.ones(CAMERA.height, CAMERA.width)
    weights = seen_weight(model, CAMERA, ones, NATIVE)
    step, white = 1e-2, random_model(60)
    white.rows["sh0"], white.rows["sh_rest"] = torch.zeros(60, 3), torch.zeros(60, 15, 3)
    from splat.edit.lifting import rendered

    before = rendered(white, CAMERA, NATIVE).color.double().sum()
    row = int(weights.argmax())
    white.rows["sh0"][row] += step / 0.28209479177387814
    slope = (rendered(white, CAMERA, NATIVE).color.double().sum() - before) / step / 3
    assert float(weights[row]) == pytest.approx(float(slope), rel=1e-3)


def test_what_is_not_drawn_hides_nothing():
    model, mask = random_model(60), mask_of(CAMERA)
    drawn = torch.arange(60) % 2 == 0
    rest = random_model(60)
    rest.rows = {name: table[drawn] for name, table in rest.rows.items()}
    part = seen_weight(model, CAMERA, mask, NATIVE, drawn=drawn)
    assert not part[~drawn].any()
    assert torch.allclose(part[drawn], seen_weight(rest, CAMERA, mask, NATIVE), atol=1e-5)


def test_masks_over_views_are_shares_of_all_that_shows():
    model = random_model(60)
    views, masks = [CAMERA, OTHER], [mask_of(CAMERA), mask_of(OTHER, 1)]
    ours = lifted(model, views, masks, NATIVE)
    inside = sum(gradient(model, view, mask) for view, mask in zip(views, masks, strict=True))
    total = sum(gradient(model, view, torch.ones_like(mask)) for view, mask in zip(views, masks, strict=True))
    seen = total > 0.05
    assert torch.allclose(ours[seen].float(), (inside / total)[seen], atol=1e-3)
    assert bool(((ours >= 0) & (ours <= 1)).all()) and not ours[total == 0].any()
    whole = lifted(model, views, [torch.ones_like(mask) for mask in masks], NATIVE)
    assert set(whole.round(decimals=5).unique().tolist()) <= {0.0, 1.0}


def test_a_splat_that_only_reaches_in_by_its_rim_is_not_seen_there():
    model = random_model(1, sh_degree=0)
    model.rows |= {"means": torch.zeros(1, 3), "log_scales": torch.full((1, 3), -1.2)}  # 5 px on the screen
    model.rows |= model.primitive.with_opacities(torch.tensor([0.9]))
    seen = []
    for begin in range(25, 55):  # its centre is in column 28
        mask = torch.zeros(48, 64)
        mask[:, begin:] = 1
        seen.append(bool(is_seen(model, camera_at((0.0, 0.0, -3.0), size=(64, 48)), mask, NATIVE)[0]))
    assert seen[0] and not seen[-1] and seen == sorted(seen, reverse=True)
    assert 36 <= 25 + seen.index(False) <= 43


def test_masks_must_fit_the_picture():
    with pytest.raises(ValueError, match=r"mask of \[3, 4\] does not fit a picture of 48 x 64"):
        seen_weight(random_model(3), CAMERA, torch.ones(3, 4), NATIVE)
    assert seen_weight(random_model(0), CAMERA, torch.ones(48, 64), NATIVE).shape == (0,)
