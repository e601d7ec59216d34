"""What the viewer costs and how quick it is.

    python scripts/bench_viewer.py scenes/nook --json viewer.json
    python scripts/bench_viewer.py scenes/nook --only drag latency

* training: steps per second of one training in turns without a viewer, with an open viewer and nobody there, with a
  page that rests, and with one that orbits without pause (at several shares of time for training). Rounds of short
  windows take turns, so that what else the machine does falls on all of them; the ratio of a window is to that of its
  own round without a viewer.
* latency: from a camera message to the first picture made for it and to the sharp one, of an opened model and of a
  training.
* fps: pictures per second while orbiting.
* drag: one event of a drag (solve and deform) at 10k, 50k and 200k selected splats, and with the picture after it.
* browser: all of it but the training in headless Chromium, from the mouse's event to what is shown, single movements
  and without rest; ``bench_viewer_browser.py`` says what is timed. Measured only where it is asked for.

Elsewhere the page is a small process that speaks viser's protocol (``bench_viewer_client.py``), not a browser: headless
Chromium draws in software and would take both cores for itself, while a user's page runs on another machine or a GPU.
What that process costs is measured and told.

    python scripts/bench_viewer.py --only browser --model RUN --dragged RUN LARGER_RUN --rounds 3

Exit codes: 0 done, 2 something to mend in the call, 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench_viewer_browser import browser_program, measured_in_browser, served
from bench_viewer_drag import drag_cost
from bench_viewer_hooks import spread
from bench_viewer_table import table

from splat.config.assemble import gather, prepare
from splat.config.build import build_config, nested
from splat.config.devices import prepare_process
from splat.config.presets import read_preset
from splat.config.starting import start_layer
from splat.edit.session import EditSession
from splat.errors import UserError
from splat.io.atomic import write_text
from splat.io.formats import read_model
from splat.live.commands import Change, Resume, Stop
from splat.live.link import Link
from splat.render.registry import choose
from splat.train.trainer import drive
from splat.viewer.serving.app import Viewer

CLIENT = Path(__file__).with_name("bench_viewer_client.py")
SHARES = (0.5, 0.9)
SETTLE_SECS = 1.0
TOLD_SECS = 60.0
"""A training that says nothing for so long is stuck."""
LEAST_SECS = 1.0
PARTS = ("training", "latency", "fps", "drag")
ON_DEMAND = ("browser",)


@contextmanager
def running(capture: Path, model: Path | None, *, warm_steps: int) -> Iterator[Any]:
    """A training in a thread; yields its link and parts once it has taken ``warm_steps``. Its speed does not drift: it
    starts from ``model`` where one is given, sees whole pictures from the first step on, evaluates and saves nothing,
    and its splats stay as many as they are then."""
    told = {"capture": str(capture), "steps": 10**7, "steps_per_view": None, "output.report": False,
            "output.first_render": False, "output.eval_at": [], "output.checkpoint_every": 0,
            "resolution.factor": 1}  # fmt: skip
    layers = [("preset cpu", read_preset("cpu"))]
    if model is not None:
        layers.append(("model", start_layer(model)))
        told["start_from"] = str(model)
    parts = gather(build_config([*layers, ("bench", nested(told))]), lambda _: None)
    link = Link()
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(parts, Path(folder), stream=io.StringIO(), say=lambda _: None, version="bench", link=link)
        thread = threading.Thread(target=lambda: drive(run.trainer, run.sinks), daemon=True)
        thread.start()
        try:
            while link.news.status.step < warm_steps:
                if not thread.is_alive():
                    raise UserError("the training went down")
                time.sleep(0.1)
            link.commands.put(Change("densify", False)).result(60)
            yield link, parts
        finally:
            link.commands.put(Resume())
            link.commands.put(Stop(how="interrupt"))
            thread.join(60)
            parts.close()


@contextmanager
def viewing(link: Link, parts: Any, share: float) -> Iterator[str]:
    """The address of a viewer on a training."""
    rasterizer = choose("cpu")
    session = EditSession(rasterizer=rasterizer)
    viewer = Viewer(link, scene=parts.scene, rasterizer=rasterizer, session=session, port=0, token="bench", share=share)
    try:
        yield viewer.start()
    finally:
        viewer.close()


@contextmanager
def page(url: str, scenario: str, secs: float, size: str) -> Iterator[subprocess.Popen]:
    """A page that has shown its first picture."""
    command = [sys.executable, str(CLIENT), url, scenario, "--secs", str(secs), "--size", size]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout.readline().strip() != "ready":
            raise UserError(f"the page of the benchmark went down: {' '.join(command)}")
        time.sleep(SETTLE_SECS)
        yield process
    finally:
        process.kill()
        process.communicate()


def heard(url: str, scenario: str, secs: float, size: str) -> dict[str, Any]:
    """What a page measured."""
    with page(url, scenario, secs, size) as process:
        return told_by(process)


def told_by(process: subprocess.Popen) -> dict[str, Any]:
    """The result that a page ends with."""
    line = process.stdout.readline()
    if not line:
        raise UserError("the page of the benchmark went down")
    return json.loads(line)


def steps_per_sec(link: Link, secs: float) -> float:
    """Over ``secs`` and a little: a training tells its step now and then, so from one telling to another."""
    first, start = next_told(link)
    time.sleep(secs)
    last, end = next_told(link)
    return (last - first) / (end - start)


def next_told(link: Link) -> tuple[int, float]:
    """The step that the training tells next, and when. UserError where it tells nothing."""
    before, start = link.news.status.step, time.perf_counter()
    while (step := link.news.status.step) == before:
        if time.perf_counter() - start > TOLD_SECS:
            raise UserError(f"the training has taken no step in {TOLD_SECS:g} s")
        time.sleep(0.002)
    return step, time.perf_counter()


def training_cost(link: Link, parts: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Steps per second in turns."""
    rates: dict[str, list[float]] = {}
    cpu: list[float] = []
    for round_number in range(args.rounds):
        rates.setdefault("no viewer", []).append(steps_per_sec(link, args.secs))
        with viewing(link, parts, SHARES[0]) as url:
            rates.setdefault("viewer, no page", []).append(steps_per_sec(link, args.secs))
            with page(url, "idle", 10 * args.secs, args.pixels):
                rates.setdefault("page at rest", []).append(steps_per_sec(link, args.secs))
        for share in SHARES:
            with viewing(link, parts, share) as url, page(url, "orbit", args.secs + 1, args.pixels) as process:
                rates.setdefault(f"page orbiting, share {share:g}", []).append(steps_per_sec(link, args.secs))
                cpu.append(told_by(process)["client_cpu_share"])
        print(f"round {round_number + 1} of {args.rounds}", file=sys.stderr, flush=True)
    base = rates["no viewer"]
    rows = {name: {"steps_per_sec": statistics.median(values),
                   "ratio": statistics.median(value / own for value, own in zip(values, base, strict=True)),
                   "rounds": values} for name, values in rates.items()}  # fmt: skip
    return {"rows": rows, "client_cpu_share": statistics.median(cpu), "splats": link.news.status.splats}


