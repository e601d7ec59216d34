"""Raw values of splats that were moved: by one similarity for all, or each by its own deformation."""

from __future__ import annotations

import torch
from torch import Tensor

from splat.model.splat_model import SplatModel


def moved_values(model: SplatModel, rows: Tensor, similarity: Tensor) -> dict[str, Tensor]:
    """Rows ``rows [R]`` after a similarity [4,4]: raw fields [R,...] that change, none for the identity. The Mip 3D
    filter is not among them (times the scale, if the caller keeps one).

    Raises:
        UserError: for a matrix that is no rotation, positive scale and translation.
    """
    before = {name: table.detach()[rows] for name, table in model.rows.items()}
    similarity = torch.as_tensor(similarity, dtype=torch.float64)
    after = model.primitive.transformed(before, similarity)
    if torch.equal(similarity, torch.eye(4, dtype=torch.float64)):
        return {}
    return {name: table for name, table in after.items() if not torch.equal(table, before[name])}


def deformed_values(model: SplatModel, rows: Tensor, means: Tensor, gradients: Tensor) -> dict[str, Tensor]:
    """Rows ``rows [R]`` carried to ``means [R,3]`` and deformed by ``gradients [R,3,3]`` (the Jacobian of the new place
    by the old one): raw fields [R,...] that change. Stretches are limited (``geometry.deformation``)."""
    before = {name: table.detach()[rows] for name, table in model.rows.items()}
    return model.primitive.deformed(before, means, gradients)
