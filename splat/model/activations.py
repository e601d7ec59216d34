"""Between raw and activated values, to the same bits on any number of threads.

torch.sigmoid and pow compute the last few elements of each thread's share by other code than the rest, so
their last bit depends on how many threads there are; exp, log, log1p and expm1 do not (tested).
"""

from __future__ import annotations

from torch import Tensor

_FLAT = 80.0
"""Beyond this, exp() comes near the end of float32 and the sigmoid is 0 or 1 anyway; its gradient is set to 0."""


def sigmoid(logits: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + (-logits.clamp(-_FLAT, _FLAT)).exp())


def logit(values: Tensor) -> Tensor:
    """Inverse of ``sigmoid`` inside (0, 1)."""
    return values.log() - (-values).log1p()


def tanh(values: Tensor) -> Tensor:
    """(exp(2x) - 1) / (exp(2x) + 1)."""
    grown = (2 * values.clamp(-_FLAT / 2, _FLAT / 2)).expm1()
    return grown / (grown + 2)
