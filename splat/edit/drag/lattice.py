"""Lattice drags: a cage of 4 x 4 x 4 control points over the box of what is dragged, bent as little as handles allow
(free-form deformation: Sederberg and Parry 1986)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from splat.edit.drag.fields import inverse, reach_of

_STRICT, _NEAR = 1e6, 1e3
"""Weights of a handle's middle, and of what is around it and what stays (which the softness of rows sees to), over that
of bending."""
_REST = 1e-6
"""Weight of not moving at all, which settles what is left open."""
_MOST_REACH = 8.0
"""A cage that would go further than this times what handles ask for is told less strictly: it cannot follow handles
that part within one of its cells, and would be thrown far beyond them."""
_LEAST_STRICT = 1e-3
"""Of both weights above; so told it hardly bends."""
_THINNEST = 0.25
"""Least side of the box over its longest one: a cage around a sheet must not fold."""


def lattice_spread(low: np.ndarray, high: np.ndarray) -> Callable:
    """The spread of a cage over the box from ``low [3]`` to ``high [3]``, which is not a point (``fields.Spread``).
    Handles' middles are met unless there are more than the cage can follow, what is around them in the sense of least
    squares."""

    def spread(points: np.ndarray, nodes: np.ndarray, handles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = np.maximum(high - low, _THINNEST * (high - low).max())
        origin = (low + high - size) / 2
        here, _ = _basis((points - origin) / size)
        weights = np.where(np.arange(len(points)) <= handles.max(), _STRICT, _NEAR)
        values, slopes = _basis((nodes - origin) / size)
        while True:
            controls = _controls(here, weights)
            spread_by = np.einsum("mc,cp->mp", values, controls)
            if reach_of(spread_by, handles) <= _MOST_REACH or weights.max() <= _LEAST_STRICT:
                return spread_by, np.einsum("mca,cp->mpa", slopes / size, controls)
            weights = np.minimum(weights, weights.max() / 10)

    return spread


def _controls(here: np.ndarray, weights: np.ndarray) -> np.ndarray:  # [P,64], [P] -> [64,P]
    """Control points by displacements of points that lie ``here`` in the cage."""
    strict = weights[:, None] * here
    matrix = np.einsum("pc,pd->cd", strict, here)
    # Points far beyond the cage are long levers: beside them the rest would be lost in rounding.
    matrix = matrix + _bending() + (_REST + 1e-12 * np.abs(matrix).max()) * np.eye(64)
    return np.einsum("cd,pd->cp", inverse(matrix), strict)


def _basis(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [M,3] in units of the box -> [M,64], [M,64,3]
    """Products of cubic Bernstein polynomials; beyond the box they go on along their tangents."""
    inside = places.clip(0, 1)
    t, s = inside, 1 - inside
    polynomials = np.stack([s**3, 3 * t * s**2, 3 * t**2 * s, t**3], axis=2)  # [M,3,4]
    slopes = np.stack([-3 * s**2, 3 * s**2 - 6 * t * s, 6 * t * s - 3 * t**2, 3 * t**2], axis=2)
    polynomials = polynomials + slopes * (places - inside)[..., None]
    values = np.einsum("mi,mj,mk->mijk", *polynomials.transpose(1, 0, 2)).reshape(len(places), 64)
    parts = []
    for axis in range(3):
        factors = [slopes[:, a] if a == axis else polynomials[:, a] for a in range(3)]
        parts.append(np.einsum("mi,mj,mk->mijk", *factors).reshape(len(places), 64))
    return values, np.stack(parts, axis=2)


def _bending() -> np.ndarray:  # [64,64]
    """Sum of the squared second differences of the control points along every axis and across pairs of axes."""
    second = np.array([[1.0, -2, 1, 0], [0, 1, -2, 1]])
    first = np.array([[-1.0, 1, 0, 0], [0, -1, 1, 0], [0, 0, -1, 1]])
    total = np.zeros((64, 64))
    for axis in range(3):
        factors = [second if a == axis else np.eye(4) for a in range(3)]
        rows = np.einsum("ai,bj,ck->abcijk", *factors).reshape(-1, 64)
        total += np.einsum("ri,rj->ij", rows, rows)
        factors = [np.eye(4) if a == axis else first for a in range(3)]
        rows = np.einsum("ai,bj,ck->abcijk", *factors).reshape(-1, 64)
        total += 2 * np.einsum("ri,rj->ij", rows, rows)
    return total
