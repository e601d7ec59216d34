"""A one-place mailbox: the trainer fills it only when somebody asked, the newest value wins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """One producer (the training thread), any number of readers.

    A reader calls ``request`` and later ``take``; the producer looks at ``wanted`` between steps and
    calls ``put``. Neither ever waits for the other unless a reader gives ``take`` the time.
    """

    def __init__(self) -> None:
        self.on_request: Callable[[], None] | None = None
        """Called on the reader's thread by every request, for a producer that has no steps to look between."""
        self._filled = threading.Condition()
        self._wanted = False
        self._value: T | None = None

    @property
    def wanted(self) -> bool:
        """True while a request is unanswered."""
        return self._wanted

    def request(self) -> None:
        """Ask for a fresh value; asking twice is asking once."""
        with self._filled:
            self._wanted = True
        if (told := self.on_request) is not None:
            told()

    def put(self, value: T) -> None:
        """Answer the request. An older value nobody took is dropped."""
        with self._filled:
            self._value, self._wanted = value, False
            self._filled.notify_all()

    def take(self, timeout_secs: float | None = 0.0, *, unless: Callable[[], bool] = lambda: False) -> T | None:
        """The newest value, removed from the box; None when none came in time (None: however long it takes), or
        ``unless()`` became true, which is looked at again after every ``wake``."""
        with self._filled:
            self._filled.wait_for(lambda: self._value is not None or unless(), timeout_secs)
            value, self._value = self._value, None
            return value

    def wake(self) -> None:
        """Let everybody who waits in ``take`` look whether to go on."""
        with self._filled:
            self._filled.notify_all()
