"""What the grid is sorted by, who stays on it, and which quaternion of a splat is written down."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from splat.compress.grid_sort import (
    aligned_quats,
    grid_order,
    kept_rows,
    neighbour_distance,
    side_of,
    signed_log,
    sort_features,
)
from splat.geometry.rotations import matrix_from_quat
from splat.native import ops


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _rows(count: int) -> dict[str, Tensor]:
    """Colours and sizes change smoothly with the place, as in a scene; three numbers in nine."""
    means = 3 * _random(count, 3)
    return {"means": means, "sh0": torch.sin(means), "log_scales": means.roll(1, 1) - 4, "quats": _random(count, 4)}


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 8, 9, 24, 399, 400])
def test_the_square_keeps_the_most_important(count):
    importance = torch.rand(count, generator=torch.Generator().manual_seed(1))
    kept = kept_rows(importance)
    side = side_of(count)
    assert len(kept) == side * side and count - len(kept) <= 2 * side
    assert torch.equal(kept, kept.sort().values)
    dropped = torch.ones(count, dtype=torch.bool).index_fill_(0, kept, False)
    assert not dropped.any() or importance[dropped].max() <= importance[kept].min()


def test_of_equals_the_later_go():
    assert kept_rows(torch.tensor([0.5, 0.2, 0.5, 0.5, 0.5, 0.5])).tolist() == [0, 2, 3, 4]


def test_every_block_weighs_the_same():
    features = sort_features(_rows(500))
    assert features.shape == (500, 9)
    for block in features.split(3, dim=1):
        assert float(block.mean()) == pytest.approx(0, abs=1e-5) and float(block.std(correction=0)) == pytest.approx(1)
    far = {"means": torch.tensor([[0.0, -1.0, 1e4]])}
    assert torch.allclose(signed_log(far["means"]), torch.tensor([[0.0, -0.6931472, 9.2104404]]))
    assert sort_features({"means": torch.full((4, 3), 2.0)}).abs().max() == 0  # no spread: no division


def test_the_order_is_a_permutation_and_the_seed_decides():
    rows = _rows(20 * 20)
    first = grid_order(rows, seed=1)
    assert torch.equal(first.sort().values, torch.arange(400))
    assert torch.equal(first, grid_order(rows, seed=1))
    assert not torch.equal(first, grid_order(rows, seed=2))


def test_sorting_beats_morton_beats_chance():
    """On 2500 rows the mean distance to a neighbour is 3.4 by chance, 1.9 in Morton order, 1.2 sorted."""
    rows = _rows(50 * 50)
    features = sort_features(rows)
    chance = neighbour_distance(features, 50)
    morton = neighbour_distance(features[ops.morton_order(rows["means"])], 50)
    ordered = neighbour_distance(features[grid_order(rows, seed=0)], 50)
    assert ordered < 0.7 * morton < 0.7 * 0.7 * chance


def test_neighbour_distance_by_hand():
    """Right neighbours wrap: 1, 1 in each line; below: 10, 10."""
    assert neighbour_distance(torch.tensor([[0.0], [1.0], [10.0], [11.0]]), 2) == pytest.approx((4 * 1 + 2 * 10) / 6)
    assert neighbour_distance(torch.zeros(0, 3), 0) == 0 == neighbour_distance(torch.ones(1, 3), 1)


@pytest.mark.parametrize("side", [0, 1, 2, 3, 12])
def test_aligned_quats_show_the_same_ellipsoids(side):
    quats = 2.5 * _random(side * side, 4)
    aligned = aligned_quats(quats, side)
    assert torch.allclose(aligned.norm(dim=1), torch.ones(side * side))
    sizes = torch.diag(torch.tensor([1.0, 2.0, 3.0]))
    before, after = matrix_from_quat(quats), matrix_from_quat(aligned)
    assert torch.allclose(before @ sizes @ before.mT, after @ sizes @ after.mT, atol=1e-5)


def _written_by_chance(quats: Tensor) -> Tensor:
    """Each in one of the eight ways that show its ellipsoid."""
    w, x, y, z = quats.unbind(1)
    ways = torch.stack([quats, *(torch.stack(way, 1) for way in ((-x, w, z, -y), (-y, -z, w, x), (-z, y, -x, w)))])
    random = torch.Generator().manual_seed(3)
    count = len(quats)
    chosen = ways[torch.randint(0, 4, (count,), generator=random), torch.arange(count)]
    return chosen * torch.where(torch.rand(count, generator=random) < 0.5, -1.0, 1.0)[:, None]


def test_aligned_quats_of_equal_ellipsoids_are_equal():
    q = torch.nn.functional.normalize(torch.tensor([[0.9, 0.1, -0.3, 0.2]]), dim=1)
    aligned = aligned_quats(_written_by_chance(q.expand(64, 4)), 8)
    assert torch.allclose(aligned, aligned[:1].expand_as(aligned), atol=1e-6)


def test_a_quaternion_without_length_is_no_turn():
    assert aligned_quats(torch.zeros(4, 4), 2).tolist() == [[1, 0, 0, 0]] * 4


def test_alignment_finds_a_smooth_field_again():
    """Ellipsoids that turn slowly, by 80 degrees in all (beyond 90, another of the eight is nearer to no turn)."""
    angle = torch.linspace(0, 0.7, 16 * 16)
    field = torch.stack([angle.cos(), angle.sin(), 0 * angle, 0 * angle], dim=1)
    scattered = _written_by_chance(field)
    by_w = scattered * torch.where(scattered[:, :1] < 0, -1.0, 1.0)
    smooth = neighbour_distance(field, 16)
    assert neighbour_distance(by_w, 16) > 5 * smooth
    assert neighbour_distance(aligned_quats(scattered, 16), 16) < 1.5 * smooth
