"""Every primitive on one capture: at equal splats and at equal time, with tables, a page and crops side by side.

    python scripts/bench_primitives.py scenes/nook --out bench/nook --multiscale
    python scripts/bench_primitives.py --combine bench/nook bench/fox --out bench/all

Trains through the command line (``splat train``), one run after the other: leave the machine to it. Writes
results.json, table.md (for README) and index.html (complete in itself) into --out, the runs below it. A training that
fails becomes a row with its reason. --resume skips trainings that are finished there.

Exit codes: 0 done, 1 some training or measurement failed (the rest is written), 2 something to mend in the call,
130 interrupted (--resume goes on).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench_call import Captures, told
from bench_primitives_crops import choose, write_crops
from bench_primitives_measure import (
    HeldOut,
    edge_scores,
    frames_per_second,
    open_held_out,
    pictures_of,
    read_pictures,
    scale_scores,
    small_pictures_of,
)
from bench_primitives_page import BUSY_LOAD, markdown, page
from bench_primitives_runs import Progress, Row, Setup, Training, multiscale_trainings, newest_ply, same_time, train

from splat.errors import UserError
from splat.io.atomic import write_text
from splat.train.sinks import json_safe

PRIMITIVES = ("gaussian", "ges", "gef", "convex")
OVERTIME = 1.2
"""Equal time is one measured speed away from exact; the clock stops a run only at this much of it."""
SCALE_EDGES, SCALE_DISAGREEMENTS = 1, 2
"""Crops at the smallest scale; a smooth part shows nothing there."""


class Bench:
    """One capture: trainings first, then measurements on all models together."""

    def __init__(self, args: argparse.Namespace, out: Path) -> None:
        self.args, self.out, self.runs = args, out, out / "runs"
        self.flags_of = flags_by_kind(args.train_flags)
        passed = tuple(token for name in ("downscale", "max_size", "device", "threads") if getattr(args, name)
                       for token in (f"--{name.replace('_', '-')}", getattr(args, name)))  # fmt: skip
        self.setup = Setup(args.capture.resolve(), args.preset, args.seed, passed)
        self.rows: list[Row] = []
        self.scales: list[Row] = []
        self.notes: list[str] = []
        # Of a resumed benchmark nobody knows what else ran when the speeds were taken.
        self.load = os.getloadavg()[0] if hasattr(os, "getloadavg") and not args.resume else None
        if (self.load or 0) > BUSY_LOAD:
            print(f"warning: other work keeps this machine busy (load {self.load:.1f}); speeds will be off",
                  file=sys.stderr)  # fmt: skip
        kinds = len(args.primitives)
        timed = kinds - 1 if args.equal_time else 0
        scaled = len(self._scale_plan()) if args.multiscale else 0
        self.progress = Progress(kinds * (1 + len(args.share)) + timed + scaled)

    def train_all(self) -> None:
        args, kinds = self.args, self.args.primitives
        for kind in kinds:
            self.rows.append(self._run(self._training("splats", kind, args.steps, args.max_splats)))
        for share in args.share:
            limit = max(1, round(share * args.max_splats))
            self.rows += [self._run(self._training("share", kind, args.steps, limit)) for kind in kinds]
        if args.equal_time and len(kinds) > 1:
            self._train_in_equal_time()
        if args.multiscale:
            self.scales = [self._run(training) for training in self._scale_plan()]

    def _training(self, budget: str, kind: str, steps: int, limit: int, minutes: float | None = None) -> Training:
        minutes = self.args.limit_minutes if minutes is None else minutes
        return Training(budget, kind, steps, limit, minutes, flags=self.flags_of.get(kind, ()))

    def _train_in_equal_time(self) -> None:
        """The first primitive's run sets the time and stands for itself."""
        first, *others = [row for row in self.rows if row["budget"] == "splats"]
        if first["status"] != "ok" or not first["train_secs"]:
            self.notes.append(f"No equal time: {first['primitive']}, which sets it, was not trained.")
            self.progress.total -= len(others)
            return
        self.rows.append({**first, "budget": "time"})
        for row in others:
            if row["status"] != "ok" or not row["train_secs"]:
                failed = {"budget": "time", "status": "failed", "reason": "not trained at equal splats"}
                self.rows.append({**row, **failed})
                self.progress.total -= 1
                continue
            secs = first["train_secs"]
            steps = same_time(row["steps"], row["train_secs"], secs)
            training = self._training("time", row["primitive"], steps, self.args.max_splats, OVERTIME * secs / 60)
            self.rows.append(self._run(training))

    def _scale_plan(self) -> list[Training]:
        return multiscale_trainings(self.args.steps, self.args.max_splats, self.flags_of)

    def _run(self, training: Training) -> Row:
        watch = self.progress.starts(training)
        row = train(training, self.setup, self.runs, resume=self.args.resume, watch=watch)
        row["reason"] = str(row.get("reason", "")).replace(f"{self.out}/", "")
        self.progress.ends(row)
        return row

    def measure(self) -> dict[str, Any]:
        """Frames per second, edges, the PLY, scales, crops; what cannot be measured is noted."""
        done = [row for row in self.rows if row["status"] == "ok"]
        scaled = [row for row in self.scales if row["status"] == "ok"]
        crops: list[Any] = []
        scale_crops: list[Any] = []
        if done or scaled:
            held_out = open_held_out(self.runs / (done or scaled)[0]["run"])
            print(f"measuring {len(done)} models on {len(held_out.cameras)} held-out views", file=sys.stderr)
            self._measure_models(done, held_out)
            for row in scaled:
                self._tried(f"scales of {row['label']}", self._measure_scales, row, held_out)
            equal = {row["label"]: pictures_of(self.runs / row["run"]) for row in done if row["budget"] == "splats"}
            crops = self._tried("crops", self._crops, equal, "", {}) or []
            small = {row["label"]: small_pictures_of(self.runs / row["run"]) for row in scaled if row.get("scores")}
            counts = {"edges": SCALE_EDGES, "smooth": 0, "disagreement": SCALE_DISAGREEMENTS}
            scale_crops = self._tried("crops at 1/8", self._crops, small, "small-", counts) or []
        return self._results(done or scaled, crops, scale_crops)

    def _measure_models(self, rows: Sequence[Row], held_out: HeldOut) -> None:
        models = {}
        for row in rows:  # an equal-time row may be the equal-splats run itself
            run = self.runs / row["run"]
            row.update(self._tried(f"edges of {row['label']}", edge_scores, run, held_out) or {})
            ply = newest_ply(run)
            if ply is not None:
                score = self._tried(f"PLY of {row['label']}", lambda p: held_out.scores(held_out.model(p)), ply)
                row["ply_psnr"] = None if score is None else score["psnr"]
            model = self._tried(f"model of {row['label']}", held_out.model, run)
            if model is not None:
                models[row["run"]] = model
        speeds = self._tried("frames per second", frames_per_second, models, held_out) or {}
        for row in rows:
            row["frames_per_sec"] = speeds.get(row["run"])

    def _measure_scales(self, row: Row, held_out: HeldOut) -> None:
        row["scores"] = scale_scores(self.runs / row["run"], held_out)

    def _crops(self, sources: Mapping[str, Any], prefix: str, counts: Mapping[str, int]) -> list[Any]:
        if not sources:
            return []
        views = sorted(next(iter(sources.values())))
        pictures = read_pictures(sources, views)
        return write_crops(choose(pictures, **counts), pictures, self.out / "crops", prefix)

    def _tried(self, what: str, measure: Any, *arguments: Any) -> Any:
        """None and a note where a measurement fails: the rest is worth having."""
        try:
            return measure(*arguments)
        except Exception as error:
            self.notes.append(f"Not measured: {what} ({type(error).__name__}: {error})"[:300])
            print(self.notes[-1], file=sys.stderr)
            return None

    def _results(self, done: Sequence[Row], crops: list[Any], scale_crops: list[Any]) -> dict[str, Any]:
        args = self.args
        facts = {key: done[0].get(key) if done else None for key in ("machine", "views", "views_train", "sizes")}
        protocol = done[0].get("protocol") if done else {}
        rows = [{key: value for key, value in row.items() if key not in (*facts, "protocol", "reused")}
                for row in (*self.rows, *self.scales)]  # fmt: skip
        return {
            "capture": args.capture.resolve().name, **facts, "load": self.load,
            "settings": {
                "preset": args.preset, "steps": args.steps, "max_splats": args.max_splats, "seed": args.seed,
                "primitives": list(args.primitives), "flags": list(self.setup.flags),
                "flags_of": {kind: list(flags) for kind, flags in self.flags_of.items()},
            },
            "protocol": protocol, "rows": rows[: len(self.rows)], "scales": rows[len(self.rows) :],
            "crops": crops, "scale_crops": scale_crops, "notes": self.notes,
        }  # fmt: skip


