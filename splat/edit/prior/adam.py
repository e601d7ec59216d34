"""Adam over a few float32 tensors, by the native step. (torch's own loads a compiler first, which takes longer than a
drag.)"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


@dataclass(eq=False)
class Group:
    """Parameters with one learning rate, which may change between steps."""

    params: Sequence[Tensor]
    lr: float


class Adam:
    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = list(groups)
        self._moments: dict[int, tuple[Tensor, Tensor]] = {}
        self._steps: dict[int, int] = {}

    def zero_grad(self) -> None:
        for group in self.groups:
            for table in group.params:
                table.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Parameters without a gradient rest."""
        for group in self.groups:
            for table in group.params:
                if table.grad is not None:
                    self._stepped(table, table.grad, group.lr)

    def _stepped(self, table: Tensor, grad: Tensor, lr: float) -> None:
        from splat.native import ops  # loads the native library, so only when it is used

        key, grad = id(table), grad.contiguous()
        first, second = self._moments.setdefault(key, (torch.zeros_like(grad), torch.zeros_like(grad)))
        self._steps[key] = number = self._steps.get(key, 0) + 1
        ops.adam_step(table.detach(), grad, first, second, lr=lr, beta1=_BETA1, beta2=_BETA2, eps=_EPS, step=number)
