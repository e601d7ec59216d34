"""Adam for what a compressor learns beside the rows."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from splat.compress.protocol import CompressState

BETAS = (0.9, 0.999)
EPS = 1e-15


def step_learnables(state: CompressState, lrs: Mapping[str, float]) -> None:
    """Step every learnable value that has a gradient, in place, and clear the gradients.

    ``lrs``: by name, or by the part of the name before its first dot; what has no rate stays as it is. How often each
    was stepped stands in ``scalars`` as ``steps.NAME``.
    """
    from splat.native import ops  # loads the native library, so only when it is used

    for name, table in (*state.rows.items(), *state.parameters.items()):
        grad, table.grad = table.grad, None
        rate = lrs.get(name, lrs.get(name.partition(".")[0], 0.0))
        if grad is None or not rate:
            continue
        if f"first.{name}" not in state.moments:
            for part in ("first", "second"):
                state.moments[f"{part}.{name}"] = torch.zeros_like(table.detach())
        count = int(state.scalars.get(f"steps.{name}", 0)) + 1
        state.scalars[f"steps.{name}"] = count
        if not table.numel():
            continue
        ops.adam_step(
            table.detach(), grad.contiguous(), state.moments[f"first.{name}"], state.moments[f"second.{name}"],
            lr=rate, beta1=BETAS[0], beta2=BETAS[1], eps=EPS, step=count,
        )  # fmt: skip
