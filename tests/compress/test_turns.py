"""Axes of ellipsoids renamed."""

import pytest
import torch

from splat.compress.turns import least_turned
from splat.geometry.rotations import matrix_from_quat


def _covariances(quats, log_scales):
    half = matrix_from_quat(quats / quats.norm(dim=1, keepdim=True)) * log_scales.exp()[:, None]
    return half @ half.transpose(1, 2)


@pytest.fixture
def ellipsoids():
    rng = torch.Generator().manual_seed(0)
    return torch.randn(500, 4, generator=rng).double(), torch.randn(500, 3, generator=rng).double()


class TestLeastTurned:
    def test_the_same_ellipsoids(self, ellipsoids):
        turned = least_turned(*ellipsoids)
        assert torch.allclose(_covariances(*turned), _covariances(*ellipsoids), rtol=1e-9, atol=1e-12)

    def test_little_is_left_to_turn(self, ellipsoids):
        quats, scales = least_turned(*ellipsoids)
        assert (quats[:, 0] > 0.85 - 0.05).all() and (quats[:, 1:].abs() < 0.45).all()
        assert torch.equal(scales.sort(1).values, ellipsoids[1].sort(1).values)

    def test_names_stay_after_rounding(self, ellipsoids):
        quats, scales = least_turned(*ellipsoids)
        shaken = quats + 0.015 * torch.randn(quats.shape, generator=torch.Generator().manual_seed(1)).double()
        assert torch.equal(least_turned(shaken, scales)[1], scales)

    def test_no_rows(self):
        quats, scales = least_turned(torch.zeros(0, 4), torch.zeros(0, 3))
        assert quats.shape == (0, 4) and scales.shape == (0, 3)
