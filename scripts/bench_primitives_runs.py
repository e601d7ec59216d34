"""The trainings of ``bench_primitives.py``: which there are, running one, and what its run folder says afterwards."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splat.errors import UserError
from splat.report.run_folder import RunRecord, read_run

Row = dict[str, Any]
MEGABYTE = 1e6
QUIET_OUTPUT = (
    "--output.eval-at=", "--output.export-at=", "--output.checkpoint-every=0", "--output.report=false",
    "--output.first-render=false",
)  # fmt: skip
"""A benchmark measures at the end only: evaluations and files on the way would count as training time."""
INTERRUPTED = (130, 143, -2, -15)
POLL_SECS = 2.0


@dataclass(frozen=True)
class Setup:
    """What all trainings of one benchmark share."""

    capture: Path
    preset: str = "cpu"
    seed: int = 0
    flags: tuple[str, ...] = ()
    """Further flags of ``splat train``, such as ``-r 4``."""


@dataclass(frozen=True)
class Training:
    """One row of a table."""

    budget: str
    """``splats``, ``share``, ``time`` or ``scales``."""
    primitive: str
    """Its kind; what follows a ``+`` names a variant with flags of its own."""
    steps: int
    max_splats: int
    minutes: float | None = None
    """Stop cleanly after this time."""
    filter2d: str | None = None
    filter3d: bool = False
    flags: tuple[str, ...] = ()

    @property
    def filters(self) -> str:
        return (self.filter2d or "") + (" + 3D filter" if self.filter3d else "")

    @property
    def label(self) -> str:
        return f"{self.primitive}, {self.filters}" if self.filter2d else self.primitive

    @property
    def name(self) -> str:
        """Folder of the run."""
        parts = [self.budget, self.primitive, self.filter2d or "", "3d" if self.filter3d else ""]
        if self.budget == "share":
            parts.append(str(self.max_splats))
        return "-".join(part for part in parts if part)

    def arguments(self, setup: Setup) -> list[str]:
        """Of ``splat train``, without the output folder."""
        found = [
            str(setup.capture), "--preset", setup.preset, "--primitive", self.primitive.partition("+")[0],
            "--steps", str(self.steps), "--max-splats", str(self.max_splats), "--seed", str(setup.seed), *QUIET_OUTPUT,
        ]  # fmt: skip
        if self.minutes is not None:
            found += ["--max-minutes", f"{self.minutes:.4f}"]
        if self.filter2d is not None:
            found += ["--filter2d", self.filter2d]
        if self.filter3d:
            found += ["--render.filter3d=true"]
        if self.budget == "scales":  # trained at full size alone: coarse to fine would show it the smaller pictures
            found += ["--resolution.factor=1"]
        return [*found, *setup.flags, *self.flags]


def same_time(steps: int, own_secs: float, reference_secs: float) -> int:
    """Steps that take ``reference_secs`` at the speed at which ``steps`` took ``own_secs``.

    Schedules stretch with the number of steps, so a run of the right length is worth more than one that is cut off.
    """
    return max(1, round(steps * reference_secs / max(own_secs, 1e-9)))


def multiscale_trainings(steps: int, max_splats: int, flags: dict[str, tuple[str, ...]]) -> list[Training]:
    """Every screen-space filter on the gaussian, and the two that the primitives promise beside it."""
    chosen = [("gaussian", name, False) for name in ("classic", "aa", "mip", "analytic")]
    chosen += [("gaussian", "mip", True), ("ges", "analytic", False)]
    return [Training("scales", primitive, steps, max_splats, filter2d=filter2d, filter3d=filter3d,
                     flags=flags.get(primitive, ())) for primitive, filter2d, filter3d in chosen]  # fmt: skip


def train(
    training: Training, setup: Setup, runs: Path, *, resume: bool = False, watch: Callable[[int], None] | None = None
) -> Row:
    """Run one training unless ``resume`` finds it finished; a failure becomes a row that says why.

    ``watch`` is told the step now and then. KeyboardInterrupt passes, with the child ended.
    """
    folder, note, log = (runs / f"{training.name}{suffix}" for suffix in ("", ".json", ".log"))
    arguments = training.arguments(setup)
    if resume and is_finished(folder, note, arguments):
        return {**identity(training), **read_row(folder), "run": training.name, "reused": True}
    runs.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)
    command = [sys.executable, "-m", "splat.cli.main", "train", *arguments, "--no-viewer", "--out", str(folder)]
    command.append("--overwrite")
    code = watched(command, log, folder, watch)
    if code in INTERRUPTED:
        raise KeyboardInterrupt
    row = {**identity(training), "run": training.name}
    if code != 0:
        return {**row, "status": "failed", "reason": failure(log.read_text(encoding="utf8", errors="replace"), code)}
    try:
        row |= read_row(folder)
    except (UserError, OSError, KeyError) as error:
        return {**row, "status": "failed", "reason": f"the run folder is not whole: {error}"}
    note.write_text(json.dumps({"arguments": arguments}, indent=1) + "\n", encoding="utf8")
    return row


def identity(training: Training) -> Row:
    return {
        "budget": training.budget, "primitive": training.primitive, "label": training.label,
        "filters": training.filters, "steps_asked": training.steps, "max_splats": training.max_splats,
    }  # fmt: skip


def is_finished(folder: Path, note: Path, arguments: Sequence[str]) -> bool:
    """Whether this very training has ended well here before."""
    try:
        same = json.loads(note.read_text(encoding="utf8"))["arguments"] == list(arguments)
        record = read_run(folder)
    except (UserError, OSError, ValueError, KeyError):  # torn or absent: trained again
        return False
    ended = record.finish is not None and record.finish.get("reason") in ("done", "time")
    return same and ended and (folder / "model.safetensors").exists()


def read_row(folder: Path) -> Row:
    """The numbers of a finished run."""
    record = read_run(folder)
    scores = record.evals[-1] if record.evals else {}
    ply = newest_ply(folder)
    finish = record.finish or {}
    return {
        "status": "ok",
        "psnr": scores.get("psnr"), "ssim": scores.get("ssim"), "splats": record.value("splats"),
        "steps": record.last.get("step"), "ended": finish.get("reason"),
        "train_secs": record.train[-1]["elapsed_secs"] if record.train else None,
        "steps_per_sec": steps_per_second(record),
        "native_mb": (folder / "model.safetensors").stat().st_size / MEGABYTE,
        "ply_mb": None if ply is None else ply.stat().st_size / MEGABYTE,
        "machine": record.start.get("machine"), "views": record.start.get("views_test"),
        "views_train": record.start.get("views_train"), "sizes": record.protocol.get("sizes"),
        "protocol": record.protocol,
    }  # fmt: skip


def steps_per_second(record: RunRecord) -> float | None:
    """Median over the lines of ``metrics.jsonl``; the first step, which fills caches, is left out if it can be."""
    values = [line["its_per_sec"] for line in record.train if line["step"] > 1]
    values = values or [line["its_per_sec"] for line in record.train]
    return statistics.median(values) if values else None


def newest_ply(folder: Path) -> Path | None:
    found = sorted(folder.glob("point_cloud/iteration_*/point_cloud.ply"), key=lambda p: int(p.parent.name[10:]))
    return found[-1] if found else None


def failure(log: str, code: int) -> str:
    """One line that says why a training failed: its own error line, else its last words."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    own = [line.removeprefix("splat: error: ") for line in lines if line.startswith("splat: error: ")]
    faults = [line for line in own if line.startswith("this is a fault of splat")]
    if faults and len(lines) > 1:  # the line before it is the exception
        own = [line for line in lines[: lines.index(f"splat: error: {faults[-1]}")] if not line.startswith("File ")]
    text = (own or lines or ["nothing was said"])[-1]
    return f"{text[:240]} (exit code {code})"


