"""Which Gaussian looks most like another splat: how much larger or smaller, and how much stronger (for lossy exports).

One splat alone in the picture, its mean squared difference over the plane. The other splat is known by its profile
f(u), the mean response where the squared Mahalanobis distance is u. For a Gaussian of k standard deviations and
strength a, half the integral of (f - a exp(-u / (2 k^2)))^2 over u is, up to a constant, a^2 k^2 / 2 - 2 a m(k) with
m(k) the half integral of f(u) exp(-u / (2 k^2)); so a = 2 m / k^2 unless that makes alpha too large.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations
from math import log, pi

import torch
from torch import Tensor

from splat.geometry.rng import keyed_generator

_ALPHA_MAX = 0.99
"""Drawn alphas saturate here."""
_CAPS = torch.linspace(1, 1.6, 13, dtype=torch.float64)
"""Strengths a discs would like at most (1.43), and what opacities near 1 leave of that."""
_NODES = 33
"""Of a table along the shape parameter."""
_LOG_U = torch.linspace(log(1e-8), log(1e5), 401, dtype=torch.float64)
"""Where profiles are sampled: evenly in log u, as peaks are steep at 0 and skirts are long."""
_LOG_SIZES = torch.linspace(log(1 / 16), log(64), 1201, dtype=torch.float64)

SOFTEST, SHARPEST = 0.05, 50.0
"""Range of ``convex_match``'s table; outside, its ends stand."""
_SHAPES, _ANGLES, _JITTER = 16, 12, 0.35
"""The synthetic set: hulls seen from random sides, directions per hull, and how far vertices are off the sphere
that convexes start as (in its radii)."""


def gef_match(position: Tensor, opacities: Tensor) -> tuple[Tensor, Tensor]:  # [N], [N] -> [N], [N]
    """Factors of size and opacity for the kernel exp(-4.5 (u / 9)^h), h = 4^position with position in [-1, 1].

    At 0, the Gaussian itself, both are exactly 1.
    """
    return _looked_up(_gef_table(), (position + 1) / 2, opacities)


def convex_match(points: int, hardness: Tensor, opacities: Tensor) -> tuple[Tensor, Tensor]:  # [N], [N] -> [N], [N]
    """Factors of size and opacity for convexes, relative to the covariance of their vertices.

    ``hardness`` is the steepness of the border: the logit of the response per unit of
    |edge| x distance / (area of the covariance's ellipse / pi).
    """
    place = (hardness.clamp(SOFTEST, SHARPEST) / SOFTEST).log() / log(SHARPEST / SOFTEST)
    return _looked_up(_convex_table(points), place, opacities)


def _looked_up(table: Tensor, place: Tensor, opacities: Tensor) -> tuple[Tensor, Tensor]:
    """Bilinear in ``table [nodes, caps, 2]`` (log size, log strength), ``place [N]`` in [0,1] along the nodes."""
    dtype, table = place.dtype, table.to(place.device)
    place, opacities = place.nan_to_num(0.5), opacities.nan_to_num(0.5)  # broken rows stay broken elsewhere
    caps = (_ALPHA_MAX / opacities.double().clamp_min(1e-3)).clamp(float(_CAPS[0]), float(_CAPS[-1]))
    across = (caps - _CAPS[0]) / (_CAPS[-1] - _CAPS[0]) * (len(_CAPS) - 1)
    along = place.double().clamp(0, 1) * (table.shape[0] - 1)
    row, column = along.long().clamp_max(table.shape[0] - 2), across.long().clamp_max(len(_CAPS) - 2)
    right, down = (across - column)[:, None], (along - row)[:, None]
    upper = table[row, column] * (1 - right) + table[row, column + 1] * right
    lower = table[row + 1, column] * (1 - right) + table[row + 1, column + 1] * right
    size, strength = (upper * (1 - down) + lower * down).exp().to(dtype).unbind(1)
    return size, strength


