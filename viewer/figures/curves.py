"""Curves of a training as a chart takes them."""

from __future__ import annotations

import numpy as np

MOST_POINTS = 300
"""Of a chart: it is that many pixels wide."""


def thinned(points: list[tuple[int, float]], most: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:  # [P], [P]
    """Steps and values, oldest first; of more than ``most`` points, means of runs of neighbours, so that a curve that
    jumps is shown as it runs. What is not finite is left out. A chart needs two points: fewer are repeated."""
    table = np.array(points, np.float64).reshape(-1, 2)
    table = table[np.isfinite(table).all(axis=1)]
    if len(table) > most:
        runs = np.array_split(table, most)
        table = np.concatenate([np.array([run.mean(axis=0) for run in runs[:-1]]), table[-1:]])
    if not len(table):
        table = np.zeros((1, 2))
    if len(table) == 1:
        table = np.concatenate([table, table])
    return table[:, 0], table[:, 1]


def figures(status, *, digits: int = 2) -> list[tuple[str, str]]:
    """The figures of the moment as words; only what is known. ``status``: ``live.news.Status``."""
    rows = []
    if status.total_steps:
        rows.append(("step", f"{status.step:,} of {status.total_steps:,}"))
    if status.its_per_sec is not None and not status.paused and status.ended is None:
        rows.append(("speed", f"{status.its_per_sec:.{digits}f} steps/s"))
        if status.eta_secs is not None:
            rows.append(("left", duration(status.eta_secs)))
    if status.elapsed_secs:
        rows.append(("trained for", duration(status.elapsed_secs)))
    rows.append(("splats", f"{status.splats:,}"))
    if status.memory_bytes is not None:
        rows.append(("memory", f"{status.memory_bytes / 1e6:,.0f} MB"))
    if status.loss is not None:
        rows.append(("loss", f"{status.loss:.4f}"))
    now = status.psnr_training if status.psnr_is_held_out else status.psnr
    if now is not None:
        rows.append(("PSNR", f"{now:.2f} dB (training views)"))
    if status.psnr is not None and status.psnr_is_held_out:
        when = "" if status.psnr_step is None else f" at step {status.psnr_step:,}"
        rows.append(("held out", f"{status.psnr:.2f} dB{when}"))
    return rows


def duration(secs: float) -> str:
    """``1:02:03`` or ``2:03``."""
    whole = max(round(secs), 0)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def condition(status, *, standing: bool = False) -> str:
    """What the training is doing, in a word or two."""
    if standing:
        return "nothing trains"
    if status.ended is not None:
        return f"over ({status.ended})"
    return "paused" if status.paused else "running"
