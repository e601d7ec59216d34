"""Things that a page does again and again, one after the other in one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from splat.viewer.serving.loop import Loop


@dataclass(eq=False)
class _Task:
    every_secs: float
    run: Callable[[], None]
    due: float


class Ticker:
    """Sleeps between its tasks; ``failed`` is told of their exceptions. Tasks of one period, or of periods that are
    multiples, come together: a thread that wakes takes the interpreter from a training, and what they tell the page
    goes in one message."""

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        self.loop = Loop("splat-viewer-ticker", self._turn, failed)
        self._tasks: list[_Task] = []

    def every(self, secs: float, callback: Callable[[], None]) -> Callable[[], None]:
        """First within ``secs``; returns what ends it (a call that has begun is not stopped by that)."""
        task = _Task(secs, callback, _next_beat(secs))
        self.loop.tell(lambda: self._tasks.append(task))

        def end() -> None:
            with self.loop.changed:
                if task in self._tasks:
                    self._tasks.remove(task)

        return end

    def _turn(self) -> None:
        task = self._due()
        if task is not None:
            try:
                task.run()
            finally:
                task.due = _next_beat(task.every_secs)

    def _due(self) -> _Task | None:
        """The task whose time has come, or None after a wait for it."""
        with self.loop.changed:
            if self.loop.is_closed():
                return None
            task = min(self._tasks, key=lambda task: task.due, default=None)
            wait = None if task is None else task.due - time.monotonic()
            if wait is None or wait > 0:
                self.loop.changed.wait(wait)
                return None
            return task


def _next_beat(every_secs: float) -> float:
    """The next multiple of ``every_secs`` on the clock."""
    return (time.monotonic() // every_secs + 1) * every_secs
