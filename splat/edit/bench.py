"""A model on the bench: the rows of an opened file, edited without a training."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from splat.model.labels import Labels
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel


@dataclass(eq=False)
class Bench:
    """Implements ``live.commands.Rows``."""

    model: SplatModel
    labels: Labels = field(default=None)  # type: ignore[assignment]
    step: int = 0
    edits_done: int = 0

    def __post_init__(self) -> None:
        if self.labels is None:
            self.labels = Labels.start(self.model.count, self.model.device)

    def taken(self, rows: Tensor) -> dict[str, Tensor]:
        taken = {f"labels.{name}": table[rows].clone() for name, table in self.labels.tensors().items()}
        if self.model.filter3d is not None:
            taken["filter3d"] = self.model.filter3d[rows].clone()
        return taken

    def apply(self, edit: RowEdit) -> None:
        edit.check_count(self.model.count)
        self.model.apply(edit)
        if self.model.filter3d is not None:
            self.model.filter3d = edit.restored(self.model.filter3d, "filter3d")
        self.labels = self.labels.edited(edit, self.step)
