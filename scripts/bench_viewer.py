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

The page is a small process that speaks viser's protocol (``bench_viewer_client.py``), not a browser: headless Chromium
draws in software and would take both cores for itself, while a user's page runs on another machine or a GPU. What that
process costs is measured and told.

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

import torch

from splat.config.assemble import gather, prepare
from splat.config.build import build_config, nested
from splat.config.devices import prepare_process
from splat.config.presets import read_preset
from splat.config.starting import start_layer
from splat.edit.drag.drag import DragSession
from splat.edit.ops import Drag, Handle
from splat.edit.session import EditSession
from splat.errors import UserError
from splat.io.atomic import write_text
from splat.io.formats import read_model
from splat.live.commands import Change, Resume, Stop
from splat.live.link import Link
from splat.live.snapshot import Snapshot
from splat.model.gaussian import GaussianPrimitive
from splat.model.labels import Labels
from splat.model.splat_model import SplatModel
from splat.render.registry import choose
from splat.train.trainer import drive
from splat.viewer.picture.draw import draw
from splat.viewer.picture.look import Look
from splat.viewer.picture.space import Space
from splat.viewer.serving.app import Viewer
from splat.viewer.serving.standing import StandingHost

CLIENT = Path(__file__).with_name("bench_viewer_client.py")
SHARES = (0.5, 0.9)
DRAGGED = (10_000, 50_000, 200_000)
MOVES = 15
SETTLE_SECS = 1.0
PARTS = ("training", "latency", "fps", "drag")


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
        return json.loads(process.stdout.readline())


def steps_per_sec(link: Link, secs: float) -> float:
    first, start = link.news.status.step, time.perf_counter()
    time.sleep(secs)
    return (link.news.status.step - first) / (time.perf_counter() - start)


