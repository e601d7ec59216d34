"""What a densifier is: it watches, and hands out row edits. It changes nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from splat.geometry.camera import Camera
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
    stride: int = 1
    """Draw and compare only every ``stride``-th pixel of every ``stride``-th row. The trainer draws the offsets; the
    screen filter's variance shrinks by ``stride**2``, so each drawn pixel is what the full picture has there."""
    maps: bool = False
    """Hand the view's ``maps`` to the rasterizer, for ``weighted_count``, ``weighted_blend`` and ``texgrad``."""
    lr_scale: float = 1.0
    """Factor on all learning rates."""


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


@dataclass(frozen=True, eq=False)
class Look:
    """A training view as the model draws it now, without gradients."""

    stats: SplatStats
    """Those asked for, of one view: [1,N]."""
    color: Tensor  # [H,W,3], with the background
    target: Tensor  # [H,W,3] in 0..1
    alpha: Tensor  # [H,W]
    depth: Tensor  # [H,W] expected depth over alpha, world units; 0 where nothing is drawn
    width: int
    height: int
    mask: Tensor | None = None  # [H,W] in 0..1; None = the whole picture counts


Objective = Literal["sum", "ssim"]


class Probe(Protocol):
    """A refinement's own look at the training views, at the size training uses now. The same arguments give the same
    bits; each look costs one forward pass (two with ``maps``)."""

    count: int
    """Training views."""

    def look(
        self,
        view: int,
        *,
        stats: frozenset[str],
        maps: Callable[[Tensor, Tensor], Tensor] | None = None,
        background: Tensor | None = None,
    ) -> Look:
        """Draw training view ``view`` with statistics of the forward pass.

        ``maps(color [H,W,3], target [H,W,3] in 0..1) -> [M,H,W]`` (M <= 4) sees a first drawing; what it returns
        weighs the pixels of a second one, which fills ``stats``. ``background [3]``: None = the view's own, black
        where training draws colours at random.
        """
        ...

    def look_gradient(self, view: int, *, stats: frozenset[str], loss: Objective = "sum") -> Look:
        """The same with the statistics of a backward pass from ``loss``: the ``sum`` over the picture (for
        ``sensitivity``), or ``ssim``, 1 - SSIM against the photograph; leaves no gradient in the rows."""
        ...


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
    probe: Probe | None = None
    """Looks at training views; None where there are none to look at (a densifier must do without)."""
    cameras: tuple[Camera, ...] = ()
    """The training cameras at full size, by place among the training views."""
    priors: Any = None
    """Depth priors of the training views (``geosplit.Priors``), or None."""


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

    def observe(
        self,
        state: DensifyState,
        step: int,
        stats: SplatStats,
        *,
        width: int,
        height: int,
        view: int = 0,
        loss: float | Tensor = 0.0,
    ) -> None:
        """Take in the statistics of one backward pass over pictures of ``width x height`` px (updates ``state``).

        Called for every view drawn, whether statistics were asked for or not.

        ``view`` is the place among the training views, ``loss`` this view's own (detached; on a GPU it stays there).
        With a stride, ``width x height`` is the strided picture, and lengths in px are of its pixels.
        """
        ...

    def refine(self, state: DensifyState, step: int, model: SplatModel, ctx: RefineContext) -> Iterator[RowEdit]:
        """Yield the edits due at ``step``. Whoever iterates applies each to the model, the optimizer and ``state``
        before asking for the next, so the generator always sees the rows as they are."""
        ...

    def maps(self, pixels: Tensor) -> Tensor | None:
        """Pixel maps [M,H,W] in 0..1, M <= 4, of a training picture [H,W,3] uint8, for steps whose plan asks for them;
        None = none. The trainer keeps them with 8 bits, so this runs once per view and size."""
        ...

    def prepared(self, xyz: Tensor, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """The points [P,3] and colours [P,3] (0..1) that rows start from, given those of the capture."""
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
