"""Real spherical harmonics up to degree 3: basis, colours and exact rotation.

Order and signs are those of 3DGS files: degree 1 is (-y, z, -x), and so on (specs: primitives 1.4).
"""

from __future__ import annotations

from math import pi, sqrt

import torch
from torch import Tensor

MAX_DEGREE = 3

C0 = 0.5 / sqrt(pi)
C1 = sqrt(3 / (4 * pi))
C2 = (sqrt(15 / (4 * pi)), -sqrt(15 / (4 * pi)), sqrt(5 / (16 * pi)), -sqrt(15 / (4 * pi)), sqrt(15 / (16 * pi)))
C3 = (
    -sqrt(35 / (32 * pi)), sqrt(105 / (4 * pi)), -sqrt(21 / (32 * pi)), sqrt(7 / (16 * pi)),
    -sqrt(21 / (32 * pi)), sqrt(105 / (16 * pi)), -sqrt(35 / (32 * pi)),
)  # fmt: skip


def coefficients_of_degree(degree: int) -> int:
    """K: coefficients per channel when bands 0..degree are stored."""
    return (degree + 1) ** 2


def degree_of_coefficients(count: int) -> int:
    """Inverse of ``coefficients_of_degree``; ValueError when ``count`` is no square or above degree 3."""
    for degree in range(MAX_DEGREE + 1):
        if coefficients_of_degree(degree) == count:
            return degree
    raise ValueError(f"{count} SH coefficients belong to no degree; use one of 1, 4, 9, 16")


def sh_basis(directions: Tensor, degree: int) -> Tensor:  # [...,3] unit -> [...,K]
    """Values of the basis functions in given directions."""
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, C0)]
    if degree >= 1:
        values += [-C1 * y, C1 * z, -C1 * x]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        values += [
            C2[0] * x * y, C2[1] * y * z, C2[2] * (2 * zz - xx - yy), C2[3] * x * z, C2[4] * (xx - yy),
        ]  # fmt: skip
    if degree >= 3:
        values += [
            C3[0] * y * (3 * xx - yy),
            C3[1] * x * y * z,
            C3[2] * y * (4 * zz - xx - yy),
            C3[3] * z * (2 * zz - 3 * xx - 3 * yy),
            C3[4] * x * (4 * zz - xx - yy),
            C3[5] * z * (xx - yy),
            C3[6] * x * (xx - 3 * yy),
        ]
    return torch.stack(values, dim=-1)


def sh_colors(sh0: Tensor, sh_rest: Tensor, directions: Tensor, degree: int) -> Tensor:
    """Colours seen along unit ``directions [N,3]`` (splat minus camera): max(0, SH + 1/2), [N,3].

    ``sh0 [N,3]``, ``sh_rest [N,K-1,3]``; bands above ``degree`` are left out.
    """
    basis = sh_basis(directions, degree)
    higher = basis.shape[-1] - 1
    color = basis[:, :1] * sh0
    if higher:
        color = color + (basis[:, 1:, None] * sh_rest[:, :higher]).sum(dim=1)
    return (color + 0.5).clamp_min(0)


def sh0_from_rgb(rgb: Tensor) -> Tensor:
    """Degree-0 coefficients that show ``rgb`` in [0,1] from everywhere."""
    return (rgb - 0.5) / C0


def rgb_from_sh0(sh0: Tensor) -> Tensor:
    return sh0 * C0 + 0.5


def band_rotation(rotation: Tensor, band: int) -> Tensor:  # [3,3] -> [2*band+1, 2*band+1]
    """Matrix that turns one band's coefficients: ``basis(d) @ (M @ c) == basis(rotation.T @ d) @ c``.

    A rotation maps a band onto itself, so a least-squares fit on more directions than functions is exact
    up to rounding; it is solved in float64.
    """
    directions = _spread_directions(4 * (2 * band + 1))
    columns = slice(band * band, (band + 1) ** 2)
    here = sh_basis(directions, band)[:, columns]
    there = sh_basis(directions @ rotation.to(torch.float64).cpu(), band)[:, columns]
    return torch.linalg.lstsq(here, there).solution


def rotated_sh(sh_rest: Tensor, rotation: Tensor) -> Tensor:  # [N,K-1,3], [3,3] -> [N,K-1,3]
    """Coefficients of the colour field turned by ``rotation`` (degree 0 never changes)."""
    degree = degree_of_coefficients(sh_rest.shape[1] + 1)
    bands = []
    for band in range(1, degree + 1):
        matrix = band_rotation(rotation, band).to(sh_rest)
        bands.append(torch.einsum("ij,njc->nic", matrix, sh_rest[:, band * band - 1 : (band + 1) ** 2 - 1]))
    return torch.cat(bands, dim=1) if bands else sh_rest.clone()


def _spread_directions(count: int) -> Tensor:  # [count,3] float64
    """Nearly even directions on the sphere (Fibonacci lattice)."""
    index = torch.arange(count, dtype=torch.float64)
    z = 1 - (2 * index + 1) / count
    angle = index * pi * (3 - sqrt(5))
    radius = (1 - z * z).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), z], dim=-1)
