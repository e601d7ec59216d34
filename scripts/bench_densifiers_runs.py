"""The trainings of ``bench_densifiers.py``: which there are, and what each says to the command line."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import bench_primitives_runs as base
from bench_primitives_runs import QUIET_OUTPUT, Row, Setup

from splat.densify.registry import DENSIFIERS
from splat.errors import UserError
from splat.model.primitives import PRIMITIVES
from splat.report.run_folder import RunRecord, read_run

THIRD = 3
"""The short trainings take the steps divided by this."""


@dataclass(frozen=True)
class Training:
    """One run: one densifier, one seed."""

    budget: str
    """``splats``, ``steps``, ``third``, ``share``, ``time``, ``ablate`` or ``curve``."""
    densifier: str
    """Its kind; what follows a ``+`` names a variant with flags of its own."""
    seed: int
    steps: int
    max_splats: int | None
    """None lets it grow as it will, up to the limit of the preset."""
    minutes: float | None = None
    """Stop cleanly after this time."""
    flags: tuple[str, ...] = ()
    primitive: str = "gaussian"
    change: str = ""
    """Of an ablation: the settings that differ, as given."""
    evals: tuple[int, ...] = ()
    """Steps to evaluate at on the way."""

    @property
    def label(self) -> str:
        return f"{self.densifier}, {self.change}" if self.change else self.densifier

    @property
    def name(self) -> str:
        """Folder of the run."""
        parts = [self.budget, self.densifier, re.sub(r"[^\w.+=-]+", "_", self.change)]
        if self.budget == "share":
            parts.append(str(self.max_splats))
        return "-".join([*(part for part in parts if part), f"s{self.seed}"])

    @property
    def filters(self) -> str:
        """For the runner that is shared with the primitives: none of this benchmark's business."""
        return ""

    def arguments(self, setup: Setup) -> list[str]:
        """Of ``splat train``, without the output folder."""
        found = [
            str(setup.capture), "--preset", setup.preset, "--primitive", self.primitive,
            "--densifier", self.densifier.partition("+")[0], "--steps", str(self.steps), "--seed", str(self.seed),
            *QUIET_OUTPUT,
        ]  # fmt: skip
        if self.max_splats is not None:
            found += ["--max-splats", str(self.max_splats)]
        if self.minutes is not None:
            found += ["--max-minutes", f"{self.minutes:.4f}"]
        if self.evals:
            found += [f"--output.eval-at={','.join(map(str, self.evals))}"]
        return [*found, *setup.flags, *self.flags]


@dataclass(frozen=True)
class Plan:
    """What one capture is trained with; the same for all captures."""

    densifiers: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    max_splats: int
    primitive: str = "gaussian"
    shares: tuple[float, ...] = ()
    third: tuple[str, ...] = ()
    """Densifiers that also train for a third of the steps."""
    capped: frozenset[str] = frozenset()
    """Kinds that grow to a number that somebody must name."""
    ablations: tuple[tuple[str, str], ...] = ()
    """(densifier, change); the change '' is all of it."""
    equal_steps: bool = True
    equal_time: bool = True
    curve: int = 0
    """Evaluations on the way of one more training per densifier."""
    minutes: float | None = None
    flags_of: Mapping[str, tuple[str, ...]] | None = None

    def training(self, budget: str, densifier: str, seed: int, **changes: Any) -> Training:
        made = Training(
            budget, densifier, seed, self.steps, self.max_splats, self.minutes,
            flags=(self.flags_of or {}).get(densifier, ()), primitive=self.primitive,
        )  # fmt: skip
        return replace(made, **changes)

    def each(self, budget: str, densifiers: Sequence[str], **changes: Any) -> list[Training]:
        """Seeds outside, densifiers inside: a slow hour of the machine hits all of them."""
        return [self.training(budget, densifier, seed, **changes) for seed in self.seeds for densifier in densifiers]

    def at_equal_splats(self) -> list[Training]:
        return self.each("splats", self.densifiers)

    def at_equal_steps(self) -> list[Training]:
        """Those that stop growing by themselves, without a limit."""
        return self.each("steps", self.free, max_splats=None) if self.equal_steps else []

    @property
    def free(self) -> list[str]:
        return [name for name in self.densifiers if name.partition("+")[0] not in self.capped]

    def at_a_third(self) -> list[Training]:
        """Told against the first of all, so there must be one."""
        if not self.densifiers:
            return []
        return self.each("third", self.third, steps=max(1, round(self.steps / THIRD)))

    def at_shares(self) -> list[Training]:
        limits = [max(1, round(share * self.max_splats)) for share in self.shares]
        return [training for limit in limits for training in self.each("share", self.densifiers, max_splats=limit)]

    def curves(self) -> list[Training]:
        """The first seed of the equal-splats table again, looked at on the way: looking would cost it time there."""
        if not self.curve:
            return []
        evals = tuple(sorted({max(1, round(self.steps * i / self.curve)) for i in range(1, self.curve + 1)}))
        return [self.training("curve", densifier, self.seeds[0], evals=evals) for densifier in self.densifiers]

    def changed(self) -> list[Training]:
        """The ablations; what stands in the equal-splats table already is not trained again."""
        todo = [item for item in self.ablations if item[1] or item[0] not in self.densifiers]
        return [
            self.training("ablate", kind, seed, change=change,
                          flags=((self.flags_of or {}).get(kind, ()) + change_flags(change)))
            for seed in self.seeds for kind, change in todo
        ]  # fmt: skip

    def count(self) -> int:
        """Trainings of one capture."""
        timed = max(len(self.densifiers) - 1, 0) * len(self.seeds) if self.equal_time else 0
        return timed + sum(
            len(part) for part in (self.at_equal_splats(), self.at_equal_steps(), self.at_a_third(), self.at_shares(),
                                   self.curves(), self.changed())
        )  # fmt: skip


