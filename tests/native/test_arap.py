"""As-rigid-as-possible iterations against dense algebra."""

import pytest
import torch

from splat.edit.drag.graph import graph_of
from splat.edit.drag.reference import arap_energy, arap_reference
from splat.geometry.rotations import matrix_from_quat
from splat.native.arap import Arap, Graph
from splat.native.ops import set_threads


def _bar(length=14, width=4, seed=0):
    """Nodes of a bar, one apart and a little off."""
    axes = (torch.arange(length), torch.arange(width), torch.arange(width))
    nodes = torch.cartesian_prod(*axes).double()
    nodes += 0.1 * torch.randn(nodes.shape, generator=torch.Generator().manual_seed(seed)).double()
    return graph_of(nodes, nodes, 1.0).graph


def _ends(graph):
    held = (graph.rest[:, 0] < 0.5) | (graph.rest[:, 0] > graph.rest[:, 0].max() - 0.6)
    return held, torch.zeros(graph.count).double(), torch.zeros(graph.count, 3).double()


def _start(graph):
    return graph.rest.clone(), torch.eye(3).double().repeat(graph.count, 1, 1)


def test_one_iteration_is_the_reference():
    graph = _bar()
    held, pulls, arms = _ends(graph)
    pulls[100], arms[100] = 5.0, torch.tensor([0.3, -0.2, 0.1]).double()
    targets = graph.rest + arms + torch.tensor([0.0, 2.0, 1.0]).double()
    places, rotations = _start(graph)
    places[held & (graph.rest[:, 0] > 5)] += torch.tensor([-1.0, 3.0, 0.5]).double()
    for _ in range(3):
        expected = arap_reference(graph, places, rotations, held=held, pulls=pulls, arms=arms, targets=targets)
        found = Arap(graph, held, pulls, arms).iterate(places, rotations, targets, 1)
        assert torch.allclose(found[0], expected[0], atol=1e-9) and torch.allclose(found[1], expected[1], atol=1e-9)
        assert torch.equal(found[0][held], places[held]) and torch.equal(found[1][held], rotations[held])
        places, rotations = found


def test_energy_falls_until_a_bar_is_bent():
    graph = _bar()
    held, pulls, arms = _ends(graph)
    arap, (places, rotations) = Arap(graph, held, pulls, arms), _start(graph)
    far = held & (graph.rest[:, 0] > 5)
    turn = matrix_from_quat(torch.tensor([1.0, 0, 0, 0.6]).double())
    pivot = torch.tensor([7.0, 0, 0]).double()
    places[far] = (places[far] - pivot) @ turn.T + pivot
    rotations[far] = turn
    energies = []
    for _ in range(12):
        places, rotations = arap.iterate(places, rotations, graph.rest, 5)
        energies.append(arap_energy(graph, places, rotations))
    assert energies == sorted(energies, reverse=True) and energies[-1] < 0.7 * energies[0]
    assert torch.allclose(rotations @ rotations.transpose(1, 2), torch.eye(3).double().expand_as(rotations), atol=1e-12)


def test_rest_stays_rest_to_the_bit():
    graph = _bar()
    held, pulls, arms = _ends(graph)
    places, _ = Arap(graph, held, pulls, arms).iterate(*_start(graph), graph.rest, 10)
    assert torch.allclose(places, graph.rest, atol=1e-13)


def test_neighbours_turn_alike_when_asked_to():
    """A handle pulled out of the side of a bar: rotations change less from node to node."""
    graph = _bar()
    held, pulls, arms = _ends(graph)
    pulls[120] = 20.0
    targets = graph.rest + torch.tensor([0.0, 3.0, 0.0]).double()

    def roughness(smooth):
        _, rotations = Arap(graph, held, pulls, arms, smooth=smooth).iterate(*_start(graph), targets, 40)
        one = torch.arange(graph.count).repeat_interleave((graph.begin[1:] - graph.begin[:-1]).long())
        return float((rotations[one] - rotations[graph.neighbours.long()]).square().sum())

    assert roughness(1.0) < 0.6 * roughness(0.0)


def test_the_same_bits_on_any_number_of_threads():
    graph = _bar(30, 6)
    held, pulls, arms = _ends(graph)
    places, rotations = _start(graph)
    places[held & (graph.rest[:, 0] > 5)] += torch.tensor([0.0, 3.0, 0.5]).double()
    arap = Arap(graph, held, pulls, arms)
    expected = arap.iterate(places, rotations, graph.rest, 4)
    try:
        set_threads(1)
        found = Arap(graph, held, pulls, arms).iterate(places, rotations, graph.rest, 4)
    finally:
        set_threads(0)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_factor_is_sparse():
    graph = _bar(60, 5)
    held, pulls, arms = _ends(graph)
    assert Arap(graph, held, pulls, arms).entries < 0.1 * graph.count**2 / 2


def test_lone_and_lined_up_nodes_keep_still_about_what_is_open():
    """A line leaves the turn about it open, one node everything."""
    rest = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [9, 9, 9]]).double()
    graph = Graph(rest, torch.tensor([0, 1, 3, 4, 4]), torch.tensor([1, 0, 2, 1]), torch.ones(4).double())
    held = torch.tensor([True, False, False, True])
    pulls, arms = torch.tensor([0.0, 0, 10, 0]).double(), torch.zeros(4, 3).double()
    targets = torch.tensor([0.0, 2, 0]).double().expand(4, 3)
    arap = Arap(graph, held, pulls, arms)
    places, rotations = arap.iterate(*_start(graph), targets, 200)
    assert torch.allclose(places[2], targets[2], atol=0.05) and torch.equal(places[3], rest[3])
    assert torch.allclose(rotations[1:3] @ torch.tensor([0.0, 0, 1]).double(), torch.tensor([0.0, 0, 1]).double())


def test_refuses_what_cannot_be_solved():
    graph = _bar()
    nobody, pulls, arms = torch.zeros(graph.count, dtype=torch.bool), *_ends(graph)[1:]
    with pytest.raises(ValueError, match="neither held nor pulled"):
        Arap(graph, nobody, pulls, arms)
    broken = Graph(graph.rest, graph.begin, graph.neighbours + 500, graph.weights)
    with pytest.raises(ValueError, match="no graph"):
        Arap(broken, ~nobody, pulls, arms)
