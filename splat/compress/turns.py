"""An ellipsoid's axes can be named in 24 ways. The one that needs the least turn saves bits, and changes no picture."""

from __future__ import annotations

import torch
from torch import Tensor

from splat.compress.fake_quant import one_sign
from splat.geometry.rotations import matrix_from_quat, quat_product

_SLACK = 0.05
"""A name that is hardly worse stays, so that what was rounded keeps its own."""


def least_turned(quats: Tensor, log_scales: Tensor) -> tuple[Tensor, Tensor]:  # [N,4], [N,3] -> the same
    """The same ellipsoids with their axes renamed: quaternions (w,x,y,z) of length 1 with the largest w there is.

    R S^2 R^T = (R P)(P^T S^2 P)(R P)^T for the 24 turns P of a cube, each of which only permutes axes. All components
    but w are then below 0.41, where they could be 0.71, and w is the largest: log2(24) = 4.6 bits less per splat.
    """
    unit = one_sign(quats)
    turns = _cube_turns().to(unit)  # [24,4]
    conjugate = turns * turns.new_tensor([1.0, -1.0, -1.0, -1.0])
    w = (unit[:, None, :] * conjugate[None]).unbind(2)
    real = (w[0] + w[1] + w[2] + w[3]).abs()  # [N,24] |w| of q p
    best = real.argmax(1) if len(real) else real.new_zeros(0, dtype=torch.int64)
    chosen = torch.where(real[:, 0] >= real.amax(1) - _SLACK, 0, best) if len(real) else best
    axes = _axes(turns)[chosen]  # [N,3]
    return one_sign(quat_product(unit, turns[chosen])), log_scales.gather(1, axes)


def _cube_turns() -> Tensor:  # [24,4] float64, no turn first
    """Unit quaternions, one of each pair of signs."""
    found: list[tuple[float, ...]] = []
    for w in (1.0, 0.0, -1.0):
        for x in (1.0, 0.0, -1.0):
            for y in (1.0, 0.0, -1.0):
                for z in (1.0, 0.0, -1.0):
                    parts = (w, x, y, z)
                    first = next((part for part in parts if part), 0.0)
                    if first > 0 and sum(map(abs, parts)) in (1, 2, 4):
                        found.append(parts)
    found.sort(key=lambda parts: (sum(map(abs, parts)), tuple(-part for part in parts)))
    turns = torch.tensor(found, dtype=torch.float64)
    return turns / turns.norm(dim=1, keepdim=True)


def _axes(turns: Tensor) -> Tensor:  # [24,4] -> [24,3] int64
    """Which old axis each new one is: the row of the only entry in each column of the matrix."""
    return matrix_from_quat(turns).abs().argmax(1)