def training_cost(link: Link, parts: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Steps per second in turns."""
    rates: dict[str, list[float]] = {}
    cpu: list[float] = []
    for round_number in range(args.rounds):
        rates.setdefault("no viewer", []).append(steps_per_sec(link, args.secs))
        with viewing(link, parts, SHARES[0]) as url:
            rates.setdefault("viewer, no page", []).append(steps_per_sec(link, args.secs))
            with page(url, "idle", 10 * args.secs, args.size):
                rates.setdefault("page at rest", []).append(steps_per_sec(link, args.secs))
        for share in SHARES:
            with viewing(link, parts, share) as url, page(url, "orbit", args.secs, args.size) as process:
                rates.setdefault(f"page orbiting, share {share:g}", []).append(steps_per_sec(link, args.secs - 0.5))
                cpu.append(json.loads(process.stdout.readline())["client_cpu_share"])
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
        told = heard(url, "latency", 2 * args.secs, args.size)
        found |= {name: quartiles(told[name]) for name in ("first_ms", "sharp_ms")}
    if "fps" in parts:
        found["orbit"] = heard(url, "orbit", args.secs, args.size)
    return found


def of_opened(args: argparse.Namespace, parts: set[str]) -> dict[str, Any]:
    """The same of a model that nothing trains."""
    model, rasterizer = read_model(args.model).model, choose("cpu")
    with StandingHost(model) as host:
        session = EditSession(rasterizer=rasterizer)
        viewer = Viewer(host.link, rasterizer=rasterizer, session=session, port=0, token="bench", model=model,
                        standing=True)  # fmt: skip
        try:
            return {"splats": model.count, **of_page(viewer.start(), args, parts)}
        finally:
            viewer.close()


def quartiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "low": ordered[len(ordered) // 10],
            "high": ordered[(9 * len(ordered)) // 10], "count": len(ordered)} if ordered else {}  # fmt: skip


def drag_cost(size: str) -> dict[str, Any]:
    """Milliseconds of one drag event on a bumpy ball, of which the selection is one half and more."""
    width, height = map(int, size.split("x"))
    rasterizer, found = choose("cpu"), {}
    for count in DRAGGED:
        model, mask, labels = bumpy_ball(count)
        top = tuple(model.rows["means"][mask].amax(0).tolist())
        start = time.perf_counter()
        session = DragSession(model, mask, Drag((Handle(top, top, 0.1),)))
        begun = time.perf_counter() - start
        snapshot, ids = Snapshot(model, labels, 0, 0), labels.ids[session.rows]
        camera = Space().camera(wxyz=(1, 0, 0, 0), position=(0, 0, -4), fov=0.9, width=width, height=height)
        moves, pictures = [], []
        for i in range(MOVES):
            to = (top[0] + 0.02 * i, top[1] - 0.01 * i, top[2])
            start = time.perf_counter()
            values = session.move((Handle(top, to, 0.1),))
            moves.append(1000 * (time.perf_counter() - start))
            draw(snapshot, camera, Look(), rasterizer=rasterizer, preview=(ids, values))
            pictures.append(1000 * (time.perf_counter() - start))
        found[str(count)] = {"rows": len(session.rows), "begin_ms": 1000 * begun, "event_ms": quartiles(moves[2:]),
                             "event_and_picture_ms": quartiles(pictures[2:])}  # fmt: skip
    return found


def bumpy_ball(selected: int) -> tuple[SplatModel, torch.Tensor, Labels]:
    """A shell of a quarter more splats than ``selected``, which lie on one side."""
    random = torch.Generator().manual_seed(0)
    count = selected * 5 // 4
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=random), dim=1)
    xyz = directions * (1 + 0.1 * torch.sin(9 * directions).prod(1, keepdim=True))
    rows = GaussianPrimitive().start(xyz, torch.rand(count, 3, generator=random), sh_degree=1, generator=random)
    mask = torch.zeros(count, dtype=torch.bool)
    mask[xyz[:, 0].argsort()[:selected]] = True
    return SplatModel(GaussianPrimitive(), rows, 1), mask, Labels.start(count)


def measured(args: argparse.Namespace) -> dict[str, Any]:
    parts, result = set(args.only), {"size": args.size, "cores": os.cpu_count(), "load_before": os.getloadavg()[0]}
    prepare_process(args.threads)
    if "drag" in parts:
        result["drag"] = drag_cost(args.size)
    if args.model is not None and parts & {"latency", "fps"}:
        result["opened"] = of_opened(args, parts)
    if parts & {"training", "latency", "fps"}:
        with running(args.capture, args.model, warm_steps=args.warm_steps) as (link, gathered):
            if "training" in parts:
                result["training"] = training_cost(link, gathered, args)
            if parts & {"latency", "fps"}:
                with viewing(link, gathered, args.share) as url:
                    own = of_page(url, args, parts)
                result["while_training"] = {"splats": link.news.status.splats, "share": args.share, **own}
    return result


def table(result: dict[str, Any]) -> str:
    """For a terminal."""
    lines = [f"{result['cores']} cores, pictures {result['size']}, load before {result['load_before']:.1f}"]
    for name, row in result.get("training", {}).get("rows", {}).items():
        lines.append(f"{name:<28} {row['steps_per_sec']:7.2f} steps/s  x{row['ratio']:.3f}")
    for where in ("opened", "while_training"):
        for name, value in result.get(where, {}).items():
            if name in ("first_ms", "sharp_ms") and value:
                lines.append(f"{where:<15} {name:<9} median {value['median']:.0f} (10 % {value['low']:.0f}, 90 % "
                             f"{value['high']:.0f})")  # fmt: skip
            elif name == "orbit":
                lines.append(f"{where:<15} orbit     {value['frames_per_sec']:.1f} pictures/s, width {value['width']}")
    for count, row in result.get("drag", {}).items():
        lines.append(f"drag of {int(count):>7,}: event {row['event_ms']['median']:.1f} ms, with its picture "
                     f"{row['event_and_picture_ms']['median']:.1f} ms, to begin {row['begin_ms']:.0f} ms")  # fmt: skip
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path, nargs="?", default=Path("scenes/nook"))
    parser.add_argument("--model", type=Path, help="what the training starts from, and what is opened besides")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--secs", type=float, default=8.0, help="of a window")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm-steps", type=int, default=200)
    parser.add_argument("--share", type=float, default=0.5, help="of the time for training, in latency and fps")
    parser.add_argument("--threads", type=int, default=0, help="of the native core; 0: one per core")
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    try:
        result = measured(args)
    except UserError as error:
        print(f"bench_viewer: {error}", file=sys.stderr)
        return 2
    print(table(result))
    if args.json is not None:
        write_text(args.json, json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
