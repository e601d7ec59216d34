"""Everything a run carries from one step to the next: what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from splat.compress.protocol import CompressState
from splat.densify.protocol import DensifyState
from splat.edit.protection import Protection
from splat.model.labels import HELD, Labels
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel
from splat.optim.adam import SplatAdam


@dataclass(eq=False)
class TrainState:
    """The trainer owns and changes it; a sink may read it while it handles an event."""

    model: SplatModel
    adam: SplatAdam
    densify: DensifyState
    step: int = 0
    """Steps taken."""
    views_taken: int = 0
    """Views drawn from the camera order."""
    views_pending: int = 0
    """Views whose gradients lie in the rows, waiting for an optimizer step."""
    elapsed_secs: float = 0.0
    """Wall time of the run without pauses, all its parts together."""
    view_mse: Tensor | None = None  # [V] float64
    """Mean squared error of the last visit of every training view, NaN before the first, -1 where none of its pixels
    counts; None where no target asks."""
    compress: CompressState = field(default_factory=CompressState)
    labels: Labels = None  # type: ignore[assignment]
    """A row per splat; made anew where none are given."""
    changes: dict[str, Any] = field(default_factory=dict)
    """What ``Change`` commands set, by name: in force instead of the configuration."""
    protection: Protection = field(default_factory=Protection)
    """What edits by hand ask of the rest of the run."""
    edits_done: int = 0
    """Operations of the edit log that these rows show; whoever edits counts them."""
    version: int = 0
    """Rises with every step, every edit and every other order that changes what a checkpoint holds, in this process."""
    resting: Tensor | None = None  # [N] bool
    """Rows that training views show but where they contradict an edit: no photograph speaks for them, and what pulls at
    all rows alike would wear them away."""
    _held: tuple[Labels, Tensor | None, Tensor | None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.labels is None:
            self.labels = Labels.start(self.model.count, self.model.device)

    @property
    def held(self) -> Tensor | None:  # [N] bool
        """Rows that training leaves as they are: edited by hand, or resting. None when there are none."""
        known = self._held
        if known is None or known[0] is not self.labels or known[1] is not self.resting:
            rows = self.labels.having(HELD)
            rows = rows if self.resting is None else rows | self.resting
            self._held = known = self.labels, self.resting, rows if bool(rows.any()) else None  # waits for a GPU: once
            self.compress.held = known[2]
        return known[2]

    def learnables(self) -> list[Tensor]:
        """Every table that a backward pass may leave a gradient in."""
        return [*self.model.rows.values(), *self.compress.rows.values(), *self.compress.parameters.values()]

    def taken(self, rows: Tensor) -> dict[str, Tensor]:
        """See ``live.commands.Rows``."""
        return {name: table[rows].clone() for name, table in self._tables().items()}

    def apply(self, edit: RowEdit, *, during: int | None = None) -> None:
        """The same row edit to every table that has a row per splat; to none of them if memory runs out on the way.
        Rows that are held afterwards have no moments and no waiting gradients. ``during``: the step that makes the
        edit, where it is not counted yet."""
        edit.check_count(self.model.count)
        labels = self.labels.edited(edit, self.step if during is None else during)
        first, second = (_restored(edit, tables, f"adam.{part}.")
                         for part, tables in zip(("first", "second"), self.adam.edited(edit), strict=True))  # fmt: skip
        tables = _restored(edit, self.densify.edited(edit), "densify.")
        rows, moments = self.compress.edited(edit)
        rows = {name: edit.restored(table.detach(), f"compress.rows.{name}").requires_grad_(table.requires_grad)
                for name, table in rows.items()}  # fmt: skip
        moments = _restored(edit, moments, "compress.moments.")
        grads = _edited_grads(edit, self.model.rows, "grads.")
        own_grads = _edited_grads(edit, self.compress.rows, "compress.grads.")
        resting = None if self.resting is None else edit.apply_to(self.resting)
        self.model.apply(edit)
        if self.model.filter3d is not None:
            self.model.filter3d = edit.restored(self.model.filter3d, "filter3d")
        self.adam.take((first, second))
        self.densify.tables = tables
        self.compress.take((rows, moments))
        for own, waiting in ((self.model.rows, grads), (self.compress.rows, own_grads)):
            for name, grad in waiting.items():
                own[name].grad = grad
        self.labels, self.resting = labels, resting
        self.version += 1
        if self.held is not None and "labels.flags" in edit.tables:
            self._calm()

    @contextmanager
    def rest(self) -> Iterator[None]:
        """What happens inside leaves resting rows as they are, moments included."""
        if self.resting is None:
            yield
            return
        rows = self.resting.nonzero().squeeze(1)
        before = {name: table[rows].clone() for name, table in self._stepped().items()}
        yield
        for name, table in self._stepped().items():
            table[rows] = before.get(name, 0)  # moments may have begun meanwhile

    def still(self) -> None:
        """Held rows feel no gradient."""
        if self.held is not None:
            for table in self.learnables():
                if table.grad is not None and self._is_per_row(table):
                    table.grad[self.held] = 0

    def _calm(self) -> None:
        """Rows edited by hand start afresh if they are ever let go; without moments they take steps of size zero."""
        edited = self.labels.having(HELD)
        for table in self._moments().values():
            table[edited] = 0
        self.still()

    def _is_per_row(self, table: Tensor) -> bool:
        return any(table is own for own in (*self.model.rows.values(), *self.compress.rows.values()))

    def _moments(self) -> dict[str, Tensor]:
        own = self.compress.rows
        adam = {f"adam.{part}.{name}": table for name in self.adam.names
                for part, table in zip(("first", "second"), self.adam.moments(name), strict=True)}  # fmt: skip
        return adam | {f"compress.moments.{name}": table for name, table in self.compress.moments.items()
                       if name.partition(".")[2] in own}  # fmt: skip

    def _stepped(self) -> dict[str, Tensor]:
        """What an optimizer step changes."""
        rows = {f"rows.{name}": table.detach() for name, table in self.model.rows.items()}
        own = {f"compress.rows.{name}": table.detach() for name, table in self.compress.rows.items()}
        return rows | own | self._moments()

    def _tables(self) -> dict[str, Tensor]:
        """Every table with a row per splat but the raw fields, by qualified name."""
        own = self.compress.rows
        tables = {
            **{f"labels.{name}": table for name, table in self.labels.tensors().items()}, **self._moments(),
            **{f"densify.{name}": table for name, table in self.densify.tables.items()},
            **{f"compress.rows.{name}": table.detach() for name, table in own.items()},
            **{f"grads.{name}": table.grad for name, table in self.model.rows.items() if table.grad is not None},
            **{f"compress.grads.{name}": table.grad for name, table in own.items() if table.grad is not None},
        }  # fmt: skip
        return tables if self.model.filter3d is None else tables | {"filter3d": self.model.filter3d}


def _restored(edit: RowEdit, tables: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: edit.restored(table, prefix + name) for name, table in tables.items()}


def _edited_grads(edit: RowEdit, rows: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Gradients of views that wait for an optimizer step, moved as the edit moves their rows."""
    return {name: edit.restored(edit.apply_to_moments(table.grad, name), prefix + name)
            for name, table in rows.items() if table.grad is not None}  # fmt: skip


