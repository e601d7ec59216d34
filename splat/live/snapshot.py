"""The model at one moment, for readers on other threads."""

from __future__ import annotations

from dataclasses import dataclass

from splat.model.labels import Labels
from splat.model.splat_model import SplatModel


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Shares no memory with what is being trained; nobody changes it."""

    model: SplatModel
    labels: Labels
    step: int
    version: int
    """Rises with every step and every edit: two snapshots of one version show the same rows."""
