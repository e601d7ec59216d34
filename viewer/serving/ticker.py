"""Things that a page does again and again, one after the other in one thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(eq=False)
class _Task:
    every_secs: float
    run: Callable[[], None]
    due: float
    ended: bool = False


class Ticker:
    """A thread that sleeps between its tasks; ``failed`` is told of their exceptions."""

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        self._failed = failed
        self._changed = threading.Condition()
        self._tasks: list[_Task] = []
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="splat-viewer-ticker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def every(self, secs: float, callback: Callable[[], None]) -> Callable[[], None]:
        """First after ``secs``; returns what ends it."""
        task = _Task(secs, callback, time.monotonic() + secs)
        with self._changed:
            self._tasks.append(task)
            self._changed.notify_all()

        def end() -> None:
            with self._changed:
                task.ended = True
                self._tasks = [other for other in self._tasks if other is not task]

        return end

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, secs: float) -> None:
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(secs)

    def _run(self) -> None:
        while (task := self._next()) is not None:
            try:
                task.run()
            except Exception as error:
                self._failed(error)
            task.due = time.monotonic() + task.every_secs

    def _next(self) -> _Task | None:
        """Waits until a task is due; None when it is over."""
        with self._changed:
            while not self._closed:
                task = min(self._tasks, key=lambda task: task.due, default=None)
                wait = None if task is None else task.due - time.monotonic()
                if wait is not None and wait <= 0:
                    return task
                self._changed.wait(wait)
            return None