def _matched(profiles: Tensor) -> Tensor:  # [P,U] -> [P,caps,2]
    """Log size and log strength of the nearest Gaussian of each profile, under each cap of the strength."""
    u, sizes = _LOG_U.exp(), _LOG_SIZES.exp()
    gaussians = torch.exp(-u / (2 * sizes.square()[:, None]))  # [K,U]
    shares = profiles @ (gaussians * u).T * float(_LOG_U[1] - _LOG_U[0]) / 2  # du = u dlog u
    strengths = torch.minimum(2 * shares[:, None] / sizes.square(), _CAPS[:, None])  # [P,caps,K]
    distances = strengths.square() * sizes.square() / 2 - 2 * strengths * shares[:, None]
    best = distances.argmin(dim=2)
    return torch.stack([_LOG_SIZES[best], strengths.gather(2, best[..., None])[..., 0].log()], dim=2)


@lru_cache(maxsize=1)
def _gef_table() -> Tensor:  # [nodes,caps,2]
    exponents = (torch.linspace(-1, 1, _NODES, dtype=torch.float64) * log(4)).exp()
    table = _matched(torch.exp(-4.5 * torch.exp((_LOG_U - log(9)) * exponents[:, None])))
    table[_NODES // 2] = 0
    return table


@lru_cache(maxsize=8)
def _convex_table(points: int) -> Tensor:  # [nodes,caps,2]
    levels = border_levels(points)  # [U, samples]
    hardness = torch.linspace(log(SOFTEST), log(SHARPEST), _NODES, dtype=torch.float64).exp()
    return _matched(torch.stack([torch.sigmoid(-steep * levels).mean(dim=1) for steep in hardness]))


def border_levels(points: int) -> Tensor:  # [U, shapes * angles]
    """max_j |edge_j| x signed distance over the root of the vertex covariance's determinant, seen from afar.

    Along rays from the centroids of many hulls: both numbers change alike under any linear map of the picture, so
    that flat and long convexes need no samples of their own.
    """
    generator = keyed_generator(0, "gaussian_match.hulls", points)
    jitter = torch.randn(_SHAPES, points, 3, generator=generator, dtype=torch.float64) * _JITTER
    turns = torch.linalg.qr(torch.randn(_SHAPES, 3, 3, generator=generator, dtype=torch.float64)).Q
    corners = ((fibonacci_sphere(points).double() + jitter) @ turns)[..., :2]  # [S,K,2]
    corners = corners - corners.mean(dim=1, keepdim=True)
    covariance = corners.transpose(1, 2) @ corners / points
    angles = torch.arange(_ANGLES, dtype=torch.float64) * (2 * pi / _ANGLES)
    circle = torch.stack([angles.cos(), angles.sin()], dim=1)
    rays = circle @ torch.linalg.cholesky(covariance).transpose(1, 2)  # [S,R,2], Mahalanobis length 1
    first, second = torch.tensor(list(permutations(range(points), 2))).T  # every pair that might be an edge
    edges = corners[:, second] - corners[:, first]  # [S,E,2]
    normals = torch.stack([edges[..., 1], -edges[..., 0]], dim=2)
    offsets = -(normals * corners[:, first]).sum(dim=2)
    outside = (normals @ corners.transpose(1, 2)).amax(dim=2) + offsets  # of the corner farthest out
    offsets = torch.where(outside <= 1e-12, offsets, -torch.inf)
    slopes = rays @ normals.transpose(1, 2)  # [S,R,E]
    levels = (_LOG_U / 2).exp()[:, None, None, None] * slopes + offsets[:, None]
    return (levels.amax(dim=3) / torch.linalg.det(covariance).sqrt()[:, None]).flatten(1)


def fibonacci_sphere(points: int) -> Tensor:  # [K,3]
    """Evenly spread on the unit sphere, the first and the last at the poles."""
    index = torch.arange(points, dtype=torch.float64)
    z = 1 - 2 * index / (points - 1)
    radius, angle = (1 - z.square()).clamp_min(0).sqrt(), index * (pi * (3 - 5**0.5))
    return torch.stack([radius * angle.cos(), radius * angle.sin(), z], dim=1).float()