def of_page(url: str, args: argparse.Namespace, parts: set[str]) -> dict[str, Any]:
    """Latency and pictures per second of an open viewer."""
    found: dict[str, Any] = {}
    if "latency" in parts:
        told = heard(url, "latency", 2 * args.secs, args.pixels)
        found |= {name: spread(told[name]) for name in ("first_ms", "sharp_ms")} | {"unanswered": told["unanswered"]}
    if "fps" in parts:
        found["orbit"] = heard(url, "orbit", args.secs, args.pixels)
    return found


def of_opened(args: argparse.Namespace, parts: set[str]) -> dict[str, Any]:
    """The same of a model that nothing trains."""
    model = read_model(args.model).model
    with served(model) as (_, url):
        return {"splats": model.count, **of_page(url, args, parts)}


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for, one part after the other, with the machine's load (of the last minute) before."""
    parts, result = set(args.only), {"size": args.pixels, "cores": os.cpu_count(), "load": {}}
    prepare_process(args.threads)
    if "browser" in parts:
        browser_program(args.size)  # what is missing is told before anything is measured

    def begin(part: str) -> None:
        result["load"][part] = os.getloadavg()[0]

    if "drag" in parts:
        begin("drag")
        result["drag"] = drag_cost(args.size)
    if args.model is not None and parts & {"latency", "fps"}:
        begin("opened")
        result["opened"] = of_opened(args, parts)
    if "browser" in parts:
        begin("browser")
        result["browser"] = measured_in_browser(args, lambda url: of_page(url, args, {"latency", "fps"}))
    if parts & {"training", "latency", "fps"}:
        with running(args.capture, args.model, warm_steps=args.warm_steps) as (link, gathered):
            if "training" in parts:
                begin("training")
                result["training"] = training_cost(link, gathered, args)
            if parts & {"latency", "fps"}:
                begin("while_training")
                with viewing(link, gathered, args.share) as url:
                    own = of_page(url, args, parts)
                result["while_training"] = {"splats": link.news.status.splats, "share": args.share, **own}
    return result


def pixels(text: str) -> tuple[int, int]:
    """``640x480`` -> (640, 480)."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"'{text}' does not fit: use WIDTHxHEIGHT, as 640x480")
    return int(width), int(height)


def seconds(text: str) -> float:
    """Long enough for a window."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not LEAST_SECS <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' does not fit: use {LEAST_SECS:g} and more")
    return value


def part_of_one(text: str) -> float:
    """0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' does not fit: use 0 to 1")
    return value


def whole(text: str) -> int:
    """One and more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' does not fit: use 1 and more")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path, nargs="?", default=Path("scenes/nook"))
    parser.add_argument("--model", type=Path, help="what the training starts from, and what is opened besides")
    parser.add_argument("--dragged", type=Path, nargs="+", default=[], help="models to drag in the browser: for each "
                        "number of splats the smallest that has so many, else the largest, doubled (default: --model, "
                        "else a bumpy ball)")  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=(*PARTS, *ON_DEMAND), default=list(PARTS),
                        help="default: %(default)s")  # fmt: skip
    parser.add_argument("--secs", type=seconds, default=8.0, help="of a window")
    parser.add_argument("--rounds", type=whole, default=5)
    parser.add_argument("--warm-steps", type=whole, default=200)
    parser.add_argument("--share", type=part_of_one, default=0.5, help="of the time for training, in latency and fps")
    parser.add_argument("--threads", type=int, default=0, help="of the native core; 0: one per core")
    parser.add_argument("--size", type=pixels, default=(640, 480), help="of the page, as 640x480")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    args.pixels = f"{args.size[0]}x{args.size[1]}"
    try:
        result = measured(args)
        print(table(result))
        if args.json is not None:
            write_text(args.json, json.dumps(result, indent=1) + "\n")
    except UserError as error:
        print(f"bench_viewer: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
