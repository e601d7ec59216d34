"""Rows shown elsewhere than they are, from the first move of the mouse until the change has arrived in the model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from torch import Tensor


class Preview:
    """Ends only when a snapshot taken after the change is there; ended at once, the picture would jump back."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self._lock = threading.Lock()
        self._number = 0
        self._unsubscribe: Callable[[], None] | None = None

    def show(self, ids: Tensor, values: dict[str, Tensor]) -> None:
        """Draw the splats called ``ids [R]`` with these raw values."""
        with self._lock:
            self._number += 1
            self._stop_waiting()
        self.page.preview(ids, values)

    def end(self) -> None:
        with self._lock:
            self._number += 1
            self._stop_waiting()
        self.page.preview(None, None)

    def end_after(self, reply: Future) -> None:
        """End with the first snapshot after ``reply``; at once where it is a refusal. A later ``show`` calls it off."""
        with self._lock:
            number = self._number
        reply.add_done_callback(lambda done: self._answered(done, number))

    def _answered(self, reply: Future, number: int) -> None:
        if reply.cancelled() or reply.exception() is not None:
            return self._end_of(number)
        with self._lock:
            if number != self._number:
                return
            self._stop_waiting()
            self._unsubscribe = self.page.desk.on_snapshot(lambda *_: self._end_of(number))
        self.page.desk.refresh()

    def _end_of(self, number: int) -> None:
        with self._lock:
            if number != self._number:
                return
            self._stop_waiting()
        self.page.preview(None, None)

    def _stop_waiting(self) -> None:
        unsubscribe, self._unsubscribe = self._unsubscribe, None
        if unsubscribe is not None:
            unsubscribe()