def flags_by_kind(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """``convex=--densifier mcmc`` -> {"convex": ("--densifier", "mcmc")}; a kind may come more than once."""
    found: dict[str, tuple[str, ...]] = {}
    for text in given:
        kind, equals, flags = text.partition("=")
        if not equals or not kind or kind.startswith("-"):
            raise UserError(f"--train-flags {text!r} does not fit: write KIND=FLAGS, such as 'convex=--densifier mcmc'")
        found[kind] = (*found.get(kind, ()), *shlex.split(flags))
    return found


def combine(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The results of earlier benchmarks, in the order given."""
    found = []
    for folder in folders:
        try:
            results = json.loads((folder / "results.json").read_text(encoding="utf8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: no results of this script there ({error})") from error
        found += results.get("captures", [results])
    return found


def write_outputs(out: Path, captures: Sequence[dict[str, Any]], folders: Sequence[Path]) -> None:
    content = captures[0] if folders == [out] else {"captures": captures}
    write_text(out / "results.json", json.dumps(json_safe(content), indent=1, allow_nan=False) + "\n")
    write_text(out / "table.md", markdown(captures))
    write_text(out / "index.html", page(captures, folders))


def failures(captures: Sequence[Mapping[str, Any]]) -> int:
    rows = [row for results in captures for row in (*results["rows"], *results.get("scales", ()))]
    return sum(row["status"] != "ok" for row in rows) + sum(len(results.get("notes", ())) for results in captures)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path, nargs="?", help="anything splat train takes")
    parser.add_argument("--out", "-o", type=Path, required=True)
    parser.add_argument("--primitives", nargs="+", default=list(PRIMITIVES), metavar="KIND",
                        help="the first one sets the time of the equal-time table; KIND+NAME is a variant, told apart "
                        "by its own --train-flags (default: %(default)s)")  # fmt: skip
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--max-splats", type=int, default=40_000)
    parser.add_argument("--share", type=float, nargs="+", default=[], metavar="S",
                        help="also train all with this share of the splats, such as 0.5")  # fmt: skip
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--equal-time", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--multiscale", action="store_true", help="the screen-space filters at 1, 1/2, 1/4, 1/8")
    parser.add_argument("--limit-minutes", type=float, help="no training longer than this")
    parser.add_argument("--train-flags", action="append", default=[], metavar="KIND=FLAGS",
                        help="more for splat train by one primitive or variant: 'ges+aa=--filter2d aa'")  # fmt: skip
    for flag in ("--downscale", "--max-size", "--device", "--threads"):
        names = ("-r", flag) if flag == "--downscale" else (flag,)
        parser.add_argument(*names, help="as in splat train")
    parser.add_argument("--resume", action="store_true", help="skip trainings that are finished in --out")
    parser.add_argument("--combine", type=Path, nargs="+", metavar="DIR", help="one page from earlier --out folders")
    args = parser.parse_args(argv)
    if (args.capture is None) == (args.combine is None):
        parser.error("name one capture, or earlier results with --combine")
    if min(args.steps, args.max_splats, *args.share) <= 0:
        parser.error("--steps, --max-splats and --share must be above 0")
    if len(set(args.primitives)) < len(args.primitives):
        parser.error(f"a primitive is named twice: {' '.join(args.primitives)}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(sys.argv[1:] if argv is None else argv)

    def run() -> Captures:
        out = args.out.resolve()
        if args.combine:
            folders = [folder.resolve() for folder in args.combine]
            captures = combine(folders)
        else:
            if not args.capture.exists():
                raise UserError(f"{args.capture}: no such capture")
            bench = Bench(args, out)
            bench.train_all()
            folders, captures = [out], [bench.measure()]
        write_outputs(out, captures, folders)
        return captures

    return told("bench_primitives", args.out, run, markdown=markdown, failures=failures)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the training under way ends as well
    sys.exit(main())
