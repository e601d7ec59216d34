"""Moving a whole model: back to the capture's own frame on export, or by hand in the editor."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from splat.geometry.rotations import split_similarity
from splat.model.splat_model import SplatModel


def transformed(model: SplatModel, similarity: Tensor) -> SplatModel:
    """A new model moved by ``similarity [4,4]`` (to_from = target frame from model frame); the old one is untouched."""
    scale, _, _ = split_similarity(similarity)
    filter3d = None if model.filter3d is None else model.filter3d * scale
    return replace(model, rows=model.primitive.transformed(model.rows, similarity), filter3d=filter3d)
