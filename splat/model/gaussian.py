"""The classic primitive: one anisotropic 3D Gaussian per row (Kerbl et al. 2023; specs: primitives 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from splat.model.gaussian_family import GaussianFamily


@dataclass(frozen=True)
class GaussianPrimitive(GaussianFamily):
    """Settings of 3D Gaussians."""

    kind: ClassVar[str] = "gaussian"
    purpose: ClassVar[str] = "3D Gaussians: the fastest, and what every viewer and every file format knows"
    export: ClassVar[Literal["exact", "lossy"]] = "exact"
