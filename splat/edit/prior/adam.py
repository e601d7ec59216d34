"""Adam (Kingma and Ba 2015) over many small tensors. torch's own loads a compiler first, which takes longer than a
drag; the native step wakes a pool of threads for every tensor, which is meant for large ones."""

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
        key = id(table)
        first, second = self._moments.setdefault(key, (torch.zeros_like(table), torch.zeros_like(table)))
        self._steps[key] = number = self._steps.get(key, 0) + 1
        first.lerp_(grad, 1 - _BETA1)
        second.mul_(_BETA2).addcmul_(grad, grad, value=1 - _BETA2)
        spread = (second / (1 - _BETA2**number)).sqrt_().add_(_EPS)
        table.addcdiv_(first, spread, value=-lr / (1 - _BETA1**number))
