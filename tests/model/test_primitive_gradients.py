"""Gradients of every raw field of every primitive, through the native rasterizer in float64, against differences."""

import pytest
import torch
from varied_rows import camera_at, varied_model

from splat.model.primitives import PRIMITIVES
from splat.render.native_rasterizer import NativeRasterizer
from splat.render.types import RenderOptions

STEP, PROBES = 1e-6, 6
STRAIGHT_THROUGH = {"masks"}
"""Fields whose gradient is not that of the picture, on purpose."""


def _loss(model, rows, weights):
    """A weighted sum of the picture."""
    inputs = model.primitive.render_inputs(rows)
    picture = NativeRasterizer().render(inputs, camera_at(), RenderOptions(sh_degree=model.sh_degree)).color
    return (picture * weights).sum()


@pytest.mark.parametrize("kind", PRIMITIVES)
def test_every_field(kind):
    model = varied_model(PRIMITIVES[kind](), 8)
    rows = {name: table.detach().double().requires_grad_() for name, table in model.rows.items()}
    camera = camera_at()
    weights = torch.rand(1, camera.height, camera.width, 3, generator=torch.Generator().manual_seed(1)).double()
    _loss(model, rows, weights).backward()
    generator = torch.Generator().manual_seed(2)
    for name, table in rows.items():
        assert table.grad is not None and torch.isfinite(table.grad).all() and (table.grad != 0).any(), name
        if name in STRAIGHT_THROUGH:
            continue
        scale = table.grad.abs().max()
        for at in torch.randint(0, table.numel(), (PROBES,), generator=generator).tolist():
            shifted = []
            for sign in (1, -1):
                moved = table.detach().clone()
                moved.view(-1)[at] += sign * STEP
                with torch.no_grad():
                    shifted.append(_loss(model, rows | {name: moved}, weights))
            numeric = (shifted[0] - shifted[1]) / (2 * STEP)
            assert abs(numeric - table.grad.view(-1)[at]) < 1e-5 * scale + 1e-7, (name, at)


def test_masks_go_straight_through():
    """As if the opacity were o * sigmoid(mask), whatever the threshold did."""
    model = varied_model(PRIMITIVES["convex"](), 8)
    rows = {name: table.detach().double().requires_grad_() for name, table in model.rows.items()}
    camera = camera_at()
    weights = torch.rand(1, camera.height, camera.width, 3, generator=torch.Generator().manual_seed(1)).double()
    _loss(model, rows, weights).backward()
    o, m = rows["logit_opacities"].detach().sigmoid(), rows["masks"].detach().sigmoid()
    to_opacity = rows["logit_opacities"].grad / (o * (1 - o))
    assert torch.allclose(rows["masks"].grad, to_opacity * o * m * (1 - m), rtol=1e-6)
