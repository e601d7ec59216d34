"""Work that comes in spurts: quick while there is some, nothing that wakes anybody otherwise."""

from __future__ import annotations

import threading
from collections.abc import Callable

from splat.viewer.serving.page import Page

QUICK_SECS = 0.05


class Spurt:
    """Does ``work()`` again and again, in the page's own thread, from ``begin`` on until it says that nothing is left
    for now (or raises)."""

    def __init__(self, page: Page, work: Callable[[], bool]) -> None:
        self._page, self._work = page, work
        self._lock = threading.Lock()
        self._asked = False
        self._end: Callable[[], None] | None = None

    def begin(self) -> None:
        """From any thread, also while it is at work."""
        with self._lock:
            self._asked = True
            if self._end is None:
                self._end = self._page.every(QUICK_SECS, self._turn)

    def _turn(self) -> None:
        with self._lock:
            self._asked = False
        more = False
        try:
            more = self._work()
        finally:
            with self._lock:
                if not more and not self._asked and self._end is not None:
                    self._end()
                    self._end = None
