"""One line about a running training: rewritten in place on a terminal, rare plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from typing import TextIO

from splat.train.events import Evaluated, Event, Finished, Paused, Started, Stepped, Warned

REFRESH_SECS = 0.2
RATE_WINDOW_SECS = 10.0


class ProgressSink:
    """Step, speed, time left, splats, last PSNR, memory. Without a terminal only evaluations and the end are told."""

    def __init__(self, stream: TextIO, *, test_views: int = 0) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._total = 0
        self._psnr: float | None = None
        self._test_views = test_views
        self._marks: deque[tuple[float, int]] = deque()
        self._shown_at = 0.0
        self._shown_width = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self._total = event.total_steps
        elif isinstance(event, Stepped):
            self._mark(event.step)
            if self._live and time.monotonic() - self._shown_at >= REFRESH_SECS:
                self._show(self._line(event))
        elif isinstance(event, Paused):
            if self._live and time.monotonic() - self._shown_at >= REFRESH_SECS:
                self._show(f"step {event.step}/{self._total}  paused")
        elif isinstance(event, Warned):
            self.say(f"warning: {event.text}")
        elif isinstance(event, Evaluated):
            self._psnr = event.evaluation.psnr
            self._marks.clear()  # the time of an evaluation says nothing about the speed of steps
            self.say(evaluation_line(event, self._test_views))
        elif isinstance(event, Finished):
            self.say(f"step {event.step}/{self._total}  {self._ending(event)}  {clock(event.state.elapsed_secs)}")

    def say(self, line: str) -> None:
        """A line that stays."""
        self._clear()
        self._stream.write(line + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Leave the terminal clean, whatever happened."""
        self._clear()

    def _ending(self, event: Finished) -> str:
        words = {"done": "done", "time": "time budget used up", "target": "target PSNR reached", "stopped": "stopped",
                 "interrupted": "interrupted"}  # fmt: skip
        return f"{words[event.reason]}, {event.state.model.count:,} splats"

    def _mark(self, step: int) -> None:
        now = time.monotonic()
        self._marks.append((now, step))
        while now - self._marks[0][0] > RATE_WINDOW_SECS and len(self._marks) > 2:
            self._marks.popleft()

    def _line(self, event: Stepped) -> str:
        (first_at, first), (last_at, last) = self._marks[0], self._marks[-1]
        rate = (last - first) / (last_at - first_at) if last > first else 0.0
        left = clock((self._total - event.step) / rate) if rate else "--:--"
        psnr = "" if self._psnr is None else f"  PSNR {self._psnr:.2f}"
        done = 100 * event.step // max(self._total, 1)
        return (
            f"step {event.step}/{self._total} ({done}%)  {rate:.1f} it/s  ETA {left}  "
            f"{event.state.model.count:,} splats{psnr}  {memory_text(event)}  loss {event.loss:.4f}"
        )

    def _show(self, text: str) -> None:
        text = text[: shutil.get_terminal_size().columns - 1]  # a wrapped line could not be rewritten
        self._stream.write("\r" + text.ljust(self._shown_width))
        self._stream.flush()
        self._shown_at, self._shown_width = time.monotonic(), len(text)

    def _clear(self) -> None:
        if self._shown_width:
            self._stream.write("\r" + " " * self._shown_width + "\r")
            self._stream.flush()
            self._shown_width = 0


def evaluation_line(event: Evaluated, views: int = 0) -> str:
    evaluation = event.evaluation
    lpips = "" if evaluation.lpips is None else f"  LPIPS {evaluation.lpips:.3f}"
    over = f" over {views} held-out views" if views else ""
    return (
        f"step {event.step}  PSNR {evaluation.psnr:.2f}  SSIM {evaluation.ssim:.4f}{lpips}{over}  "
        f"{event.state.model.count:,} splats  {clock(event.state.elapsed_secs)}"
    )


def clock(secs: float) -> str:
    """1:02:03 or 2:03."""
    whole = int(secs)
    hours, minutes, seconds = whole // 3600, whole % 3600 // 60, whole % 60
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def memory_text(event: Event) -> str:
    """Resident memory of the process, or what torch holds on the GPU."""
    device = event.state.model.device
    if device.type == "cuda":
        import torch

        return f"{torch.cuda.memory_allocated(device) / 2**30:.1f} GiB GPU"
    return f"{resident_bytes() / 2**30:.1f} GiB"


def resident_bytes() -> int:
    """Memory of this process that is in RAM now (peak where the system tells only that)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:
            pages = int(stream.read().split()[1])
        import resource

        return pages * resource.getpagesize()
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
