import pytest
import torch

from splat.densify.neighbours import neighbour_pairs, with_midpoints
from splat.geometry.rng import keyed_generator

pytestmark = pytest.mark.usefixtures("oracle_ops")


def _cloud(kind, count=160):
    generator = keyed_generator(0, f"test.{kind}", count)
    points = torch.rand(count, 3, generator=generator)
    if kind == "clusters":  # spacings over four orders of magnitude
        points = points * 10.0 ** -torch.randint(0, 4, (count, 1), generator=generator)
        points += torch.randint(0, 3, (count, 1), generator=generator)
    if kind == "flat":
        points[:, 1] = 0.25
    if kind == "outlier":
        points[0] = torch.tensor([1e6, -1e6, 1e6])
    if kind == "doubles":
        points[1::4] = points[::4]
    return points


def _brute_force(points, neighbours, reach):
    points = points.double()
    distances = (points[:, None] - points[None]).norm(dim=2)
    distances.fill_diagonal_(torch.inf)
    nearest = distances.amin(dim=1)
    limit = reach * float(nearest[nearest > 0].float().median())
    pairs = set()
    for row in range(len(points)):
        for other in torch.argsort(distances[row], stable=True)[:neighbours].tolist():
            if 0 < distances[row, other] <= limit:
                pairs.add((min(row, other), max(row, other)))
    return sorted(pairs)


@pytest.mark.parametrize("kind", ["even", "clusters", "flat", "outlier", "doubles"])
@pytest.mark.parametrize(("neighbours", "reach"), [(4, 3.0), (1, 1e9), (7, 0.9)])
def test_pairs_are_those_of_brute_force(kind, neighbours, reach):
    points = _cloud(kind)
    pairs = neighbour_pairs(points, neighbours=neighbours, reach=reach)
    assert [tuple(pair) for pair in pairs.tolist()] == _brute_force(points, neighbours, reach)
    assert len(pairs) > 20, "the cloud has no pairs, so nothing was tested"


def test_search_in_portions_finds_the_same(monkeypatch):
    points = _cloud("clusters")
    whole = neighbour_pairs(points, neighbours=4, reach=3.0)
    monkeypatch.setattr("splat.densify.neighbours._MOST_PAIRS", 50)
    assert torch.equal(neighbour_pairs(points, neighbours=4, reach=3.0), whole)


def test_native_search_gives_the_same(monkeypatch):
    monkeypatch.undo()
    native = pytest.importorskip("splat.native.ops")
    if not hasattr(native, "morton_order"):
        pytest.skip("the native library is replaced")
    points = _cloud("even")
    pairs = neighbour_pairs(points, neighbours=4, reach=3.0)
    assert [tuple(pair) for pair in pairs.tolist()] == _brute_force(points, 4, 3.0)


def test_midpoints_of_a_chain():
    """Spacing 1, one gap of 5 that stays open; each pair once, the old points first."""
    xyz = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [7, 0, 0], [8, 0, 0]])
    rgb = torch.tensor([0.0, 0.2, 0.4, 0.6, 1.0])[:, None].repeat(1, 3)
    more, colors = with_midpoints(xyz, rgb, neighbours=1, reach=3.0, rounds=1, most=100)
    assert more[:, 0].tolist() == [0, 1, 2, 7, 8, 0.5, 1.5, 7.5]
    assert colors[5:, 0].tolist() == pytest.approx([0.1, 0.3, 0.8])
    twice, _ = with_midpoints(xyz, rgb, neighbours=2, reach=2.5, rounds=2, most=100)
    assert {0.25, 0.75, 1.25, 1.75, 7.25, 7.75} <= set(twice[:, 0].tolist())
    assert not any(2.5 < x < 6.5 for x in twice[:, 0].tolist())


@pytest.mark.parametrize("most", [0, 160, 167, 400, 10**9])
def test_most_is_kept_and_no_point_is_lost(most):
    xyz = _cloud("even")
    rgb = torch.rand(160, 3, generator=keyed_generator(0, "test.rgb", 0))
    more, colors = with_midpoints(xyz, rgb, neighbours=4, reach=3.0, rounds=2, most=most)
    assert torch.equal(more[:160], xyz) and torch.equal(colors[:160], rgb) and len(more) == len(colors)
    full = len(with_midpoints(xyz, rgb, neighbours=4, reach=3.0, rounds=2, most=10**9)[0])
    assert len(more) == max(160, min(most, full)) and full > 700
    assert colors.min() >= 0 and colors.max() <= 1


def test_of_too_many_midpoints_an_even_choice():
    xyz = _cloud("even")
    full = neighbour_pairs(xyz, neighbours=4, reach=3.0)
    more, _ = with_midpoints(xyz, xyz, neighbours=4, reach=3.0, rounds=1, most=160 + len(full) // 2)
    middles = (xyz[full[:, 0]] + xyz[full[:, 1]]) / 2
    taken = (more[160:, None] == middles[None]).all(dim=2).any(dim=0).nonzero().squeeze(1)
    assert len(taken) == len(full) // 2 and int(taken.diff().max()) <= 3


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_points(count):
    xyz = torch.arange(count * 3.0).reshape(count, 3)
    more, colors = with_midpoints(xyz, torch.zeros(count, 3), neighbours=4, reach=3.0, rounds=2, most=100)
    assert len(more) == len(colors) == {0: 0, 1: 1, 2: 5}[count]


def test_points_in_one_place_stay_alone():
    xyz = torch.ones(5, 3)
    assert torch.equal(with_midpoints(xyz, xyz, neighbours=4, reach=3.0, rounds=2, most=100)[0], xyz)
