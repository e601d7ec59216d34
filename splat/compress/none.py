"""No compression: the rows as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from splat.compress.protocol import CompressState, Goal
from splat.io.packed import Packed
from splat.model.primitive import Primitive
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel

SCHEDULE_STEPS = 30_000
"""What the defaults of step-valued settings are written for."""


@dataclass(frozen=True)
class NoCompression:
    """Also the base of the others: every hook that does nothing, once."""

    kind: ClassVar[str] = "none"
    purpose: ClassVar[str] = "rows stay as trained"
    sorts: ClassVar[bool] = False
    aims: ClassVar[frozenset[Literal["size", "quality"]]] = frozenset()

    def blocked(self, primitive: Primitive) -> str | None:
        return None

    def rescaled(self, factor: float) -> NoCompression:
        return self

    def afterwards(self, steps: int) -> NoCompression:
        return self.rescaled(max(steps, 1) / SCHEDULE_STEPS)  # the whole schedule in these steps

    def aimed(self, goal: Goal) -> NoCompression:
        raise NotImplementedError(f"compressor '{self.kind}' has no goals")

    def tuned(self, model: SplatModel, goal: Goal, measure: Callable[[SplatModel], float]) -> NoCompression:
        raise NotImplementedError(f"compressor '{self.kind}' has no goals")

    def start(self, model: SplatModel, *, seed: int) -> CompressState:
        return CompressState()

    def drawn(self, state: CompressState, step: int, rows: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return rows

    def regularizer(self, state: CompressState, step: int, model: SplatModel) -> Tensor | None:
        return None

    def update(self, state: CompressState, step: int) -> None:
        """Nothing of its own to learn."""

    def edits(self, state: CompressState, step: int, model: SplatModel, *, seed: int) -> Iterator[RowEdit]:
        yield from ()

    def finished(self, state: CompressState, step: int, model: SplatModel) -> SplatModel:
        return model

    def pack(self, state: CompressState, model: SplatModel) -> Packed | None:
        return None
