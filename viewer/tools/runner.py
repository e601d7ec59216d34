"""A thread of the page for work that the mouse asks for: in order, and of moves only the newest."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

CLOSE_SECS = 1.0
Job = Callable[[], None]


@dataclass
class _Entry:
    key: str | None
    job: Job


class Runner:
    """One thread, started with the first job. ``guard`` wraps every job, so that no exception ends the thread."""

    def __init__(self, guard: Callable[[Job], Job] = lambda job: job) -> None:
        self._guard = guard
        self._jobs: list[_Entry] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = self._closed = False

    def do(self, job: Job) -> None:
        """Run after all that was asked before."""
        self._put(_Entry(None, job))

    def newest(self, key: str, job: Job) -> None:
        """As ``do``, but takes the place of a job of this ``key`` that waits at the end of the queue: a mouse that
        moves faster than the work never fills it."""
        self._put(_Entry(key, job))

    def idle(self, timeout_secs: float) -> bool:
        """Wait until nothing is left to do; False when the time was over first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs and not self._busy, timeout_secs)

    def close(self) -> None:
        """Drop what waits; a job that runs gets a moment to end."""
        with self._changed:
            self._closed = True
            self._jobs.clear()
            self._changed.notify_all()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_SECS)

    def _put(self, entry: _Entry) -> None:
        with self._changed:
            if self._closed:
                return
            if entry.key is not None and self._jobs and self._jobs[-1].key == entry.key:
                self._jobs[-1] = entry
            else:
                self._jobs.append(entry)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="splat-viewer-tools", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                entry, self._busy = self._jobs.pop(0), True
            self._guard(entry.job)()
