"""Sinks: metrics, exports, the viewer's mailbox. Each is a plain function of an event with a little memory."""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from splat.io.atomic import atomic_path, write_error
from splat.live.mailbox import Mailbox
from splat.live.snapshot import Snapshot
from splat.model.splat_model import SplatModel
from splat.train.events import Changed, Edited, Evaluated, Event, Finished, Started, Stepped, Warned
from splat.train.places import Place
from splat.train.stages import STAGES
from splat.train.state import TrainState

TRAIN_LINE_EVERY = 50
METRICS = "metrics.jsonl"
SCORES = ("psnr", "ssim", "psnr_8bit", "ssim_8bit", "lpips")


class MetricsSink:
    """Appends one JSON object per line to ``metrics.jsonl``; every line is on its way to the disk before the next."""

    def __init__(self, run_dir: Path, start: Mapping[str, Any], *, every: int = TRAIN_LINE_EVERY) -> None:
        self._path = Path(run_dir) / METRICS
        self._start, self._every = dict(start), every
        self._window: list[Stepped] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self._write("start", step=event.step, splats=event.state.model.count, **self._start)
        elif isinstance(event, Stepped):
            self._window.append(event)
            if event.step % self._every == 0 or event.step == 1:
                self._write_window(event.state)
        elif isinstance(event, Edited):
            self._write(
                "refine", step=event.step, reason=event.reason, added=event.added, removed=event.removed,
                splats=event.splats, **place_record("added_at", event.added_at),
                **place_record("removed_at", event.removed_at),
            )  # fmt: skip
        elif isinstance(event, Changed):
            self._write("change", step=event.step, name=event.name, value=event.value)
        elif isinstance(event, Warned):
            self._write("warning", step=event.step, text=event.text, splats=event.state.model.count)
        elif isinstance(event, Evaluated):
            self._write_window(event.state)
            self._write("eval", **evaluation_record(event.state, event.evaluation))
        elif isinstance(event, Finished):
            self._write_window(event.state)
            reason = "stopped" if event.reason == "interrupted" else event.reason
            self._write("finish", step=event.step, reason=reason, elapsed_secs=event.state.elapsed_secs,
                        splats=event.state.model.count)  # fmt: skip

    def _write_window(self, state: TrainState) -> None:
        """Means over the steps since the last line."""
        window, self._window = self._window, []
        if not window:
            return
        count = len(window)
        # Steps alone: evaluations and files written in between are no fault of the speed.
        stage_secs = {stage: sum(e.stage_secs[stage] for e in window) / count for stage in STAGES}
        self._write(
            "train", step=state.step,
            loss=float(sum(e.loss for e in window)) / count, l1=float(sum(e.l1 for e in window)) / count,
            ssim=float(sum(e.ssim for e in window)) / count, splats=state.model.count, elapsed_secs=state.elapsed_secs,
            its_per_sec=1 / max(sum(stage_secs.values()), 1e-9), lr_means=window[-1].lr_means, stage_secs=stage_secs,
        )  # fmt: skip

    def _write(self, kind: str, **record: Any) -> None:
        line = json.dumps(json_safe({"kind": kind, **record}), allow_nan=False)
        try:
            with open(self._path, "a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except OSError as error:
            raise write_error(error, self._path) from error


def evaluation_record(state: TrainState, evaluation: Any) -> dict[str, Any]:
    """What ``metrics.jsonl`` keeps of an evaluation: the means and their protocol."""
    means = {name: getattr(evaluation, name) for name in SCORES}
    return {
        "step": state.step, **means, "splats": state.model.count, "elapsed_secs": state.elapsed_secs,
        "protocol": dict(evaluation.protocol),
    }  # fmt: skip


def place_record(name: str, place: Place | None) -> dict[str, Any]:
    """Where rows were added or removed, with five digits; nothing where none were."""
    if place is None:
        return {}
    corners = {"low": place.low, "high": place.high, "median": place.median}
    return {name: {corner: [float(f"{x:.5g}") for x in point] for corner, point in corners.items()}}


def json_safe(value: Any) -> Any:
    """JSON has no infinity and no NaN; they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    return value


def drop_metrics_after(run_dir: Path, step: int) -> int:
    """Forget lines beyond ``step`` (a resumed run writes them again) and a torn last line; returns how many went."""
    path = Path(run_dir) / METRICS
    if not path.exists():
        return 0
    kept, dropped = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            beyond = record.get("step", 0) > step
        except (ValueError, AttributeError):
            beyond = True
        if beyond:
            dropped += 1
        else:
            kept.append(line)
    with atomic_path(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    return dropped


class ExportSink:
    """Hands the state to ``export`` after the steps in ``at`` and at a clean end; never twice for one state."""

    def __init__(self, export: Callable[[TrainState], None], at: frozenset[int]) -> None:
        self._export, self._at = export, at
        self._exported: tuple[int, int] | None = None

    def __call__(self, event: Event) -> None:
        ended = isinstance(event, Finished) and event.reason != "interrupted"
        mark = event.step, event.state.version
        if (isinstance(event, Stepped) and event.step in self._at) or (ended and self._exported != mark):
            self._export(event.state)
            self._exported = mark


class MailboxSink:
    """Serves whoever asked for the model, at whatever happens: a copy, so that the reader owns it.

    ``shown`` makes of the state what is to be seen; None = the model as it is.
    """

    def __init__(
        self, mailbox: Mailbox[Snapshot], shown: Callable[[TrainState], SplatModel] | None = None
    ) -> None:  # fmt: skip
        self._mailbox, self._shown = mailbox, shown or (lambda state: state.model)
        self._last: weakref.ref[Snapshot] | None = None

    def __call__(self, event: Event) -> None:
        self.serve(event.state)

    def serve(self, state: TrainState) -> None:
        """May be called whenever rows are whole: during an evaluation, too."""
        if self._mailbox.wanted:
            self._mailbox.put(self._snapshot(state))

    def _snapshot(self, state: TrainState) -> Snapshot:
        last = None if self._last is None else self._last()
        if last is not None and last.version == state.version:  # a reader still has it, and nobody changes it
            return last
        model = self._shown(state).detached()
        # Labels and protection are never changed in place.
        snapshot = Snapshot(model, state.labels, state.step, state.version, state.protection or None)
        self._last = weakref.ref(snapshot)
        return snapshot
