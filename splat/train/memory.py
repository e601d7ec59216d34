"""What a training does when memory runs out: grow no more, then become smaller, and go on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel

SHRINK = 0.9
"""Splats kept where freeing caches was not enough."""
MOST_TRIES = 6
"""Times one view is tried again; by then a third of the splats is left away."""


@dataclass(frozen=True)
class Relief:
    """What is to be done before the next try."""

    limit: int
    """Splats from now on."""
    text: str


def ran_out(error: BaseException) -> bool:
    """Whether this is about memory: Python's, torch's on either device, or the native core's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error).lower() for words in ("can't allocate memory", "out of memory")
    )


def relief(attempt: int, step: int, count: int, limit: int | None) -> Relief:
    """First stop growing at what there is; from the second time on drop the faintest tenth."""
    head = f"out of memory at step {step} with {count:,} splats"
    if attempt == 0:
        kept = count if limit is None else min(limit, count)
        return Relief(kept, f"{head}: growth stops here, training goes on")
    kept = int(count * SHRINK)
    return Relief(kept, f"{head}: the faintest {count - kept:,} are dropped, training goes on")


def faintest_dropped(model: SplatModel, keep: int, *, held: Tensor | None = None, reason: str = "memory") -> RowEdit:
    """The edit that leaves the ``keep`` most opaque rows, in their order; rows where ``held [N]`` stay in any case."""
    opacities = model.opacities.detach().nan_to_num(-1.0)
    if held is not None:
        opacities = torch.where(held, torch.inf, opacities)
        keep = max(keep, int(held.sum()))
    rows = torch.sort(opacities, descending=True, stable=True).indices[:keep].sort().values
    return RowEdit(rows, model.count, reason=reason)


def over_limit(model: SplatModel, limit: int | None, *, held: Tensor | None) -> Iterator[RowEdit]:
    """The edit that comes down to ``limit``, where there is more than that which is not held."""
    if limit is None or model.count <= limit:
        return
    if held is None or model.count > int(held.sum()):
        yield faintest_dropped(model, limit, held=held, reason="limit")


def free_caches(device: torch.device) -> None:
    """Give back what the allocator keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


class LossWatch:
    """Notices a loss that is no number: at once on the CPU; on a GPU when the number has come over, a step later.

    ``complain(value, note)`` raises.
    """

    def __init__(self, complain: Callable[[float, str], None]) -> None:
        self._complain = complain
        self._waiting: list[tuple[Tensor, torch.cuda.Event, str]] = []

    def look(self, total: Tensor, note: str) -> None:
        """``note`` says which loss it was."""
        if total.device.type != "cuda":
            self._judge(float(total), note)
            return
        self.settle()  # the last one: the GPU is past it, since this step's counts were waited for
        pinned = torch.empty((), dtype=total.dtype, pin_memory=True).copy_(total, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(total.device))
        self._waiting.append((pinned, arrived, note))

    def settle(self) -> None:
        """Judge what is still on its way."""
        while self._waiting:
            pinned, arrived, note = self._waiting.pop(0)
            arrived.synchronize()
            self._judge(float(pinned), note)

    def _judge(self, value: float, note: str) -> None:
        if not math.isfinite(value):
            self._complain(value, note)
