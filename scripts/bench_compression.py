"""What a trained model can be made to weigh: every format and compressor on one or several captures.

    python scripts/bench_compression.py scenes/nook captures/fox --out bench/small --masks --sorting
    python scripts/bench_compression.py --run runs/nook/cpu --out bench/nook --methods formats after --fine-tune 0
    python scripts/bench_compression.py --combine bench/small bench/nook --out bench/all

One base model per capture is trained (``splat train``) or taken (``--run``). Tables: every format it can be exported
to; what npm's splat-transform makes of the same PLY; compressors afterwards, without and with some steps of training
(``splat compress``); the base's training again through each compressor. Every file is decoded and judged on held-out
views. One thing runs after the other: leave the machine to it. Writes results.json, table.md (for README) and
index.html (complete in itself) into --out, after every row anew. What fails becomes a row with its reason. --resume
takes over what is finished there.

Exit codes: 0 done, 1 something failed (the rest is written), 2 something to mend in the call, 130 interrupted
(--resume goes on).
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bench_call import Captures, told
from bench_compression_extras import mask_jobs, sorting_jobs
from bench_compression_npm import WRITES, find_tool, made_by_others
from bench_compression_page import page
from bench_compression_runs import (
    GROUPS,
    Base,
    Goal,
    Job,
    Progress,
    Training,
    Watch,
    compressor_kinds,
    exported,
    judged,
    packed,
    packings,
    recorded,
    stamp_of,
    trained,
    training_row,
    trainings,
)
from bench_compression_tables import markdown
from bench_densifiers import json_safe_all, machine_load, names_of
from bench_primitives import combine, flags_by_kind
from bench_primitives_measure import open_held_out
from bench_primitives_page import BUSY_LOAD
from bench_primitives_runs import Row, Setup, newest_ply, read_row

from splat.cli.compression import ply_bytes
from splat.cli.opening import run_config
from splat.errors import UserError
from splat.io.atomic import write_text
from splat.io.format_names import format_names


class Bench:
    """One capture: its base model, then everything made of it."""

    def __init__(self, source: Path, name: str, args: argparse.Namespace, *, progress: Progress) -> None:
        self.name, self.args, self.progress = name, args, progress
        self.out = args.out.resolve()
        self.runs, self.files = self.out / "runs" / name, self.out / "files" / name
        self.flags_of = flags_by_kind(args.train_flags)
        self.given = source.resolve() if args.run else None
        capture, like, steps = source.resolve(), None, args.steps
        if self.given is not None:
            config = run_config(self.given)
            capture, like, steps = Path(config.capture), self.given / "config.toml", config.steps
        passed = tuple(token for flag in ("downscale", "max_size", "device", "threads") if getattr(args, flag)
                       for token in (f"--{flag.replace('_', '-')}", getattr(args, flag)))  # fmt: skip
        self.setup = Setup(capture, args.preset, args.seed, passed)
        self.training = Training(
            "base", "base", steps, args.densifier, args.max_splats, self.flags_of.get("base", ()), like
        )
        self.tables: dict[str, list[Row]] = {"rows": [], "masks": [], "sorting": []}
        self.notes: list[str] = []
        self.facts: Row = {}
        self.base: Base | None = None
        self.done: dict[str, Row] = {}
        self.load = None if args.resume else machine_load()

    def run(self, told: Callable[[], None]) -> None:
        """Everything; ``told`` is called after every job."""
        try:
            self.base = self._base()
        except UserError as error:
            self.notes.append(f"No base model: {error}")
            print(f"      {self.notes[-1]}", file=sys.stderr)
            self.progress.total -= len(self.jobs(1_000_000))
            told()
            return
        for job in self.jobs(self.base.scores["splats"]):
            watch = self.progress.begins(f"{self.name}: {job.said}", job.steps)
            rows = self._tried(job, watch)
            self.progress.ended(rows)
            self.tables[job.into] += [{key: row[key] for key in row if key != "reused"} for row in rows]
            told()

    def _tried(self, job: Job, watch: Watch) -> list[Row]:
        """A failed row where anything goes wrong: the rest is worth having."""
        try:
            rows = job.do(watch)
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            rows = [{**(job.row or {}), "status": "failed", "reason": f"{type(error).__name__}: {error}"[:300]}]
        for row in rows:
            row["reason"] = str(row.get("reason", "")).replace(f"{self.out}/", "")
        return rows

    # the base ----------------------------------------------------------------------------------------------------

    def _base(self) -> Base:
        watch = self.progress.begins(f"{self.name}: the base model, {self.training.steps:,} steps", self.training.steps)
        if self.given is None:
            row = self.trained(self.training, watch)
            if row["status"] != "ok":
                self.progress.ended([row])
                raise UserError(row["reason"])
            run = self.runs / "base"
        else:
            run, row = self.given, read_row(self.given)
        self.facts = {key: row.get(key) for key in ("machine", "views", "views_train", "sizes", "protocol")}
        held_out = open_held_out(run)
        ply = newest_ply(run)
        if ply is None:
            raise UserError(f"{run}: no point_cloud.ply of the run is there")
        scores = judged(run / "model.safetensors", held_out)
        size = ply_bytes(held_out.model(run))
        base = Base(run, held_out, ply, {**scores, "ply_bytes": size, "train_secs": row["train_secs"]}, stamp_of(run))
        told = base.against({**scores, "size_bytes": size, "status": "ok", "reused": row.get("reused", False)})
        self.progress.ended([told])
        return base

    def trained(self, training: Training, watch: Watch) -> Row:
        """Each once, whatever tables it stands in."""
        if training.name not in self.done:
            row = trained(training, self.setup, self.runs, resume=self.args.resume, watch=watch)
            self.done[training.name] = row
        return self.done[training.name]

    # the jobs ----------------------------------------------------------------------------------------------------

    def jobs(self, splats: int) -> list[Job]:
        """In the order of the tables; ``splats`` of the base set the sizes to aim at."""
        methods = [method for method in GROUPS if method in self.args.methods]
        makers = {"formats": self._formats, "splat-transform": self._others, "after": self._after,
                  "training": self._in_training}  # fmt: skip
        found = [job for method in methods for job in makers[method](splats)]
        found += mask_jobs(self) if self.args.masks else []
        return found + (sorting_jobs(self) if self.args.sorting else [])

    def goals(self, splats: int) -> list[Goal]:
        sizes = [*self.args.target_mb, *(share * splats / 1e6 for share in self.args.bytes_per_splat)]
        found = [Goal("--target-mb", float(f"{size:.4g}")) for size in sizes]
        return list(dict.fromkeys([*found, *(Goal("--max-psnr-drop", drop) for drop in self.args.max_psnr_drop)]))

    def _formats(self, splats: int) -> list[Job]:
        asked = format_names(self.args.formats)
        named = [(f"format-{name}", [name]) for name in asked] or [("formats", None)]
        return [
            Job(f"export as {'every format' if names is None else names[0]}",
                self._noted(name, partial(exported, name, names, folder=self.files)),
                row={"group": "formats", "method": name, "family": "formats"})
            for name, names in named
        ]  # fmt: skip

    def _others(self, splats: int) -> list[Job]:
        def make(name: str, at: Base) -> list[Row]:
            return made_by_others(name, find_tool(), at, self.files)

        return [
            Job(f"splat-transform {name}", self._noted(f"other-{name}", partial(make, name)),
                row={"group": "splat-transform", "method": f"splat-transform {name}", "family": "splat-transform"})
            for name in WRITES
        ]  # fmt: skip

    def _after(self, splats: int) -> list[Job]:
        kinds = compressor_kinds(self.args.compressors)
        todo = packings(kinds, self.args.fine_tune, self.goals(splats))
        todo = [replace(packing, flags=(*packing.flags, *self.device())) for packing in todo]
        return [
            Job(f"compress {packing.label}", self._noted(packing.name, partial(packed, packing, folder=self.files),
                                                         packing.arguments(*map(Path, ("RUN", "OUT", "RECORD")))),
                row={"group": "after", "method": packing.label, "family": packing.compressor})
            for packing in todo
        ]  # fmt: skip

    def device(self) -> tuple[str, ...]:
        return ("--device", self.args.device) if self.args.device else ()

    def _in_training(self, splats: int) -> list[Job]:
        todo = trainings(compressor_kinds(self.args.compressors), self.training, self.goals(splats), self.flags_of)
        return [self._training_job(kind, training) for kind, training in todo]

    def _training_job(self, kind: str, training: Training) -> Job:
        def do(watch: Watch) -> list[Row]:
            row = self.trained(training, watch)
            return [training_row(kind, row, self.at, self.runs) | {"reused": row.get("reused", False)}]

        row = {"group": "training", "method": training.label, "family": kind}
        return Job(f"train through {training.label}", do, row=row, steps=training.steps)

    @property
    def at(self) -> Base:
        assert self.base is not None  # jobs run after it
        return self.base

    def _noted(
        self, name: str, make: Callable[..., list[Row]], more: Sequence[str] = ()
    ) -> Callable[[Watch], list[Row]]:  # fmt: skip
        """``make(at=base)``, unless its note from an earlier call is good."""

        def do(_: Watch) -> list[Row]:
            note, key = self.files / f"{name}.json", [self.at.stamp, *map(str, more)]
            return recorded(note, key, lambda: make(at=self.at), resume=self.args.resume)

        return do

    # what is written ---------------------------------------------------------------------------------------------

    def results(self) -> dict[str, Any]:
        args, base, facts = self.args, None, dict(self.facts)
        if self.base is not None:
            base = self.base.against({**self.base.scores, "size_bytes": self.base.scores["ply_bytes"]})
            base["decode_secs"] = None
        protocol = facts.pop("protocol", None) or {}
        return {
            "capture": self.name, **facts, "load": self.load, "base": base,
            "settings": {
                "preset": self.setup.preset, "steps": self.training.steps, "max_splats": args.max_splats,
                "densifier": args.densifier, "seed": args.seed, "fine_tune": list(args.fine_tune),
                "methods": list(args.methods), "drop_limit": args.drop_limit, "flags": list(self.setup.flags),
                "given": bool(self.given), "flags_of": {kind: list(flags) for kind, flags in self.flags_of.items()},
            },
            **self.tables, "protocol": protocol, "notes": self.notes,
        }  # fmt: skip


def write_outputs(out: Path, captures: Sequence[dict[str, Any]]) -> None:
    content = captures[0] if len(captures) == 1 else {"captures": captures}
    write_text(out / "results.json", json.dumps(json_safe_all(content), indent=1, allow_nan=False) + "\n")
    write_text(out / "table.md", markdown(captures))
    write_text(out / "index.html", page(captures))


def failures(captures: Sequence[dict[str, Any]]) -> int:
    """What was skipped is none."""
    rows = [row for results in captures for into in ("rows", "masks", "sorting") for row in results[into]]
    return sum(row["status"] == "failed" for row in rows) + sum(len(results["notes"]) for results in captures)


def benchmark(args: argparse.Namespace, out: Path) -> list[dict[str, Any]]:
    """Run everything; the files in ``out`` follow."""
    sources = args.run or args.captures
    for source in sources:
        if not source.exists():
            raise UserError(f"{source}: no such {'run' if args.run else 'capture'}")
    kinds = compressor_kinds(args.compressors)
    for kind in flags_by_kind(args.train_flags):  # a slip would train the wrong thing in silence
        if kind not in ("base", *kinds):
            raise UserError(f"--train-flags {kind}=...: {kind!r} is not trained here; base, {', '.join(kinds)} are")
    progress = Progress(0)
    load = machine_load()
    if (load or 0) > BUSY_LOAD:
        print(f"warning: other work keeps this machine busy (load {load:.1f}); times will be off", file=sys.stderr)
    names = names_of([Path(run_config(path).capture) if args.run else path for path in sources])
    benches = [Bench(path, name, args, progress=progress) for path, name in zip(sources, names, strict=True)]
    progress.total = sum(1 + len(bench.jobs(1_000_000)) for bench in benches)
    for i, bench in enumerate(benches, 1):
        bench.run(lambda i=i: write_outputs(out, [bench.results() for bench in benches[:i]]))
    return [bench.results() for bench in benches]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("captures", type=Path, nargs="*", metavar="CAPTURE", help="anything splat train takes")
    add("--out", "-o", type=Path, required=True)
    add("--run", type=Path, nargs="+", default=[], metavar="RUN", help="take these trained runs as bases")
    add("--methods", nargs="+", default=list(GROUPS), choices=GROUPS, help="tables to make (default: all)")
    add("--compressors", nargs="+", metavar="KIND", help="default: all there are")
    add("--formats", metavar="F[,F...]", help="as splat export takes them (default: all that can be written)")
    add("--steps", type=int, default=3000)
    add("--max-splats", type=int, default=40_000)
    add("--densifier", default="budget", metavar="KIND", help="of the base (default: %(default)s)")
    add("--fine-tune", type=int, nargs="+", default=[0, 500], metavar="N",
        help="steps of training through a compressor afterwards (default: 0 500)")  # fmt: skip
    add("--bytes-per-splat", type=float, nargs="*", default=[20, 15, 10], metavar="B",
        help="sizes to aim at, per splat of the base: MB per million splats (default: 20 15 10)")  # fmt: skip
    add("--target-mb", type=float, nargs="+", default=[], metavar="X", help="further sizes to aim at")
    add("--max-psnr-drop", type=float, nargs="*", default=[0.2], metavar="D", help="losses to aim at (default: 0.2)")
    add("--drop-limit", type=float, default=0.2, metavar="D", help="of the summary: dB that a file may lose")
    add("--masks", action="store_true", help="also rvq's masks alone, on an adaptive training")
    add("--mask-weights", type=float, nargs="+", default=[2e-4, 5e-4, 1e-3], metavar="W")
    add("--sorting", action="store_true", help="also what the grid's order is worth")
    add("--preset", default="cpu")
    add("--seed", type=int, default=0)
    add("--train-flags", action="append", default=[], metavar="KIND=FLAGS",
        help="more for splat train of the base or by one compressor: 'rvq=--compressor.color sh'")  # fmt: skip
    for flag in ("--downscale", "--max-size", "--device", "--threads"):
        add(*(("-r", flag) if flag == "--downscale" else (flag,)), help="as in splat train")
    add("--resume", action="store_true", help="take over what is finished in --out")
    add("--combine", type=Path, nargs="+", metavar="DIR", help="one page from earlier --out folders")
    args = parser.parse_args(argv)
    if bool(args.captures) + bool(args.run) + bool(args.combine) != 1:
        parser.error("name captures, or runs with --run, or earlier results with --combine")
    sizes = (*args.bytes_per_splat, *args.target_mb, *args.max_psnr_drop, *args.mask_weights)
    if min(args.steps, args.max_splats, *sizes) <= 0 or min(args.fine_tune) < 0:
        parser.error("steps, splats, sizes, losses and weights must be above 0, --fine-tune at least 0")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(sys.argv[1:] if argv is None else argv)

    def run() -> Captures:
        out = args.out.resolve()
        if args.combine:
            captures = combine([folder.resolve() for folder in args.combine])
            if not all("drop_limit" in results.get("settings", {}) for results in captures):
                raise UserError("--combine: not all of these are results of this script")
            write_outputs(out, captures)
        else:
            captures = benchmark(args, out)
        return captures

    return told("bench_compression", args.out, run, markdown=markdown, failures=failures)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the child under way ends as well
    sys.exit(main())
