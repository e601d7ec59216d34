"""What a deformation does near a point: its gradient [3,3] taken apart into rotation and stretch; ellipsoids under it.

Everything rests on one-sided Jacobi rotations (Hestenes 1958): columns are turned against each other until they are
orthogonal. That keeps the axes where nothing stretches them, finds small ones as precisely as large ones (Demmel and
Veselic 1992), needs no library, and gives the same bits on any number of threads. All in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

MIN_STRETCH, MAX_STRETCH = 0.5, 4.0
"""How much a drag may shorten or lengthen a splat along any direction. Beyond this the surface it lies on was torn or
squeezed, and a splat drawn that long would be a needle. (The specs, viewer_editing 4.3-6, have 2: what was pulled to
three times its length then fell apart into dots; pictures of milder drags are the same. Splitting what grew instead,
into pairs of the same moments, covers what the one splat covers.)"""
_SWEEPS = 12
"""Convergence is quadratic; random matrices need 4 to 6."""
_ORTHOGONAL = 1e-9
"""Cosine of the angle between columns that counts as right."""
_TINY = 1e-150
_CHUNK = 8192
"""Rows at a time: what is in flight stays in the cache."""


def split_gradients(gradients: Tensor) -> tuple[Tensor, Tensor]:  # [N,3,3] -> [N,3,3], [N,3,3]
    """The rotation nearest to each deformation gradient, and the gradient with its stretches brought within
    ``MIN_STRETCH`` and ``MAX_STRETCH``; both float64. What turns a splat inside out is straightened: determinants are
    positive. A gradient within the limits comes back as it is."""
    pieces = [_split(chunk.detach().double()) for chunk in gradients.split(_CHUNK)]
    rotations, limited = zip(*pieces, strict=True) if pieces else ((gradients.double(),), (gradients.double(),))
    return torch.cat(rotations), torch.cat(limited)


def deformed_axes(axes: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:  # [N,3,3], [N,3,3] -> [N,3,3], [N,3]
    """Ellipsoids with half axes in the columns of ``axes``, deformed: rotation (new directions in its columns) and
    lengths. With M = F A, the covariance M M^T is that of the orthogonal columns of M V. float64."""
    pieces = [_axes(a.detach().double(), f.detach().double()) for a, f in zip(
        axes.split(_CHUNK), gradients.split(_CHUNK), strict=True)]  # fmt: skip
    if not pieces:
        return axes.double(), axes.double()[..., 0]
    rotations, lengths = zip(*pieces, strict=True)
    return torch.cat(rotations), torch.cat(lengths)


def _axes(axes: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    columns, _ = _orthogonal(_products(gradients, axes), None)
    lengths = [_dot(column, column).sqrt() for column in columns]
    first, second, third = (
        column / length.clamp_min(_TINY) for column, length in zip(columns, lengths, strict=True)
    )  # [3,n]
    third = torch.where(_dot(_cross(first, second), third) < 0, -third, third)
    return torch.stack([first, second, third]).permute(2, 1, 0), torch.stack(lengths, dim=1)


def _split(gradients: Tensor) -> tuple[Tensor, Tensor]:
    identity = list(torch.eye(3, dtype=torch.float64, device=gradients.device)[..., None].expand(3, 3, len(gradients)))
    columns, turns = _orthogonal(list(gradients.permute(2, 1, 0)), identity)
    order = torch.stack([_dot(column, column) for column in columns]).sort(dim=0, descending=True, stable=True).indices
    b1, b2, b3 = _taken(columns, order)
    v1, v2, v3 = _taken(turns, order)
    mirrored = _dot(_cross(v1, v2), v3) < 0
    b3, v3 = torch.where(mirrored, -b3, b3), torch.where(mirrored, -v3, v3)
    u1 = _unit(b1, torch.eye(3, dtype=b1.dtype, device=b1.device)[:, :1])
    u2 = _unit(b2 - _dot(b2, u1) * u1, _perpendicular(u1), least=1e-9 * _dot(b1, b1).sqrt())
    u3 = _cross(u1, u2)
    stretches = [_dot(u, b) for u, b in zip((u1, u2, u3), (b1, b2, b3), strict=True)]
    within = torch.stack([(s >= MIN_STRETCH) & (s <= MAX_STRETCH) for s in stretches]).all(dim=0)
    limits = [s.clamp(MIN_STRETCH, MAX_STRETCH) for s in stretches]
    rotations = _outer(u1, v1) + _outer(u2, v2) + _outer(u3, v3)
    limited = _outer(u1 * limits[0], v1) + _outer(u2 * limits[1], v2) + _outer(u3 * limits[2], v3)
    rotations, limited = rotations.permute(2, 0, 1), limited.permute(2, 0, 1)
    return rotations, torch.where(within[:, None, None], gradients, limited)


def _orthogonal(columns: list[Tensor], turns: list[Tensor] | None) -> tuple[list[Tensor], list[Tensor]]:
    """Columns [3,n] of M V, and with ``turns`` (columns of the identity) those of V."""
    columns, turns = list(columns), list(turns or [])
    for _ in range(_SWEEPS):
        done = True
        for i, j in ((0, 1), (0, 2), (1, 2)):
            a, b, g = _dot(columns[i], columns[i]), _dot(columns[j], columns[j]), _dot(columns[i], columns[j])
            skewed = g.abs() > _ORTHOGONAL * (a * b).sqrt()
            if not bool(skewed.any()):
                continue
            done = False
            zeta = (b - a) / torch.where(skewed, 2 * g, 1.0)
            tangent = torch.where(zeta < 0, -1.0, 1.0) / (zeta.abs() + (1 + zeta * zeta).sqrt())
            tangent = torch.where(skewed, tangent, 0.0)
            cosine = 1 / (1 + tangent * tangent).sqrt()
            sine = cosine * tangent
            for table in (columns, turns) if turns else (columns,):
                x, y = table[i], table[j]
                table[i], table[j] = cosine * x - sine * y, sine * x + cosine * y
        if done:
            break
    return columns, turns


def _products(left: Tensor, right: Tensor) -> list[Tensor]:
    """Columns [3,n] of left @ right, written out."""
    a, b = left.permute(1, 2, 0), right.permute(1, 2, 0)  # [row,column,n]
    return [a[:, 0] * b[0, j] + a[:, 1] * b[1, j] + a[:, 2] * b[2, j] for j in range(3)]


def _dot(a: Tensor, b: Tensor) -> Tensor:  # [3,n], [3,n] -> [n]
    p = a * b
    return p[0] + p[1] + p[2]


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def _outer(a: Tensor, b: Tensor) -> Tensor:  # [3,n], [3,n] -> [3,3,n]
    return a[:, None] * b[None]


def _unit(vectors: Tensor, otherwise: Tensor, least: Tensor | float = _TINY) -> Tensor:
    length = _dot(vectors, vectors).sqrt()
    return torch.where(length > least, vectors / length.clamp_min(_TINY), otherwise)


def _perpendicular(units: Tensor) -> Tensor:
    """Some unit vector at right angles to each."""
    axis = torch.zeros_like(units).scatter_(0, units.abs().argmin(dim=0, keepdim=True), 1.0)
    across = _cross(units, axis)
    return across / _dot(across, across).sqrt()


def _taken(columns: list[Tensor], order: Tensor) -> Tensor:
    """Columns in another order per row: [3 columns,3,n]."""
    return torch.stack(columns).gather(0, order[:, None].expand(-1, 3, -1))
