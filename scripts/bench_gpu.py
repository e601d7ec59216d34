"""Training on an NVIDIA GPU, ours beside gsplat's, in one process: stages, full steps per second, memory, a capture.

    python scripts/bench_gpu.py --json bench_gpu.json
    python scripts/bench_gpu.py --capture scenes/nook --steps 7000 --json bench_gpu.json

Both draw the same splats from the same camera and take the same loss (ours); gsplat updates by torch's fused Adam. The
two take turns. A quantity that cannot be had is named with its reason instead of a number.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctypes_ffi import stand_in

stand_in()
import torch  # noqa: E402
from bench_cpu import FIELDS, synthetic  # noqa: E402
from bench_gpu_stages import footprint_times, medians, timed_library  # noqa: E402
from bench_gpu_stages import table as footprint_table  # noqa: E402

from splat.losses.photometric import photometric_loss  # noqa: E402
from splat.model.gaussian import GaussianPrimitive  # noqa: E402
from splat.model.render_inputs import RenderInputs  # noqa: E402
from splat.model.splat_model import SplatModel  # noqa: E402
from splat.native import backend as backends  # noqa: E402
from splat.native import cuda, ops  # noqa: E402
from splat.optim.adam import SplatAdam  # noqa: E402
from splat.render.native_rasterizer import NativeRasterizer  # noqa: E402
from splat.render.types import CameraBatch, RenderOptions  # noqa: E402

SIZES = {"720p": (1280, 720), "1080p": (1920, 1080)}
SPREAD = 1.55  # half of the splats are outside the picture, as in a room
SIZE_PX = 4.0  # at 1M splats and 1080p: some 8 tiles per visible splat, 4M pairs
FLOOR_MS = {(1_000_000, "1080p"): (1.1, 1.8)}
"""Counted floor of a step of the target design and of today's, specs/performance.md section 1.3."""
STAGES = ("project", "bin", "blend", "photometric", "blend_backward", "project_backward_adam")


class Scene:
    """One synthetic scene and camera on the GPU, and a random photograph."""

    def __init__(self, count: int, size: str, seed: int = 0) -> None:
        width, height = SIZES[size]
        size_px = SIZE_PX * (1_000_000 / count) ** 0.5 * width / 1920
        inputs, self.cameras = synthetic(count, width, height, size_px, seed, spread=SPREAD)
        order = ops.morton_order(inputs.means)
        self.rows = {name: getattr(inputs, name)[order].cuda() for name in FIELDS}
        home = self.cameras.on_host()
        there = home[0].cuda(), home[1].cuda()
        self.cameras = CameraBatch(*there, width, height, (home, there))
        random = torch.Generator().manual_seed(seed + 1)
        self.target = (torch.rand(1, height, width, 3, generator=random) * 255).to(torch.uint8).cuda()
        self.options = RenderOptions(background=torch.zeros(3, device="cuda"))


class Ours:
    """Our step as the trainer takes it: render, loss, backward with Adam inside."""

    name = "splat"

    def __init__(self, scene: Scene) -> None:
        self.scene, self.rasterizer = scene, NativeRasterizer()
        self.rows = {name: table.clone().requires_grad_(True) for name, table in scene.rows.items()}
        self.model = SplatModel(GaussianPrimitive(), self.rows, 3)
        self.adam = SplatAdam(self.model.primitive.fields(3))
        self.adam.start(self.model)
        self.moments = {name: self.adam.moments(name) for name in self.rows}
        self.rates = dict.fromkeys(self.rows, 1e-6)

    def step(self) -> None:
        scene, update = self.scene, self.adam.planned(self.rates)
        output = self.rasterizer.render(self.model.render_inputs(), scene.cameras, scene.options, update=update)
        photometric_loss(output.color, scene.target).total.backward()
        self.adam.committed(update)
        self.adam.step(self.model, self.rates)


class Gsplat:
    """The same step by gsplat and torch's fused Adam."""

    name = "gsplat"

    def __init__(self, scene: Scene) -> None:
        from splat.render.gsplat_rasterizer import GsplatRasterizer

        self.scene, self.rasterizer = scene, GsplatRasterizer()
        self.rows = {name: table.clone().requires_grad_(True) for name, table in scene.rows.items()}
        reason = self.rasterizer.supports(RenderInputs(**self.rows), scene.options, torch.device("cuda"))
        if reason is not None:
            raise RuntimeError(reason)
        self.adam = torch.optim.Adam(list(self.rows.values()), lr=1e-6, eps=1e-15, fused=True)
        self.moments: dict[str, Any] = {}  # torch's own

    def step(self) -> None:
        scene = self.scene
        output = self.rasterizer.render(RenderInputs(**self.rows), scene.cameras, scene.options)
        photometric_loss(output.color.contiguous(), scene.target).total.backward()
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)


