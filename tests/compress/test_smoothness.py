"""The distance of a grid to its blur: cases by hand, a plain double loop, gradients that hold the blur fixed."""

from __future__ import annotations

from math import exp

import pytest
import torch
from torch import Tensor

from splat.compress.smoothness import KERNEL, SIGMA, blurred, smoothness_loss


def _grid(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


def _blurred_by_hand(grid: Tensor) -> Tensor:
    height, width, _ = grid.shape
    taps = torch.tensor([exp(-0.5 * (k / SIGMA) ** 2) for k in range(-2, 3)], dtype=torch.float64)
    out = torch.zeros_like(grid)
    for y in range(height):
        for x in range(width):
            for i, down in enumerate(range(-2, 3)):
                line = abs(y + down)
                line = line if line < height else 2 * (height - 1) - line
                for j, across in enumerate(range(-2, 3)):
                    out[y, x] += taps[i] * taps[j] / taps.sum() ** 2 * grid[line, (x + across) % width]
    return out


@pytest.mark.parametrize(("height", "width"), [(7, 9), (5, 5), (3, 6)])
def test_the_blur_is_circular_in_x_and_mirrored_in_y(height, width):
    assert KERNEL == 5
    grid = _grid(height, width, 3)
    assert torch.allclose(blurred(grid), _blurred_by_hand(grid), rtol=0, atol=1e-12)


@pytest.mark.parametrize("side", [0, 1, 2, 3, 4])
def test_small_grids_have_smaller_kernels(side):
    flat = torch.full((side, side, 2), 0.25)
    assert torch.allclose(blurred(flat), flat)
    assert blurred(_grid(side, side, 2)).isfinite().all()


def test_one_spike_by_hand():
    """Height 5 in one of 49 cells: its blur takes the square of the middle tap; far below delta is half a square,
    above it a line."""
    grid = torch.zeros(49, 1, dtype=torch.float64)
    grid[24] = 5.0
    goal = blurred(grid.reshape(7, 7, 1)).reshape(-1)
    apart = (grid.reshape(-1) - goal).abs()
    assert int((goal > 0).sum()) == 25 and apart[24] > 1 > apart[0:24].max()
    expected = torch.where(apart > 1, apart - 0.5, apart**2 / 2).mean()
    assert smoothness_loss({"sh0": grid}, side=7, weights={"sh0": 3.0}) == pytest.approx(float(expected))


def test_weights_are_shares():
    rows = {"quats": _grid(36, 4), "logit_opacities": _grid(36), "sh_rest": _grid(36, 0, 3), "sh0": _grid(36, 3)}
    alone = {name: float(smoothness_loss(rows, side=6, weights={name: 1.0})) for name in ("quats", "logit_opacities")}
    weights = {"quats": 10, "logit_opacities": 1, "sh0": 0, "sh_rest": 4, "other": 2}
    both = smoothness_loss(rows, side=6, weights=weights)
    assert float(both) == pytest.approx((10 * alone["quats"] + alone["logit_opacities"]) / 11)


def test_nothing_to_smooth_is_no_loss():
    rows = {"sh0": _grid(4, 3), "sh_rest": _grid(4, 0, 3)}
    assert smoothness_loss(rows, side=2, weights={"sh0": 0.0, "sh_rest": 1.0}) is None
    assert smoothness_loss({"sh0": _grid(0, 3)}, side=0, weights={"sh0": 1.0}) is None
    assert float(smoothness_loss({"sh0": _grid(1, 3)}, side=1, weights={"sh0": 1.0})) == 0


def test_gradients_pull_a_cell_to_its_neighbours_and_not_them_to_it():
    values = (3 * _grid(30 * 30, 4)).requires_grad_()
    loss = smoothness_loss({"quats": values}, side=30, weights={"quats": 10.0})
    loss.backward()
    apart = (values - blurred(values.detach().reshape(30, 30, 4)).reshape(-1, 4)).detach()
    assert (apart.abs() > 1).any() and (apart.abs() < 1).any()
    assert torch.allclose(values.grad, apart.clamp(-1, 1) / values.numel(), rtol=1e-12, atol=0)


def test_gradients_agree_with_differences():
    """The goal held where it was."""
    values, weights = _grid(25, 2), {"sh0": 1.0}
    leaf = values.clone().requires_grad_()
    smoothness_loss({"sh0": leaf}, side=5, weights=weights).backward()
    goal = blurred(values.reshape(5, 5, 2)).reshape(-1, 2)
    for row, column in ((0, 0), (12, 1), (24, 0)):
        ends = []
        for by in (1e-6, -1e-6):
            moved = values.clone()
            moved[row, column] += by
            ends.append(torch.nn.functional.huber_loss(moved, goal))
        assert float(leaf.grad[row, column]) == pytest.approx(float(ends[0] - ends[1]) / 2e-6, rel=1e-6)


def test_smoothing_alone_makes_a_grid_flat():
    values = _grid(16 * 16, 3).requires_grad_()
    start = float(values.detach().std())
    for _ in range(200):
        (gradient,) = torch.autograd.grad(smoothness_loss({"a": values}, side=16, weights={"a": 1.0}), values)
        with torch.no_grad():
            values -= values.numel() * 0.5 * gradient
    assert float(values.detach().std()) < 0.2 * start
