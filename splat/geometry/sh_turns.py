"""Colour fields turned row by row: every splat by a rotation of its own (``sh.rotated_sh`` is for one rotation of all).

A field turned by R has, in direction n, the value that it had in R^T n. A band has 2 l + 1 functions, so its values in
as many fixed directions say all: they are looked up at R^T n, and the inverse of the fixed table turns them back into
coefficients. Written out term by term, so that the bits do not depend on the number of threads.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from splat.geometry.sh import degree_of_coefficients, sh_basis

_DIRECTIONS = (
    (-0.87, -0.2, 0.44), (-0.04, 0.14, 0.99), (-0.34, 0.8, -0.49), (0.92, -0.39, 0.08), (-0.59, 0.54, 0.6),
    (0.23, 0.63, 0.74), (0.57, -0.22, 0.79),
)  # fmt: skip
"""Before they are made unit. Band l takes the first 2 l + 1. Found by a random search for small condition numbers of
the tables: 1.9, 2.3 and 2.5."""
_CHUNK = 8192
"""Rows at a time: what is in flight stays in the cache."""


def turned_sh(sh_rest: Tensor, rotations: Tensor) -> Tensor:  # [N,K-1,3], [N,3,3] -> [N,K-1,3]
    """Coefficients of each row's colours turned by its own rotation (degree 0 never changes); worked out in float64.

    ``rotations`` must be proper rotations: for others a band is no longer a band.
    """
    degree = degree_of_coefficients(sh_rest.shape[1] + 1)
    if degree == 0 or sh_rest.shape[0] == 0:
        return sh_rest.clone()
    pieces = zip(sh_rest.split(_CHUNK), rotations.split(_CHUNK), strict=True)
    return torch.cat([_turned(rest.double(), turns.double(), degree).to(sh_rest.dtype) for rest, turns in pieces])


def _turned(rest: Tensor, rotations: Tensor, degree: int) -> Tensor:
    directions = _unit_directions()[: 2 * degree + 1].tolist()
    columns = rotations.unbind(1)  # rows of R, that is, columns of R^T: [n,3] each
    seen = [sh_basis(columns[0] * x + columns[1] * y + columns[2] * z, degree)[..., None] for x, y, z in directions]
    turned = []
    for band in range(1, degree + 1):
        first, size = band * band, 2 * band + 1
        coefficients = [rest[:, first - 1 + i] for i in range(size)]  # [n,3] each
        values = [_sum([basis[:, first + i] * c for i, c in enumerate(coefficients)]) for basis in seen[:size]]
        turned += [_sum([value * w for value, w in zip(values, row, strict=True)]) for row in _inverse(band)]
    return torch.stack(turned, dim=1)


def _sum(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


@cache
def _unit_directions() -> Tensor:  # [7,3] float64
    directions = torch.tensor(_DIRECTIONS, dtype=torch.float64)
    return directions / directions.norm(dim=1, keepdim=True)


@cache
def _inverse(band: int) -> list[list[float]]:  # [2l+1][2l+1]
    """From values in the fixed directions to coefficients."""
    table = sh_basis(_unit_directions()[: 2 * band + 1], band)[:, band * band :]
    return torch.linalg.inv(table).tolist()
