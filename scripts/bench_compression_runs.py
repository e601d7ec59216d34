"""What ``bench_compression.py`` runs: trainings, ``splat export`` and ``splat compress``, each as rows of its table."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import bench_primitives_runs as base
from bench_primitives_measure import HeldOut
from bench_primitives_runs import INTERRUPTED, MEGABYTE, QUIET_OUTPUT, Row, Setup, failure, watched

from splat.compress.registry import COMPRESSORS
from splat.errors import UserError
from splat.io.atomic import write_text
from splat.io.format_names import stored_bytes
from splat.io.formats import read_model
from splat.train.sinks import METRICS

Watch = Callable[[int], None]
GROUPS = ("formats", "splat-transform", "after", "training")
"""Tables: what the base is exported to, what another tool makes of it, compressors after and during training."""
MASKS_ALONE = ("--compressor", "rvq", "--compressor.shapes=plain", "--compressor.color=sh")
"""Of what ``rvq`` does: equal, fine steps instead of books, colours kept."""


@dataclass(frozen=True)
class Goal:
    """What a compressor with an aim is given."""

    flag: str
    """``--target-mb`` or ``--max-psnr-drop``."""
    value: float

    @property
    def text(self) -> str:
        return f"{self.value:.3g} MB" if self.flag == "--target-mb" else f"at most {self.value:g} dB less"

    @property
    def name(self) -> str:
        return f"{self.value:.3g}{'mb' if self.flag == '--target-mb' else 'db'}"

    @property
    def aim(self) -> str:
        """As a compressor's ``aims`` call it."""
        return "size" if self.flag == "--target-mb" else "quality"

    @property
    def arguments(self) -> tuple[str, str]:
        return self.flag, f"{self.value:g}"


@dataclass(frozen=True)
class Training:
    """One ``splat train``."""

    name: str
    """Folder of the run."""
    label: str
    steps: int
    densifier: str = "budget"
    max_splats: int | None = None
    """None: up to the limit of the preset."""
    flags: tuple[str, ...] = ()
    like: Path | None = None
    """A run's config.toml: trained as that one was."""

    budget = primitive = filters = ""  # for the runner that is shared with the primitives

    def arguments(self, setup: Setup) -> list[str]:
        """Of ``splat train``, without the output folder."""
        found = [str(setup.capture)]
        if self.like is not None:
            found += ["--config", str(self.like)]
        else:
            found += ["--preset", setup.preset, "--densifier", self.densifier, "--steps", str(self.steps),
                      "--seed", str(setup.seed)]  # fmt: skip
        if self.like is None and self.max_splats is not None:
            found += ["--max-splats", str(self.max_splats)]
        return [*found, *QUIET_OUTPUT, *setup.flags, *self.flags]


@dataclass(frozen=True)
class Packing:
    """One ``splat compress``."""

    compressor: str
    steps: int
    goal: Goal | None = None
    flags: tuple[str, ...] = ()
    variant: str = ""
    """Told apart from others of the same compressor by this."""

    @property
    def name(self) -> str:
        parts = ["after", self.compressor, self.variant, "" if self.goal is None else self.goal.name, str(self.steps)]
        return "-".join(part for part in parts if part)

    @property
    def label(self) -> str:
        how = f"{self.steps:,} steps" if self.steps else "as it is"
        parts = [self.compressor, self.variant, "" if self.goal is None else self.goal.text, how]
        return ", ".join(part for part in parts if part)

    def arguments(self, run: Path, out: Path, record: Path) -> list[str]:
        goal = () if self.goal is None else self.goal.arguments
        return ["compress", str(run), "--compressor", self.compressor, "--steps", str(self.steps), *goal, *self.flags,
                "-o", str(out), "--json", str(record)]  # fmt: skip


def packings(kinds: Sequence[str], fine_tune: Sequence[int], goals: Sequence[Goal]) -> list[Packing]:
    """After the fact: each compressor by itself for every number of steps, then those that can aim at each goal."""
    found = []
    for kind in kinds:
        found += [Packing(kind, steps) for steps in fine_tune]
        found += [Packing(kind, steps, goal) for goal in goals if goal.aim in aims(kind) for steps in fine_tune]
    return found


def trainings(
    kinds: Sequence[str], base_training: Training, goals: Sequence[Goal], flags_of: dict[str, tuple[str, ...]]
) -> list[tuple[str, Training]]:
    """(Compressor, training): the base's again through each; those that can aim at a size, also at each size."""
    found = []
    for kind in kinds:
        sizes = [goal for goal in goals if goal.aim == "size" and "size" in aims(kind)]
        for goal in (None, *sizes):
            name = "-".join(["train", kind, *([goal.name] if goal else [])])
            label = kind if goal is None else f"{kind}, {goal.text}"
            more = ("--compressor", kind, *(goal.arguments if goal else ()), *flags_of.get(kind, ()))
            found.append((kind, replaced(base_training, name=name, label=label, more=more)))
    return found


