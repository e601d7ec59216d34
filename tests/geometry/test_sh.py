from math import pi

import pytest
import torch

from splat.geometry.rng import keyed_generator
from splat.geometry.rotations import matrix_from_quat
from splat.geometry.sh import (
    C0,
    C1,
    C2,
    C3,
    band_rotation,
    coefficients_of_degree,
    degree_of_coefficients,
    rgb_from_sh0,
    rotated_sh,
    sh0_from_rgb,
    sh_basis,
    sh_colors,
)


def _directions(count):
    vectors = torch.randn(count, 3, generator=keyed_generator(0, "directions", 0), dtype=torch.float64)
    return vectors / vectors.norm(dim=1, keepdim=True)


def test_constants_are_those_of_3dgs_files():
    assert (C0, C1) == pytest.approx((0.28209479177387814, 0.4886025119029199), abs=1e-15)
    assert pytest.approx((1.09254843, -1.09254843, 0.31539157, -1.09254843, 0.54627422), abs=1e-8) == C2
    published = (-0.59004359, 2.89061144, -0.45704580, 0.37317633, -0.45704580, 1.44530572, -0.59004359)
    assert pytest.approx(published, abs=1e-8) == C3


def test_degree_one_signs():
    basis = sh_basis(torch.eye(3, dtype=torch.float64), 1)
    assert torch.allclose(basis[:, 1:] / C1, torch.tensor([[0, 0, -1], [-1, 0, 0], [0, 1, 0]]).double())


def test_basis_is_orthonormal_on_the_sphere():
    # Gauss-Legendre in z times an even grid in angle integrates these polynomials exactly.
    nodes = torch.tensor([-0.9324695142031521, -0.6612093864662645, -0.2386191860831969], dtype=torch.float64)
    weights = torch.tensor([0.1713244923791704, 0.3607615730481386, 0.4679139345726910], dtype=torch.float64)
    z, weights = torch.cat([nodes, -nodes]), weights.repeat(2)
    angles = torch.arange(8).double() * (2 * pi / 8)
    radius = (1 - z * z).sqrt()
    grid = torch.stack(
        [radius[:, None] * angles.cos(), radius[:, None] * angles.sin(), z[:, None].expand(6, 8)], dim=-1
    )
    basis = sh_basis(grid.reshape(-1, 3), 3)
    gram = basis.T @ (basis * (weights[:, None] * (2 * pi / 8)).expand(6, 8).reshape(-1, 1))
    assert torch.allclose(gram, torch.eye(16, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_rotated_coefficients_show_the_rotated_field(degree):
    generator = keyed_generator(0, "sh", degree)
    rest = torch.randn(4, coefficients_of_degree(degree) - 1, 3, generator=generator, dtype=torch.float64)
    rotation = matrix_from_quat(torch.randn(4, generator=generator, dtype=torch.float64))
    sh0 = torch.full((4, 3), 3.0, dtype=torch.float64)  # far above zero: nothing is clamped
    rest = rest * 0.05
    turned = rotated_sh(rest, rotation)
    assert turned.shape == rest.shape
    for direction in _directions(20):
        new = sh_colors(sh0, turned, (rotation @ direction).expand(4, 3), degree)
        old = sh_colors(sh0, rest, direction.expand(4, 3), degree)
        assert torch.allclose(new, old, atol=1e-12)


@pytest.mark.parametrize("band", [1, 2, 3])
def test_band_rotations_are_orthogonal_and_compose(band):
    a, b = matrix_from_quat(torch.randn(2, 4, generator=keyed_generator(0, "ab", 0), dtype=torch.float64))
    left, right = band_rotation(a, band), band_rotation(b, band)
    assert torch.allclose(left @ left.T, torch.eye(2 * band + 1, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(band_rotation(a @ b, band), left @ right, atol=1e-12)


def test_colors_of_base_and_clamp():
    rgb = torch.tensor([[0.2, 0.7, 1.0]])
    assert torch.allclose(rgb_from_sh0(sh0_from_rgb(rgb)), rgb)
    up = torch.tensor([[0.0, 0, 1]])
    assert torch.allclose(sh_colors(sh0_from_rgb(rgb), torch.zeros(1, 0, 3), up, 0), rgb)
    dark = sh_colors(torch.full((1, 3), -9.0), torch.zeros(1, 3, 3), up, 1)
    assert (dark == 0).all()


def test_bands_above_the_degree_are_left_out():
    rest = torch.randn(1, 15, 3, generator=keyed_generator(0, "rest", 0), dtype=torch.float64)
    direction = _directions(1)
    low = sh_colors(torch.ones(1, 3).double(), rest, direction, 1)
    assert torch.equal(low, sh_colors(torch.ones(1, 3).double(), rest[:, :3], direction, 1))


def test_counts():
    assert [coefficients_of_degree(d) for d in range(4)] == [1, 4, 9, 16]
    assert [degree_of_coefficients(k) for k in (1, 4, 9, 16)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="5 SH"):
        degree_of_coefficients(5)
