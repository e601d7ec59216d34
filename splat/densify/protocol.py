"""What a densifier is: it watches, and hands out row edits. It changes nothing itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from splat.model.primitive import Ability, Primitive
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel
from splat.render.types import SplatStats


@dataclass(frozen=True)
class StepPlan:
    """How the next training step is to be taken."""

    views: int = 1
    """Pictures whose gradients are averaged into one step."""
    res_scale: float = 1.0
    """Width of the training picture over its full width."""
    optimize: bool = True
    """False keeps adding gradients without an optimizer step."""


@dataclass(eq=False)
class DensifyState:
    """What a densifier remembers between steps. The trainer owns it and stores it in checkpoints."""

    tables: dict[str, Tensor] = field(default_factory=dict)  # name -> [N,...]
    scalars: dict[str, float] = field(default_factory=dict)

    def apply(self, edit: RowEdit) -> None:
        """Move the tables as the edit moves the rows; fresh rows restart at zero."""
        self.tables = self.edited(edit)

    def edited(self, edit: RowEdit) -> dict[str, Tensor]:
        """The tables as ``apply`` would leave them; nothing changes yet."""
        return {name: edit.apply_to_stats(table) for name, table in self.tables.items()}

    def restart(self) -> None:
        """Zero all tables."""
        for name, table in self.tables.items():
            self.tables[name] = torch.zeros_like(table)


@dataclass(frozen=True)
class RefineContext:
    """What a refinement must know about the run."""

    extent_world: float
    """Scene extent, world units."""
    max_splats: int | None = None
    """Never exceed this many; None = the densifier's own limit, if it has one."""
    seed: int = 0
    total_steps: int = 30_000
    background_is_white: bool = False


class Densifier(Protocol):
    """A frozen dataclass: fields are its settings, methods its behaviour; its state is returned and passed.

    ``step`` is the number of optimizer steps done, counted from 1: after the first step, the trainer calls
    ``observe(..., 1, ...)``, ``perturb(..., 1, ...)`` and ``refine(..., 1, ...)``.
    """

    kind: ClassVar[str]
    purpose: ClassVar[str]
    """One line for ``--help``: what it does, and when to take it."""
    needs_abilities: ClassVar[frozenset[Ability]]
    """Parts of the primitive protocol it cannot work without."""
    start_settings: ClassVar[Mapping[str, float]]
    """Primitive settings this densifier was tuned with, where they differ from the primitive's defaults."""

    def needs(self, step: int) -> frozenset[str]:
        """Names of the ``SplatStats`` it wants to observe at ``step``."""
        ...

    def plan(self, step: int) -> StepPlan: ...

    def rescaled(self, factor: float) -> Densifier:
        """The same strategy with its schedule stretched by ``factor``."""
        ...

    def blocked(self, primitive: Primitive) -> str | None:
        """One sentence why it cannot train this primitive, or None."""
        ...

    def start(self, model: SplatModel) -> DensifyState: ...

    def regularizer(self, model: SplatModel) -> Tensor | None:
        """A term to add to the loss (differentiable, scalar)."""
        ...

    def observe(self, state: DensifyState, step: int, stats: SplatStats, *, width: int, height: int) -> None:
        """Take in the statistics of one backward pass over pictures of ``width x height`` px (updates ``state``)."""
        ...

    def refine(self, state: DensifyState, step: int, model: SplatModel, ctx: RefineContext) -> Iterator[RowEdit]:
        """Yield the edits due at ``step``. Whoever iterates applies each to the model, the optimizer and ``state``
        before asking for the next, so the generator always sees the rows as they are."""
        ...

    def perturb(
        self, state: DensifyState, step: int, model: SplatModel, *, lr_means: float, generator: torch.Generator
    ) -> Tensor | None:
        """What to add to the means [N,3] after the optimizer step, world units; None = nothing."""
        ...


def missing_abilities(kind: str, needed: frozenset[Ability], primitive: Primitive) -> str | None:
    """The sentence for ``blocked``: which abilities the primitive lacks."""
    missing = sorted(needed - primitive.can)
    if not missing:
        return None
    return f"densifier '{kind}' needs {', '.join(missing)} from the primitive, '{primitive.kind}' has no such thing"


def refine_is_due(step: int, *, start: int, stop: int, every: int) -> bool:
    """Strictly inside (start, stop), on the grid (reference: 600, 700 ... 14 900)."""
    return start < step < stop and step % every == 0