def stage_times(scene: Scene, steps: int) -> dict[str, float]:
    """Median ms of every native call in a step."""
    taken = []
    with timed_library(STAGES) as timed:
        ours = Ours(scene)
        for _ in range(steps + 3):
            ours.step()
            taken.append(timed.milliseconds())
    return medians(taken[3:])


def counters(scene: Scene) -> dict[str, int]:
    """What a step of this scene has to do."""
    from splat.render.native_cuda import CudaView

    rows = RenderInputs(**scene.rows)
    view = CudaView(backends.backend_of("cuda"), rows, scene.cameras, 0, scene.options)
    view.project_and_bin(4 * rows.count)
    view.blend(scene.options.background, None)
    view.settle()
    return {"visible": view.visible_count, "slots": view.slots, "pairs": view.instances}


def step_seconds(step: Callable[[], None], steps: int) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps


def compare_steps(count: int, size: str, steps: int) -> dict[str, Any]:
    """Full steps of both, in turns; peak memory of each alone."""
    scene = Scene(count, size)
    result: dict[str, Any] = {"splats": count, "size": size, **counters(scene), "stage_ms": stage_times(scene, steps)}
    runners = []
    for kind in (Ours, Gsplat):
        try:
            runner = kind(scene)
            torch.cuda.reset_peak_memory_stats()
            for _ in range(5):
                runner.step()
            torch.cuda.synchronize()
        except Exception as error:
            result[kind.name] = {"absent": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
            continue
        result[kind.name] = {"peak_mib": torch.cuda.max_memory_allocated() / 2**20 - _others(runners)}
        runners.append(runner)
    times: dict[str, list[float]] = {runner.name: [] for runner in runners}
    for _ in range(5):
        for runner in runners:
            times[runner.name].append(step_seconds(runner.step, steps))
    for name, values in times.items():
        taken = statistics.median(values)
        spread = 1e3 * (max(values) - min(values))
        result[name] |= {"step_ms": 1e3 * taken, "its_per_sec": 1 / taken, "spread_ms": spread}
    if {"splat", "gsplat"} <= times.keys():
        result["speedup"] = result["gsplat"]["step_ms"] / result["splat"]["step_ms"]
    floor = FLOOR_MS.get((count, size))
    if floor is not None and "splat" in times:
        result["floor_ms"] = floor
        result["over_floor"] = [result["splat"]["step_ms"] / each for each in floor]
    return result


def _others(runners: list[Any]) -> float:
    """MiB that the runners before this one hold: rows, moments."""
    held = [table for runner in runners for table in runner.rows.values()]
    held += [table for runner in runners for pair in runner.moments.values() for table in pair]
    return sum(t.numel() * t.element_size() for t in held) / 2**20


def train_capture(capture: Path, rasterizer_name: str, steps: int, splats: int) -> dict[str, Any]:
    """A whole training by the real trainer, model and optimizer on the GPU: seconds, scores, peak memory."""
    from splat.config.assemble import gather, prepare
    from splat.config.build import build_config, nested
    from splat.config.presets import read_preset
    from splat.render.registry import rasterizer
    from splat.train.trainer import drive

    settings = {
        "capture": str(capture.resolve()), "steps": steps, "max_splats": splats, "densifier.kind": "mcmc",
        "render.device": "cuda", "render.rasterizer": "native", "output.report": False, "output.first_render": False,
    }  # fmt: skip
    config = build_config([("preset default", read_preset("default")), ("benchmark", nested(settings))])
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    parts = gather(config, print)
    try:
        if rasterizer_name != "native":
            parts.rasterizer = rasterizer(rasterizer_name)
        with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log", "w", encoding="utf8") as stream:
            run = prepare(parts, Path(folder), stream=stream, say=print, version="benchmark")
            began = time.perf_counter()
            drive(run.trainer, run.sinks)
            torch.cuda.synchronize()
            seconds = time.perf_counter() - began
            lines = (Path(folder) / "metrics.jsonl").read_text(encoding="utf8").splitlines()
    finally:
        parts.close()
    records = [json.loads(line) for line in lines]
    scores = [record for record in records if record["kind"] == "eval"][-1]
    return {
        "seconds": seconds, "psnr": scores["psnr"], "ssim": scores["ssim"], "splats": scores["splats"],
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20,
        "its_per_sec": [record for record in records if record["kind"] == "train"][-1]["its_per_sec"],
    }  # fmt: skip


def compare_training(capture: Path, steps: int, splats: int) -> dict[str, Any]:
    result: dict[str, Any] = {"capture": capture.name, "steps": steps, "splats": splats}
    for name in ("native", "gsplat"):
        try:
            result[name] = train_capture(capture, name, steps, splats)
        except Exception as error:
            result[name] = {"absent": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        gc.collect()
    return result


def table(results: dict[str, Any]) -> str:
    """What was measured, for people."""
    lines = [results["machine"], ""]
    head = f"{'splats':>9} {'size':>6} {'pairs':>9}" + "".join(f"{stage:>{max(len(stage) + 2, 8)}}" for stage in STAGES)
    lines.append(head + f"{'splat ms':>10}{'it/s':>8}{'gsplat ms':>11}{'times':>7}{'MiB':>8}{'gsplat MiB':>12}")
    for case in results["steps"]:
        ours, theirs = case["splat"], case["gsplat"]
        row = f"{case['splats']:>9} {case['size']:>6} {case['pairs']:>9}"
        row += "".join(f"{case['stage_ms'][stage]:>{max(len(stage) + 2, 8)}.3f}" for stage in STAGES)
        row += f"{ours.get('step_ms', float('nan')):>10.3f}{ours.get('its_per_sec', float('nan')):>8.1f}"
        row += f"{theirs.get('step_ms', float('nan')):>11.3f}{case.get('speedup', float('nan')):>7.2f}"
        lines.append(row + f"{ours.get('peak_mib', float('nan')):>8.0f}{theirs.get('peak_mib', float('nan')):>12.0f}")
        lines += [f"          {name}: {case[name]['absent']}" for name in ("splat", "gsplat") if "absent" in case[name]]
        if "over_floor" in case:
            low, high = case["floor_ms"]
            lines.append(f"          counted floor {low} to {high} ms: {case['over_floor'][0]:.2f}x and "
                         f"{case['over_floor'][1]:.2f}x of it")  # fmt: skip
    footprints = results["footprints"]
    lines += ["", f"footprints, {footprints['splats']} splats at {footprints['size']}"]
    lines += footprint_table(footprints["stage_ms"])
    for training in results.get("training", []):
        lines.append(f"{training['capture']}, {training['steps']} steps, {training['splats']} splats")
        for name in ("native", "gsplat"):
            found = training[name]
            lines.append(f"  {name:<8}" + (found["absent"] if "absent" in found else
                         f"{found['seconds']:.1f} s  PSNR {found['psnr']:.2f}  SSIM {found['ssim']:.4f}  "
                         f"{found['splats']} splats  {found['peak_mib']:.0f} MiB"))  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splats", type=int, nargs="*", default=[300_000, 1_000_000, 3_000_000])
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--repeat", type=int, default=30, help="steps per measurement")
    parser.add_argument("--capture", type=Path, help="also train this capture by both")
    parser.add_argument("--steps", type=int, default=7000, help="of that training")
    parser.add_argument("--max-splats", type=int, default=500_000, help="of that training")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    reason = cuda.absent()
    if reason is not None:
        raise SystemExit(f"no GPU for the CUDA backend: {reason[0]}\nfix: {reason[1]}")
    if not torch.cuda.is_available():
        raise SystemExit(f"torch {torch.__version__} sees no GPU")
    results = run(args.splats, args.sizes, args.repeat)
    if args.capture is not None:
        results["training"] = [compare_training(args.capture, args.steps, args.max_splats)]
    print(table(results))
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf8")


def run(splats: list[int], sizes: list[str], repeat: int) -> dict[str, Any]:
    """Every combination, one after the other."""
    results: dict[str, Any] = {"machine": cuda.device_info(torch.cuda.current_device()), "torch": torch.__version__,
                               "code": cuda.architectures(), "steps": []}  # fmt: skip
    for count in splats:
        for size in sizes:
            results["steps"].append(compare_steps(count, size, repeat))
            gc.collect()
            torch.cuda.empty_cache()
    scene = Scene(splats[0], sizes[-1])
    results["footprints"] = {"splats": splats[0], "size": sizes[-1],
                             "stage_ms": footprint_times(scene.rows, scene.cameras, repeat)}  # fmt: skip
    return results


if __name__ == "__main__":
    main()
