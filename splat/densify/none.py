"""No densification: the splats of the start stay, only their values change. The base of every other densifier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splat.densify.protocol import DensifyState, RefineContext, StepPlan, missing_abilities
from splat.model.primitive import Ability, Primitive
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel
from splat.render.types import SplatStats


@dataclass(frozen=True)
class Frozen:
    """Keeps every row. Every hook that does nothing stands here, once."""

    kind: ClassVar[str] = "none"
    purpose: ClassVar[str] = "keeps every row: trains the splats it starts from"
    needs_abilities: ClassVar[frozenset[Ability]] = frozenset()
    start_settings: ClassVar[Mapping[str, float]] = {}

    def needs(self, step: int) -> frozenset[str]:
        return frozenset()

    def plan(self, step: int) -> StepPlan:
        return StepPlan()

    def rescaled(self, factor: float) -> Frozen:
        return self

    def blocked(self, primitive: Primitive) -> str | None:
        return missing_abilities(self.kind, self.needs_abilities, primitive)

    def start(self, model: SplatModel) -> DensifyState:
        return DensifyState()

    def regularizer(self, model: SplatModel) -> Tensor | None:
        return None

    def observe(
        self, state: DensifyState, step: int, stats: SplatStats, *, width: int, height: int, view: int = 0,
        loss: float | Tensor = 0.0,
    ) -> None:  # fmt: skip
        """Nothing to learn."""

    def refine(self, state: DensifyState, step: int, model: SplatModel, ctx: RefineContext) -> Iterator[RowEdit]:
        yield from ()

    def maps(self, pixels: Tensor) -> Tensor | None:
        return None

    def prepared(self, xyz: Tensor, rgb: Tensor) -> tuple[Tensor, Tensor]:
        return xyz, rgb

    def perturb(
        self, state: DensifyState, step: int, model: SplatModel, *, lr_means: float, generator: torch.Generator
    ) -> Tensor | None:
        return None
