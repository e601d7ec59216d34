"""The model at one moment, for readers on other threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from splat.geometry.camera import Camera
from splat.model.labels import Labels
from splat.model.splat_model import SplatModel


class KeptPixels(Protocol):
    """What edits by hand leave of the photographs; a value, never changed."""

    def kept(self, view: int, camera: Camera, width: int, height: int) -> Tensor | None:  # [height,width] bool
        """Pixels that no edit contradicts, at any size; None = all. ``view`` is the place among the training views,
        ``camera`` its full one."""
        ...


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Shares no memory with what is being trained; nobody changes it."""

    model: SplatModel
    labels: Labels
    step: int
    version: int
    """Rises with every step and every edit: two snapshots of one version show the same rows."""
    protection: KeptPixels | None = None
    """What training leaves out of its photographs for the sake of edits by hand; None = nothing."""
