"""Operations in a few words, for lists and terminals."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from splat.edit.ops import Delete, Drag, Duplicate, Invert, Mark, Op, Recolor, Select, Transform
from splat.edit.shapes import ON_SCREEN
from splat.model.labels import SELECTED, Labels
from splat.model.row_edit import RowEdit

_SIGNS = {"set": "", "add": " +", "subtract": " -", "intersect": " &"}


def said(op: Op, edit: RowEdit | None, labels: Labels) -> str:
    """What ``op`` does, and to how many splats where its edit (of the rows of ``labels``) is known."""
    return _SAYERS[op.kind](op, edit, labels)


def _select(op: Select, edit: RowEdit | None, labels: Labels) -> str:
    words = f"select{_SIGNS[op.combine]} {op.shape.kind}"
    if op.shape.kind in ON_SCREEN and op.reach == "visible":
        words += " (visible)"
    return words + _turned(edit, labels)


def _invert(_: Invert, edit: RowEdit | None, labels: Labels) -> str:
    return "invert selection" + _turned(edit, labels)


def _turned(edit: RowEdit | None, labels: Labels) -> str:
    """How many splats a selection gained and lost."""
    if edit is None:
        return ""
    which, flags = edit.tables["labels.flags"]
    gained = int(((flags & SELECTED) > (labels.flags[which] & SELECTED)).sum())
    lost = len(which) - gained
    parts = [f"{sign}{count:,}" for sign, count in (("+", gained), ("-", lost)) if count]
    return f": {' '.join(parts)}"


def _mark(op: Mark, edit: RowEdit | None, _: Labels) -> str:
    return f"{op.what}{_counted(edit, lambda edit: len(edit.tables['labels.flags'][0]))}"


def _delete(op: Delete, edit: RowEdit | None, _: Labels) -> str:
    outside = " outside the selection" if op.outside else ""
    return f"delete{_counted(edit, lambda edit: edit.removed)}{outside}"


def _duplicate(_: Duplicate, edit: RowEdit | None, __: Labels) -> str:
    return f"duplicate{_counted(edit, lambda edit: edit.added)}"


def _transform(_: Transform, edit: RowEdit | None, __: Labels) -> str:
    return f"move{_changed(edit)}"


def _recolor(_: Recolor, edit: RowEdit | None, __: Labels) -> str:
    return f"recolor{_changed(edit)}"


def _drag(op: Drag, edit: RowEdit | None, _: Labels) -> str:
    return f"drag ({op.mode}){_changed(edit)}"


def _changed(edit: RowEdit | None) -> str:
    return _counted(edit, lambda edit: len(edit.tables["labels.flags"][0]))


def _counted(edit: RowEdit | None, count: Callable[[RowEdit], int]) -> str:
    if edit is None:
        return ""
    number = count(edit)
    return f" {number:,} splat{'' if number == 1 else 's'}"


_SAYERS: Mapping[str, Callable[..., str]] = {
    Select.kind: _select, Invert.kind: _invert, Mark.kind: _mark, Delete.kind: _delete, Duplicate.kind: _duplicate,
    Transform.kind: _transform, Recolor.kind: _recolor, Drag.kind: _drag,
}  # fmt: skip
