"""Which settings a number of bytes buys: one curve of loss over bytes for each knob, and one price for all of them.

Errors of different attributes add up in the mean squared error of the picture (they are small and independent), so
every knob is measured by itself, and any goal is then met by giving each of them the option that is cheapest at a
common price of bytes (Shoham and Gersho 1988).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, log, log10
from typing import Any

_ROUNDS = 24
_COARSE = 8
"""Kept shares of the splats are tried in steps of so many per cent first, then of one."""
_LEAST = 4
"""The smallest share, per cent."""


@dataclass(frozen=True)
class Option:
    """One setting of one knob."""

    settings: Mapping[str, Any]
    row_bytes: float
    """Per splat."""
    fixed_bytes: float
    """Whatever their number."""
    loss: float
    """By how much the mean squared error grows, as a share of what it is without compression."""

    def bytes(self, rows: float) -> float:
        return self.row_bytes * rows + self.fixed_bytes


@dataclass(frozen=True)
class Plan:
    """An option of every knob, and the share of the splats that stays."""

    options: Mapping[str, Option]
    share: float
    bytes: float
    loss: float


def drop_of(loss: float) -> float:
    """dB of a relative growth of the squared error."""
    return 10 * log10(max(1 + loss, 1e-12))


def loss_of(drop: float) -> float:
    return 10 ** (drop / 10) - 1


def plan_for_size(
    knobs: Mapping[str, Sequence[Option]], shares: Mapping[float, float], *, rows: int, size: float
) -> Plan | None:
    """The least loss in at most ``size`` bytes; None where nothing fits. ``shares``: kept share -> loss, measured."""

    def plan(share: float) -> Plan | None:
        return _cheapest(knobs, share, share_loss(shares, share), rows, size)

    return _best_share(plan, shares, lambda each: each.loss)


def plan_for_loss(
    knobs: Mapping[str, Sequence[Option]], shares: Mapping[float, float], *, rows: int, loss: float
) -> Plan:
    """The fewest bytes at no more than ``loss``; where even the best of everything loses more, that."""

    def plan(share: float) -> Plan | None:
        lost = share_loss(shares, share)
        if _at(knobs, share, lost, rows, 0.0).loss > loss:
            return None
        low, high = _prices()
        for _ in range(_ROUNDS):
            middle = (low + high) / 2
            fits = _at(knobs, share, lost, rows, exp(middle)).loss <= loss
            low, high = (middle, high) if fits else (low, middle)
        return _at(knobs, share, lost, rows, exp(low))

    return _best_share(plan, shares, lambda each: each.bytes) or _at(knobs, 1.0, 0.0, rows, 0.0)


def share_loss(shares: Mapping[float, float], share: float) -> float:
    """Loss at any kept share: straight lines between the measured ones, over the logarithm of the share."""
    known = sorted({1.0: 0.0, **shares}.items(), reverse=True)
    for (above, less), (below, more) in pairwise(known):
        if share >= below:
            part = (log(above) - log(share)) / (log(above) - log(below))
            return less + part * (more - less)
    if len(known) == 1:
        return 0.0 if share >= 1 else float("inf")
    (above, less), (below, more) = known[-2:]  # beyond, ever steeper
    return more * (1 + (more / max(less, more / 2, 1e-9)) * (log(below) - log(share)) / (log(above) - log(below)))


def _best_share(
    plan: Callable[[float], Plan | None], shares: Mapping[float, float], cost: Callable[[Plan], float]
) -> Plan | None:
    """The plan of least cost over the kept shares; of equals, that which keeps more."""
    tried: dict[int, Plan] = {}

    def look(percents: Iterable[int]) -> None:
        for percent in percents:
            if percent not in tried and (found := plan(percent / 100)) is not None:
                tried[percent] = found

    look(range(100, _LEAST - 1, -_COARSE) if shares else [100])
    if shares:
        look([_LEAST])
        middle = min(tried, key=lambda percent: cost(tried[percent]), default=_LEAST)
        look(range(min(middle + _COARSE - 1, 100), max(middle - _COARSE, _LEAST - 1), -1))
    return tried[min(tried, key=lambda percent: (cost(tried[percent]), -percent))] if tried else None


def _cheapest(
    knobs: Mapping[str, Sequence[Option]], share: float, lost: float, rows: int, size: float
) -> Plan | None:  # fmt: skip
    low, high = _prices()
    if _at(knobs, share, lost, rows, exp(high)).bytes > size:
        return None
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        fits = _at(knobs, share, lost, rows, exp(middle)).bytes <= size
        low, high = (low, middle) if fits else (middle, high)
    return _at(knobs, share, lost, rows, exp(high))


def _prices() -> tuple[float, float]:
    """Logarithms of a price at which bytes do not matter, and of one at which nothing else does."""
    return log(1e-16), log(1e4)


def _at(knobs: Mapping[str, Sequence[Option]], share: float, lost: float, rows: int, price: float) -> Plan:
    """Every knob's best option at ``price``, in loss per byte."""
    kept = share * rows
    chosen = {
        name: min(options, key=lambda option: (option.loss + price * option.bytes(kept), option.bytes(kept)))
        for name, options in knobs.items()
    }
    size = sum(option.bytes(kept) for option in chosen.values())
    return Plan(chosen, share, size, lost + sum(option.loss for option in chosen.values()))
