"""How a number is spread over splats, as counts, a picture, and a range that selects. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BINS = 256
SPREAD_PERCENT = 0.1
"""At either end, this part of the splats goes to the last bin, however far away its values are."""
HEIGHT_PX, BIN_PX = 96, 2
BAR, BAR_IN_RANGE, BAR_SELECTED, PAPER = (92, 96, 110), (150, 190, 255), (255, 214, 10), (30, 31, 36)


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of an attribute."""

    edges: np.ndarray  # [BINS+1] rising; the first and the last are the least and the largest value of all
    counts: np.ndarray  # [BINS]
    selected: np.ndarray  # [BINS] of the splats that are selected
    total: int

    def range_of(self, first: int, last: int) -> tuple[float, float]:
        """Values from the beginning of bin ``first`` to the end of bin ``last - 1``."""
        return float(self.edges[first]), float(self.edges[last])


def histogram(values: Tensor, selected: Tensor, *, log_values: bool = False) -> Histogram:  # [N], [N] bool
    """``log_values`` makes bins of equal factors; what is not above 0 then goes to the first one. Values that are not
    finite are not counted."""
    finite = torch.isfinite(values)
    values, selected = values[finite].double().cpu(), selected[finite].cpu()
    if not len(values):
        return Histogram(np.linspace(0, 1, BINS + 1), np.zeros(BINS, int), np.zeros(BINS, int), 0)
    edges = _edges(values, log_values=log_values)
    place = torch.bucketize(values, torch.from_numpy(edges[1:-1]), right=True)
    counts = torch.bincount(place, minlength=BINS).numpy()
    chosen = torch.bincount(place[selected], minlength=BINS).numpy()
    return Histogram(edges, counts, chosen, len(values))


def count_in_range(values: Tensor, low: float, high: float) -> int:
    """How many splats ``AttributeRange(low, high)`` takes: ends included."""
    return int(((values >= low) & (values <= high)).sum())


def picture(found: Histogram, first: int, last: int, *, log_counts: bool = False) -> np.ndarray:  # [H,W,3] uint8
    """Bars; those of bins ``first`` to ``last - 1`` lit, the part that is selected in the colour of selections."""
    heights = _heights(found.counts, found.counts, log_counts)
    chosen = _heights(found.selected, found.counts, log_counts)
    image = np.empty((HEIGHT_PX, BINS, 3), np.uint8)
    image[:] = PAPER
    level = HEIGHT_PX - 1 - np.arange(HEIGHT_PX)[:, None]
    inside = (np.arange(BINS) >= first) & (np.arange(BINS) < last)
    image[(level < heights) & ~inside] = BAR
    image[(level < heights) & inside] = BAR_IN_RANGE
    image[level < chosen] = BAR_SELECTED
    return image.repeat(BIN_PX, axis=1)


def _edges(values: Tensor, *, log_values: bool) -> np.ndarray:
    ordered = values.sort().values.numpy()
    least, most = float(ordered[0]), float(ordered[-1])
    considered = ordered[ordered > 0] if log_values else ordered
    if not len(considered):
        considered = ordered
        log_values = False
    last = len(considered) - 1
    low, high = (float(considered[round(last * share)]) for share in (SPREAD_PERCENT / 100, 1 - SPREAD_PERCENT / 100))
    if not high > low:
        low, high = least, most
    if not high > low:  # all the same: a bin of its own in the middle
        width = max(abs(low) * 1e-6, 1e-9)
        return np.linspace(low - BINS / 2 * width, low + BINS / 2 * width, BINS + 1)
    edges = np.geomspace(low, high, BINS + 1) if log_values and low > 0 else np.linspace(low, high, BINS + 1)
    edges[0], edges[-1] = min(edges[0], least), max(edges[-1], most)
    return edges


def _heights(counts: np.ndarray, reference: np.ndarray, log_counts: bool) -> np.ndarray:
    """In pixels; anything above nothing can be seen."""
    most = max(int(reference.max()), 1)
    share = np.log1p(counts) / np.log1p(most) if log_counts else counts / most
    return np.where(counts > 0, np.maximum(np.round(share * (HEIGHT_PX - 4)), 1), 0)
