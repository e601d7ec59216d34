"""Commands to a running training. They wait in a queue; the trainer carries them out between two steps."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel


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
class Save(Command):
    """Write a checkpoint now; the reply is the step."""


@dataclass(frozen=True, eq=False)
class Stop(Command):
    """End after the step at hand: ``finish`` with evaluation and export, ``interrupt`` with a checkpoint only."""

    how: str = "finish"


@dataclass(frozen=True, eq=False)
class Edit(Command):
    """Change rows. ``make`` gets the model as it is between two steps, so row numbers cannot be stale."""

    make: Callable[[SplatModel], RowEdit]


class CommandQueue:
    """Thread-safe, first in first out. ``put`` may be called from a signal handler."""

    def __init__(self) -> None:
        self._items: deque[Command] = deque()  # append and popleft are atomic: no lock to deadlock a signal handler
        self._arrived = threading.Event()

    def put(self, command: Command) -> Future:
        self._items.append(command)
        self._arrived.set()
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

    def wait(self, timeout_secs: float) -> None:
        """Return when a command is there or the time is over."""
        if not self._items:
            self._arrived.clear()
            if not self._items:
                self._arrived.wait(timeout_secs)
