"""Smooth drags: radial basis functions (biharmonic splines), exact at every handle."""

from __future__ import annotations

import numpy as np

from splat.edit.drag.fields import distinct, inverse

_SAME = 1e-6
"""Points nearer than this part of the whole count as one: a table with two equal rows has no inverse."""


def smooth_weights(points: np.ndarray, nodes: np.ndarray, handles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights [M,P] of the field sum_p c_p r_p + const with sum c = 0, which has the displacements given at ``points``,
    and their gradients [M,P,3]. r is the biharmonic kernel of space: of all fields through the points this one bends
    least. Its cone at the points is rounded off by a part of their spacing."""
    size = np.sqrt(((points.max(0) - points.min(0)) ** 2).sum()) or 1.0
    same = _SAME
    while True:
        try:
            return _weights(points, nodes, size, distinct(points, same * size))
        except ValueError:  # many points in a small place are nearly one, too
            same *= 10


def _weights(
    points: np.ndarray, nodes: np.ndarray, size: float, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """By the ``kept`` ones of the points; ValueError where they are too near to each other."""
    centers = points[kept]
    count = len(centers)
    round_off = 0.05 * size
    table = np.zeros((count + 1, count + 1))
    table[:count, :count] = _kernel(centers, centers, round_off)[0]
    table[:count, count] = table[count, :count] = size
    kernel, gradients = _kernel(nodes, centers, round_off)
    backward = inverse(table)[:, :count] if count > 1 else np.array([[0.0], [1 / size]])
    weights, slopes = np.zeros((len(nodes), len(points))), np.zeros((len(nodes), len(points), 3))
    weights[:, kept] = np.einsum("mc,cp->mp", kernel, backward[:count]) + size * backward[count]
    slopes[:, kept] = np.einsum("mca,cp->mpa", gradients, backward[:count])
    return weights, slopes


def _kernel(places: np.ndarray, centers: np.ndarray, round_off: float) -> tuple[np.ndarray, np.ndarray]:
    """-sqrt(r^2 + e^2) (the multiquadric, of r's kind and smooth) and its gradient by the place."""
    away = places[:, None] - centers[None]
    radius = np.sqrt((away**2).sum(axis=2) + round_off**2)
    return -radius, -away / radius[..., None]
