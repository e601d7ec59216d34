import pytest
import torch

from splat.model import gaussian_match
from splat.model.gaussian_match import SHARPEST, SOFTEST, border_levels, convex_match, fibonacci_sphere, gef_match


def test_golden_values_of_exponents():
    """A disc (large h) wants 1.43 times the strength, unless alpha leaves no room; then it grows instead."""
    size, strength = gef_match(torch.tensor([-1.0, 0.0, 1.0, 1.0]), torch.tensor([0.5, 0.999, 0.5, 0.99]))
    assert size.tolist() == pytest.approx([0.794, 1.0, 1.507, 1.711], abs=2e-3)
    assert strength.tolist() == pytest.approx([0.211, 1.0, 1.381, 1.0], abs=2e-3)
    assert size[1] == 1 and strength[1] == 1


@pytest.mark.parametrize("cap", [0, -1])
def test_no_gaussian_is_nearer(cap):
    """Against a direct sum over a grid of sizes and strengths."""
    row, exponent = 24, 4**0.5
    log_size, log_strength = gaussian_match._gef_table()[row, cap]
    u = torch.linspace(1e-6, 60, 12_001, dtype=torch.float64)
    profile = torch.exp(-4.5 * (u / 9) ** exponent)

    def distance(k, a):
        return float((profile - a * torch.exp(-u / (2 * k**2))).square().sum())

    k, a = float(log_size.exp()), float(log_strength.exp())
    limit = float(gaussian_match._CAPS[cap])
    others = [
        distance(k * dk, a * da)
        for dk in (0.98, 1, 1.02) for da in (0.98, 1, 1.02)
        if (dk, da) != (1, 1) and a * da <= limit
    ]  # fmt: skip
    assert len(others) >= 5 and distance(k, a) < min(others)


def test_lookups_are_smooth_and_follow_the_table():
    place = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    for opacity in (0.2, 0.8, 0.99):
        for values in gef_match(place, torch.full_like(place, opacity)):
            assert (values.diff().abs() < 0.01).all() and torch.isfinite(values).all()


@pytest.mark.parametrize("points", [3, 6, 8])
def test_hard_convexes_are_discs_and_soft_ones_wide(points):
    hardness = torch.tensor([0.0, SOFTEST, 1.0, SHARPEST, 1e9])
    size, strength = convex_match(points, hardness, torch.full((5,), 0.4))
    assert size[0] == size[1] > size[2] > size[3] == size[4] > 0.5
    assert strength[0] == strength[1] < strength[2] < strength[3] == strength[4] < 1.45
    assert strength[0] < 0.5 and strength[3] > 1.25


def test_rows_that_are_not_finite_do_not_stop_the_others():
    broken = torch.tensor([torch.nan, torch.inf, 0.5])
    for match in (gef_match, lambda *both: convex_match(6, *both)):
        size, strength = match(broken, torch.tensor([0.5, torch.nan, 0.5]))
        assert torch.isfinite(size).all() and torch.isfinite(strength).all()


def test_every_ray_leaves_its_hull_once():
    """Where the level turns positive: about 1 to 2 standard deviations of the vertices from their centroid."""
    levels = border_levels(4)
    assert ((levels > 0).long().diff(dim=0).sum(dim=0) == 1).all() and (levels[0] < 0).all()
    border = (levels > 0).long().argmax(dim=0)
    reach = (gaussian_match._LOG_U[border] / 2).exp()
    assert reach.min() > 0.2 and reach.max() < 3 and reach.mean() == pytest.approx(1.15, abs=0.3)


def test_fibonacci_sphere():
    sphere = fibonacci_sphere(6)
    assert torch.allclose(sphere.norm(dim=1), torch.ones(6))
    assert sphere[0].tolist() == pytest.approx([0, 0, 1], abs=1e-6)
    assert sphere[5].tolist() == pytest.approx([0, 0, -1], abs=1e-6)
    # z of point i is 1 - 2 i / (K - 1), its angle i times the golden one.
    assert sphere[1, 2].item() == pytest.approx(0.6)
    assert torch.atan2(sphere[1, 1], sphere[1, 0]).item() == pytest.approx(2.39996, abs=1e-4)
