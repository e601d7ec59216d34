"""What every operation does to the rows of a model: op -> RowEdit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splat.edit.ops import Delete, Drag, Duplicate, Invert, Mark, Op, Recolor, Select, Transform
from splat.edit.recolor import recolored_values
from splat.edit.select import selected, takeable
from splat.errors import UserError
from splat.geometry.rotations import split_similarity
from splat.model.labels import HELD, HIDDEN, LOCKED, SELECTED, Labels
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel
from splat.render.types import Rasterizer

FLAGS = "labels.flags"
Values = Mapping[str, Tensor]
"""Raw values [R,...] by field name."""
DragSolver = Callable[[SplatModel, Tensor, Drag], tuple[Tensor, Values]]
"""(model, mask [N] bool of what is dragged, op) -> rows [R] that may move, and their values."""


@dataclass(frozen=True, eq=False)
class Rows:
    """What an operation looks at."""

    model: SplatModel
    labels: Labels
    rasterizer: Rasterizer | None = None
    drag: DragSolver | None = None
    """None = the geometric one."""

    @property
    def chosen(self) -> Tensor:  # [N] bool
        """The selection, as far as it can be edited."""
        return self.labels.having(SELECTED) & takeable(self.labels)


def edit_of(op: Op, rows: Rows) -> RowEdit | None:
    """The edit ``op`` is; None when it changes nothing. UserError when it cannot be done."""
    return _MAKERS[op.kind](op, rows)


def flags_edit(labels: Labels, flags: Tensor, reason: str) -> RowEdit | None:
    """Other flags [N] for the same rows; None when they are the same."""
    which = (flags != labels.flags).nonzero().squeeze(1)
    if len(which) == 0:
        return None
    everyone = torch.arange(labels.count, device=flags.device)
    return RowEdit(everyone, labels.count, reason=reason, tables={FLAGS: (which, flags[which])})


def changed_edit(rows: Rows, which: Tensor, values: Values, reason: str) -> RowEdit | None:
    """``values`` for the rows ``which`` [R], of which those that really change are held from now on. Locked and hidden
    rows stay as they are."""
    differs = torch.zeros_like(which, dtype=torch.bool)
    for name, new in values.items():
        old = rows.model.rows[name].detach()[which]
        _require_numbers(new, old, f"{reason}: {name}")
        differs |= (new.to(old) != old).reshape(len(which), -1).any(1)
    picked = (differs & takeable(rows.labels)[which]).nonzero().squeeze(1)
    if len(picked) == 0:
        return None
    moved = which[picked]
    own = {name: (moved, new[picked]) for name, new in values.items()}
    edit = RowEdit.overwrite(rows.labels.count, own, reason=reason)
    return replace(edit, tables={FLAGS: (moved, rows.labels.flags[moved] | HELD)})


def _select(op: Select, rows: Rows) -> RowEdit | None:
    labels = rows.labels
    found = selected(op.shape, rows.model, labels, reach=op.reach, rasterizer=rows.rasterizer)
    before = labels.having(SELECTED)
    after = {
        "set": lambda: found,
        "add": lambda: before | found,
        "subtract": lambda: before & ~found,
        "intersect": lambda: before & found,
    }[op.combine]()
    return flags_edit(labels, _with(labels.flags, SELECTED, after), "select")


def _invert(_: Invert, rows: Rows) -> RowEdit | None:
    labels = rows.labels
    return flags_edit(labels, _with(labels.flags, SELECTED, takeable(labels) & ~labels.having(SELECTED)), "invert")


def _mark(op: Mark, rows: Rows) -> RowEdit | None:
    """What is hidden or locked is no longer selected."""
    labels, bit = rows.labels, HIDDEN if op.what in ("hide", "show") else LOCKED
    if op.what in ("show", "unlock"):
        return flags_edit(labels, _with(labels.flags, bit, torch.zeros_like(labels.flags, dtype=torch.bool)), op.what)
    chosen = rows.chosen
    flags = _with(labels.flags, bit, labels.having(bit) | chosen)
    return flags_edit(labels, _with(flags, SELECTED, labels.having(SELECTED) & ~chosen), op.what)


def _delete(op: Delete, rows: Rows) -> RowEdit | None:
    """Locked and hidden splats stay, inside of the selection and outside."""
    doomed = takeable(rows.labels) & ~rows.labels.having(SELECTED) if op.outside else rows.chosen
    if not bool(doomed.any()):
        return None
    if bool(doomed.all()):
        raise UserError("delete: no splat would be left; leave one out of the selection at least")
    return RowEdit.keep(~doomed, "delete")


def _duplicate(op: Duplicate, rows: Rows) -> RowEdit | None:
    from splat.edit.moving import moved_values

    parents = rows.chosen.nonzero().squeeze(1)
    if len(parents) == 0:
        return None
    values: Values = {}
    if any(op.offset):
        shift = torch.eye(4, dtype=torch.float64)
        shift[:3, 3] = torch.tensor(op.offset, dtype=torch.float64)
        values = moved_values(rows.model, parents, shift)
        for name, new in values.items():
            _require_numbers(new, rows.model.rows[name].detach()[parents], f"duplicate: {name}")
    count = rows.labels.count
    edit = RowEdit.append(count, parents, values, reason="duplicate")
    copies = torch.arange(count, edit.count_after, device=parents.device)
    flags = rows.labels.flags[parents]
    marked = torch.cat([flags & ~SELECTED, flags | (SELECTED | HELD)])
    return replace(edit, tables={FLAGS: (torch.cat([parents, copies]), marked)})


def _transform(op: Transform, rows: Rows) -> RowEdit | None:
    from splat.edit.moving import moved_values

    which = rows.chosen.nonzero().squeeze(1)
    if len(which) == 0:
        return None
    similarity = torch.tensor(op.similarity, dtype=torch.float64)
    if torch.equal(similarity, torch.eye(4, dtype=torch.float64)):
        return None
    edit = changed_edit(rows, which, moved_values(rows.model, which, similarity), "transform")
    filter3d = rows.model.filter3d
    if edit is None or filter3d is None:
        return edit
    moved = edit.tables[FLAGS][0]  # what no camera saw finer than so is seen no finer when it is larger
    grown = filter3d[moved] * split_similarity(similarity)[0]
    return replace(edit, tables={**edit.tables, "filter3d": (moved, grown)})


def _recolor(op: Recolor, rows: Rows) -> RowEdit | None:
    which = rows.chosen.nonzero().squeeze(1)
    if len(which) == 0:
        return None
    return changed_edit(rows, which, recolored_values(rows.model, which, op), "recolor")


def _drag(op: Drag, rows: Rows) -> RowEdit | None:
    mask = rows.chosen
    if not bool(mask.any()):
        return None
    if rows.drag is not None:
        which, values = rows.drag(rows.model, mask, op)
    else:
        from splat.edit.drag.drag import drag_values

        which, values = drag_values(rows.model, mask, op, frozen=~takeable(rows.labels))
    return changed_edit(rows, which, values, "drag")


def _require_numbers(new: Tensor, old: Tensor, what: str) -> None:
    """UserError where numbers would become infinite or none at all."""
    lost = int((~new.isfinite() & old.isfinite()).sum())
    if lost:
        raise UserError(f"{what} would be beyond all numbers in {lost:,} places; nothing was changed")


def _with(flags: Tensor, bit: int, where: Tensor) -> Tensor:  # [N] uint8
    """``flags`` with ``bit`` set where ``where`` is true, and cleared elsewhere."""
    return torch.where(where, flags | bit, flags & (255 - bit))


_MAKERS: Mapping[str, Callable[..., RowEdit | None]] = {
    Select.kind: _select, Invert.kind: _invert, Mark.kind: _mark, Delete.kind: _delete, Duplicate.kind: _duplicate,
    Transform.kind: _transform, Recolor.kind: _recolor, Drag.kind: _drag,
}  # fmt: skip