def replaced(training: Training, *, name: str, label: str, more: Sequence[str]) -> Training:
    """The same training under another name with further flags."""
    flags = (*training.flags, *more)
    return Training(name, label, training.steps, training.densifier, training.max_splats, flags, training.like)


def aims(kind: str) -> frozenset[str]:
    return frozenset(COMPRESSORS[kind].aims)


def compressor_kinds(asked: Sequence[str] | None) -> list[str]:
    """Names of compressors that change anything; UserError for one that is not there."""
    known = [kind for kind in COMPRESSORS if kind != "none"]
    for kind in asked or ():
        if kind not in known:
            raise UserError(f"--compressors {kind!r} does not fit: choose some of {', '.join(known)}")
    return list(dict.fromkeys(asked)) if asked is not None else known


@dataclass(frozen=True)
class Job:
    """A row or a few of them."""

    said: str
    do: Callable[[Watch], list[Row]]
    into: str = "rows"
    """``rows``, ``masks`` or ``sorting``."""
    row: Row | None = None
    """What is known of the row before, for one that fails."""
    steps: int = 0


# --- running -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Base:
    """The model that everything is made of, and where its files are judged."""

    run: Path
    held_out: HeldOut
    ply: Path
    scores: Row
    """Its own ``psnr``, ``ssim``, ``splats`` and ``ply_bytes``."""
    stamp: str
    """Changes with the model: results are not taken over from another one."""

    def against(self, row: Row) -> Row:
        """The row with what follows from its size and scores."""
        size, splats = row.get("size_bytes"), row.get("splats")
        row["mb"] = None if size is None else size / MEGABYTE
        row["bits_per_splat"] = 8 * size / splats if size is not None and splats else None
        row["bytes_per_base_splat"] = size / self.scores["splats"] if size is not None else None
        row["times_smaller"] = self.scores["ply_bytes"] / size if size else None
        row["drop"] = None if row.get("psnr") is None else self.scores["psnr"] - row["psnr"]
        return row


def stamp_of(run: Path) -> str:
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


def judged(path: Path, held_out: HeldOut) -> Row:
    """Splats, PSNR and SSIM of a file as it decodes, and how long that took."""
    began = time.perf_counter()
    read_model(path)
    seconds = time.perf_counter() - began
    model = held_out.model(path)
    return {"splats": model.count, **held_out.scores(model), "decode_secs": seconds}


def splat(arguments: Sequence[str], log: Path) -> int:
    """Run the command line with its words in ``log``: the exit code. KeyboardInterrupt passes, the child ended."""
    log.parent.mkdir(parents=True, exist_ok=True)
    code = watched([sys.executable, "-m", "splat.cli.main", *arguments], log, log.parent, None)
    if code in INTERRUPTED:
        raise KeyboardInterrupt
    return code


def lost(log: Path, code: int) -> Row:
    """What a row says of a command that failed."""
    return {"status": "failed", "reason": failure(log.read_text(encoding="utf8", errors="replace"), code)}


def exported(name: str, formats: Sequence[str] | None, at: Base, folder: Path) -> list[Row]:
    """The base in one format or, with None, in all that can be written: a row each."""
    record, log = folder / f"{name}.record.json", folder / f"{name}.log"
    record.unlink(missing_ok=True)
    text = "all" if formats is None else ",".join(formats)
    code = splat(["export", str(at.run), "-o", f"{folder}/", "--format", text, "--json", str(record)], log)
    if code != 0 or not record.exists():
        return [{"group": "formats", "method": each, "family": "formats", **lost(log, code)}
                for each in formats or ["all"]]  # fmt: skip
    return [export_row(line, at) for line in json.loads(record.read_text(encoding="utf8"))["formats"]]


def export_row(line: Row, at: Base) -> Row:
    """A line of ``splat export --json`` as a row."""
    row: Row = {"group": "formats", "method": line["format"], "family": "formats"}
    if line["path"] is None:
        reason = "; ".join(line["lost"]).removeprefix("not written: ")
        return row | {"status": "failed", "reason": reason}
    keys = ("splats", "size_bytes", "psnr", "ssim", "encode_secs", "decode_secs")
    row |= {"status": "ok", "reason": "", **{key: line[key] for key in keys}, "notes": "; ".join(line["lost"])}
    return at.against(row)


