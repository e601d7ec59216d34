"""Nearest centroids against all distances in double precision."""

from __future__ import annotations

import pytest
import torch

from splat.native.nearest import Lists, nearest_two
from splat.native.ops import info, set_isa, set_threads


@pytest.mark.parametrize(("count", "entries", "dim"), [(1, 1, 1), (5, 3, 2), (1500, 1100, 45), (33, 64, 7)])
def test_finds_the_two_nearest(count, entries, dim):
    rng = torch.Generator().manual_seed(0)
    points, centroids = torch.randn(count, dim, generator=rng), torch.randn(entries, dim, generator=rng)
    labels, squares = nearest_two(points, centroids)
    apart = torch.cdist(points.double(), centroids.double()) ** 2
    expected = apart.topk(min(2, entries), largest=False)
    wanted = min(2, entries)
    assert torch.equal(labels[:, :wanted], expected.indices)
    assert torch.allclose(squares[:, :wanted].double(), expected.values, rtol=1e-4, atol=1e-6)
    if entries == 1:
        assert (labels[:, 1] == -1).all() and squares[:, 1].isinf().all()


def test_looks_at_the_candidates_of_a_list_alone():
    points = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    centroids = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    lists = Lists(torch.tensor([0, 1, 4]), torch.tensor([0, 2, 4]), torch.tensor([3, 2, 0, 1], dtype=torch.int32))
    labels, squares = nearest_two(points, centroids, lists)
    assert labels.tolist() == [[2, 3], [1, 0], [1, 0], [1, 0]]
    assert squares[:, 0].tolist() == [4, 0, 1, 4]


def test_equal_distances_go_to_the_earlier_candidate():
    labels, _ = nearest_two(torch.zeros(6, 3), torch.ones(70, 3))
    assert labels.tolist() == [[0, 1]] * 6


def test_the_same_bits_on_any_number_of_threads_and_instruction_set():
    rng = torch.Generator().manual_seed(1)
    points, centroids = torch.randn(3000, 9, generator=rng), torch.randn(1300, 9, generator=rng)
    best = info()["isa"]
    expected = nearest_two(points, centroids)
    try:
        set_threads(1)
        assert all(torch.equal(a, b) for a, b in zip(nearest_two(points, centroids), expected, strict=True))
        for isa in info()["isas"].split():
            set_isa(isa)
            assert (nearest_two(points, centroids)[0] == expected[0]).float().mean() > 0.999  # but for exact ties
    finally:
        set_threads(0)
        set_isa(best)


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="points"):
        nearest_two(torch.zeros(2, 3), torch.zeros(2, 4))
    bad = Lists(torch.tensor([0, 2]), torch.tensor([0, 1]), torch.tensor([7], dtype=torch.int32))
    with pytest.raises(RuntimeError, match="nearest"):
        nearest_two(torch.zeros(2, 3), torch.zeros(2, 3), bad)
