"""Strided cameras: together the offsets are the full picture, and their gradients add up to its gradient."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers_train import Restless, all_bits, cameras, frame_of, fresh_state, make_trainer

from splat.geometry.camera import Camera
from splat.model.gaussian import GaussianPrimitive
from splat.model.ges import GesPrimitive
from splat.render.reference import ReferenceRasterizer
from splat.render.registry import rasterizer
from splat.render.types import CameraBatch, RenderOptions
from splat.train.frames import FrameSource, View
from splat.train.strided import blur_scale, drawn_offset, strided_camera, strided_view, tan_limits


def a_camera(width=37, height=26) -> Camera:
    pose = np.eye(4)
    pose[2, 3] = 3
    K = np.array([[40.0, 0, 0.4 * width], [0, 44.0, 0.6 * height], [0, 0, 1]])
    return Camera("a.png", pose, K, width, height)


def inputs_of(primitive, *, spread, dtype, count=80):
    """Raw rows as leaves: half as wide as the picture at ``spread`` = 0.5, well beyond its borders at 2."""
    generator = torch.Generator().manual_seed(0)
    xyz = (torch.rand(count, 3, generator=generator) - 0.5) * 2 * spread
    rows = primitive.start(xyz, torch.rand(count, 3, generator=generator), sh_degree=1, generator=generator)
    rows["log_scales"] = rows["log_scales"] + 0.4 * torch.randn(rows["log_scales"].shape, generator=generator)
    rows["logit_opacities"] = torch.randn(count, generator=generator)
    leaves = {name: table.to(dtype).requires_grad_(True) for name, table in rows.items()}
    return leaves, primitive.render_inputs(leaves)


def merged_against_full(drawer, inputs, leaves, options, stride, *, limits=None):
    """PSNR between the merged strided pictures and the full one, and the worst relative error of the gradients of the
    sum over all pixels of the L1."""
    camera, dtype = a_camera(), inputs.means.dtype
    full = drawer.render(inputs, CameraBatch.of(camera, dtype=dtype), options).color[0]
    # Every pixel at least 0.1 away, so that rounding cannot turn the sign of an L1 gradient.
    far = torch.where(torch.rand(full.shape, generator=torch.Generator().manual_seed(1)) < 0.5, 0.1, -0.1)
    target = full.detach() + far
    tables = list(leaves.values())
    whole = torch.autograd.grad((full - target).abs().sum(), tables, allow_unused=True, retain_graph=True)
    merged, total = torch.zeros_like(full), 0.0
    strided = replace(options, blur_scale=blur_scale(stride), tan_limits=limits)
    for x in range(stride):
        for y in range(stride):
            small = CameraBatch.of(strided_camera(camera, stride, (x, y)), dtype=dtype)
            color = drawer.render(inputs, small, strided).color[0]
            merged[y::stride, x::stride] = color.detach()
            total = total + (color - target[y::stride, x::stride]).abs().sum()
    parts = torch.autograd.grad(total, tables, allow_unused=True)
    mse = float((merged - full.detach()).square().mean())
    errors = [float((a - b).norm() / a.norm()) for a, b in zip(whole, parts, strict=True) if a is not None and a.any()]
    return -10 * math.log10(max(mse, 1e-30)), max(errors)


@pytest.mark.parametrize("filter2d", ["classic", "aa", "mip"])
@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("primitive", [GaussianPrimitive(), GesPrimitive()], ids=lambda p: p.kind)
def test_merged_offsets_are_the_full_picture_and_gradients_add_up(primitive, stride, filter2d):
    leaves, inputs = inputs_of(primitive, spread=0.5, dtype=torch.float32)
    options = RenderOptions(filter2d=filter2d, background=torch.tensor([0.2, 0.4, 0.6]))
    psnr, error = merged_against_full(rasterizer("native"), inputs, leaves, options, stride)
    assert psnr > 90 and error < 1e-4


def test_splats_beyond_the_border_keep_their_shape():
    """Where the projection is linearised follows the picture: the strided one must be told the full one's."""
    leaves, inputs = inputs_of(GaussianPrimitive(), spread=2.0, dtype=torch.float64, count=16)
    options = RenderOptions(filter2d="aa")
    blind, _ = merged_against_full(ReferenceRasterizer(), inputs, leaves, options, 2)
    told, error = merged_against_full(
        ReferenceRasterizer(), inputs, leaves, options, 2, limits=tan_limits(a_camera())
    )  # fmt: skip
    assert blind < 120 < told and error < 1e-9
    leaves, inputs = inputs_of(GaussianPrimitive(), spread=2.0, dtype=torch.float32)
    told, error = merged_against_full(
        rasterizer("native"), inputs, leaves, options, 2, limits=tan_limits(a_camera())
    )  # fmt: skip
    assert told > 120 and error < 1e-4


