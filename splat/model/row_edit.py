"""RowEdit: every change of the set of splats is this one value.

Everything that keeps a row per splat (parameters, Adam moments, statistics, labels, selections) obeys
the same edit, so nothing can fall out of step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RowEdit:
    """The table after the edit: row ``i`` is a copy of old row ``source[i]``, then overwritten by ``values``.

    ``values[name] = (rows, new)`` replaces the *raw* field ``name`` at the new-table rows ``rows [R]`` (no row
    twice) with ``new [R,...]``. ``fresh [M]`` marks new-table rows whose optimizer moments start at zero;
    ``fresh_fields`` limits that to some fields (None = all, and then statistics of fresh rows restart too).
    """

    source: Tensor  # [M] int64, rows of the old table
    count_before: int
    values: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    fresh: Tensor | None = None  # [M] bool
    fresh_fields: frozenset[str] | None = None
    reason: str = ""
    """One word for logs: clone, split, prune, relocate, grow, reset, sort, delete..."""
    reasons: Tensor | None = None  # [M] int8, optional code per row
    tables: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """As ``values`` for tables that are no raw fields, by qualified name: ``labels.flags``, ``adam.first.means``,
    ``densify.seen``, ``compress.rows.mask``. Written last, so that rows can come back exactly as they were (undo). A
    table that the holder does not have is passed over."""

    @property
    def count_after(self) -> int:
        return self.source.shape[0]

    @cached_property
    def is_identity(self) -> bool:
        """True when no row moves (values may still change)."""
        return self.count_after == self.count_before and bool(
            (self.source == torch.arange(self.count_before, device=self.source.device)).all()
        )

    @cached_property
    def added(self) -> int:
        """New rows: those beyond one copy of each old row."""
        return int(self.count_after - self._survivors)

    @cached_property
    def removed(self) -> int:
        """Rows of the old table that nothing was made from."""
        return int(self.count_before - self._survivors)

    @cached_property
    def _survivors(self) -> int:
        return int(torch.zeros(self.count_before, dtype=torch.bool, device=self.source.device)
                   .index_fill_(0, self.source, True).sum())  # fmt: skip

    @staticmethod
    def keep(mask: Tensor, reason: str = "prune") -> RowEdit:
        """Keep the rows where ``mask [N]`` is true."""
        return RowEdit(mask.nonzero().squeeze(1), mask.shape[0], reason=reason)

    @staticmethod
    def reorder(order: Tensor, reason: str = "sort") -> RowEdit:
        """Row ``i`` becomes old row ``order[i]``; ``order [N]`` is a permutation."""
        return RowEdit(order, order.shape[0], reason=reason)

    @staticmethod
    def overwrite(
        count: int, values: Mapping[str, tuple[Tensor, Tensor]], *, fresh: Tensor | None = None,
        fresh_fields: frozenset[str] | None = None, reason: str,
    ) -> RowEdit:  # fmt: skip
        """Change values in place; no row moves."""
        device = next(iter(values.values()))[0].device
        return RowEdit(torch.arange(count, device=device), count, values, fresh, fresh_fields, reason)

    @staticmethod
    def append(count: int, parents: Tensor, values: Mapping[str, Tensor], *, reason: str) -> RowEdit:
        """Keep all rows and add one per entry of ``parents [K]``; ``values[name] [K,...]`` are the new rows' own."""
        nobody = torch.zeros(count, dtype=torch.bool, device=parents.device)
        return RowEdit.replace(nobody, parents, values, reason=reason)

    @staticmethod
    def replace(removed: Tensor, parents: Tensor, values: Mapping[str, Tensor], *, reason: str) -> RowEdit:
        """Drop the rows where ``removed [N]`` is true and add one per entry of ``parents [K]`` (old rows, which may
        be removed ones) at the end; ``values[name] [K,...]`` are the new rows' own."""
        kept = (~removed).nonzero().squeeze(1)
        rows = torch.arange(kept.shape[0], kept.shape[0] + parents.shape[0], device=parents.device)
        fresh = torch.zeros(kept.shape[0] + parents.shape[0], dtype=torch.bool, device=parents.device)
        fresh[kept.shape[0] :] = True
        own = {name: (rows, new) for name, new in values.items()}
        return RowEdit(torch.cat([kept, parents]), removed.shape[0], own, fresh, None, reason)

    def apply_to(self, table: Tensor, name: str | None = None) -> Tensor:
        """The table with the edit applied; ``name`` selects which ``values`` belong to it.

        ``table`` itself is returned when the edit leaves it as it is; it is never written to.
        """
        self.check_count(table.shape[0])
        own = self.values.get(name) if name is not None else None
        if own is None:
            return table if self.is_identity else table[self.source]
        return _overwritten(table.clone() if self.is_identity else table[self.source], own)

    def restored(self, table: Tensor, qualified: str) -> Tensor:
        """``table`` *after* the edit with what ``tables`` holds of it; itself when that is nothing."""
        own = self.tables.get(qualified)
        return table if own is None else _overwritten(table.clone(), own)

    def apply_to_moments(self, table: Tensor, field_name: str) -> Tensor:
        """As ``apply_to`` for an optimizer moment of a field: fresh rows become zero."""
        limited = self.fresh_fields is not None and field_name not in self.fresh_fields
        return self.apply_to(table) if limited else self._restarted(table)

    def apply_to_stats(self, table: Tensor) -> Tensor:
        """As ``apply_to`` for a running statistic: fresh rows become zero, unless only some fields are fresh."""
        return self.apply_to(table) if self.fresh_fields is not None else self._restarted(table)

    def check_count(self, count: int) -> None:
        if count != self.count_before:
            raise ValueError(f"row edit '{self.reason}' is for {self.count_before} rows, the table has {count}")

    def _restarted(self, table: Tensor) -> Tensor:
        edited = self.apply_to(table)
        if self.fresh is None:
            return edited
        edited = edited.clone() if edited is table else edited
        edited[self.fresh] = 0
        return edited


def _overwritten(table: Tensor, own: tuple[Tensor, Tensor]) -> Tensor:
    rows, new = own
    table[rows] = new.to(table)
    return table
