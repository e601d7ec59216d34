"""Similarities [4,4] of gizmos, and which rotation a quaternion is. Pure functions; quaternions are (w, x, y, z)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np

UNTURNED = (1.0, 0.0, 0.0, 0.0)
Matrix = tuple[tuple[float, ...], ...]


def rotation(wxyz: Sequence[float]) -> np.ndarray:  # [4] -> [3,3]
    w, x, y, z = np.asarray(wxyz, np.float64) / np.linalg.norm(wxyz)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def quaternion(turn: np.ndarray) -> np.ndarray:  # [3,3] -> [4]
    """The inverse of ``rotation``, with w >= 0."""
    (a, b, c), (d, e, f), (g, h, i) = np.asarray(turn, np.float64)
    table = np.array([
        [a + e + i, h - f, c - g, d - b], [h - f, a - e - i, b + d, c + g],
        [c - g, b + d, e - a - i, f + h], [d - b, c + g, f + h, i - a - e],
    ])  # fmt: skip
    found = np.linalg.eigh(table)[1][:, -1]
    return found if found[0] >= 0 else -found


def long_axes(points: np.ndarray) -> np.ndarray:  # [P,3] -> [3,3]
    """Directions (columns, a rotation) that points spread along, in the order and with the signs that turn the world's
    axes least; the world's own for less than three points."""
    points = np.asarray(points, np.float64).reshape(-1, 3)
    if len(points) < 3:
        return np.eye(3)
    axes = np.linalg.eigh(np.cov(points.T))[1]
    order = max(permutations(range(3)), key=lambda order: sum(abs(axes[i, order[i]]) for i in range(3)))
    axes = axes[:, list(order)]
    axes = axes * np.where(np.diag(axes) < 0, -1.0, 1.0)
    if np.linalg.det(axes) < 0:
        axes[:, np.abs(np.diag(axes)).argmin()] *= -1
    return axes


def quaternion_product(left: Sequence[float], right: Sequence[float]) -> np.ndarray:  # [4]
    """Turn by ``right`` first, then by ``left``."""
    (w1, x1, y1, z1), (w2, x2, y2, z2) = left, right
    return np.array([
        w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
        w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
        w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
        w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
    ])  # fmt: skip


def euler(degrees: Sequence[float]) -> np.ndarray:  # [3,3]
    """Turn about the world's x, then y, then z axis."""
    x, y, z = np.radians(np.asarray(degrees, np.float64)) / 2
    about_x = (np.cos(x), np.sin(x), 0.0, 0.0)
    about_y = (np.cos(y), 0.0, np.sin(y), 0.0)
    about_z = (np.cos(z), 0.0, 0.0, np.sin(z))
    return rotation(quaternion_product(about_z, quaternion_product(about_y, about_x)))


def about(pivot: Sequence[float], *, turn: np.ndarray | None = None, scale: float = 1.0,
          move: Sequence[float] = (0.0, 0.0, 0.0)) -> np.ndarray:  # fmt: skip
    """Turn by ``turn [3,3]`` and scale about ``pivot [3]``, then move: [4,4], world from world."""
    linear = scale * (np.eye(3) if turn is None else np.asarray(turn, np.float64))
    pivot = np.asarray(pivot, np.float64)
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = pivot + np.asarray(move, np.float64) - linear @ pivot
    return matrix


def between(start_wxyz: Sequence[float], start: Sequence[float], wxyz: Sequence[float],
            position: Sequence[float]) -> np.ndarray:  # fmt: skip
    """What takes a gizmo from one pose (world) to another, [4,4]."""
    turn = rotation(wxyz) @ rotation(start_wxyz).T
    return about(start, turn=turn, move=np.asarray(position, np.float64) - np.asarray(start, np.float64))


def frozen(matrix: np.ndarray) -> Matrix:
    """As operations hold matrices."""
    return tuple(tuple(float(value) for value in row) for row in matrix)


def is_identity(matrix: np.ndarray) -> bool:
    return bool(np.allclose(matrix, np.eye(len(matrix)), atol=1e-9, rtol=0))
