"""Who is taken: flags or rows, from scores."""

from __future__ import annotations

import torch
from torch import Tensor

_WEIGHT_STEPS = 2**32
"""Weights are rounded to this many steps, so that their running sum is exact: the same draw on every device and
number of threads, and no 2^24 limit. 2^30 rows still fit into 63 bits."""


def best_first(candidates: Tensor, scores: Tensor, budget: int | None) -> Tensor:  # [N] bool, [N] -> [N] bool
    """The ``budget`` candidates with the highest scores (the lower row wins a tie); all of them if None."""
    rows = candidates.nonzero().squeeze(1)
    if budget is None or rows.shape[0] <= budget:
        return candidates.clone()
    order = torch.sort(scores[rows], descending=True, stable=True).indices
    chosen = torch.zeros_like(candidates)
    chosen[rows[order[: max(budget, 0)]]] = True
    return chosen


def draw_rows(weights: Tensor, draws: int, generator: torch.Generator) -> Tensor:  # [N] -> [draws] int64
    """Rows drawn with replacement, with probability proportional to ``weights``.

    Negative and non-finite weights count as zero. Empty when every weight is zero.
    """
    clean = torch.where(torch.isfinite(weights) & (weights > 0), weights, 0.0).double()
    largest = float(clean.max()) if clean.numel() else 0.0
    if largest <= 0 or draws <= 0:
        return torch.zeros(0, dtype=torch.int64, device=weights.device)
    running = (clean / largest * _WEIGHT_STEPS).round().to(torch.int64).cumsum(0)
    tickets = torch.randint(0, int(running[-1]), (draws,), generator=generator, device=weights.device)
    return torch.searchsorted(running, tickets, right=True)


def gumbel_best(
    candidates: Tensor, scores: Tensor, budget: int, *, temperature: float, generator: torch.Generator
) -> Tensor:  # [N] bool, [N] -> [N] bool
    """``budget`` candidates drawn without replacement, with probability proportional to score ** (1 / temperature):
    the best of log(score) / temperature + Gumbel noise. Temperature 0 takes the highest scores; candidates without a
    positive, finite score are never taken."""
    able = candidates & torch.isfinite(scores) & (scores > 0)
    if temperature <= 0:
        return best_first(able, scores, budget)
    lots = torch.rand(scores.shape[0], generator=generator, device=scores.device, dtype=torch.float64)
    noise = -torch.log(-torch.log(lots.clamp(1e-300, 1 - 1e-16)))
    keys = torch.log(torch.where(able, scores, 1.0).double()) + temperature * noise
    return best_first(able, keys, budget)