def check_edit(edit: RowEdit, state: TrainState) -> None:
    """Raise ValueError unless ``edit`` can be applied to ``state`` in full; edits from outside pass through here."""
    model = state.model
    edit.check_count(model.count)
    if edit.count_after and not (0 <= int(edit.source.min()) and int(edit.source.max()) < edit.count_before):
        raise ValueError(f"row edit '{edit.reason}' names rows outside 0..{edit.count_before - 1}")
    if edit.fresh is not None and tuple(edit.fresh.shape) != (edit.count_after,):
        raise ValueError(f"row edit '{edit.reason}': 'fresh' has {tuple(edit.fresh.shape)}, not ({edit.count_after},)")
    for name in edit.values:
        if name not in model.rows:
            raise ValueError(f"row edit '{edit.reason}' sets '{name}'; this model has {sorted(model.rows)}")
    tables = {**state._tables(), **model.rows}
    for name, (rows, new) in (*edit.values.items(), *edit.tables.items()):
        if name not in tables:
            continue
        expected = (rows.shape[0], *tables[name].shape[1:])
        if tuple(new.shape) != expected:
            raise ValueError(f"row edit '{edit.reason}': '{name}' has shape {tuple(new.shape)}, expected {expected}")
        if rows.numel() and not (0 <= int(rows.min()) and int(rows.max()) < edit.count_after):
            raise ValueError(f"row edit '{edit.reason}': '{name}' names rows outside 0..{edit.count_after - 1}")
