"""Commands to a running training. They wait in a queue; the trainer carries them out between two steps."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from splat.model.labels import Labels
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel


class Rows(Protocol):
    """Whatever holds a model that can be edited: a training between two steps, or a model file that was opened."""

    model: SplatModel
    labels: Labels
    step: int
    edits_done: int
    """Operations of the log of edits that the rows show; whoever makes the edits counts them."""

    def taken(self, rows: Tensor) -> dict[str, Tensor]:
        """Copies of ``rows [R]`` of every table besides the raw fields that has a row per splat, by the names that
        ``RowEdit.tables`` takes."""
        ...

    def apply(self, edit: RowEdit) -> None:
        """The same edit to every table."""
        ...


@dataclass(frozen=True, eq=False)
class Command:
    """Something asked of the trainer. ``reply`` holds the outcome, or the exception of a refused command."""

    reply: Future = field(default_factory=Future, kw_only=True)


@dataclass(frozen=True, eq=False)
class Pause(Command):
    """Take no further steps until ``Resume``."""


@dataclass(frozen=True, eq=False)
class Resume(Command):
    """Go on after ``Pause``."""


@dataclass(frozen=True, eq=False)
class Step(Command):
    """Take ``count`` steps and pause again; while running, the same as a pause after them. The reply is the step
    reached."""

    count: int = 1


@dataclass(frozen=True, eq=False)
class Save(Command):
    """Write a checkpoint now; the reply is the step."""


@dataclass(frozen=True, eq=False)
class Stop(Command):
    """End after the step at hand: ``finish`` with evaluation and export, ``interrupt`` with a checkpoint only."""

    how: str = "finish"


@dataclass(frozen=True, eq=False)
class Edit(Command):
    """Change rows. ``make`` runs between two steps on the rows as they are, so row numbers cannot be stale; None =
    nothing to change. The reply is what ``result`` makes of it (without one, the step).

    ``mark`` is the number of a change by hand that training has to respect from here on: what it removed stays away,
    and what it moved is not pulled back. ``unmark`` ends that for an earlier number. Where only ``make`` finds the
    number out (undo), they are functions; ``marks`` reads both.
    """

    make: Callable[[Rows], RowEdit | None]
    mark: int | Callable[[], int | None] | None = None
    unmark: int | Callable[[], int | None] | None = None
    result: Callable[[], Any] | None = None
    refused: Callable[[Rows], None] | None = None
    """Called when the edit that ``make`` made could not be applied: what was noted of it is to be forgotten."""

    @contextmanager
    def applying(self, rows: Rows) -> Iterator[None]:
        """Around all that applies the edit to ``rows``."""
        try:
            yield
        except BaseException:
            if self.refused is not None:
                self.refused(rows)
            raise

    def marks(self) -> tuple[int | None, int | None]:
        """``mark`` and ``unmark`` as numbers; of use once ``make`` has run."""
        mark, unmark = (value() if callable(value) else value for value in (self.mark, self.unmark))
        return mark, unmark


SETTINGS = {
    "lr_scale": "factor on all learning rates, above 0",
    "densify": "whether splats appear and vanish",
    "max_splats": "never more splats than this; None is no limit",
    "sh_degree": "highest band of view-dependent colour in use",
    "background": "colour behind the splats, (r, g, b) in 0..1",
}
"""What ``Change`` can set."""


@dataclass(frozen=True, eq=False)
class Change(Command):
    """Set one of ``SETTINGS`` for the rest of the run; a checkpoint keeps it. ValueError is the reply to a value that
    does not fit."""

    name: str
    value: Any


class CommandQueue:
    """Thread-safe, first in first out. ``put`` may be called from a signal handler."""

    def __init__(self) -> None:
        self._items: deque[Command] = deque()  # append and popleft are atomic: no lock to deadlock a signal handler
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()  # the one that a signal handler may put to
        self._rung = False

    def put(self, command: Command) -> Future:
        self._items.append(command)
        self._bell.put(None)
        return command.reply

    def pop(self) -> Command | None:
        """The oldest command, or None."""
        try:
            return self._items.popleft()
        except IndexError:
            return None

    @property
    def interrupted(self) -> bool:
        """Whether a ``Stop`` that does not want an evaluation is waiting; lets long work give way to it."""
        return any(isinstance(item, Stop) and item.how == "interrupt" for item in tuple(self._items))

    def ring(self) -> None:
        """Let ``wait`` return although there is no command."""
        self._rung = True
        self._bell.put(None)

    def wait(self, timeout_secs: float | None) -> None:
        """Return when a command is there, somebody rang, or the time is over (None: never)."""
        until = None if timeout_secs is None else time.monotonic() + timeout_secs
        while not self._items and not self._rung:
            try:
                self._bell.get(timeout=None if until is None else max(until - time.monotonic(), 0.0))
            except queue.Empty:
                return
        self._rung = False
