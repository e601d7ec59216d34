"""Where the time of a step goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = ("load", "render", "loss", "backward", "optimizer", "refine")


class Stopwatch:
    """Seconds per stage of one step. On a GPU these are launch times unless something waits for the device."""

    def __init__(self) -> None:
        self.secs = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.secs[name] += time.perf_counter() - began


class RunClock:
    """Wall time of a run over all its parts; pauses do not count."""

    def __init__(self, earlier_secs: float = 0.0) -> None:
        self._before = earlier_secs
        self._running_since: float | None = None

    def start(self) -> None:
        if self._running_since is None:
            self._running_since = time.monotonic()

    def stop(self) -> None:
        self._before, self._running_since = self.elapsed_secs, None

    @property
    def elapsed_secs(self) -> float:
        if self._running_since is None:
            return self._before
        return self._before + time.monotonic() - self._running_since
