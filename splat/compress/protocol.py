"""What a compressor is: it may stand between rows and picture while training, and packs the rows at the end.

During training a compressor can draw something else than the raw rows (masked, rounded, taken from a codebook), as long
as gradients pass to them; add to the loss; learn parameters of its own; and hand out row edits. It changes nothing but
its own state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from torch import Tensor

from splat.io.packed import Packed
from splat.model.primitive import Primitive
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel


@dataclass(eq=False)
class CompressState:
    """What a compressor remembers and learns. The trainer owns it, applies row edits and stores it in checkpoints."""

    rows: dict[str, Tensor] = field(default_factory=dict)  # name -> [N,...]
    """Learnable values with a row per splat; children copy their parents', like the model's own fields."""
    parameters: dict[str, Tensor] = field(default_factory=dict)
    """Learnable values without a row per splat: codebooks, tables, weights."""
    moments: dict[str, Tensor] = field(default_factory=dict)
    """Adam's, as ``first.NAME`` and ``second.NAME``, for names of ``rows`` and ``parameters`` alike."""
    scalars: dict[str, float] = field(default_factory=dict)
    held: Tensor | None = None  # [N] bool
    """Rows edited by hand, worth keeping whatever the loss says; set by the owner, and in no checkpoint of its own."""

    def edited(self, edit: RowEdit) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """``rows`` and ``moments`` as they follow the edit; nothing changes before ``take``."""
        rows = {}
        for name, table in self.rows.items():
            moved = edit.apply_to(table.detach())
            rows[name] = moved.requires_grad_(table.requires_grad)
        moments = {
            name: edit.apply_to_moments(table, name) if name.partition(".")[2] in self.rows else table
            for name, table in self.moments.items()
        }
        return rows, moments

    def take(self, edited: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
        """Go on with what ``edited`` gave."""
        self.rows, self.moments = edited

    def tensors(self) -> dict[str, Tensor]:
        """Everything a checkpoint needs beside ``scalars``, as ``rows.NAME``, ``parameters.NAME``, ``moments.NAME``."""
        groups = {"rows": self.rows, "parameters": self.parameters, "moments": self.moments}
        return {f"{group}.{name}": table for group, tables in groups.items() for name, table in tables.items()}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], scalars: Mapping[str, float]) -> CompressState:
        """What ``tensors`` gave; learnable values require gradients again."""
        groups: dict[str, dict[str, Tensor]] = {"rows": {}, "parameters": {}, "moments": {}}
        for key, table in tensors.items():
            group, _, name = key.partition(".")
            groups[group][name] = table.detach().clone()
            if group != "moments" and table.is_floating_point():
                groups[group][name].requires_grad_(True)
        return cls(groups["rows"], groups["parameters"], groups["moments"], dict(scalars))


@dataclass(frozen=True)
class Goal:
    """What a compressed file is to reach; exactly one of both is set."""

    size_bytes: int | None = None
    """At most so many, container included."""
    psnr_drop: float | None = None
    """The mean PSNR may fall by this, dB."""


class Compressor(Protocol):
    """A frozen dataclass: fields are its settings, methods its behaviour."""

    kind: ClassVar[str]
    purpose: ClassVar[str]
    """One line for ``--help``."""
    sorts: ClassVar[bool]
    """The order of rows means something to it: nobody else may sort them."""
    aims: ClassVar[frozenset[Literal["size", "quality"]]]
    """Which goals it can be given, by ``aimed`` or ``tuned``."""

    def blocked(self, primitive: Primitive) -> str | None:
        """Why it cannot work with this primitive, as a sentence naming both; None if it can."""
        ...

    def rescaled(self, factor: float) -> Compressor:
        """The same settings with their schedule stretched by ``factor``."""
        ...

    def afterwards(self, steps: int) -> Compressor:
        """The settings for ``steps`` steps on a model that is trained already; with 0 it is packed as ``start`` left
        it."""
        ...

    def aimed(self, goal: Goal) -> Compressor:
        """The same compressor for a training that is to end at ``goal``, one named in ``aims``; the goal must then be
        a setting, as configurations and checkpoints hold nothing else."""
        ...

    def tuned(self, model: SplatModel, goal: Goal, measure: Callable[[SplatModel], float]) -> Compressor:
        """Settings that reach ``goal`` on a trained model, at the best quality or the smallest size; called before
        ``start``, for goals named in ``aims``. A size binds ``pack`` too, whatever was trained in between.

        ``measure`` draws a decoded model from some views and gives its mean PSNR, dB: against the photographs, or,
        without any, against the pictures of ``model``. UserError when the goal is out of reach.
        """
        ...

    def start(self, model: SplatModel, *, seed: int) -> CompressState:
        """The state before the first step, on the model's device."""
        ...

    def drawn(self, state: CompressState, step: int, rows: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The raw rows to draw at ``step`` instead of ``rows``: the same fields and number, differentiable in ``rows``
        and in the learnable values of ``state``. ``rows`` itself where nothing is to change (costs nothing)."""
        ...

    def regularizer(self, state: CompressState, step: int, model: SplatModel) -> Tensor | None:
        """A term to add to the loss (differentiable, scalar)."""
        ...

    def update(self, state: CompressState, step: int) -> None:
        """Step the learnable values of ``state`` by their gradients and clear those; after the rows' own step."""
        ...

    def edits(self, state: CompressState, step: int, model: SplatModel, *, seed: int) -> Iterator[RowEdit]:
        """Row edits due after optimizer step ``step``, after the densifier's. The caller applies each to model and
        state before it asks for the next."""
        ...

    def finished(self, state: CompressState, step: int, model: SplatModel) -> SplatModel:
        """The model as its file will decode: what is measured, shown and exported. Shares no memory with ``model``
        where it differs from it."""
        ...

    def pack(self, state: CompressState, model: SplatModel) -> Packed | None:
        """What to write; decoding it gives ``finished`` within the tolerances that it states. None = it has no file of
        its own (the native one holds all there is)."""
        ...
