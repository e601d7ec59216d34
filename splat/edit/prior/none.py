"""No prior: the geometric energy alone says where splats go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from splat.edit.prior.protocol import EditView
from splat.edit.prior.weights import WeightSpec


@dataclass(frozen=True)
class NoPrior:
    kind: ClassVar[str] = "none"
    purpose: ClassVar[str] = "geometry alone; needs no weights"
    looks: ClassVar[bool] = False

    def needs(self) -> tuple[WeightSpec, ...]:
        return ()

    def prepare(
        self, views: Sequence[EditView], handles: Tensor, targets: Tensor, *, folder: Path | None,
        device: torch.device, seed: int,
    ) -> NoGuidance:  # fmt: skip
        return NoGuidance()


class NoGuidance:
    def loss(self, render: Tensor, view_ids: Sequence[int], progress: float) -> tuple[Tensor, Mapping[str, float]]:
        return render.sum() * 0, {}
