"""When a page gets its next picture, and how large it is. Pure: told what happens, asked what is due."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

SCALES = (1.0, 0.71, 0.5, 0.35, 0.25)
"""Sides of a picture as shares of the page's, largest first; each has about half the pixels of the one before."""
MOVING_SECS = 1 / 30
"""What one picture may take while the view moves."""
STILL_AFTER_SECS = 0.15
QUALITY_MOVING, QUALITY_STILL = 60, 85  # of JPEG
IDLE_SHARE = 0.03
"""At most this share of the time goes into drawing the progress of a training for pages where nobody moves; with what
sending and the panels take, a training is to lose no more than 5 %."""
DEFAULT_SHARE = 0.5
MOST_SHARE = 0.99
Clock = Callable[[], float]


class Speed:
    """Seconds a picture takes at each scale, as last seen."""

    def __init__(self) -> None:
        self._secs: dict[float, float] = {}

    def note(self, scale: float, secs: float) -> None:
        """The mean of old and new, as one slow picture says little; the other scales are believed to have become
        slower or faster as much: the model grew, or a training began."""
        before = self._secs.get(scale)
        if before is not None and before > 0:
            factor = (before + secs) / 2 / before
            self._secs = {seen: known * factor for seen, known in self._secs.items()}
        else:
            self._secs[scale] = secs

    def predicted(self, scale: float) -> float:
        """Never above a larger picture's time, nor above a smaller one's grown with its pixels; 0 when nothing is
        known. Both bounds matter: an old measurement of one scale must not keep it from being tried again."""
        known = [secs if seen >= scale else secs * (scale / seen) ** 2 for seen, secs in self._secs.items()]
        return min(known, default=0.0)

    def best(self, budget_secs: float) -> float:
        """The largest scale that keeps to the budget, else the smallest."""
        return next((scale for scale in SCALES if self.predicted(scale) <= budget_secs), SCALES[-1])


class Share:
    """The part of the time that a training is left, shared by all pages of it. Safe from any thread."""

    def __init__(self, training: float = DEFAULT_SHARE, *, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = self._idle_at = clock()
        self.training = training

    @property
    def training(self) -> float:
        """Share of the time, 0..0.99, that is training's even while somebody moves."""
        return self._training

    @training.setter
    def training(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise ValueError(f"share of time for training = {value} does not fit: use 0 to {MOST_SHARE}")
        self._training = min(value, MOST_SHARE)

    def took(self, secs: float, *, idle: bool = False) -> None:
        """A picture was made in ``secs``: training's turn, for as long as its share asks. ``idle``: one that only shows
        progress."""
        now = self._clock()
        with self._lock:
            self._free_at = max(self._free_at, now) + secs * _rest(self._training)
            if idle:
                self._idle_at = max(self._idle_at, now) + secs * _rest(max(self._training, 1 - IDLE_SHARE))

    def wait_secs(self, *, idle: bool) -> float:
        """Until the next picture may begin; ``idle``: one that only shows progress."""
        at = max(self._idle_at, self._free_at) if idle else self._free_at
        return max(at - self._clock(), 0.0)


@dataclass(frozen=True)
class Plan:
    """One picture to make."""

    why: Literal["moving", "still", "refresh"]
    scale: float
    quality: int


class Pace:
    """The next picture of one page. Not locked: its user does that."""

    def __init__(self, share: Share, *, clock: Clock = time.monotonic) -> None:
        self._clock, self._share = clock, share
        self.speed = Speed()
        self._event_at = clock()
        self._moving = True  # a new page waits for its first picture
        self._sharp = False
        self._stale = False

    @property
    def is_moving(self) -> bool:
        """Whether the picture that stands is not yet the sharp one."""
        return self._moving or not self._sharp

    def event(self) -> None:
        """The view moved, or how it is drawn has changed."""
        self._event_at = self._clock()
        self._moving, self._sharp = True, False

    def arrived(self) -> None:
        """A newer model is there."""
        self._stale = True

    def due(self, *, training: bool) -> tuple[Plan | None, float | None]:
        """What to draw now, or after how many seconds to ask again (None: after the next event)."""
        still_in = self._event_at + STILL_AFTER_SECS - self._clock()
        idle = not self._moving and self._sharp
        wait = self._share.wait_secs(idle=idle) if training else 0.0
        if self._moving:
            return (Plan("moving", self.speed.best(MOVING_SECS), QUALITY_MOVING), None) if wait <= 0 else (None, wait)
        if not self._sharp:
            wait = max(wait, still_in)
            return (Plan("still", 1.0, QUALITY_STILL), None) if wait <= 0 else (None, wait)
        if self._stale:
            return (Plan("refresh", 1.0, QUALITY_STILL), None) if wait <= 0 else (None, wait)
        return None, None

    def begin(self, plan: Plan) -> None:
        """``plan`` is being drawn; what comes from here on is news again."""
        self._moving, self._stale = False, False
        self._sharp = plan.why != "moving"

    def drew(self, plan: Plan, secs: float, *, training: bool, copied_secs: float = 0.0) -> None:
        """It took ``secs``, and the training ``copied_secs`` to hand out the model it shows."""
        self.speed.note(plan.scale, secs)
        if training:
            self._share.took(secs + copied_secs, idle=plan.why == "refresh")


def _rest(share: float) -> float:
    """Seconds of rest that leave ``share`` to the other side, per second of work."""
    return share / (1 - share)
