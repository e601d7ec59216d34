"""What each footprint promises when the same splats are drawn at another resolution."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers_footprints import convex_rows
from helpers_render import native_rasterizer
from torch import Tensor

from splat.geometry.camera import Camera
from splat.model.render_inputs import RenderInputs
from splat.render.types import CameraBatch, RenderOptions

DELTA, SIGMA = 0.003, 0.06
ZOOMS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)


def camera(size: int, focal: float) -> Camera:
    K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])
    return Camera("", np.eye(4), K, size, size)


def drawn(inputs: RenderInputs, view: Camera, zoom: float, filter2d: str = "classic") -> Tensor:  # [H,W,3]
    """``view`` at ``zoom`` times its resolution, by the native rasterizer in float32."""
    size = round(view.width * zoom)
    cameras = CameraBatch.of(view.resized(size, size))
    return native_rasterizer().render(inputs, cameras, RenderOptions(filter2d=filter2d)).color[0]


def box_downsampled(picture: Tensor, factor: int) -> Tensor:  # [H,W,3] -> [H/factor,W/factor,3]
    return torch.nn.functional.avg_pool2d(picture.permute(2, 0, 1), factor).permute(1, 2, 0)


def soft_convexes(*, reference_focal: float) -> RenderInputs:
    """Three hulls of about 30 px in a picture of 96 px with borders about 10 px wide, drawn everywhere in it.

    A point sample differs from a pixel's mean by its second derivatives / 24: about 2e-4 for pixels twice as large as
    these. The cut at 1/255 would be a jump of its own; so soft, it lies beyond the picture.
    """
    random = torch.Generator().manual_seed(4)
    rows = convex_rows(3, lambda *shape: torch.randn(*shape, generator=random))
    angles = torch.arange(6) * (math.pi / 3)
    ring = torch.stack([angles.cos(), angles.sin(), 0.2 * (3 * angles).cos()], 1)
    shape = (1.3 * ring + 0.1 * rows["vertices"], torch.full((3,), math.log(DELTA)), torch.full((3,), math.log(SIGMA)))
    return RenderInputs(
        means=torch.tensor([[-0.15, -0.1, 3.8], [0.2, 0.0, 4.0], [-0.05, 0.2, 4.2]]), quats=None, log_scales=None,
        logit_opacities=torch.tensor([0.0, 0.5, 1.0]), sh_rest=torch.zeros(3, 0, 3),
        sh0=torch.tensor([[1.2, 0.0, -1.0], [-1.0, 1.0, 0.3], [0.0, 0.0, 1.3]]),
        kind="convex", shape=shape, constants=(reference_focal, 0.0),
    )  # fmt: skip


def invariance_error(inputs: RenderInputs) -> float:
    """Largest difference between two resolutions, both at the lower one of the two."""
    view = camera(96, 96.0)
    once = drawn(inputs, view, 1)
    errors = [(box_downsampled(once, 2) - drawn(inputs, view, 1 / 2)).abs().max()]
    errors += [(box_downsampled(drawn(inputs, view, k), k) - once).abs().max() for k in (2, 4)]
    return max(error.item() for error in errors)


def test_soft_convexes_look_alike_at_every_resolution() -> None:
    """With a reference focal length; the published behaviour sharpens a convex by the square of the resolution."""
    once = drawn(soft_convexes(reference_focal=96.0), camera(96, 96.0), 1)
    assert once.amax() > 0.5 and once.std() > 0.05 and once.amin() > 0.01
    assert invariance_error(soft_convexes(reference_focal=96.0)) < 1e-3
    assert invariance_error(soft_convexes(reference_focal=0.0)) > 0.05


def test_at_the_reference_focal_length_the_published_convex_is_drawn() -> None:
    view = camera(96, 96.0)
    ours = drawn(soft_convexes(reference_focal=96.0), view, 1)
    torch.testing.assert_close(ours, drawn(soft_convexes(reference_focal=0.0), view, 1), rtol=1e-6, atol=1e-6)


GRID, SPACING, DEVIATION = 8, 33, 3.2  # splats per side; px at zoom 1
OPACITY, DISTANCE = 0.95, 100.0


def distant_grid() -> RenderInputs:
    """Round white splats that do not overlap. In pixels of every zoom their centres fall on all eighths of a pixel."""
    size = GRID * SPACING
    focal = 20.0 * size  # so far that every splat is seen from the front
    at = (torch.arange(GRID) + 0.5) * SPACING - size / 2
    y, x = torch.meshgrid(at, at, indexing="ij")
    count, per_px = GRID * GRID, DISTANCE / focal
    return RenderInputs(
        means=torch.stack([x * per_px, y * per_px, torch.full_like(x, DISTANCE)], -1).reshape(-1, 3),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(count, 1),
        log_scales=torch.full((count, 3), math.log(DEVIATION * per_px)),
        logit_opacities=torch.full((count,), math.log(OPACITY / (1 - OPACITY))),
        sh0=torch.full((count, 3), 0.5 / 0.28209479177), sh_rest=torch.zeros(count, 0, 3),
    )  # fmt: skip


def brightness(filter2d: str) -> Tensor:
    """Mean of the picture at every zoom, over what the splats' integrals say it is."""
    view = camera(GRID * SPACING, 20.0 * GRID * SPACING)
    expected = OPACITY * 2 * math.pi * DEVIATION**2 / SPACING**2
    return torch.stack([drawn(distant_grid(), view, zoom, filter2d).mean() for zoom in ZOOMS]) / expected


@pytest.mark.parametrize(("filter2d", "tolerance"), [("analytic", 0.01), ("mip", 0.01), ("aa", 0.015)])
def test_a_distant_grid_keeps_its_brightness_over_all_zooms(filter2d: str, tolerance: float) -> None:
    """The wider a filter, the more of a speck's light falls below the cut at 1/255."""
    kept = brightness(filter2d)
    assert ((kept - 1).abs() < tolerance).all(), kept.tolist()


def test_the_classic_filter_makes_a_distant_grid_brighter() -> None:
    kept = brightness("classic")
    assert kept[0] > 2.5 and (kept.diff() < 0).all() and abs(kept[-1] - 1) < 0.02, kept.tolist()


@pytest.mark.parametrize("shape", [-1.0, -0.4, 0.0, 0.5, 1.5])
def test_a_gef_sheds_the_light_of_its_integral(shape: float) -> None:
    """9 pi Gamma(1 + 1/h) 4.5^(-1/h) deviations^2, but for what falls below the cut at 1/255."""
    inputs = replace(distant_grid(), kind="gef", shape=(torch.full((GRID * GRID,), shape),))
    found = drawn(inputs, camera(GRID * SPACING, 20.0 * GRID * SPACING), 2).mean().item() * SPACING**2
    power = 1 / 4 ** math.tanh(shape)
    covariance = DEVIATION**2 + 0.3 / 4  # dilated at twice the resolution
    integral = OPACITY * covariance * 9 * math.pi * math.gamma(1 + power) * 4.5**-power
    cut = math.log(255 * OPACITY)  # of the exponent; what lies inside is an incomplete gamma function
    kept = torch.special.gammainc(torch.tensor(power), torch.tensor(cut)).item()
    assert found == pytest.approx(integral * kept, rel=0.01)
