"""Learned masks: a logit per splat that says whether it is worth drawing (Lee et al. 2024, section 4.1).

Published: opacity and size are multiplied by 1 where sigmoid(m) exceeds the threshold and by 0 elsewhere, with the
derivative of the sigmoid passed straight through. Here that happens on raw rows. A splat that is switched off gets an
opacity that the blending cut removes; its size then does not matter and stays.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from splat.model.activations import sigmoid

START = 1.0
"""Of the logits."""
OFF = -30.0
"""Raw opacity of what is switched off: far below the blending cut of 1/255."""
MASKS = "masks"
"""Name of the logits among the state's rows."""


def masked_rows(rows: Mapping[str, Tensor], logits: Tensor, threshold: float) -> dict[str, Tensor]:
    """``rows`` with those of ``logits [N]`` at or below the threshold switched off; differentiable in both."""
    sizes = rows.get("log_scales")
    if sizes is None:
        return {**rows, "logit_opacities": _MaskedOpacity.apply(rows["logit_opacities"], logits, threshold)}
    opacities, sizes = _Masked.apply(rows["logit_opacities"], sizes, logits, threshold)
    return {**rows, "logit_opacities": opacities, "log_scales": sizes}


def shown(logits: Tensor, threshold: float) -> Tensor:  # [N] bool
    """Which splats are drawn."""
    return sigmoid(logits.detach()) > threshold


def mask_loss(logits: Tensor) -> Tensor:
    """Mean of the masks: what each splat must be worth."""
    return sigmoid(logits).mean()


class _Masked(torch.autograd.Function):
    """With M = 1: dL/dM = dL/do o + sum dL/ds s, which in raw values is dL/dlogit / (1 - o) + sum dL/dlog_s."""

    @staticmethod
    def forward(
        ctx, opacities: Tensor, sizes: Tensor, logits: Tensor, threshold: float
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        strength = sigmoid(logits)
        on = strength > threshold
        ctx.save_for_backward(opacities, strength, on)
        return torch.where(on, opacities, OFF), sizes.view_as(sizes)

    @staticmethod
    def backward(ctx, grad_opacities: Tensor, grad_sizes: Tensor):
        opacities, strength, on = ctx.saved_tensors
        grad_opacities = torch.where(on, grad_opacities, 0.0)
        x, y, z = grad_sizes.unbind(1)  # not sum(): its order could depend on the number of threads
        return grad_opacities, grad_sizes, _through(grad_opacities, x + y + z, opacities, strength, on), None


class _MaskedOpacity(torch.autograd.Function):
    """The same for primitives whose size is no field of its own."""

    @staticmethod
    def forward(ctx, opacities: Tensor, logits: Tensor, threshold: float) -> Tensor:
        strength = sigmoid(logits)
        on = strength > threshold
        ctx.save_for_backward(opacities, strength, on)
        return torch.where(on, opacities, OFF)

    @staticmethod
    def backward(ctx, grad: Tensor):
        opacities, strength, on = ctx.saved_tensors
        grad = torch.where(on, grad, 0.0)
        return grad, _through(grad, torch.zeros_like(grad), opacities, strength, on), None


def _through(grad_opacities: Tensor, grad_size: Tensor, opacities: Tensor, strength: Tensor, on: Tensor) -> Tensor:
    transparency = 1 / (1 + opacities.clamp(-30, 13).exp())  # not 1 - o, which is 0 for an opaque splat
    into_mask = grad_opacities / transparency + grad_size
    return torch.where(on, into_mask * strength * (1 - strength), 0.0)