def test_the_limits_of_the_full_picture_are_those_taken_without_any():
    camera = CameraBatch.of(a_camera(), dtype=torch.float64)
    _, inputs = inputs_of(GaussianPrimitive(), spread=2.0, dtype=torch.float64, count=16)
    pictures = [
        ReferenceRasterizer().render(inputs, camera, RenderOptions(tan_limits=limits)).color
        for limits in (None, tan_limits(a_camera()), (-0.1, 0.1, -0.1, 0.1))
    ]
    assert torch.allclose(pictures[0], pictures[1], atol=1e-12) and not torch.allclose(pictures[0], pictures[2])


def test_with_the_filter_left_as_it_is_the_pictures_differ():
    leaves, inputs = inputs_of(GaussianPrimitive(), spread=0.5, dtype=torch.float32)
    drawer = rasterizer("native")

    class Unscaled:
        def render(self, inputs, cameras, options):
            return drawer.render(inputs, cameras, replace(options, blur_scale=1.0))

    psnr, _ = merged_against_full(Unscaled(), inputs, leaves, RenderOptions(), 2)
    assert psnr < 60


def test_pixels_camera_and_mask_are_every_nth():
    camera = a_camera(7, 5)
    pixels = torch.arange(7 * 5 * 3, dtype=torch.uint8).reshape(1, 5, 7, 3)
    mask = torch.arange(35, dtype=torch.uint8).reshape(1, 5, 7)
    view = strided_view(View(camera, pixels, mask, 4), 3, (2, 1))
    assert (view.camera.width, view.camera.height, view.index) == (2, 2, 4)
    assert torch.equal(view.pixels, pixels[:, 1::3, 2::3]) and torch.equal(view.mask, mask[:, 1::3, 2::3])
    assert view.pixels.is_contiguous() and view.mask.is_contiguous()
    # The ray through the centre of the second pixel is that through full pixel (5, 4).
    inverse, small = np.linalg.inv(camera.K), np.linalg.inv(view.camera.K)
    assert np.allclose(inverse @ [5.5, 4.5, 1], small @ [1.5, 1.5, 1])


def test_every_offset_is_drawn_and_none_beyond_the_picture():
    view = View(a_camera(2, 40), torch.zeros(1, 40, 2, 3, dtype=torch.uint8), None, 0)
    drawn = [drawn_offset(7, taken, view, 3) for taken in range(200)]
    assert set(drawn) == {(x, y) for x in range(2) for y in range(3)}
    assert drawn == [drawn_offset(7, taken, view, 3) for taken in range(200)]


def test_an_analytic_filter_has_no_strided_form():
    with pytest.raises(ValueError, match=r"blur_scale = 0\.25 does not fit filter2d 'analytic'"):
        RenderOptions(filter2d="analytic", blur_scale=0.25)
    with pytest.raises(ValueError, match="blur_scale = 0 "):
        RenderOptions(blur_scale=0.0)


class Dilated(Restless):
    """Strided in every step."""

    def plan(self, step):
        return replace(super().plan(step), stride=2)

    def observe(self, state, step, stats, *, width, height, view, loss):
        state.scalars[f"size {step}"] = 1000 * width + height
        super().observe(state, step, stats, width=width, height=height, view=view, loss=loss)


def test_training_draws_strided_pictures_and_resumes_to_the_bit():
    def frames():  # an odd size: offsets change the size of the picture
        return FrameSource(cameras(5, 13, 11), lambda i: frame_of(i, 13, 11))

    whole = make_trainer(densifier=Dilated(), frames=frames(), detail_weight=0.3, steps=25)
    list(whole.run())
    sizes = {v for k, v in whole.state.densify.scalars.items() if k.startswith("size") and int(k[5:]) >= 5}
    assert sizes == {7006, 7005, 6006, 6005}
    again = make_trainer(densifier=Dilated(), frames=frames(), detail_weight=0.3, steps=25)
    list(again.run())
    assert all_bits(again.state) == all_bits(whole.state)
    plain = make_trainer(frames=frames(), detail_weight=0.3, steps=25, state=fresh_state(Restless()))
    list(plain.run())
    assert all_bits(plain.state)["means"] != all_bits(whole.state)["means"]
