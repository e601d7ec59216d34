"""The one shape of a thread of the viewer that lives as long as its owner."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

FAILED_REST_SECS = 0.1
"""After a failure: one that comes with every turn must not take the cores of a training."""


class Loop:
    """A daemon thread that takes a turn again and again until it is closed.

    A turn waits for its work on ``changed``, under which its owner keeps what the turns read, or wherever else it
    likes; ``close`` wakes only those who wait on ``changed``. What a turn raises is told to ``failed``, unless the loop
    was closed meanwhile, and the next turn comes all the same.
    """

    def __init__(self, name: str, turn: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._turn, self._failed = turn, failed
        self._closed = False

    def start(self) -> None:
        """Nothing happens when it was closed before."""
        with self.changed:
            if not self._closed:
                self.thread.start()

    def is_closed(self) -> bool:
        return self._closed

    def tell(self, change: Callable[[], None]) -> None:
        """Do ``change`` under the lock and wake the thread."""
        with self.changed:
            change()
            self.changed.notify_all()

    def close(self) -> None:
        """The turn at hand is the last. Does not wait for it: see ``join_all``."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()

    def _run(self) -> None:
        while not self._closed:
            try:
                self._turn()
            except Exception as error:
                if self._closed:
                    return
                self._failed(error)
                with self.changed:
                    if not self._closed:
                        self.changed.wait(FAILED_REST_SECS)


def join_all(threads: Iterable[threading.Thread], secs: float) -> None:
    """Wait for threads to end, ``secs`` for all of them together; those that never began do not count."""
    until = time.monotonic() + secs
    for thread in threads:
        if thread.is_alive():
            thread.join(max(until - time.monotonic(), 0.0))
