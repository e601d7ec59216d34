"""Score distillation: what a denoiser would change about a picture, as a loss (specs: viewer_editing 4.1).

A picture becomes latents z; noise is added to z_t = a z + s e (a^2 + s^2 = 1). The prior predicts the noise, and so
does a source branch that has learned the current renders; their difference is what the prior wants otherwise:
z* = (z_t - s (e_prior - e_source + e)) / a. The loss pulls z to z*, and the decoded picture of z to that of z*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class NoiseTable:
    """How much of a picture is left at each of T training steps of a network."""

    alphas_bar: Tensor  # [T], falling from near 1 to near 0: a^2
    predicts: str = "epsilon"
    """What the network answers: ``epsilon``, or ``v_prediction`` (a e - s z)."""

    @property
    def count(self) -> int:
        return len(self.alphas_bar)

    def scales(self, step: int) -> tuple[float, float]:
        """a and s at ``step``."""
        alpha_bar = float(self.alphas_bar[step])
        return alpha_bar**0.5, (1 - alpha_bar) ** 0.5

    def noised(self, z: Tensor, noise: Tensor, step: int) -> Tensor:
        a, s = self.scales(step)
        return a * z + s * noise

    def noise_of(self, answer: Tensor, z_t: Tensor, step: int) -> Tensor:
        """The predicted noise, whatever the network predicts."""
        if self.predicts == "epsilon":
            return answer
        a, s = self.scales(step)
        return a * answer + s * z_t


def score_target(table: NoiseTable, step: int, z_t: Tensor, *, noise: Tensor, prior: Tensor, source: Tensor) -> Tensor:
    """z*: all [B,C,h,w]; ``prior`` and ``source`` are predicted noises."""
    a, s = table.scales(step)
    return (z_t - s * (prior - source + noise)) / a


def distillation_loss(
    z: Tensor, target: Tensor, decode: Callable[[Tensor], Tensor], table: NoiseTable, step: int, *,
    decoded_weight: float = 0.1,
) -> Tensor:  # fmt: skip
    """w a/s (|z - z*|^2 + 0.1 |dec(z) - dec(z*)|^2) with w = 1 - a^2, summed over a picture, mean over the batch.

    z*, ``target [B,C,h,w]``, counts as fixed. The gradient of the first part with respect to z is 2 w (e_prior -
    e_source): that of score distillation.
    """
    a, s = table.scales(step)
    target = target.detach()
    total = (z - target).square().sum()
    if decoded_weight > 0:
        with torch.no_grad():
            wanted = decode(target)
        total = total + decoded_weight * (decode(z) - wanted).square().sum()
    return s**2 * a / s * total / len(z)
