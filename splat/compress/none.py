"""No compression: the rows as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from splat.compress.protocol import CompressState
from splat.io.packed import Packed
from splat.model.primitive import Primitive
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel


@dataclass(frozen=True)
class NoCompression:
    """Also the base of the others: every hook that does nothing, once."""

    kind: ClassVar[str] = "none"
    purpose: ClassVar[str] = "rows stay as trained"

    def blocked(self, primitive: Primitive) -> str | None:
        return None

    def rescaled(self, factor: float) -> NoCompression:
        return self

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
