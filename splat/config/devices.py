"""Choosing device and rasterizer together: a device is of use only to a rasterizer that draws on it."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import torch

from splat.config.schema import RenderConfig
from splat.errors import UserError
from splat.render.bridge import OnDevice
from splat.render.registry import choose
from splat.render.types import Rasterizer, RenderOptions

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def choose_device(render: RenderConfig, say: Callable[[str], None]) -> tuple[torch.device, Rasterizer]:
    """Where the model lives, and what draws it; UserError when nothing fits.

    Only the native rasterizer keeps the model on the GPU: loss and optimizer are native too. Another one draws
    there for a model on the CPU, and only when it is asked for.
    """
    options = RenderOptions(filter2d=render.filter2d)
    has_gpu = torch.cuda.is_available()
    if render.device == "cuda" and not has_gpu:
        raise UserError("--device cuda: torch sees no GPU here ('splat doctor' says why); --device cpu needs none")
    if render.device == "cpu" or not has_gpu or render.rasterizer == "reference":
        return CPU, choose(CPU, render.rasterizer, options=options)
    if render.rasterizer in ("auto", "native"):
        try:
            return CUDA, choose(CUDA, "native", options=options)
        except UserError as error:
            if render.device == "auto":
                say(f"a GPU is here, but the CPU draws ({error}); --rasterizer gsplat uses the GPU")
                return CPU, choose(CPU, "native", options=options)
    return CPU, OnDevice(choose(CUDA, render.rasterizer, options=options), CUDA)


def prepare_process(threads: int) -> None:
    """Give the native core ``threads`` CPU threads (0 = one per core); keep freed memory at hand.

    Torch gets one: its sums and exponentials round differently on another number of threads, and what is left to it
    is small. The native core gives the same bits on any number.
    """
    if threads < 0:
        raise UserError(f"render.threads = {threads} does not fit: it must be 0 (one per core) or more")
    from splat.native import ops

    ops.keep_memory()
    ops.set_threads(threads)
    torch.set_num_threads(1)


def machine_name(device: torch.device) -> str:
    """The processor that trains, as results tables name it."""
    from splat.native import ops

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = ops.info()
    return f"{_processor()}, {info['threads']} threads, {info['isa']}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
