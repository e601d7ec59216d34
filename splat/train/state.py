"""Everything a run carries from one step to the next: what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from splat.compress.protocol import CompressState
from splat.densify.protocol import DensifyState
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
    """Mean squared error of the last visit of every training view, NaN before the first; None where no target asks."""
    compress: CompressState = field(default_factory=CompressState)

    def learnables(self) -> list[Tensor]:
        """Every table that a backward pass may leave a gradient in."""
        return [*self.model.rows.values(), *self.compress.rows.values(), *self.compress.parameters.values()]

    def apply(self, edit: RowEdit) -> None:
        """The same row edit to every table that has a row per splat; to none of them if memory runs out on the way."""
        edit.check_count(self.model.count)
        moments, tables, compress = self.adam.edited(edit), self.densify.edited(edit), self.compress.edited(edit)
        grads, own_grads = _edited_grads(edit, self.model.rows), _edited_grads(edit, self.compress.rows)
        self.model.apply(edit)
        self.adam.take(moments)
        self.densify.tables = tables
        self.compress.take(compress)
        for rows, waiting in ((self.model.rows, grads), (self.compress.rows, own_grads)):
            for name, grad in waiting.items():
                rows[name].grad = grad


def _edited_grads(edit: RowEdit, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of views that wait for an optimizer step, moved as the edit moves their rows."""
    return {name: edit.apply_to_moments(table.grad, name) for name, table in rows.items() if table.grad is not None}


def check_edit(edit: RowEdit, model: SplatModel) -> None:
    """Raise ValueError unless ``edit`` can be applied to ``model`` in full; edits from outside pass through here."""
    edit.check_count(model.count)
    if edit.count_after and not (0 <= int(edit.source.min()) and int(edit.source.max()) < edit.count_before):
        raise ValueError(f"row edit '{edit.reason}' names rows outside 0..{edit.count_before - 1}")
    if edit.fresh is not None and tuple(edit.fresh.shape) != (edit.count_after,):
        raise ValueError(f"row edit '{edit.reason}': 'fresh' has {tuple(edit.fresh.shape)}, not ({edit.count_after},)")
    for name, (rows, new) in edit.values.items():
        if name not in model.rows:
            raise ValueError(f"row edit '{edit.reason}' sets '{name}'; this model has {sorted(model.rows)}")
        expected = (rows.shape[0], *model.rows[name].shape[1:])
        if tuple(new.shape) != expected:
            raise ValueError(f"row edit '{edit.reason}': '{name}' has shape {tuple(new.shape)}, expected {expected}")
        if rows.numel() and not (0 <= int(rows.min()) and int(rows.max()) < edit.count_after):
            raise ValueError(f"row edit '{edit.reason}': '{name}' names rows outside 0..{edit.count_after - 1}")
