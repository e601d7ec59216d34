"""Full training steps per second of the CPU core, stage by stage, beside the counted floor.

    python scripts/bench_cpu.py --json bench.json

A synthetic scene of log-normal splats (about 28 contributing splats per pixel at the defaults) is trained for real:
project, sort and bin, blend, photometric loss, blend backward, projection backward, Adam on all 59 parameters.
Quote medians; compare instruction sets only within one run, where they take turns.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import time
from pathlib import Path

import torch

from splat.geometry.camera import Camera
from splat.model.render_inputs import RenderInputs
from splat.native import ops
from splat.native.backend import backend_of
from splat.render.native_cpu import CpuView
from splat.render.native_view import ImageGrads, NativeView, RowGrads
from splat.render.types import CameraBatch, RenderOptions

STAGES = ("project", "bin", "blend", "loss", "blend_backward", "project_backward", "adam")
FIELDS = ("means", "quats", "log_scales", "logit_opacities", "sh0", "sh_rest")

# Vector operations per evaluated pack of pixels (forward, backward) and what a core issues per cycle: the counted
# floor of the blend. 3 useful operations a cycle is what Zen 4/5 and recent Intel cores sustain.
OPS_FORWARD, OPS_BACKWARD, OPS_PER_CYCLE, GIGAHERTZ = 20, 38, 3.0, 3.7


def synthetic(
    count: int, width: int, height: int, size_px: float, seed: int, *, spread: float = 1.1
) -> tuple[RenderInputs, CameraBatch]:
    """Splats over ``spread`` times the picture's width and height at depths 2 to 10, log-normal sizes with a median of
    ``size_px``."""
    import numpy as np

    random = torch.Generator().manual_seed(seed)
    focal = 0.9 * width
    z = 2 + 8 * torch.rand(count, generator=random)
    x = (torch.rand(count, generator=random) - 0.5) * spread * width / focal * z
    y = (torch.rand(count, generator=random) - 0.5) * spread * height / focal * z
    base = torch.log(size_px * z / focal)
    inputs = RenderInputs(
        means=torch.stack([x, y, z], 1),
        quats=torch.randn(count, 4, generator=random),
        log_scales=base[:, None] + 0.5 * torch.randn(count, 3, generator=random),
        logit_opacities=0.5 + 1.5 * torch.randn(count, generator=random),
        sh0=torch.randn(count, 3, generator=random) * 0.5,
        sh_rest=torch.randn(count, 15, 3, generator=random) * 0.05,
    )
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    return inputs, CameraBatch.of(Camera("bench", np.eye(4), K, width, height))


class Step:
    """One training step with a clock between its stages."""

    def __init__(self, inputs: RenderInputs, cameras: CameraBatch, seed: int) -> None:
        self.inputs, self.cameras = inputs, cameras
        h, w = cameras.height, cameras.width
        random = torch.Generator().manual_seed(seed + 1)
        self.target = (torch.rand(h, w, 3, generator=random) * 255).to(torch.uint8)
        self.scratch = torch.empty(9 * h * w)
        self.moments = {f: (torch.zeros_like(getattr(inputs, f)), torch.zeros_like(getattr(inputs, f))) for f in FIELDS}
        self.capacity, self.steps, self.counters = 1024, 0, {}

    def run(self) -> dict[str, float]:
        marks = [time.perf_counter()]

        def mark() -> None:
            marks.append(time.perf_counter())

        x = self.inputs
        view = CpuView(backend_of("cpu"), x, self.cameras, 0, RenderOptions())
        view.lib.splat_cpu_project(view.rows, view.view, view.projected)
        mark()
        view.project_and_bin(self.capacity)
        self.capacity = max(self.capacity, view.settle())
        mark()
        images = view.blend(torch.zeros(3), None)
        mark()
        grad = torch.empty_like(images.color)
        ops.photometric(images.color, self.target, None, ssim_weight=0.2, grad=grad, scratch=self.scratch)
        mark()
        grads = RowGrads(**{f: torch.empty_like(getattr(x, f)) for f in FIELDS})
        split: list[float] = []
        timed = _Timed(view.lib, split)
        view.lib = timed
        view.backward(ImageGrads(grad), grads, accumulate=False)
        end_backward = time.perf_counter()
        blend_backward = split[0] - marks[-1]
        marks += [marks[-1] + blend_backward, end_backward]
        self.steps += 1
        for f in FIELDS:
            m, v = self.moments[f]
            ops.adam_step(getattr(x, f), getattr(grads, f), m, v, lr=1e-5, beta1=0.9, beta2=0.999, eps=1e-15,
                          step=self.steps)  # fmt: skip
        mark()
        seconds = dict(zip(STAGES, (b - a for a, b in itertools.pairwise(marks)), strict=True))
        # project_and_bin projects once more: take that out of the bin stage.
        seconds["bin"] = max(seconds["bin"] - seconds["project"], 0.0)
        if not self.counters:
            self.counters = counters(view)
        return seconds


class _Timed:
    """The library, noting when the blend's backward pass ended."""

    def __init__(self, lib, split: list[float]) -> None:
        self._lib, self._split = lib, split

    def __getattr__(self, name: str):
        call = getattr(self._lib, name)
        if name != "splat_cpu_blend_backward":
            return call

        def timed(*args):
            result = call(*args)
            self._split.append(time.perf_counter())
            return result

        return timed


