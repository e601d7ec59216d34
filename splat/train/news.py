"""Figures and curves of a running training, for whoever looks; a reader that is not there costs nothing."""

from __future__ import annotations

import math
import time
from collections import deque

import torch
from torch import Tensor

from splat.live.news import News
from splat.train.events import Changed, Evaluated, Event, Finished, Paused, Started, Stepped, Warned
from splat.train.progress import resident_bytes

TICK_SECS = 0.25
"""Between two updates."""
RATE_WINDOW_SECS = 10.0
RECENT_VIEWS = 20
"""Sampled pictures whose mean squared errors make the PSNR of training views."""


class NewsSink:
    """Writes ``News`` a few times a second. Numbers on a GPU are told when they have come over: nothing waits for them.

    Curves: ``loss``, ``psnr`` (training views, from some of their pixels), ``psnr_held_out`` and ``splats``.
    """

    def __init__(self, news: News) -> None:
        self._news = news
        self._total = 0
        self._marks: deque[tuple[float, int]] = deque()
        self._told_at = 0.0
        self._loss: tuple[int, _Coming] | None = None
        """Step and loss of a tick."""
        self._mse: deque[_Coming] = deque(maxlen=RECENT_VIEWS)

    def __call__(self, event: Event) -> None:
        news = self._news
        if isinstance(event, Started):
            self._total = event.total_steps
            news.update(total_steps=event.total_steps, settings=dict(event.settings), **_rows(event))
            news.add("splats", event.step, event.state.model.count)
        elif isinstance(event, Stepped):
            self._stepped(event)
        elif isinstance(event, Paused):
            self._marks.clear()  # time that is not spent on steps says nothing about their speed
            news.update(paused=True, its_per_sec=None, eta_secs=None, **_rows(event))
        elif isinstance(event, Changed):
            news.update(settings=dict(event.settings))
        elif isinstance(event, Warned):
            news.update(message=event.text)
        elif isinstance(event, Evaluated):
            self._marks.clear()
            news.update(psnr=event.evaluation.psnr, psnr_is_held_out=True, psnr_step=event.step)
            news.add("psnr_held_out", event.step, event.evaluation.psnr)
        elif isinstance(event, Finished):
            self._tell(event.step)
            news.update(ended=event.reason, paused=False, eta_secs=None, **_rows(event))

    def _stepped(self, event: Stepped) -> None:
        if event.mse is not None:
            self._mse.append(_Coming(event.mse))
        now = time.monotonic()
        if now - self._told_at < TICK_SECS:
            return
        self._told_at = now
        self._tell(event.step)
        if self._loss is None:
            self._loss = event.step, _Coming(event.loss)
        rate = self._rate(now, event.step)
        left = None if rate is None else (self._total - event.step) / rate
        memory = _memory_bytes(event)
        self._news.update(paused=False, its_per_sec=rate, eta_secs=left, memory_bytes=memory, **_rows(event))
        self._news.add("splats", event.step, event.state.model.count)
        if self._news.status.loss is None and not isinstance(event.loss, Tensor):
            self._tell(event.step)

    def _tell(self, step: int) -> None:
        """The loss noted last, and the PSNR of what was sampled by then."""
        if self._loss is None:
            return
        at, loss = self._loss[0], self._loss[1].value()
        if loss is None:
            return
        self._loss = None
        self._news.update(loss=loss)
        self._news.add("loss", at, loss)
        psnr = self._training_psnr()
        if psnr is not None:
            self._news.add("psnr", step, psnr)
            self._news.update(psnr_training=psnr)
            if not self._news.status.psnr_is_held_out:
                self._news.update(psnr=psnr)

    def _training_psnr(self) -> float | None:
        seen = [value for coming in self._mse if (value := coming.value()) is not None and math.isfinite(value)]
        return -10 * math.log10(max(sum(seen) / len(seen), 1e-10)) if seen else None

    def _rate(self, now: float, step: int) -> float | None:
        self._marks.append((now, step))
        while now - self._marks[0][0] > RATE_WINDOW_SECS and len(self._marks) > 2:
            self._marks.popleft()
        (first_at, first), (last_at, last) = self._marks[0], self._marks[-1]
        return (last - first) / (last_at - first_at) if last > first else None


class _Coming:
    """A number that may be on its way from a GPU."""

    def __init__(self, number: float | Tensor) -> None:
        self._number, self._arrived = number, None
        if isinstance(number, Tensor) and number.device.type == "cuda":
            number = number.detach()
            self._number = torch.empty((), dtype=number.dtype, pin_memory=True).copy_(number, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(number.device))

    def value(self) -> float | None:
        """None while it is not there."""
        if self._arrived is not None and not self._arrived.query():
            return None
        return float(self._number)


def _rows(event: Event) -> dict[str, object]:
    state = event.state
    return {"step": state.step, "splats": state.model.count, "elapsed_secs": state.elapsed_secs}


def _memory_bytes(event: Event) -> int:
    """What torch holds on the GPU, else what the process has in RAM."""
    device = event.state.model.device
    if device.type != "cuda":
        return resident_bytes()
    return torch.cuda.memory_allocated(device)
