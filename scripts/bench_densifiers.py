"""Every densifier on one or several captures: at equal steps, splats and time, over seeds, with tables and a page.

    python scripts/bench_densifiers.py scenes/nook captures/fox --out bench/densifiers
    python scripts/bench_densifiers.py scenes/nook --out bench/why --ablate mcmc "noise=0; opacity_reg=0"
    python scripts/bench_densifiers.py --combine bench/densifiers bench/more --out bench/all

Trains through the command line (``splat train``), one run after the other: leave the machine to it. Writes
results.json, table.md (for README) and index.html (complete in itself) into --out, after every table anew; the runs lie
below it. A training that fails becomes a row with its reason. --resume skips trainings that are finished there.

Exit codes: 0 done, 1 some training or measurement failed (the rest is written), 2 something to mend in the call,
130 interrupted (--resume goes on).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench_call import Captures, told
from bench_densifiers_page import page
from bench_densifiers_runs import Plan, Progress, Training, ablations, capped_kinds, fitting, seconds_at, train
from bench_densifiers_tables import markdown, summarised
from bench_densifiers_truth import FAR_SHARE, far_splats, read_depths
from bench_primitives import OVERTIME, combine, flags_by_kind
from bench_primitives_measure import open_held_out
from bench_primitives_page import BUSY_LOAD
from bench_primitives_runs import Row, Setup, same_time

from splat.errors import UserError
from splat.io.atomic import write_text
from splat.train.sinks import json_safe


class Bench:
    """One capture: its trainings table by table, then the depth if it is known."""

    def __init__(self, capture: Path, name: str, plan: Plan, args: argparse.Namespace, *, progress: Progress) -> None:
        self.name, self.plan, self.args, self.progress = name, plan, args, progress
        self.out = args.out.resolve()
        self.runs = self.out / "runs" / name
        passed = tuple(token for flag in ("downscale", "max_size", "device", "threads") if getattr(args, flag)
                       for token in (f"--{flag.replace('_', '-')}", getattr(args, flag)))  # fmt: skip
        self.setup = Setup(capture.resolve(), args.preset, args.seed, passed)
        self.rows: list[Row] = []
        self.notes: list[str] = []
        # Of a resumed benchmark nobody knows what else ran when the times were taken.
        self.load = None if args.resume else machine_load()

    def run(self, told: Callable[[], None]) -> None:
        """Everything; ``told`` is called whenever a table is ready."""
        for stage in (
            self._equal_splats, self._equal_steps, self._third, self._shares, self._equal_time, self._ablations,
            self._curves, self._measure_truth,
        ):  # fmt: skip
            stage()
            told()

    def _train(self, trainings: Sequence[Training]) -> None:
        for training in trainings:
            self.progress.capture = self.name
            watch = self.progress.begins(training)
            row = train(training, self.setup, self.runs, resume=self.args.resume, watch=watch)
            row["reason"] = str(row.get("reason", "")).replace(f"{self.out}/", "")
            self.progress.ends(row)
            self.rows.append(row)

    def _of(self, budget: str, densifier: str) -> list[Row]:
        return [row for row in self.rows if row["budget"] == budget and row["densifier"] == densifier]

    def _stand_in(self, densifier: str, budget: str) -> None:
        """Runs of the equal-splats table belong into another one too."""
        self.rows += [{**row, "budget": budget} for row in self._of("splats", densifier)]

    def _equal_splats(self) -> None:
        self._train(self.plan.at_equal_splats())

    def _shares(self) -> None:
        self._train(self.plan.at_shares())

    def _curves(self) -> None:
        self._train(self.plan.curves())

    def _equal_steps(self) -> None:
        if not self.plan.equal_steps:
            return
        self._train(self.plan.at_equal_steps())
        for densifier in self.plan.densifiers:
            if densifier not in self.plan.free:
                self._stand_in(densifier, "steps")
        self._in_order()

    def _in_order(self) -> None:
        """Rows of every table in the order in which the densifiers were named."""
        order = list(self.plan.densifiers)
        self.rows.sort(key=lambda row: order.index(row["densifier"]) if row["densifier"] in order else len(order))

    def _third(self) -> None:
        if self.plan.third and self.plan.densifiers:
            self._stand_in(self.plan.densifiers[0], "third")
            self._train(self.plan.at_a_third())

    def _equal_time(self) -> None:
        """The first densifier's runs set the time and stand for themselves."""
        if not self.plan.equal_time or len(self.plan.densifiers) < 2:
            return
        first, *others = self.plan.densifiers
        secs = typical(self._of("splats", first), "train_secs")
        if not secs:
            self.notes.append(f"No equal time: {first}, which sets it, was not trained.")
            self.progress.total -= len(others) * len(self.plan.seeds)
            return
        self._stand_in(first, "time")
        trainings = []
        for densifier in others:
            rows = self._of("splats", densifier)
            own = typical(rows, "train_secs")
            if not own:
                self.rows += [{**row, "budget": "time", "reason": "not trained at equal splats"} for row in rows]
                self.progress.total -= len(self.plan.seeds)
                continue
            steps = same_time(round(typical(rows, "steps")), own, secs)
            trainings += self.plan.each("time", [densifier], steps=steps, minutes=OVERTIME * secs / 60)
        self._train(sorted(trainings, key=lambda training: training.seed))
        self._in_order()

    def _ablations(self) -> None:
        for densifier, change in self.plan.ablations:
            if not change and densifier in self.plan.densifiers:
                self._stand_in(densifier, "ablate")
        self._train(self.plan.changed())

    def _measure_truth(self) -> None:
        done = [row for row in self.rows if row["status"] == "ok" and row["budget"] != "curve"]
        folder = truth_of(self.args.truth, self.name, single=len(self.args.captures) == 1)
        if folder is None or not done:
            return
        try:
            held_out = open_held_out(self.runs / done[0]["run"])
            depths = read_depths(folder, held_out)
            found: dict[str, dict[str, float]] = {}
            for row in done:
                if row["run"] not in found:
                    model = held_out.model(self.runs / row["run"])
                    means, opacities = model.rows["means"].detach(), model.opacities.detach()
                    found[row["run"]] = far_splats(means, opacities, depths, FAR_SHARE * held_out.scene.extent_world)
                row.update(found[row["run"]])
        except Exception as error:  # what is trained is worth having without it
            self.notes.append(f"Not measured: distance to the true surface ({type(error).__name__}: {error})"[:300])
            print(self.notes[-1], file=sys.stderr)

    def results(self) -> dict[str, Any]:
        done = [row for row in self.rows if row["status"] == "ok"]
        facts = {key: done[0].get(key) if done else None for key in ("machine", "views", "views_train", "sizes")}
        args, plan = self.args, self.plan
        hidden = (*facts, "protocol", "reused", "clock", "points")
        return {
            "capture": self.name, **facts, "load": self.load,
            "settings": {
                "preset": args.preset, "primitive": plan.primitive, "steps": plan.steps, "max_splats": plan.max_splats,
                "seeds": list(plan.seeds), "densifiers": list(plan.densifiers), "flags": list(self.setup.flags),
                "flags_of": {kind: list(flags) for kind, flags in (plan.flags_of or {}).items()},
            },
            "summary": summarised(self.rows), "curves": curves(self.rows),
            "rows": [{key: value for key, value in row.items() if key not in hidden} for row in self.rows],
            "protocol": done[0].get("protocol") if done else {}, "notes": self.notes,
        }  # fmt: skip