def counters(view: NativeView) -> dict[str, float]:
    """What the step did, counted: splats drawn, pairs, evaluated packs, contributing fragments per pixel."""
    lanes = {"avx512": 16, "avx2": 8}.get(ops.info()["isa"], 4)
    pairs = int(view.slot_count.sum())
    rows_per_pair = _rows_per_pair(view)
    return {
        "visible": view.visible_count,
        "pairs": pairs,
        "rows_per_pair": rows_per_pair,
        "packs": pairs * rows_per_pair * (16 / lanes),
        "lanes": lanes,
    }


def _rows_per_pair(view: NativeView) -> float:
    """Mean number of pixel rows of a tile that a pair's box reaches (an upper bound: finished pixels stop early)."""
    total = int(view.tile_begin[-1])
    splats = view.instance_splat[:total].long()
    tiles_x = -(-view.width // 16)
    tile = torch.repeat_interleave(torch.arange(len(view.tile_begin) - 1), view.tile_begin.diff().long())
    top = (tile // tiles_x) * 16 + 0.5
    y, half = view.records[splats, 1], view.records[splats, 11]
    first = torch.clamp(torch.ceil(y - half - top), 0)
    last = torch.clamp(torch.floor(y + half - top), max=15)
    return float((last - first + 1).clamp(min=0).mean())


def floor_seconds(counted: dict[str, float], threads: int) -> float:
    """Blend forward and backward at full issue rate, nothing else."""
    operations = counted["packs"] * (OPS_FORWARD + OPS_BACKWARD)
    return operations / (OPS_PER_CYCLE * GIGAHERTZ * 1e9) / threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splats", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--size-px", type=float, default=1.45, help="median standard deviation on the picture")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=0, help="0 = one per processor")
    parser.add_argument("--isa", nargs="*", help="instruction sets to compare; default: all this machine has")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    ops.keep_memory()
    ops.set_threads(args.threads)
    isas = args.isa or str(ops.info()["isas"]).split()
    steps, seconds = {}, {isa: [] for isa in isas}
    for isa in isas:
        inputs, cameras = synthetic(args.splats, args.width, args.height, args.size_px, args.seed)
        steps[isa] = Step(inputs, cameras, args.seed)
    for i in range(args.steps + 3):
        for isa in isas:  # take turns, so that a slow moment of the machine hits all
            ops.set_isa(isa)
            taken = steps[isa].run()
            if i >= 3:
                seconds[isa].append(taken)
    threads = int(ops.info()["threads"])
    machine = platform.processor() or platform.machine()
    result = {"machine": machine, "threads": threads, "args": vars(args) | {"json": ""}}
    print(f"{args.splats} splats, {args.width}x{args.height}, {threads} threads, median of {args.steps} steps, ms")
    print("isa        " + "".join(f"{name:>17}" for name in STAGES) + f"{'step':>9}{'it/s':>8}{'floor it/s':>12}")
    for isa in isas:
        medians = {name: statistics.median(s[name] for s in seconds[isa]) for name in STAGES}
        step = statistics.median(sum(s.values()) for s in seconds[isa])
        limit = floor_seconds(steps[isa].counters, threads)
        print(f"{isa:<11}" + "".join(f"{1e3 * medians[n]:>17.2f}" for n in STAGES)
              + f"{1e3 * step:>9.2f}{1 / step:>8.1f}{1 / limit:>12.1f}")  # fmt: skip
        result[isa] = {"stage_ms": {n: 1e3 * medians[n] for n in STAGES}, "step_ms": 1e3 * step,
                       "its_per_sec": 1 / step, "floor_its_per_sec": 1 / limit,
                       "counters": steps[isa].counters}  # fmt: skip
    first = steps[isas[0]].counters
    print(f"visible {first['visible']}, tile pairs {first['pairs']}, rows per pair {first['rows_per_pair']:.1f}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