def packed(packing: Packing, at: Base, folder: Path) -> list[Row]:
    """One compressor after the fact."""
    record, log, out = (folder / f"{packing.name}.{end}" for end in ("record.json", "log", "spack"))
    record.unlink(missing_ok=True)
    row: Row = {"group": "after", "method": packing.label, "family": packing.compressor,
                "steps": packing.steps, "goal": None if packing.goal is None else packing.goal.aim}  # fmt: skip
    code = splat(packing.arguments(at.run, out, record), log)
    if not record.exists():  # with it, exit code 1 says that the goal was missed
        return [row | lost(log, code)]
    said = json.loads(record.read_text(encoding="utf8"))
    secs = said["secs"]
    spent = ("search", "train") if packing.steps else ("search",)
    begun = 0 if packing.steps else secs.get("train") or 0  # without steps, sorts and books are all there is to it
    trained = sum(secs.get(part) or 0 for part in spent) or None
    row |= {
        "status": "ok", "reason": "", "splats": said["splats"], "size_bytes": said["size_bytes"],
        **said["decoded"], "encode_secs": secs["encode"] + begun, "decode_secs": secs.get("decode"),
        "train_secs": trained, "notes": "" if code == 0 else "missed its goal",
    }  # fmt: skip
    return [at.against(row)]


def trained(training: Training, setup: Setup, runs: Path, *, resume: bool, watch: Callable[[int], None]) -> Row:
    """One training by the runner of the primitives."""
    row = base.train(training, setup, runs, resume=resume, watch=watch)  # type: ignore[arg-type]
    return {key: value for key, value in row.items() if key not in ("budget", "primitive", "filters")}


def training_row(kind: str, run: Row, at: Base, runs: Path) -> Row:
    """A compressor's training: its file, decoded and judged."""
    row: Row = {"group": "training", "method": run["label"], "family": kind, "status": run["status"],
                "reason": run.get("reason", "")}  # fmt: skip
    if run["status"] != "ok":
        return row
    file = runs / run["run"] / "model.spack"
    if not file.exists():
        return row | {"status": "failed", "reason": f"the training left no {file.name}"}
    row |= {"size_bytes": stored_bytes(file), "train_secs": run["train_secs"], "encode_secs": pack_secs(file.parent)}
    return at.against(row | judged(file, at.held_out))


def pack_secs(run: Path) -> float | None:
    """How long the run took to write its compressed file, where its metrics say so."""
    lines = (json.loads(line) for line in (run / METRICS).read_text(encoding="utf8").splitlines() if '"pack"' in line)
    found = [line.get("secs") for line in lines if line.get("kind") == "pack"]
    return found[-1] if found else None


def recorded(note: Path, key: Sequence[str], make: Callable[[], list[Row]], *, resume: bool) -> list[Row]:
    """What ``make`` gives, noted under ``key``; with ``resume`` the note of an earlier call, if nothing failed."""
    if resume:
        try:
            said = json.loads(note.read_text(encoding="utf8"))
            if said["key"] == list(key) and all(row["status"] == "ok" for row in said["rows"]):
                return [row | {"reused": True} for row in said["rows"]]
        except (OSError, ValueError, KeyError, TypeError):  # absent or torn: made again
            pass
    note.unlink(missing_ok=True)
    rows = make()
    write_text(note, json.dumps({"key": list(key), "rows": rows}, indent=1) + "\n")
    return rows


class Progress(base.Progress):
    """Counts and time left as for primitives; a line per job, whatever it is."""

    def begins(self, said: str, steps: int = 0) -> Callable[[int], None]:
        print(f"[{self.done + 1}/{self.total}] {said}", file=sys.stderr, flush=True)

        def watch(step: int) -> None:
            if self._live and steps:
                print(f"\r      step {step:,} of {steps:,} ", end="", file=sys.stderr, flush=True)

        return watch

    def ended(self, rows: Sequence[Row]) -> None:
        self.done += 1
        self._reused += bool(rows) and all(row.get("reused") for row in rows)
        head = "\r      " if self._live else "      "
        for row in rows:
            told = "" if len(rows) == 1 else f"{row.get('method') or row.get('order', '')}: "
            again = " (was finished before)" if row.get("reused") else ""
            print(f"{head}{told}{_told(row)}{again}", file=sys.stderr, flush=True)
        if self._left():
            print(f"      {self._left().removeprefix('; ')}", file=sys.stderr, flush=True)


def _told(row: Row) -> str:
    if row["status"] != "ok":
        return f"{row['status']}: {row['reason']}"
    parts = [
        f"{row['mb']:.3f} MB" if row.get("mb") is not None else "",
        f"{row['splats']:,} splats" if row.get("splats") is not None else "",
        f"{row['psnr']:.2f} dB" if row.get("psnr") is not None else "no score",
    ]
    return ", ".join(part for part in parts if part)
