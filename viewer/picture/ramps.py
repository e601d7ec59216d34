"""Numbers as colours, as tensors: the ramps of a page."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from splat.io.ramps import RAMPS, color_table

__all__ = ["RAMPS", "as_colors", "seen_range", "shares", "table"]

LOW_PERCENT, HIGH_PERCENT = 2.0, 98.0
"""A range is chosen so that this part of what is seen lies outside at either end: single splats must not decide."""
SAME_SHARE = 1e-3
"""Values that differ by less than this part of themselves are shown as equal."""
_MOST_SAMPLES = 8192
"""Enough for a percentile to a tenth of a percent or so; sorting a whole picture takes as long as drawing it."""


@lru_cache(maxsize=32)
def table(name: str, device: torch.device) -> Tensor:  # [256,3] uint8
    """256 colours of a ramp. KeyError for an unknown name."""
    return torch.from_numpy(color_table(name)).to(device)


def seen_range(values: Tensor, seen: Tensor, *, log_scale: bool = False) -> tuple[float, float]:
    """Low and high percentile of ``values`` where ``seen`` (same shape, bool); (0, 1) where nothing is seen.

    With ``log_scale`` only values above 0 count.
    """
    values, seen = values.reshape(-1), seen.reshape(-1)
    step = max(1, values.shape[0] // _MOST_SAMPLES)
    values, seen = values[::step], seen[::step]
    fits = seen & torch.isfinite(values) & ((values > 0) if log_scale else True)
    chosen = values[fits].sort().values
    if not chosen.shape[0]:
        return (1e-3, 1.0) if log_scale else (0.0, 1.0)
    last = chosen.shape[0] - 1
    low, high = (float(chosen[round(last * percent / 100)]) for percent in (LOW_PERCENT, HIGH_PERCENT))
    least = SAME_SHARE * max(abs(low), abs(high))
    if high - low < least:  # one value, up to rounding: one colour in the middle, not noise
        middle = (low + high) / 2
        return middle - least, middle + least
    return low, high


def shares(values: Tensor, low: float, high: float, *, log_scale: bool = False, invert: bool = False) -> Tensor:
    """Where values lie between ``low`` and ``high``, as 0..1; what is outside takes the end, NaN the low one.

    A range without width puts everything at or below it to 0 and all above to 1. With ``log_scale`` equal factors are
    equal distances, and values that are not above 0 count as ``low``.
    """
    if log_scale:
        floor = max(min(low, high), 1e-30)
        values, low, high = values.clamp_min(floor).log(), math.log(floor), math.log(max(high, floor))
    share = ((values - low) / max(high - low, 1e-12)).nan_to_num(nan=0.0).clamp(0, 1)
    return 1 - share if invert else share


def as_colors(share: Tensor, name: str) -> Tensor:  # [...] in 0..1 -> [...,3] uint8
    """Colours of a ramp at places 0..1 along it."""
    places = (share * 255).round().to(torch.int32)
    return table(name, share.device).index_select(0, places.reshape(-1)).reshape(*share.shape, 3)
