"""Scenes at the edge of sense, through every rasterizer that runs on a CPU: right, finite, no row spoils another."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from helpers_render import Case, Drawn, SceneTensors, build, draw, native_rasterizer, random_cotangents
from torch import Tensor

from splat.render.reference import ReferenceRasterizer
from splat.render.types import RenderOptions

cpu_rasterizers = pytest.mark.parametrize("name", ["reference", "native"])
precisions = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


def by_name(name: str):
    return native_rasterizer() if name == "native" else ReferenceRasterizer()


def drawn_by(name: str, scene: SceneTensors, dtype: torch.dtype) -> Drawn:
    drawn = draw(by_name(name), scene, dtype, random_cotangents(scene))
    tensors = [getattr(drawn.output, f.name) for f in fields(drawn.output) if f.name != "stats"]
    tensors += [getattr(drawn.output.stats, f.name) for f in fields(drawn.output.stats)]
    for tensor in [t for t in tensors if t is not None] + list(drawn.gradients.values()):
        assert tensor.isfinite().all()
    return drawn


def assert_only_background(drawn: Drawn, scene: SceneTensors) -> None:
    background = scene.options.background.to(drawn.output.color.dtype)
    assert torch.equal(drawn.output.color, background.expand_as(drawn.output.color))
    assert not drawn.output.alpha.any() and (drawn.output.top_id == -1).all()
    assert not drawn.output.depth_expected.any() and not drawn.output.depth_median.any()
    assert not drawn.output.stats.visible.any() and not drawn.output.stats.radii_px.any()
    for key, gradient in drawn.gradients.items():
        assert key == "background" or not gradient.any(), key


@cpu_rasterizers
@precisions
@pytest.mark.parametrize("views", [1, 2])
def test_no_splats_at_all(name: str, dtype: torch.dtype, views: int) -> None:
    scene = build(Case(size=(17, 9), count=0, views=views))
    drawn = drawn_by(name, scene, dtype)
    assert_only_background(drawn, scene)
    expected = random_cotangents(scene)["color"].to(dtype).sum((0, 1, 2))
    torch.testing.assert_close(drawn.gradients["background"], expected, rtol=1e-5, atol=1e-5)


@cpu_rasterizers
@precisions
def test_one_splat_in_the_middle_of_a_pixel(name: str, dtype: torch.dtype) -> None:
    """Its peak is its opacity and its colour is SH + 0.5, at the pixel it was put on and nowhere brighter."""
    scene = build(Case(size=(17, 9), count=1, degree=0, background="none"))
    cameras = replace(scene.cameras, camera_from_world=torch.eye(4, dtype=torch.float64)[None])
    fx, fy, z = scene.cameras.K[0, 0, 0], scene.cameras.K[0, 1, 1], 2.0
    mean = torch.tensor([[(4.5 - 8.5) * z / fx, (6.5 - 4.5) * z / fy, z]], dtype=torch.float64)
    inputs = replace(
        scene.inputs, means=mean, log_scales=torch.full((1, 3), -3.0, dtype=torch.float64),
        logit_opacities=torch.tensor([1.0], dtype=torch.float64),
    )
    out = drawn_by(name, replace(scene, inputs=inputs, cameras=cameras), dtype).output
    opacity = torch.tensor(1.0).sigmoid().item()
    assert out.alpha[0, 6, 4].item() == pytest.approx(opacity, rel=1e-4)
    assert out.alpha.argmax() == 6 * 17 + 4
    color = (0.28209479177 * inputs.sh0[0] + 0.5).clamp(min=0) * opacity
    assert out.color[0, 6, 4].tolist() == pytest.approx(color.tolist(), rel=1e-4, abs=1e-6)
    assert out.depth_median[0, 6, 4].item() == pytest.approx(z)
    assert out.top_id[0, 6, 4] == 0 and out.top_id[0, 0, 16] == -1


@cpu_rasterizers
@precisions
@pytest.mark.parametrize("where", ["behind", "before_near", "beyond_far", "beside", "transparent", "nan", "zero_quat"])
def test_nothing_to_be_seen(name: str, dtype: torch.dtype, where: str) -> None:
    scene = build(Case(size=(17, 9), count=20, degree=2, views=2))
    inputs = scene.inputs
    if where == "behind":
        inputs.means[:, 2] = -inputs.means[:, 2].abs() - 2
    elif where == "before_near":
        scene = replace(scene, options=replace(scene.options, near=50.0))
    elif where == "beyond_far":
        scene = replace(scene, options=replace(scene.options, far=0.5))
    elif where == "beside":
        inputs.means[:, 0] += 1000.0
    elif where == "transparent":
        inputs.logit_opacities[:] = -8.0
    elif where == "nan":
        inputs.means[:, 1] = torch.nan
    else:
        inputs.quats[:] = 0.0
    assert_only_background(drawn_by(name, scene, dtype), scene)


POISON = {
    "means": [torch.nan, torch.inf, -torch.inf, 1e30], "quats": [torch.nan, torch.inf],
    "log_scales": [torch.nan, torch.inf, 200.0], "logit_opacities": [torch.nan], "sh0": [torch.nan, torch.inf],
    "sh_rest": [torch.nan, -torch.inf], "features": [torch.nan, torch.inf], "filter3d": [torch.nan, torch.inf],
}


@cpu_rasterizers
@precisions
@pytest.mark.parametrize("field", sorted(POISON))
def test_a_poisoned_row_is_as_if_it_were_not_there(name: str, dtype: torch.dtype, field: str) -> None:
    for value in POISON[field]:
        scene = build(Case(size=(17, 9), count=12, features=2, filter3d=True, degree=1, filter2d="aa", seed=51))
        scene.inputs.log_scales[:] += 1.0
        getattr(scene.inputs, field)[4] = value
        if field == "log_scales" and value == 200.0 and dtype == torch.float64:
            continue  # e^200 is a number there
        kept = torch.arange(12) != 4
        without = replace(scene, inputs=replace(scene.inputs, **{
            f.name: getattr(scene.inputs, f.name)[kept]
            for f in fields(scene.inputs) if isinstance(getattr(scene.inputs, f.name), Tensor)
        }))
        poisoned, clean = drawn_by(name, scene, dtype), drawn_by(name, without, dtype)
        torch.testing.assert_close(poisoned.output.color, clean.output.color, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(poisoned.output.features, clean.output.features, rtol=1e-6, atol=1e-6)
        for key, gradient in poisoned.gradients.items():
            others = gradient if key in ("background", "camera_from_world") else gradient[kept]
            torch.testing.assert_close(others, clean.gradients[key], rtol=1e-4, atol=1e-4)
            if others is not gradient:
                assert not gradient[4].any(), key
        assert not poisoned.output.stats.visible[0, 4]


@cpu_rasterizers
@precisions
def test_a_picture_of_one_pixel_under_a_splat_that_fills_the_screen(name: str, dtype: torch.dtype) -> None:
    scene = build(Case(size=(1, 1), count=1, degree=0, background="one"))
    inputs = replace(scene.inputs, log_scales=scene.inputs.log_scales * 0 + 4.0,
                     logit_opacities=torch.tensor([20.0], dtype=torch.float64))
    out = drawn_by(name, replace(scene, inputs=inputs), dtype).output
    assert out.alpha.item() == pytest.approx(0.99, abs=1e-3)
    assert out.stats.fragments.item() == 1 and out.stats.max_contrib.item() == 1


@cpu_rasterizers
@precisions
def test_many_opaque_splats_that_fill_the_screen_end_every_ray(name: str, dtype: torch.dtype) -> None:
    """0.99 twice leaves exactly 1e-4, which rounding may put on either side; three can never be reached."""
    scene = build(Case(size=(33, 40), count=50, degree=0))
    inputs = replace(scene.inputs, log_scales=scene.inputs.log_scales * 0 + 4.0,
                     logit_opacities=torch.full((50,), 20.0, dtype=torch.float64))
    out = drawn_by(name, replace(scene, inputs=inputs), dtype).output
    assert (out.alpha > 0.98).all() and (out.alpha < 0.99995).all()
    assert out.stats.fragments.sum() <= 2 * 33 * 40
    nearest = out.stats.depths[0].argmin()
    assert (out.top_id == nearest).all()


@cpu_rasterizers
@precisions
def test_equal_depths_are_drawn_in_row_order(name: str, dtype: torch.dtype) -> None:
    scene = build(Case(size=(17, 9), count=40, degree=0, background="none", seed=2))
    inputs = scene.inputs
    for each in fields(inputs):
        value = getattr(inputs, each.name)
        if isinstance(value, Tensor):
            value[:] = value[:1].clone()
    inputs.means[:] = torch.tensor([0.0, 0.0, 3.0])
    inputs.log_scales[:] = 0.0
    inputs.logit_opacities[:] = 0.0
    out = drawn_by(name, scene, dtype).output
    fragments, sums = out.stats.fragments[0], out.stats.blend_sum[0]
    assert fragments[0] == 17 * 9 and (fragments.diff() <= 0).all() and fragments[-1] < fragments[0]
    assert (sums.diff() < 0).all()
    assert (out.top_id == 0).all()


@cpu_rasterizers
def test_arguments_are_left_alone_and_nothing_unasked_is_returned(name: str) -> None:
    scene = build(Case(size=(17, 9), count=30, hostile=True, filter3d=True))
    kept = {f.name: getattr(scene.inputs, f.name) for f in fields(scene.inputs)}
    copies = {k: v.clone() for k, v in kept.items() if isinstance(v, Tensor)}
    rasterizer = by_name(name)
    out = rasterizer.render(scene.inputs, scene.cameras, RenderOptions(near=0.2))
    for key, before in copies.items():
        assert torch.equal(kept[key].nan_to_num(nan=7.0), before.nan_to_num(nan=7.0)), key
    assert rasterizer.name == name
    assert [f.name for f in fields(out) if getattr(out, f.name) is not None] == ["color", "alpha", "stats"]
    assert all(getattr(out.stats, f.name) is None for f in fields(out.stats))


@cpu_rasterizers
@precisions
def test_a_lower_sh_degree_ignores_the_higher_bands(name: str, dtype: torch.dtype) -> None:
    scene = build(Case(size=(17, 9), count=30, degree=3, seed=6))
    low = replace(scene, options=replace(scene.options, sh_degree=1))
    drawn = drawn_by(name, low, dtype)
    assert drawn.gradients["sh_rest"][:, :3].any() and not drawn.gradients["sh_rest"][:, 3:].any()
    cut = replace(low, inputs=replace(low.inputs, sh_rest=low.inputs.sh_rest[:, :3]))
    torch.testing.assert_close(drawn.output.color, drawn_by(name, cut, dtype).output.color, rtol=1e-6, atol=1e-6)
    beyond = replace(cut, options=replace(cut.options, sh_degree=3))  # more than is carried: all that is carried
    torch.testing.assert_close(drawn.output.color, drawn_by(name, beyond, dtype).output.color, rtol=1e-6, atol=1e-6)


@cpu_rasterizers
@precisions
@pytest.mark.parametrize(("opacities", "drawn", "left"), [
    ([0.99, 0.9895], 2, 0.01 * 0.0105),  # 1.05e-4 is still drawn
    ([0.9, 0.99, 0.91], 2, 1e-3),  # 9e-5 is not, and nothing behind it
    ([0.9, 0.99, 0.91, 0.5], 2, 1e-3),
    ([0.995, 0.5], 2, 0.005),  # clamped at 0.99
    ([1.001 / 255, 0.5], 2, (1 - 1.001 / 255) * 0.5),
    ([0.999 / 255, 0.5], 1, 0.5),  # skipped, but what is behind is not
])
def test_thresholds_lie_where_they_are_said_to(
    name: str, dtype: torch.dtype, opacities: list[float], drawn: int, left: float
) -> None:
    """Splats exactly behind one another at the centre of the only pixel: alpha is the opacity."""
    count = len(opacities)
    scene = build(Case(size=(1, 1), count=count, degree=0, background="none"))
    means = torch.tensor([[0.0, 0.0, 2.0 + i] for i in range(count)], dtype=torch.float64)
    logits = torch.tensor(opacities, dtype=torch.float64).logit()
    cameras = replace(scene.cameras, camera_from_world=torch.eye(4, dtype=torch.float64)[None])
    scene = replace(scene, inputs=replace(scene.inputs, means=means, logit_opacities=logits), cameras=cameras)
    out = drawn_by(name, scene, dtype).output
    assert 1 - out.alpha.item() == pytest.approx(left, rel=1e-2)
    assert out.stats.fragments.sum() == drawn


@cpu_rasterizers
@precisions
@pytest.mark.parametrize("filter2d", ["classic", "mip"])
def test_the_3d_filter_widens_a_splat_and_keeps_its_integral(name: str, dtype: torch.dtype, filter2d: str) -> None:
    """Mip-Splatting eq. 7, worked out by hand: variance s^2 + f^2, opacity times the ratio of the volumes."""
    scene = build(Case(size=(17, 9), count=30, degree=1, filter3d=True, filter2d=filter2d, seed=61))
    inputs = scene.inputs
    inputs.filter3d[:] *= 2
    variances = (2 * inputs.log_scales).exp()
    wide = variances + inputs.filter3d[:, None] ** 2
    opacities = inputs.logit_opacities.sigmoid() * (variances.prod(1) / wide.prod(1)).sqrt()
    assert (opacities < 0.7 * inputs.logit_opacities.sigmoid()).any()
    by_hand = replace(inputs, log_scales=wide.log() / 2, logit_opacities=opacities.logit(), filter3d=None)
    filtered = drawn_by(name, scene, dtype).output.color
    expected = draw(ReferenceRasterizer(), replace(scene, inputs=by_hand), torch.float64).output.color
    torch.testing.assert_close(filtered.double(), expected, rtol=2e-5, atol=2e-5)
