"""The native parts of a drag as readable torch, for tests: skinning, and one iteration of ARAP by dense algebra."""

from __future__ import annotations

import torch
from torch import Tensor

from splat.geometry.deformation import split_gradients
from splat.geometry.rotations import normalized_quats
from splat.native.arap import Graph
from splat.native.skin import Skin


def skin_reference(bound: Skin, shifts: Tensor, linear: Tensor, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As ``native.skin.skin`` with gradients, in float64."""
    x, nodes, weights = bound.points.double(), bound.nodes.long(), bound.weights.double()
    offsets = x[:, None] - bound.rest.double()[nodes]  # [N,4,3]
    moves = torch.einsum("nkab,nkb->nka", linear[nodes], offsets) + shifts[nodes]
    move = torch.einsum("nk,nka->na", weights, moves)
    softness = bound.softness.double()
    of_nodes = torch.einsum("nk,nkab->nab", weights, linear[nodes])
    of_weights = torch.einsum("nka,nkb->nab", moves, bound.weight_gradients.double())
    of_softness = move[:, :, None] * bound.softness_gradients.double()[:, None]
    gradients = torch.eye(3).double() + softness[:, None, None] * (of_nodes + of_weights) + of_softness
    near = turns[nodes]
    near = torch.where((near * near[:, :1]).sum(dim=2, keepdim=True) < 0, -near, near)
    blended = torch.einsum("nk,nkq->nq", weights, near)
    blended = torch.where(blended[:, :1] < 0, -blended, blended)
    still = torch.tensor([1.0, 0, 0, 0]).double()
    partly = softness[:, None] * blended + (1 - softness)[:, None] * still
    return x + softness[:, None] * move, normalized_quats(partly), gradients


def arap_energy(graph: Graph, places: Tensor, rotations: Tensor) -> float:
    """sum_ij w_ij |(x_j - x_i) - R_i (g_j - g_i)|^2 over both directions of every edge."""
    one, other = _edges(graph)
    rest, now = graph.rest[other] - graph.rest[one], places[other] - places[one]
    left = now - torch.einsum("eab,eb->ea", rotations[one], rest)
    return float((graph.weights * left.square().sum(dim=1)).sum())


def arap_reference(
    graph: Graph, places: Tensor, rotations: Tensor, *, held: Tensor, pulls: Tensor, arms: Tensor, targets: Tensor,
    inertia: float = 1e-3,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One iteration of ``native.arap.Arap`` without smooth rotations: the nearest rotations of
    sum_j w_ij (x_j - x_i) (g_j - g_i)^T + pull (t - x) arm^T, then the least energy for these rotations."""
    one, other = _edges(graph)
    rest, now = graph.rest[other] - graph.rest[one], places[other] - places[one]
    count = graph.count
    spread = (
        torch.zeros(count, 3, 3)
        .double()
        .index_add_(0, one, graph.weights[:, None, None] * now[:, :, None] * rest[:, None])
    )
    size = torch.zeros(count).double().index_add_(0, one, graph.weights * rest.square().sum(dim=1))
    spread += pulls[:, None, None] * (targets - places)[:, :, None] * arms[:, None]
    spread += inertia * size[:, None, None] * rotations
    turned = torch.where(held[:, None, None], rotations, split_gradients(spread)[0])
    matrix, right = torch.diag(pulls).clone(), torch.zeros(count, 3).double()
    matrix.index_put_((one, one), graph.weights, accumulate=True)
    matrix.index_put_((one, other), -graph.weights, accumulate=True)
    mean = (turned[one] + turned[other]) / 2
    right.index_add_(0, one, -graph.weights[:, None] * torch.einsum("eab,eb->ea", mean, rest))
    right += pulls[:, None] * (targets - torch.einsum("nab,nb->na", turned, arms))
    matrix[held], right[held] = 0, places[held]
    matrix[held.nonzero().squeeze(1), held.nonzero().squeeze(1)] = 1
    return torch.linalg.solve(matrix, right), turned


def _edges(graph: Graph) -> tuple[Tensor, Tensor]:
    degrees = graph.begin[1:] - graph.begin[:-1]
    return torch.arange(graph.count).repeat_interleave(degrees.long()), graph.neighbours.long()