def watched(command: Sequence[str], log: Path, folder: Path, watch: Callable[[int], None] | None) -> int:
    with open(log, "w", encoding="utf8") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            while True:
                try:
                    return process.wait(POLL_SECS)
                except subprocess.TimeoutExpired:
                    if watch is not None:
                        watch(_step_so_far(folder))
        except BaseException:
            process.terminate()
            process.wait()
            raise


def _step_so_far(folder: Path) -> int:
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf8").splitlines()
        return max((json.loads(line).get("step", 0) for line in lines[-1:]), default=0)
    except (OSError, ValueError):
        return 0


class Progress:
    """One line per training on the error stream, with the time that is left by the average so far."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self._began, self._reused = total, 0, time.monotonic(), 0
        self._live = sys.stderr.isatty()

    def starts(self, training: Training) -> Callable[[int], None]:
        print(f"[{self.done + 1}/{self.total}] {training.name}: {training.steps:,} steps, at most "
              f"{training.max_splats:,} splats", file=sys.stderr, flush=True)  # fmt: skip

        def watch(step: int) -> None:
            if self._live:
                print(f"\r      step {step:,} of {training.steps:,} ", end="", file=sys.stderr, flush=True)

        return watch

    def ends(self, row: Row) -> None:
        self.done += 1
        self._reused += bool(row.get("reused"))
        if row["status"] == "ok":
            psnr = "no score" if row["psnr"] is None else f"{row['psnr']:.2f} dB"
            said = f"{psnr}, {row['splats']:,} splats, {row['train_secs'] or 0:.1f} s"
        else:
            said = f"failed: {row['reason']}"
        head = "\r      " if self._live else "      "
        print(f"{head}{said}{' (was finished before)' if row.get('reused') else ''}{self._left()}",
              file=sys.stderr, flush=True)  # fmt: skip

    def _left(self) -> str:
        trained = self.done - self._reused
        if not trained or self.done >= self.total:
            return ""
        left = (time.monotonic() - self._began) / trained * (self.total - self.done)
        return f"; about {left / 60:.0f} min left" if left > 90 else f"; about {left:.0f} s left"
