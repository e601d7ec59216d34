"""Shapes on a screen against brute force."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splat.edit.flat import (
    flooded,
    in_pixels,
    in_polygon,
    in_rect,
    in_stroke,
    mask_of_runs,
    pixel_centers,
    runs_of_mask,
)

# Whole and half numbers: points on borders and through corners are common.
halves = st.integers(-2, 20).map(lambda value: value / 2)
corner = st.tuples(halves, halves)


def grid() -> tuple[torch.Tensor, torch.Tensor]:
    v, u = torch.meshgrid(torch.arange(-3, 22) / 2, torch.arange(-3, 22) / 2, indexing="ij")
    return u.reshape(-1).double() + 0.03, v.reshape(-1).double()


def crossings(u: float, v: float, points: list[tuple[float, float]]) -> bool:
    inside = False
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if (y0 <= v < y1) or (y1 <= v < y0):
            inside ^= u < x0 + (v - y0) * ((x1 - x0) / (y1 - y0))
    return inside


def distance(u: float, v: float, a: tuple[float, float], b: tuple[float, float]) -> float:
    start, way, point = np.array(a), np.array(b) - np.array(a), np.array((u, v))
    length = float(way @ way)
    along = 0.0 if length == 0 else float(np.clip((point - start) @ way / length, 0, 1))
    return float(np.linalg.norm(point - start - along * way))


@settings(deadline=None)
@given(corner, corner)
def test_rectangle(low, high):
    u, v = grid()
    (x0, x1), (y0, y1) = sorted((low[0], high[0])), sorted((low[1], high[1]))
    expected = [x0 <= x <= x1 and y0 <= y <= y1 for x, y in zip(u.tolist(), v.tolist(), strict=True)]
    assert in_rect(u, v, low, high).tolist() == expected


@settings(deadline=None)
@given(st.lists(corner, min_size=3, max_size=8))
def test_lasso(points):
    u, v = grid()
    expected = [crossings(x, y, points) for x, y in zip(u.tolist(), v.tolist(), strict=True)]
    assert in_polygon(u, v, points).tolist() == expected


@settings(deadline=None)
@given(st.lists(corner, min_size=1, max_size=5), st.floats(0.2, 4))
def test_stroke(points, radius):
    u, v = grid()
    line = points if len(points) > 1 else [points[0], points[0]]
    away = torch.tensor([min(distance(x, y, a, b) for a, b in pairwise(line))
                         for x, y in zip(u.tolist(), v.tolist(), strict=True)])  # fmt: skip
    clear = (away - radius).abs() > 1e-9
    assert torch.equal(in_stroke(u, v, points, radius)[clear], (away <= radius)[clear])


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 5))
def test_runs_of_pixels(bits, width):
    mask = torch.tensor(bits * width).reshape(-1, width)
    runs = runs_of_mask(mask)
    assert torch.equal(mask_of_runs(runs, width, len(bits)), mask)
    assert all(runs[1:]) and sum(runs) == mask.numel()


def test_runs_must_fill_the_picture():
    with pytest.raises(ValueError, match="runs of 5 pixels do not fill a picture of 2 x 3"):
        mask_of_runs((2, 3), 2, 3)


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=7), st.integers(0, 5))
def test_flood(rows, x):
    allowed = torch.tensor(rows)
    expected, queue = torch.zeros_like(allowed), [(0, x)] if allowed[0, x] else []
    while queue:
        row, column = queue.pop()
        if 0 <= row < len(rows) and 0 <= column < 6 and allowed[row, column] and not expected[row, column]:
            expected[row, column] = True
            queue += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
    assert torch.equal(flooded(allowed, x, 0), expected)


def test_flood_goes_round_a_spiral():
    allowed = torch.zeros(41, 41, dtype=torch.bool)
    x, y, step = 0, 0, (1, 0)
    allowed[0, 0] = True
    for length in (40, 40, 40, 38, 38, 36, 36, 34, 34):
        for _ in range(length):
            x, y = x + step[0], y + step[1]
            allowed[y, x] = True
        step = (-step[1], step[0])
    assert torch.equal(flooded(allowed, 0, 0), allowed)


def test_pixels_outside_the_picture_are_not_set():
    u, v = torch.tensor([0.0, 2.99, 3.0, -0.01, 1.0]).double(), torch.tensor([0.0, 1.99, 1.0, 1.0, 2.0]).double()
    assert in_pixels(u, v, torch.ones(2, 3, dtype=torch.bool)).tolist() == [True, True, False, False, False]
    across, down = pixel_centers(3, 2)
    assert across.tolist() == [0.5, 1.5, 2.5] * 2 and down.tolist() == [0.5] * 3 + [1.5] * 3
