"""Projection and spherical harmonics against gsplat's pure-torch functions: somebody else's reading of the paper."""

from __future__ import annotations

import pytest
import torch
from helpers_render import Case, build
from torch import Tensor

from splat.render.reference_footprints import REFERENCE_FOOTPRINTS
from splat.render.reference_projection import View, sh_basis
from splat.render.types import FILTER2D_VARIANCE_PX

theirs = pytest.importorskip("gsplat.cuda._torch_impl", reason="gsplat is not installed")


def in_front(case: Case):
    scene = build(case)
    scene.inputs.means[:, 2] = scene.inputs.means[:, 2].abs() + 1.5
    scene.inputs.means[::7, 0] += 6.0  # off axis: the Jacobian's limits
    scene.inputs.means[3::7, 1] -= 6.0
    scene.inputs.log_scales[4] = -9.0
    return scene


@pytest.mark.parametrize("filter2d", ["classic", "aa", "mip"])
def test_projection_and_its_gradient(filter2d: str) -> None:
    scene = in_front(Case(size=(33, 40), count=60, filter2d=filter2d, off_center=True, seed=41))
    inputs, cameras = scene.inputs, scene.cameras
    leaves = [t.requires_grad_() for t in (inputs.means, inputs.quats, inputs.log_scales, cameras.camera_from_world)]
    view = View(cameras.camera_from_world[0], cameras.K[0], cameras.width, cameras.height)
    ours = REFERENCE_FOOTPRINTS["gaussian"].project(inputs, view, scene.options)
    covariances, _ = theirs._quat_scale_to_covar_preci(inputs.quats, inputs.log_scales.exp(), compute_preci=False)
    radii, means2d, depths, conics, compensations = theirs._fully_fused_projection(
        inputs.means, covariances, cameras.camera_from_world, cameras.K, cameras.width, cameras.height,
        eps2d=FILTER2D_VARIANCE_PX[filter2d], calc_compensations=filter2d != "classic",
    )  # fmt: skip
    pairs = [(ours.means2d, means2d[0]), (ours.depths, depths[0]), (ours.conics, conics[0])]
    if filter2d != "classic":
        factors = ours.opacities / inputs.logit_opacities.sigmoid()
        above_floor = compensations[0] > 0.006
        assert 50 <= int(above_floor.sum()) < 60
        assert factors[~above_floor].tolist() == pytest.approx([0.005] * int((~above_floor).sum()), rel=1e-9)
        pairs.append((factors[above_floor], compensations[0][above_floor]))
    random = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(a.shape, generator=random, dtype=torch.float64) for a, _ in pairs]
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
    for column, leaf in enumerate(leaves):
        mine, other = (_gradient([p[i] for p in pairs], cotangents, leaf) for i in (0, 1))
        assert mine.abs().max() > 0, column
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-8 * other.abs().max().item())
    # Their boxes end at 3.33 deviations and whole pixels; ours, where alpha = 1/255, lie inside them.
    drawn = (radii[0] > 0).all(1)
    assert drawn.sum() > 20
    assert (ours.radii_px[drawn] <= radii[0][drawn]).all()


def _gradient(values: list[Tensor], cotangents: list[Tensor], leaf: Tensor) -> Tensor:
    total = sum((v * c).sum() for v, c in zip(values, cotangents, strict=True))
    return torch.autograd.grad(total, leaf, retain_graph=True)[0]


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_spherical_harmonics(degree: int) -> None:
    random = torch.Generator().manual_seed(degree)
    directions = torch.randn(50, 3, generator=random, dtype=torch.float64)
    coefficients = torch.randn(50, (degree + 1) ** 2, 3, generator=random, dtype=torch.float64)
    basis = sh_basis(directions / directions.norm(dim=1, keepdim=True), degree)
    ours = (basis[:, :, None] * coefficients).sum(1)
    expected = theirs._spherical_harmonics(degree, directions, coefficients)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_spherical_harmonics_are_orthonormal() -> None:
    """A Fibonacci sphere integrates products of bands up to 3 well enough to tell a wrong constant."""
    count = 20_000
    index = torch.arange(count, dtype=torch.float64) + 0.5
    z, angle = 1 - 2 * index / count, torch.pi * (1 + 5**0.5) * index
    around = (1 - z * z).sqrt()
    basis = sh_basis(torch.stack([around * angle.cos(), around * angle.sin(), z], 1), 3)
    gram = 4 * torch.pi / count * basis.T @ basis
    torch.testing.assert_close(gram, torch.eye(16, dtype=torch.float64), rtol=0, atol=2e-3)
