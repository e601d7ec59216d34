"""A session of editing: what was done, undo and redo without a limit, and a log that can be done again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from splat.edit.edits import FLAGS, DragSolver, edit_of
from splat.edit.edits import Rows as Seen
from splat.edit.history import Patch, edit_of_patch, patch_of
from splat.edit.json_ops import op_line, read_log, write_lines
from splat.edit.marks import EditMark
from splat.edit.ops import Op
from splat.edit.select import takeable
from splat.edit.wording import said
from splat.errors import UserError
from splat.live.commands import Edit, Rows
from splat.model.labels import HIDDEN, LOCKED, SELECTED, Labels
from splat.model.row_edit import RowEdit
from splat.render.types import Rasterizer

CHANGES_PICTURE = frozenset({"delete", "duplicate", "transform", "recolor", "drag"})
"""Operations that a training has to respect from then on."""


@dataclass(frozen=True)
class SessionStatus:
    """How things stand after an operation; a new value each time, for any thread."""

    undo: tuple[str, ...] = ()
    """What can be undone, in words; the last one is next."""
    redo: tuple[str, ...] = ()
    """The same for what was undone."""
    ops: int = 0
    """In the log."""
    selected: int = 0
    hidden: int = 0
    locked: int = 0
    splats: int = 0


@dataclass(frozen=True, eq=False)
class _Done:
    """One operation in the history; ``patch`` takes it back, or does it again once it was undone."""

    op: Op
    line: str
    """As the log has it."""
    words: str
    patch: Patch


@dataclass(eq=False)
class EditSession:
    """Undo history and log of one model. Everything but ``status`` is for the thread that owns the rows.

    ``do``, ``undo`` and ``redo`` return an edit, which the caller has to apply before it asks for another (or calls
    ``forget``, where that failed); None: nothing changes. What they refuse (UserError) leaves everything as it was.
    """

    rasterizer: Rasterizer | None = field(default=None, kw_only=True)
    log: Path | None = field(default=None, kw_only=True)
    """Written anew after every change; one that is there is continued."""
    drag: DragSolver | None = field(default=None, kw_only=True)
    """What solves drags; None = the geometric way."""
    base: EditMark = field(default_factory=EditMark, kw_only=True)
    """What had been done to the model before, besides what stands in the log."""
    status: SessionStatus = field(default_factory=SessionStatus, init=False)
    last_number: int | None = field(default=None, init=False)
    """Place in the log (from 1) of the operation just done or redone, where it changes the picture."""
    undone_number: int | None = field(default=None, init=False)
    """The same for the operation just undone."""
    _earlier: list[str] = field(default_factory=list, init=False)
    _done: list[_Done] = field(default_factory=list, init=False)
    _undone: list[_Done] = field(default_factory=list, init=False)
    _before: tuple[list[_Done], list[_Done], SessionStatus] | None = field(default=None, init=False)
    """What the last change found."""

    def __post_init__(self) -> None:
        if self.log is not None and self.log.exists():
            self._earlier = [op_line(op) for op in read_log(self.log)]
            self.status = SessionStatus(ops=len(self._earlier))

    @property
    def mark(self) -> EditMark:
        """Which operations the model holds now, for the header of a file."""
        return self.base.after([*self._earlier, *(done.line for done in self._done)])

    def go_on(self, rows: Rows, log: Path, say: Callable[[str], None] = lambda _: None) -> None:
        """Keep the log in ``log`` from now on. One that is there is done again first, but for what the model holds
        (``base``): the rows are as its last session left them, and it can be undone. UserError where it does not fit.
        """
        ops = read_log(log) if log.exists() else []
        lines = [op_line(op) for op in ops]
        held = self.base.held_of(lines)
        if held:
            self._earlier, self.base = lines[:held], EditMark()
        for number, op in enumerate(ops[held:], start=held + 1):
            try:
                edit = self.do(rows, op)
            except UserError as error:
                raise UserError(f"{log}: op {number} cannot be done to this model: {error}") from error
            if edit is not None:
                rows.apply(edit)
            else:  # it stays in the log: on the model it was made for it did something
                self._done = [*self._done, _Done(op, op_line(op), said(op, None, rows.labels), Patch())]
        self.log, self.status = log, self._status(rows.labels.flags)
        rows.edits_done = self.status.ops
        if ops:
            say(f"{log}: {held} of {len(ops)} edits are in the model, {len(ops) - held} were done again")

    @property
    def ops(self) -> list[Op]:
        """What this session did and did not undo, oldest first."""
        return [done.op for done in self._done]

    @property
    def words(self) -> str:
        """What the last operation that was done did."""
        return self._done[-1].words if self._done else ""

    def do(self, rows: Rows, op: Op) -> RowEdit | None:
        """The edit that ``op`` is. What was undone before cannot be redone after it."""
        self.last_number = self.undone_number = None
        line = op_line(op)  # refuses before anything is worked out
        edit = edit_of(op, Seen(rows.model, rows.labels, self.rasterizer, self.drag))
        if edit is None:
            return None
        done = _Done(op, line, said(op, edit, rows.labels), patch_of(edit, rows))
        self._commit([*self._done, done], [], rows, edit)
        self.last_number = self._number(op)
        return edit

    def undo(self, rows: Rows) -> RowEdit | None:
        """The edit that takes back the last operation."""
        self.last_number = self.undone_number = None
        if not self._done:
            return None
        number, done = self._number(self._done[-1].op), self._done[-1]
        edit = self._step(rows, done, self._done[:-1], self._undone, "undo")
        self.undone_number = number
        return edit

    def redo(self, rows: Rows) -> RowEdit | None:
        """The edit that does again what was undone last."""
        self.last_number = self.undone_number = None
        if not self._undone:
            return None
        done = self._undone[-1]
        edit = self._step(rows, done, self._done, self._undone[:-1], "redo")
        self.last_number = self._number(done.op)
        return edit

    def _step(
        self, rows: Rows, done: _Done, before: list[_Done], after: list[_Done], way: str
    ) -> RowEdit | None:  # fmt: skip
        """Apply the patch of ``done``, and put it with the patch that reverses that on the other side."""
        edit = edit_of_patch(done.patch, rows, way)
        patch = Patch() if edit is None else patch_of(edit, rows)
        turned = _Done(done.op, done.line, done.words, patch)
        both = (before, [*after, turned]) if way == "undo" else ([*before, turned], after)
        self._commit(*both, rows, edit)
        return edit

    def _commit(self, done: list[_Done], undone: list[_Done], rows: Rows, edit: RowEdit | None) -> None:
        """All or nothing: a log that cannot be written refuses the change."""
        if self.log is not None:
            write_lines(self.log, [*self._earlier, *(each.line for each in done)])
        self._before = self._done, self._undone, self.status
        self._done, self._undone = done, undone
        self.status = self._status(_flags_after(rows.labels, edit))
        rows.edits_done = self.status.ops

    def forget(self, rows: Rows) -> None:
        """The edit just returned could not be applied (memory ran out): it was never done, or undone."""
        if self._before is None:
            return
        self._done, self._undone, self.status = self._before
        self._before = self.last_number = self.undone_number = None
        rows.edits_done = len(self._earlier) + len(self._done)
        if self.log is not None:
            write_lines(self.log, [*self._earlier, *(each.line for each in self._done)])

    def _status(self, flags: Tensor) -> SessionStatus:
        counts = [int(((flags & bit) != 0).sum()) for bit in (SELECTED, HIDDEN, LOCKED)]
        words = (tuple(each.words for each in stack) for stack in (self._done, self._undone))
        return SessionStatus(*words, len(self._earlier) + len(self._done), *counts, len(flags))

    def _number(self, op: Op) -> int | None:
        """Place of the newest operation, which is ``op``."""
        return len(self._earlier) + len(self._done) if op.kind in CHANGES_PICTURE else None


def replay(
    rows: Rows, ops: Iterable[Op], session: EditSession, say: Callable[[str], None] = lambda _: None, *,
    places: Sequence[str] = (),
) -> None:  # fmt: skip
    """Do ``ops`` one after the other and apply them; ``say`` gets a line for each. ``places`` tell where each comes
    from, for the UserError of one that cannot be done."""
    for number, op in enumerate(ops):
        try:
            edit = session.do(rows, op)
        except UserError as error:
            if number >= len(places):
                raise
            raise UserError(f"{places[number]}: {error}") from error
        if edit is None:
            say(f"{said(op, None, rows.labels)}: nothing changes{_why(op, rows.labels)}")
            continue
        rows.apply(edit)
        say(f"{session.words} ({session.status.selected:,} of {session.status.splats:,} selected)")


def _why(op: Op, labels: Labels) -> str:
    """What an operation lacks that changes nothing, where that can be told."""
    needs = op.what in ("hide", "lock") if op.kind == "mark" else op.kind in CHANGES_PICTURE
    if not needs or (op.kind == "delete" and op.outside) or bool(labels.having(SELECTED).any()):
        return ""
    shut = int((~takeable(labels)).sum())
    return f" (nothing is selected{f'; {shut:,} splats are locked or hidden' if shut else ''})"


def edit_command(session: EditSession, op: Op) -> Edit:
    """``op`` as a command; the reply is the session's status."""
    return _command(session, lambda rows: session.do(rows, op))


def undo_command(session: EditSession) -> Edit:
    """Take back the last operation; the reply is the session's status."""
    return _command(session, session.undo)


def redo_command(session: EditSession) -> Edit:
    """Do again what was undone last; the reply is the session's status."""
    return _command(session, session.redo)


def _command(session: EditSession, make: Callable[[Rows], RowEdit | None]) -> Edit:
    return Edit(make, mark=lambda: session.last_number, unmark=lambda: session.undone_number,
                result=lambda: session.status, refused=session.forget)  # fmt: skip


def _flags_after(labels: Labels, edit: RowEdit | None) -> Tensor:  # [M] uint8
    return labels.flags if edit is None else edit.restored(edit.apply_to(labels.flags), FLAGS)
