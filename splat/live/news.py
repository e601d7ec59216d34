"""What a training tells of itself while it runs: the figures of the moment, and curves."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

MOST_POINTS = 2000
"""Of a curve; beyond, every second point goes and new ones come half as often."""


@dataclass(frozen=True)
class Status:
    """The figures of the moment. None = not known (yet)."""

    step: int = 0
    total_steps: int = 0
    its_per_sec: float | None = None
    eta_secs: float | None = None
    elapsed_secs: float = 0.0
    splats: int = 0
    memory_bytes: int | None = None
    loss: float | None = None
    psnr: float | None = None
    """Of the last evaluation on held-out views, else of recent training views, dB."""
    psnr_is_held_out: bool = False
    paused: bool = False
    ended: str | None = None
    """Why the run is over; None while it goes on."""
    message: str = ""
    """The last warning."""
    settings: Mapping[str, object] | None = None
    """Values of ``commands.SETTINGS`` in force."""
    psnr_training: float | None = None
    """Of recent training views, dB; goes on while ``psnr`` waits for the next evaluation."""
    psnr_step: int | None = None
    """Step of the last evaluation on held-out views."""


class News:
    """A board with one writer (the training thread) and any number of readers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._status = Status()
        self._curves: dict[str, list[tuple[int, float]]] = {}
        self._strides: dict[str, int] = {}
        self._seen: dict[str, int] = {}

    @property
    def status(self) -> Status:
        return self._status

    def update(self, **changes: object) -> None:
        with self._lock:
            self._status = replace(self._status, **changes)

    def add(self, curve: str, step: int, value: float) -> None:
        """One more point of ``curve`` (``loss``, ``psnr``, ``splats``...)."""
        with self._lock:
            seen = self._seen.get(curve, 0)
            self._seen[curve] = seen + 1
            points = self._curves.setdefault(curve, [])
            stride = self._strides.setdefault(curve, 1)
            if seen % stride == 0:
                points.append((step, value))
            if len(points) > MOST_POINTS:
                del points[1::2]
                self._strides[curve] = 2 * stride

    def curve(self, name: str) -> list[tuple[int, float]]:
        """A copy of the points (step, value) of a curve, oldest first."""
        with self._lock:
            return list(self._curves.get(name, ()))
