"""Sorting onto a grid: the same as its readable twin, never worse, the same on any number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from splat.compress.grid_reference import boxed, grid_sort_reference
from splat.compress.grid_sort import neighbour_distance
from splat.native import ops

ISAS = tuple(str(ops.info()["isas"]).split())


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    isa, threads = ops.info()["isa"], ops.info()["threads"]
    yield
    ops.set_isa(isa)
    ops.set_threads(threads)


def _features(count: int, channels: int = 3, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(count, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (21, 13), (6, 33), (13, 1), (17, 2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_is_the_reference(height, width, dtype):
    features = _features(height * width, dtype=dtype, seed=height)
    settings = {"seed": 2**64 - 5, "first_radius": 4.0, "shrink": 0.6, "least_turns": 2, "most_turns": 4, "rounds": 2}
    order, distances = ops.grid_sort(features, height, width, **settings)
    expected, expected_distances = grid_sort_reference(features, height, width, **settings)
    assert torch.equal(order, expected)
    assert distances == pytest.approx(expected_distances, rel=1e-9 if dtype == torch.float64 else 1e-4)
    assert not torch.equal(order, torch.arange(len(order)))


@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set_sorts_like_the_reference(isa):
    ops.set_isa(isa)
    features = _features(19 * 37, 5)
    settings = {"seed": 1, "first_radius": 5.0, "shrink": 0.4, "least_turns": 1, "most_turns": 2}
    expected, _ = grid_sort_reference(features, 19, 37, **settings)
    assert torch.equal(ops.grid_sort(features, 19, 37, **settings)[0], expected)


@pytest.mark.parametrize("isa", ISAS)
def test_threads_do_not_change_it(isa):
    ops.set_isa(isa)
    features, orders = _features(40 * 40, 9), []
    for threads in (1, 2, 4):
        ops.set_threads(threads)
        orders.append(ops.grid_sort(features, 40, 40, seed=3, first_radius=19))
    assert all(torch.equal(order, orders[0][0]) and distances == orders[0][1] for order, distances in orders)
    assert torch.equal(orders[0][0].sort().values, torch.arange(1600))
    assert not torch.equal(ops.grid_sort(features, 40, 40, seed=4, first_radius=19)[0], orders[0][0])


@pytest.mark.parametrize("isa", ISAS)
def test_one_radius_never_makes_it_worse(isa):
    """Whole numbers, whose products are exact, and one turn: what is gained is what the distances to the goals lose."""
    ops.set_isa(isa)
    height, width, radius = 20, 35, 3
    features = torch.randint(-8, 8, (height * width, 4), generator=torch.Generator().manual_seed(1)).double()
    goal = boxed(features.reshape(height, width, 4), radius).reshape(-1, 4)
    last = float((features - goal).square().sum())
    for turns in (1, 2, 3, 8):
        order, distances = ops.grid_sort(
            features, height, width, seed=2, first_radius=radius, shrink=0.1, least_turns=turns, most_turns=turns
        )
        reached = float((features[order] - goal).square().sum())
        assert distances == pytest.approx((float((features - goal).square().sum()), reached))
        assert reached < last
        last = reached


def test_what_is_sorted_stays():
    """Nothing moves where all are equal, or nothing can gain."""
    for features in (torch.zeros(36, 2), torch.full((36, 1), 7.0)):
        assert torch.equal(ops.grid_sort(features, 6, 6, seed=0, first_radius=2)[0], torch.arange(36))


def test_neighbours_become_alike():
    """A plane of colours on as many cells: an order ten times closer than a random one (0.5214 on average) exists."""
    features = _features(64 * 64, 2)
    order, _ = ops.grid_sort(features, 64, 64, seed=0, first_radius=31)
    assert neighbour_distance(features, 64) > 0.5
    assert neighbour_distance(features[order], 64) < 0.05


@pytest.mark.parametrize(("height", "width"), [(0, 0), (0, 5), (1, 1), (1, 7), (3, 3), (5, 1), (2, 2)])
def test_small_grids(height, width):
    order, _ = ops.grid_sort(_features(height * width), height, width, seed=0, first_radius=1)
    assert torch.equal(order.sort().values, torch.arange(height * width))


@pytest.mark.parametrize(
    ("features", "settings", "said"),
    [
        (torch.zeros(8, 3), {}, r"\[3\*3,"),
        (torch.zeros(9), {}, r"\[3\*3,"),
        (torch.zeros(9, 0), {}, r"\[3\*3,"),
        (torch.full((9, 1), torch.nan), {}, "finite"),
        (torch.zeros(9, 1, dtype=torch.float16), {}, "float16"),
        (torch.zeros(9, 1), {"last_radius": 0.0}, "radius"),
        (torch.zeros(9, 1), {"shrink": 1.0}, "shrink"),
        (torch.zeros(9, 1), {"rounds": 0}, "round"),
    ],
)
def test_wrong_arguments_are_named(features, settings, said):
    with pytest.raises(ValueError, match=said):
        ops.grid_sort(features, 3, 3, seed=0, **{"first_radius": 2.0, **settings})
