"""Which camera comes next: every view once per epoch, in an order that only seed and epoch decide."""

from __future__ import annotations

import torch

from splat.geometry.rng import keyed_generator


class ViewOrder:
    """Epochs of keyed permutations. Stateless but for a cache: view ``k`` of a run is always the same."""

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed
        self._epoch: int | None = None
        self._permutation: list[int] = []

    def view(self, taken: int) -> int:
        """Index of the view that follows after ``taken`` views have been used."""
        epoch, position = divmod(taken, self._count)
        if epoch != self._epoch:
            generator = keyed_generator(self._seed, "cameras", epoch)
            self._permutation = torch.randperm(self._count, generator=generator).tolist()
            self._epoch = epoch
        return self._permutation[position]

    def upcoming(self, taken: int, count: int) -> list[int]:
        """The next views of this epoch, at most ``count``: what is worth decoding ahead."""
        self.view(taken)
        position = taken % self._count
        return self._permutation[position : position + count]