def curves(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Per densifier (step, seconds, splats, PSNR, SSIM) on the way.

    The scores are of the run that was looked at, the seconds of the same run without looking: seeds make them equal.
    """
    found = []
    for row in rows:
        if row["budget"] != "curve" or not row.get("points"):
            continue
        twin = next((r for r in rows if r["budget"] == "splats" and r["label"] == row["label"]
                     and r["seed"] == row["seed"] and r["status"] == "ok"), None)  # fmt: skip
        if twin is not None:
            points = [{**point, "secs": seconds_at(point["step"], twin["clock"])} for point in row["points"]]
            found.append({"label": row["label"], "seed": row["seed"], "points": points})
    return found


def typical(rows: Sequence[Row], key: str) -> float:
    """Median over the seeds that ended; 0 when none did."""
    values = [row[key] for row in rows if row["status"] == "ok" and row.get(key)]
    return statistics.median(values) if values else 0.0


def truth_of(given: Sequence[str], name: str, *, single: bool) -> Path | None:
    """The depth folder of a capture: ``DIR`` for the only one, ``CAPTURE=DIR`` for one of several."""
    for text in given:
        capture, equals, folder = text.partition("=")
        if equals and capture == name:
            return Path(folder)
        if not equals and single:
            return Path(text)
    return None


def names_of(captures: Sequence[Path]) -> list[str]:
    """A name per capture: its folder's, numbered where two are alike."""
    found: list[str] = []
    for path in captures:
        name, count = path.resolve().name, 2
        while name in found:
            name, count = f"{path.resolve().name}-{count}", count + 1
        found.append(name)
    return found


def machine_load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def plan_from(args: argparse.Namespace) -> Plan:
    """The call as a plan; UserError where it does not fit."""
    changed = ablations(args.ablate)
    densifiers = args.densifiers
    if densifiers is None:  # an ablation alone is about one densifier
        densifiers = [] if changed else fitting(args.primitive)
    third = args.third if args.third is not None else [name for name in densifiers if name.partition("+")[0] == "turbo"]
    for names in (densifiers, third):
        if len(set(names)) < len(names):
            raise UserError(f"a densifier is named twice: {' '.join(names)}")
    flags_of = flags_by_kind(args.train_flags)
    for name in flags_of:  # a slip would train the wrong thing in silence
        if name not in (*densifiers, *third, *(kind for kind, _ in changed)):
            raise UserError(f"--train-flags {name}=...: {name!r} is not trained here")
    return Plan(
        tuple(densifiers), tuple(range(args.seed, args.seed + args.seeds)), args.steps, args.max_splats, args.primitive,
        shares=tuple(args.share), third=tuple(third), capped=capped_kinds(args.capped), ablations=changed,
        equal_steps=args.equal_steps, equal_time=args.equal_time, curve=args.curve, minutes=args.limit_minutes,
        flags_of=flags_of,
    )  # fmt: skip


def write_outputs(out: Path, captures: Sequence[dict[str, Any]]) -> None:
    content = captures[0] if len(captures) == 1 else {"captures": captures}
    write_text(out / "results.json", json.dumps(json_safe_all(content), indent=1, allow_nan=False) + "\n")
    write_text(out / "table.md", markdown(captures))
    write_text(out / "index.html", page(captures))


def json_safe_all(value: Any) -> Any:
    """Infinity and NaN become null, however deep."""
    if isinstance(value, dict):
        return {key: json_safe_all(item) for key, item in value.items()}
    return [json_safe_all(item) for item in value] if isinstance(value, list | tuple) else json_safe(value)


def failures(captures: Sequence[dict[str, Any]]) -> int:
    rows = [row for results in captures for row in results["rows"]]
    return sum(row["status"] != "ok" for row in rows) + sum(len(results.get("notes", ())) for results in captures)


def benchmark(args: argparse.Namespace, out: Path) -> list[dict[str, Any]]:
    """Train everything; the files in ``out`` follow."""
    plan = plan_from(args)
    for capture in args.captures:
        if not capture.exists():
            raise UserError(f"{capture}: no such capture")
    names = names_of(args.captures)
    strangers = [text for text in args.truth if "=" in text and text.partition("=")[0] not in names]
    if strangers or (len(names) > 1 and any("=" not in text for text in args.truth)):
        raise UserError(f"--truth {' '.join(args.truth)}: write CAPTURE=DIR with one of {', '.join(names)}")
    progress = Progress(plan.count() * len(names))
    load = machine_load()
    if (load or 0) > BUSY_LOAD:
        print(f"warning: other work keeps this machine busy (load {load:.1f}); times will be off", file=sys.stderr)
    benches = []
    for capture, name in zip(args.captures, names, strict=True):
        benches.append(Bench(capture, name, plan, args, progress=progress))
        benches[-1].run(lambda: write_outputs(out, [bench.results() for bench in benches]))
    return [bench.results() for bench in benches]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captures", type=Path, nargs="*", metavar="CAPTURE", help="anything splat train takes")
    parser.add_argument("--out", "-o", type=Path, required=True)
    parser.add_argument("--densifiers", nargs="+", metavar="KIND",
                        help="the first one sets the time of the equal-time table; KIND+NAME is a variant, told apart "
                        "by its own --train-flags (default: all that fit the primitive)")  # fmt: skip
    parser.add_argument("--primitive", default="gaussian")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each kind (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="the first of them")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--max-splats", type=int, default=40_000, help="limit of the equal-splats table, and what "
                        "densifiers that grow to a number get at equal steps")  # fmt: skip
    parser.add_argument("--share", type=float, nargs="+", default=[], metavar="S",
                        help="also train all with this share of the splats, such as 0.5")  # fmt: skip
    parser.add_argument("--third", nargs="*", metavar="KIND",
                        help="also train these for a third of the steps (default: turbo and its variants)")  # fmt: skip
    parser.add_argument("--capped", nargs="+", default=[], metavar="KIND",
                        help="densifiers that need a limit of splats, beside those with a setting 'cap'")  # fmt: skip
    parser.add_argument("--ablate", nargs=2, action="append", default=[], metavar=("KIND", "CHANGES"),
                        help="one densifier with its settings changed one at a time: mcmc 'noise=0; scale_reg=0'; "
                        "without --densifiers, nothing else is trained")  # fmt: skip
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--equal-steps", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--equal-time", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--curve", type=int, default=8, metavar="N",
                        help="evaluations on the way, in one more training per densifier (default: 8)")  # fmt: skip
    parser.add_argument("--limit-minutes", type=float, help="no training longer than this")
    parser.add_argument("--train-flags", action="append", default=[], metavar="KIND=FLAGS",
                        help="more for splat train by one of them: 'mcmc+calm=--densifier.noise=0'")  # fmt: skip
    parser.add_argument("--truth", action="append", default=[], metavar="[CAPTURE=]DIR",
                        help="true depth along the optical axis, STEM.npy or STEM.npz per view: counts splats far "
                        "from the surface")  # fmt: skip
    for flag in ("--downscale", "--max-size", "--device", "--threads"):
        names = ("-r", flag) if flag == "--downscale" else (flag,)
        parser.add_argument(*names, help="as in splat train")
    parser.add_argument("--resume", action="store_true", help="skip trainings that are finished in --out")
    parser.add_argument("--combine", type=Path, nargs="+", metavar="DIR", help="one page from earlier --out folders")
    args = parser.parse_args(argv)
    if bool(args.captures) == bool(args.combine):
        parser.error("name captures, or earlier results with --combine")
    if min(args.steps, args.max_splats, args.seeds, *args.share) <= 0 or args.curve < 0:
        parser.error("--steps, --max-splats, --seeds and --share must be above 0, --curve at least 0")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(sys.argv[1:] if argv is None else argv)

    def run() -> Captures:
        out = args.out.resolve()
        if args.combine:
            captures = combine([folder.resolve() for folder in args.combine])
            if not all("summary" in results for results in captures):
                raise UserError("--combine: not all of these are results of this script")
            write_outputs(out, captures)
        else:
            captures = benchmark(args, out)
        return captures

    return told("bench_densifiers", args.out, run, markdown=markdown, failures=failures)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the training under way ends as well
    sys.exit(main())
