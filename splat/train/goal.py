"""The quality a run may end at: the mean PSNR of the last visit of every training view."""

from __future__ import annotations

import torch
from torch import Tensor

from splat.train.feed import Shot
from splat.train.state import TrainState

CHECK_EVERY = 25
"""Steps between two looks at the mean; on a GPU each waits for the device."""
ERROR_UNIT = 2.0**-24
"""Squared errors are summed as whole multiples of this: exact, so in any order and on any number of threads."""
SAMPLE_STRIDE, SAMPLE_EVERY = 4, 8
"""Pixels between two that are looked at along each side, and steps between two looks."""
NOTHING_COUNTS = -1.0
"""In the place of a view's squared error: no pixel of it counts, so that it has no part in the mean."""
LEAST_MSE = 1e-10
"""100 dB, where scores are cut too."""


class TargetWatch:
    """Notes every visit in ``state.view_mse``, which a checkpoint holds."""

    def __init__(self, state: TrainState, target_psnr: float | None, views: int) -> None:
        self._target = target_psnr
        if target_psnr is None:
            state.view_mse = None
        elif state.view_mse is None:
            state.view_mse = torch.full((views,), torch.nan, dtype=torch.float64, device=state.model.device)

    def note(self, state: TrainState, shot: Shot, color: Tensor) -> None:
        """One visit: ``color [1,H,W,3]`` as drawn. One at reduced size says nothing about the photograph."""
        if state.view_mse is not None:
            nothing = state.view_mse.new_full((), torch.nan)
            seen = masked_mse(color.detach()[0], shot.view.pixels[0], shot.view.mask) if shot.full_size else nothing
            if shot.full_size and shot.view.mask is not None:  # by photograph or by edits
                seen = torch.where((shot.view.mask > 0).any(), seen, NOTHING_COUNTS)
            state.view_mse[shot.view.index] = seen

    def reached(self, state: TrainState) -> bool:
        if self._target is None or state.step % CHECK_EVERY:
            return False
        counted = state.view_mse[state.view_mse != NOTHING_COUNTS]
        psnr = -10 * torch.log10(counted.clamp(min=LEAST_MSE))  # NaN where never seen: then never reached
        return bool(psnr.mean() >= self._target)


@torch.no_grad()
def sampled_mse(color: Tensor, pixels: Tensor, mask: Tensor | None) -> Tensor:
    """As ``masked_mse`` over every ``SAMPLE_STRIDE``-th pixel of every such row: for figures that must cost nothing."""
    n = SAMPLE_STRIDE
    squared = (color[::n, ::n].clamp(0, 1) - pixels[::n, ::n].float() / 255).square()
    if mask is None:
        return squared.mean()
    counted = mask[0, ::n, ::n, None].float()
    return (squared * counted).sum() / (3 * counted.sum())


def masked_mse(color: Tensor, pixels: Tensor, mask: Tensor | None) -> Tensor:
    """Mean squared error [] float64 of ``color [H,W,3]``, cut to 0..1, from ``pixels`` uint8, weighed by ``mask
    [1,H,W]`` uint8; NaN where the mask leaves nothing."""
    squared = (color.clamp(0, 1) - pixels.float() / 255).square()
    units = (squared / ERROR_UNIT).round().to(torch.int64)
    if mask is None:
        return units.sum().double() * (ERROR_UNIT / units.numel())
    counted = mask[0].to(torch.int64)
    return (units * counted[..., None]).sum().double() * ERROR_UNIT / (3 * counted.sum()).double()
