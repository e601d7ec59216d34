"""Nearest points of one set for another, against all distances."""

import pytest
import torch

from splat.native.neighbours import nearest_points
from splat.native.ops import knn_mean_sq_dist, set_threads


@pytest.mark.parametrize(("count", "queries", "k"), [(1, 3, 1), (3, 5, 4), (900, 400, 12), (50, 0, 2)])
def test_finds_the_nearest(count, queries, k):
    generator = torch.Generator().manual_seed(0)
    points, asked = torch.randn(count, 3, generator=generator), torch.randn(queries, 3, generator=generator)
    places, squares = nearest_points(asked, points, k)
    expected = (torch.cdist(asked.double(), points.double()) ** 2).sort(dim=1, stable=True)
    found = min(k, count)
    assert torch.equal(places[:, :found], expected.indices[:, :found])
    assert torch.allclose(squares[:, :found].double(), expected.values[:, :found], rtol=1e-4, atol=1e-9)
    assert (places[:, found:] == -1).all() and squares[:, found:].isinf().all()


def test_the_earlier_of_two_as_near():
    points = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, 0, 1]]).repeat(30, 1)
    places, _ = nearest_points(torch.zeros(2, 3), points, 5)
    assert places.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_agrees_with_distances_among_themselves_and_does_not_depend_on_threads():
    points = torch.rand(5000, 3, generator=torch.Generator().manual_seed(1))
    places, squares = nearest_points(points, points, 4)
    assert torch.equal(places[:, 0], torch.arange(5000))
    assert torch.allclose(knn_mean_sq_dist(points, 3), squares[:, 1:].mean(dim=1))
    try:
        set_threads(1)
        again = nearest_points(points, points, 4)
    finally:
        set_threads(0)
    assert torch.equal(places, again[0]) and torch.equal(squares, again[1])


@pytest.mark.parametrize(
    ("queries", "points", "k", "named"),
    [
        (torch.zeros(2, 2), torch.zeros(2, 3), 1, "queries"),
        (torch.zeros(2, 3), torch.full((2, 3), torch.nan), 1, "points"),
        (torch.zeros(2, 3), torch.zeros(0, 3), 1, "at least one"),
        (torch.zeros(2, 3), torch.zeros(2, 3), 33, "32"),
    ],
)
def test_refuses_what_does_not_fit(queries, points, k, named):
    with pytest.raises(ValueError, match=named):
        nearest_points(queries, points, k)
