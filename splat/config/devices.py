"""Choosing device and rasterizer together: a device is of use only to a rasterizer that draws on it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from splat.config.schema import RenderConfig
from splat.errors import UserError
from splat.render.registry import choose
from splat.render.types import Rasterizer, RenderOptions


def choose_device(render: RenderConfig, say: Callable[[str], None]) -> tuple[torch.device, Rasterizer]:
    """What ``render`` asks for, or the best this machine has; UserError when nothing fits."""
    options = RenderOptions(filter2d=render.filter2d)
    if render.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here ('splat doctor' says why); --device cpu needs none")
    if render.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu"), choose("cpu", render.rasterizer, options=options)
    try:
        return torch.device("cuda"), choose("cuda", render.rasterizer, options=options)
    except UserError as error:
        if render.device == "cuda":
            raise
        say(f"a GPU is here, but {error}; training on the CPU")
    return torch.device("cpu"), choose("cpu", render.rasterizer, options=options)


def prepare_process(threads: int) -> None:
    """Limit torch and the native core to ``threads`` CPU threads (0 = one per core); keep freed memory at hand."""
    if threads < 0:
        raise UserError(f"render.threads = {threads} does not fit: it must be 0 (one per core) or more")
    from splat.native import ops

    ops.keep_memory()
    if threads:
        torch.set_num_threads(threads)
        ops.set_threads(threads)
