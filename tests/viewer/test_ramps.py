"""Numbers as colours."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from splat.viewer.picture.ramps import RAMPS, as_colors, seen_range, shares, table

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", RAMPS)
def test_a_ramp_begins_and_ends_at_its_anchors(name):
    colors = table(name, CPU)
    assert colors.shape == (256, 3) and colors.dtype == torch.uint8
    ends = [
        tuple(int(code[i : i + 2], 16) for i in (1, 3, 5)) for code in (RAMPS[name].anchors[0], RAMPS[name].anchors[-1])
    ]
    assert [tuple(colors[0].tolist()), tuple(colors[-1].tolist())] == ends
    steps = colors.int().diff(dim=0).abs().amax(dim=1)
    assert int(steps.max()) <= 12  # no visible edges


@pytest.mark.parametrize("name", [name for name in RAMPS if name != "spectrum"])
def test_lightness_rises_from_end_to_end(name):
    grey = table(name, CPU).double() @ torch.tensor([0.2126, 0.7152, 0.0722], dtype=torch.float64)
    assert (grey.diff() > -1).all() and grey[-1] - grey[0] > 150


def test_shares_are_linear_clamped_and_never_nan():
    values = torch.tensor([-1.0, 0.0, 1.0, 2.0, 4.0, 9.0, math.nan])
    assert shares(values, 0, 4).tolist() == [0, 0, 0.25, 0.5, 1, 1, 0]
    assert shares(values, 0, 4, invert=True).tolist() == [1, 1, 0.75, 0.5, 0, 0, 1]


def test_equal_factors_are_equal_distances_with_log():
    values = torch.tensor([0.0, 0.001, 0.01, 0.1, 1.0, 10.0])
    assert shares(values, 0.001, 1.0, log_scale=True).tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1], abs=1e-5)


def test_a_range_without_width_is_a_threshold():
    assert shares(torch.tensor([1.0, 2.0, 3.0]), 2, 2).tolist() == [0, 0, 1]


def test_the_range_is_that_of_what_is_seen_without_single_values_deciding():
    values = torch.linspace(0, 100, 1001)
    values[5] = 1e9
    seen = torch.ones(1001, dtype=torch.bool)
    low, high = seen_range(values, seen)
    assert low == pytest.approx(2, abs=0.3) and high == pytest.approx(98, abs=0.3)
    assert seen_range(values, values < 50)[1] < 50
    assert seen_range(values, ~seen) == (0.0, 1.0)
    assert seen_range(torch.tensor([-1.0, 0, 0.5]), torch.ones(3, dtype=torch.bool), log_scale=True) == (
        pytest.approx(0.5, rel=2e-3), pytest.approx(0.5, rel=2e-3),
    )  # fmt: skip


def test_one_value_is_one_colour_and_not_the_noise_of_its_rounding():
    values = 6946 * (1 + 1e-6 * torch.randn(500, generator=torch.Generator().manual_seed(0)))
    share = shares(values, *seen_range(values, torch.ones(500, dtype=torch.bool)))
    assert ((share - 0.5).abs() < 0.01).all()
    assert seen_range(torch.zeros(5), torch.ones(5, dtype=torch.bool)) == (0.0, 0.0)


def test_colors_have_the_shape_of_the_shares():
    colors = as_colors(torch.tensor([[0.0, 0.5], [1.0, 0.25]]), "grey")
    assert np.array_equal(colors[..., 0].numpy(), [[0, 128], [255, 64]]) and colors.shape == (2, 2, 3)
