"""What is known of every splat besides its parameters: marks of the editor, a lasting number, where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splat.model.row_edit import RowEdit

SELECTED, HIDDEN, LOCKED, HELD = 1, 2, 4, 8
"""Bits of ``flags``. Hidden rows are not shown; locked ones cannot be selected or edited; held ones were edited by
hand, so training leaves them as they are."""
TABLES = ("flags", "ids", "born", "reasons")


@dataclass(frozen=True, eq=False)
class Labels:
    """One row per splat; never changed in place, an edit makes another one."""

    flags: Tensor  # [N] uint8
    ids: Tensor  # [N] int64, unique for the whole run: what a row is called when rows move
    born: Tensor  # [N] int32, the step that made it
    reasons: Tensor  # [N] uint8, index into ``names``
    names: tuple[str, ...] = ("start",)
    """Reasons of row edits, in the order they were met."""
    next_id: int = 0

    @property
    def count(self) -> int:
        return self.flags.shape[0]

    @staticmethod
    def start(count: int, device: torch.device | str = "cpu") -> Labels:
        zeros = torch.zeros(count, dtype=torch.uint8, device=device)
        ids = torch.arange(count, device=device)
        return Labels(zeros, ids, torch.zeros(count, dtype=torch.int32, device=device), zeros.clone(), next_id=count)

    def to(self, device: torch.device | str) -> Labels:
        return replace(self, **{name: getattr(self, name).to(device) for name in TABLES})

    def having(self, bit: int) -> Tensor:  # [N] bool
        return (self.flags & bit) != 0

    def edited(self, edit: RowEdit, step: int) -> Labels:
        """The labels after ``edit``. New rows (further copies of an old one, and rows whose moments all start afresh
        where rows come or go) get a number of their own and tell their birth; marks are inherited."""
        moved = replace(self, **{name: edit.apply_to(getattr(self, name)) for name in TABLES})
        new = _new_rows(edit)
        if new is not None and bool(new.any()):
            moved = moved._born(new, step, edit.reason or "edit")
        return replace(moved, **{name: edit.restored(getattr(moved, name), f"labels.{name}") for name in TABLES})

    def rows_of(self, ids: Tensor) -> Tensor:  # [K] -> [K] int64
        """Where the splats called ``ids`` stand now; -1 for those that are gone."""
        if self.count == 0:
            return torch.full_like(ids, -1)
        order = self.ids.argsort()
        sorted_ids = self.ids[order]
        place = torch.searchsorted(sorted_ids, ids).clamp(max=self.count - 1)
        return torch.where(sorted_ids[place] == ids, order[place], -1)

    def tensors(self) -> dict[str, Tensor]:
        """Tables by name, for checkpoints; ``scalars`` is the rest."""
        return {name: getattr(self, name) for name in TABLES}

    def scalars(self) -> dict[str, object]:
        return {"names": list(self.names), "next_id": self.next_id}

    @staticmethod
    def of(tensors: Mapping[str, Tensor], scalars: Mapping[str, object]) -> Labels:
        return Labels(**{name: tensors[name] for name in TABLES}, names=tuple(scalars["names"]),
                      next_id=int(scalars["next_id"]))  # fmt: skip

    def _born(self, new: Tensor, step: int, reason: str) -> Labels:
        names = self.names if reason in self.names or len(self.names) > 254 else (*self.names, reason)
        code = names.index(reason) if reason in names else 0
        ids, born, reasons = self.ids.clone(), self.born.clone(), self.reasons.clone()
        count = int(new.sum())
        ids[new] = torch.arange(self.next_id, self.next_id + count, device=ids.device)
        born[new], reasons[new] = step, code
        return replace(self, ids=ids, born=born, reasons=reasons, names=names, next_id=self.next_id + count)


def _new_rows(edit: RowEdit) -> Tensor | None:  # [M] bool
    """Rows of the new table that are not the continuation of an old one; None when no row moves."""
    if edit.is_identity or edit.count_after == 0:
        return None
    new = torch.zeros(edit.count_after, dtype=torch.bool, device=edit.source.device)
    if edit.fresh is not None and edit.fresh_fields is None:
        new |= edit.fresh
    # Of several copies of one row the first that is not new already stands for it.
    numbers = torch.arange(edit.count_after, device=edit.source.device)
    first = numbers.new_full((edit.count_before,), edit.count_after)
    first.scatter_reduce_(0, edit.source, torch.where(new, edit.count_after, numbers), "amin")
    return new | (first[edit.source] != numbers)
