"""RowEdit: every change of the set of splats is this one value.

Everything that keeps a row per splat (parameters, Adam moments, statistics, labels, selections) obeys
the same edit, so nothing can fall out of step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RowEdit:
    """The table after the edit: row ``i`` is a copy of old row ``source[i]``, then overwritten by ``values``.

    ``values[name] = (rows, new)`` replaces the *raw* field ``name`` at the new-table rows ``rows [R]`` with
    ``new [R,...]``. ``fresh [M]`` marks new-table rows whose optimizer moments start at zero;
    ``fresh_fields`` limits that to some fields (None = all). Statistics of fresh rows restart too.
    """

    source: Tensor  # [M] int64, rows of the old table
    count_before: int
    values: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    fresh: Tensor | None = None  # [M] bool
    fresh_fields: frozenset[str] | None = None
    reason: str = ""
    """One word for logs: clone, split, prune, relocate, grow, reset, sort, delete..."""
    reasons: Tensor | None = None  # [M] int8, optional code per row

    @property
    def count_after(self) -> int:
        return self.source.shape[0]

    @property
    def is_identity(self) -> bool:
        """True when no row moves (values may still change)."""
        return self.count_after == self.count_before and bool(
            (self.source == torch.arange(self.count_before, device=self.source.device)).all()
        )

    @staticmethod
    def keep(mask: Tensor, reason: str = "prune") -> RowEdit:
        """Keep the rows where ``mask [N]`` is true."""
        return RowEdit(mask.nonzero().squeeze(1), mask.shape[0], reason=reason)

    @staticmethod
    def overwrite(
        count: int, values: Mapping[str, tuple[Tensor, Tensor]], *, fresh: Tensor | None = None,
        fresh_fields: frozenset[str] | None = None, reason: str,
    ) -> RowEdit:
        """Change values in place; no row moves."""
        device = next(iter(values.values()))[0].device
        return RowEdit(torch.arange(count, device=device), count, values, fresh, fresh_fields, reason)

    @staticmethod
    def append(
        count: int, parents: Tensor, values: Mapping[str, Tensor], *, reason: str
    ) -> RowEdit:
        """Keep all rows and add one per entry of ``parents [K]``; ``values[name] [K,...]`` are the new rows' own."""
        rows = torch.arange(count, count + parents.shape[0], device=parents.device)
        source = torch.cat([torch.arange(count, device=parents.device), parents])
        fresh = torch.zeros(source.shape[0], dtype=torch.bool, device=parents.device)
        fresh[count:] = True
        return RowEdit(source, count, {k: (rows, v) for k, v in values.items()}, fresh, None, reason)

    def apply_to(self, table: Tensor, name: str | None = None) -> Tensor:
        """A new tensor with the edit applied; ``name`` selects which ``values`` belong to this table."""
        self.check_count(table.shape[0])
        edited = table[self.source]
        if name is not None and name in self.values:
            rows, new = self.values[name]
            edited[rows] = new.to(edited.dtype)
        return edited

    def apply_to_moments(self, table: Tensor, field_name: str) -> Tensor:
        """As ``apply_to`` for a moment or statistic: fresh rows become zero."""
        self.check_count(table.shape[0])
        edited = table[self.source]
        if self.fresh is not None and (self.fresh_fields is None or field_name in self.fresh_fields):
            edited[self.fresh] = 0
        return edited

    def check_count(self, count: int) -> None:
        if count != self.count_before:
            raise ValueError(f"row edit '{self.reason}' is for {self.count_before} rows, the table has {count}")
