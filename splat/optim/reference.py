"""The readable definition of the native Adam step, for tests. Training never comes here."""

from __future__ import annotations

from torch import Tensor


def adam_step(
    param: Tensor, grad: Tensor, m: Tensor, v: Tensor, *,
    lr: float, beta1: float, beta2: float, eps: float, step: int,
) -> None:  # fmt: skip
    """One step of Kingma & Ba 2015, algorithm 1, in place; ``step`` counts from 1."""
    m.mul_(beta1).add_(grad, alpha=1 - beta1)
    v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    unbiased_m = m / (1 - beta1**step)
    unbiased_v = v / (1 - beta2**step)
    param.sub_(lr * unbiased_m / (unbiased_v.sqrt() + eps))