def fitting(primitive: str) -> list[str]:
    """Registered densifiers that work with ``primitive`` and change anything."""
    if primitive not in PRIMITIVES:
        raise UserError(f"--primitive {primitive!r} does not fit: choose one of {', '.join(PRIMITIVES)}")
    rows = PRIMITIVES[primitive]()
    return [kind for kind, cls in DENSIFIERS.items() if kind != "none" and cls().blocked(rows) is None]


def capped_kinds(more: Sequence[str] = ()) -> frozenset[str]:
    """Densifiers with a setting ``cap``: they grow to a number, so that without one nothing is said about them."""
    own = {kind for kind, cls in DENSIFIERS.items() if "cap" in {field.name for field in fields(cls)}}
    return frozenset(own | set(more))


def ablations(given: Sequence[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    """``[["mcmc", "noise=0; growth=1.1 & cap=9"]]`` -> (mcmc, ''), (mcmc, noise=0), (mcmc, growth=1.1 & cap=9)."""
    found: list[tuple[str, str]] = []
    for kind, text in given:
        changes = [" ".join(part.split()) for part in text.split(";") if part.strip()]
        if not changes or kind.startswith("-"):
            raise UserError(f"--ablate {kind} {text!r} does not fit: write KIND 'SETTING=VALUE; SETTING=VALUE'")
        for change in changes:
            change_flags(change)
        found += [(kind, change) for change in ("", *changes)]
    folders = [Training("ablate", kind, 0, 1, 1, change=change).name for kind, change in found]
    if len(set(folders)) < len(folders):
        raise UserError("--ablate names a change twice")
    return tuple(found)


def change_flags(change: str) -> tuple[str, ...]:
    """Flags of one ablation: ``noise=0`` is a setting of the densifier, ``optim.lr_scales=0`` one of its section."""
    flags = []
    for part in filter(None, (part.strip() for part in change.split("&"))):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not re.fullmatch(r"[A-Za-z][\w.-]*", name):
            raise UserError(f"--ablate: {part!r} does not fit: write SETTING=VALUE (two at once with '&')")
        flags.append(f"--{name}={value}" if "." in name else f"--densifier.{name}={value}")
    return tuple(flags)


def train(
    training: Training, setup: Setup, runs: Path, *, resume: bool = False, watch: Callable[[int], None] | None = None
) -> Row:
    """One training as a row; a failure becomes a row that says why."""
    row = base.train(training, setup, runs, resume=resume, watch=watch)  # type: ignore[arg-type]
    del row["primitive"], row["filters"]
    row |= {"densifier": training.densifier, "change": training.change, "seed": training.seed}
    if row["status"] == "ok" and training.evals:
        row["points"] = eval_points(read_run(runs / row["run"]))
    if row["status"] == "ok":
        row["clock"] = clock(read_run(runs / row["run"]))
    return row


def eval_points(record: RunRecord) -> list[dict[str, float]]:
    return [{key: line.get(key) for key in ("step", "psnr", "ssim", "splats")} for line in record.evals]


def clock(record: RunRecord) -> list[tuple[int, float]]:
    """(step, seconds so far) of a run's lines."""
    return [(line["step"], line["elapsed_secs"]) for line in record.train]


def seconds_at(step: float, marks: Sequence[Sequence[float]]) -> float:
    """When a run reached ``step``, by its ``clock``: linear between the lines, at the last speed beyond them."""
    before = (0.0, 0.0)
    for after in marks:
        if step <= after[0] or after is marks[-1]:
            share = (step - before[0]) / max(after[0] - before[0], 1e-9)
            return before[1] + share * (after[1] - before[1])
        before = (after[0], after[1])
    return 0.0


class Progress(base.Progress):
    """Counts and ETA as for primitives; the line names capture and seed."""

    capture = ""

    def begins(self, training: Training) -> Callable[[int], None]:
        limit = "its own splats" if training.max_splats is None else f"at most {training.max_splats:,} splats"
        print(f"[{self.done + 1}/{self.total}] {self.capture} {training.name}: {training.steps:,} steps, {limit}",
              file=sys.stderr, flush=True)  # fmt: skip

        def watch(step: int) -> None:
            if self._live:
                print(f"\r      step {step:,} of {training.steps:,} ", end="", file=sys.stderr, flush=True)

        return watch
