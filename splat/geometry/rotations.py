"""Rotations as quaternions (w, x, y, z) and matrices, and similarity transforms taken apart."""

from __future__ import annotations

import torch
from torch import Tensor

from splat.errors import UserError

_MIN_NORM = 1e-12


def normalized_quats(quats: Tensor) -> Tensor:  # [...,4] -> [...,4]
    """Unit quaternions; a zero quaternion stays zero, which every formula here reads as "no rotation"."""
    w, x, y, z = quats.unbind(-1)
    norms = (w * w + x * x + y * y + z * z).sqrt()
    return quats / norms.clamp_min(_MIN_NORM)[..., None]


def matrix_from_quat(quats: Tensor) -> Tensor:  # [...,4] -> [...,3,3]
    """Rotation matrices of quaternions of any length."""
    w, x, y, z = normalized_quats(quats).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def quat_from_matrix(matrices: Tensor) -> Tensor:  # [...,3,3] -> [...,4]
    """Unit quaternions with w >= 0.

    Four formulas exist, each dividing by one component; the row with the largest component is taken, so
    nothing is ever divided by less than 1/2 (Shepperd 1978).
    """
    m = matrices
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    # Row i holds 4 * q_i * (w, x, y, z).
    products = torch.stack(
        [
            torch.stack([1 + m00 + m11 + m22, wx, wy, wz], dim=-1),
            torch.stack([wx, 1 + m00 - m11 - m22, xy, xz], dim=-1),
            torch.stack([wy, xy, 1 - m00 + m11 - m22, yz], dim=-1),
            torch.stack([wz, xz, yz, 1 - m00 - m11 + m22], dim=-1),
        ],
        dim=-2,
    )
    largest = products.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    index = largest[..., None, None].expand(*largest.shape, 1, 4)
    quats = normalized_quats(products.gather(-2, index).squeeze(-2))
    return torch.where(quats[..., :1] < 0, -quats, quats)


def quat_product(left: Tensor, right: Tensor) -> Tensor:  # [...,4], [...,4] -> [...,4]
    """Hamilton product: rotate by ``right`` first, then by ``left``. Lengths multiply."""
    w1, x1, y1, z1 = left.unbind(-1)
    w2, x2, y2, z2 = right.unbind(-1)
    return torch.stack(
        [
            w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
            w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
            w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
            w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
        ],
        dim=-1,
    )


def rotated(matrices: Tensor, vectors: Tensor) -> Tensor:  # [N,3,3], [N,3] -> [N,3]
    """Matrix times vector per row, written out so that the order of additions never depends on a library."""
    x, y, z = vectors[:, None, 0], vectors[:, None, 1], vectors[:, None, 2]
    return matrices[:, :, 0] * x + matrices[:, :, 1] * y + matrices[:, :, 2] * z


def split_similarity(similarity: Tensor) -> tuple[float, Tensor, Tensor]:  # [4,4] -> scale, [3,3], [3]
    """Scale, rotation and translation of a similarity, in float64. Mirrors and uneven scales are refused."""
    matrix = torch.as_tensor(similarity, dtype=torch.float64)
    if matrix.shape != (4, 4) or not torch.isfinite(matrix).all():
        raise UserError(f"similarity must be a finite 4x4 matrix, got shape {tuple(matrix.shape)}")
    linear, translation = matrix[:3, :3], matrix[:3, 3]
    determinant = float(torch.linalg.det(linear))
    if determinant <= 0 or not torch.equal(matrix[3], matrix.new_tensor([0, 0, 0, 1])):
        raise UserError(
            f"similarity must be rotation x positive scale + translation, got determinant {determinant:.3g} "
            f"and last row {matrix[3].tolist()}"
        )
    scale = determinant ** (1 / 3)
    rotation = linear / scale
    if not torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-5):
        raise UserError("similarity must scale all axes alike, got an uneven or sheared matrix")
    return scale, rotation, translation
