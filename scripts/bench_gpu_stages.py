"""Times of single native calls on a GPU, and what each footprint costs beside the Gaussian's."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from splat.model.render_inputs import RenderInputs
from splat.native import backend as backends
from splat.native.library import NativeLibrary
from splat.render.native_rasterizer import NativeRasterizer
from splat.render.types import CameraBatch, RenderOptions

FOOTPRINTS = {"gaussian": "classic", "analytic": "analytic", "gef": "classic", "convex": "classic"}
"""Footprint -> its filter of the picture."""
STAGES = ("project", "bin", "blend", "blend_backward", "project_backward")
OCTAHEDRON = 1.5
"""Half diagonal of the convex in the place of a Gaussian, in its deviations: about the area that is visible of it."""


class Timed:
    """The library with a pair of CUDA events around every call."""

    def __init__(self, lib: Any, stages: tuple[str, ...]) -> None:
        self._lib, self._stages, self.events = lib, stages, []

    def __getattr__(self, name: str) -> Any:
        call, stage = getattr(self._lib, name), name.removeprefix("splat_cuda_")
        if stage not in self._stages:
            return call

        def timed(*args: Any) -> Any:
            before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            before.record()
            result = call(*args)
            after.record()
            self.events.append((stage, before, after))
            return result

        return timed

    def milliseconds(self) -> dict[str, float]:
        """Of the calls since the last time, by stage."""
        torch.cuda.synchronize()
        sums = dict.fromkeys(self._stages, 0.0)
        for stage, before, after in self.events:
            sums[stage] += before.elapsed_time(after)
        self.events.clear()
        return sums


@contextmanager
def timed_library(stages: tuple[str, ...]) -> Iterator[Timed]:
    """Whoever asks for the CUDA library meanwhile gets one that takes the time."""
    plain = backends.backend_of("cuda")
    timed = Timed(plain.lib, stages)
    backends._opened["cuda"] = replace(plain, native=NativeLibrary(plain.ffi, timed, plain.native.path))
    try:
        yield timed
    finally:
        backends._opened["cuda"] = plain


def medians(taken: list[dict[str, float]]) -> dict[str, float]:
    return {stage: statistics.median(each[stage] for each in taken) for stage in taken[0]}


def footprint_inputs(rows: dict[str, Tensor], footprint: str, cameras: CameraBatch) -> RenderInputs:
    """The places, colours and opacities of Gaussians, drawn by a footprint, with sizes as near as can be."""
    count, device = rows["means"].shape[0], rows["means"].device
    random = torch.Generator(device).manual_seed(2)
    if footprint == "gef":
        shapes = 0.5 * torch.randn(count, device=device, generator=random)
        return RenderInputs(**rows, kind="gef", shape=(shapes,))
    if footprint != "convex":
        return RenderInputs(**rows)
    focal = float(cameras.on_host()[1][0, 0, 0])
    depth = rows["means"][:, 2].clamp_min(0.2)
    half = OCTAHEDRON * rows["log_scales"].exp()
    axes = torch.linalg.qr(torch.randn(count, 3, 3, device=device, generator=random)).Q * half[:, None, :]
    radius_px = half.log().mean(1).exp() * focal / depth
    # In the middle the edges' functions are about -radius^2: so far inside that alpha is some 0.95 of the opacity.
    log_deltas, log_sigmas = (3 / (depth * radius_px.square())).log(), (2 / depth).log()
    plain = {name: table for name, table in rows.items() if name not in ("quats", "log_scales")}
    vertices = torch.cat([axes.mT, -axes.mT], 1).contiguous()
    return RenderInputs(
        **plain, quats=None, log_scales=None, kind="convex", shape=(vertices, log_deltas, log_sigmas),
        constants=(focal, 0.0),
    )  # fmt: skip


def footprint_times(rows: dict[str, Tensor], cameras: CameraBatch, steps: int) -> dict[str, dict[str, float]]:
    """Footprint -> stage -> median ms of a picture and its gradients."""
    found = {}
    for footprint, filter2d in FOOTPRINTS.items():
        inputs = footprint_inputs(rows, footprint, cameras)
        tables = [getattr(inputs, name) for name in rows if getattr(inputs, name) is not None]
        for table in (*tables, *inputs.shape):
            table.requires_grad_(True)
        rasterizer, taken = NativeRasterizer(), []
        with timed_library(STAGES) as timed:
            for _ in range(steps + 3):
                options = RenderOptions(filter2d=filter2d)
                rasterizer.render(inputs, cameras, options).color.square().mean().backward()
                taken.append(timed.milliseconds())
        for table in (*tables, *inputs.shape):
            table.requires_grad_(False)
            table.grad = None
        found[footprint] = medians(taken[3:])
    return found


def table(times: dict[str, dict[str, float]]) -> list[str]:
    """Lines for people."""
    lines = [f"{'ms':>12}" + "".join(f"{stage:>18}" for stage in STAGES)]
    return lines + [
        f"{name:>12}" + "".join(f"{each[stage]:>18.3f}" for stage in STAGES) for name, each in times.items()
    ]
