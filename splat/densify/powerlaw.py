"""How many splats training deserves by now: a budget that follows the power law of the loss (specs: densifiers 3.2 B).

After its first phase, the log of the loss falls on a line over the log of the step. The slope of the last steps
against that of the whole history says whether training converges as it used to; if it falls behind, growth slows down.
"""

from __future__ import annotations

import math
from collections.abc import MutableMapping

Scalars = MutableMapping[str, float]
"""Where the history lives: a fixed number of floats, so a resumed run goes on to the same bits."""

EMA = 0.99
"""Smoothing of the losses before the fit of the whole history."""
EXPONENT_RANGE = 0.5
"""The exponent moves at most this far from its base."""
_SUMS = ("n", "x", "y", "xx", "xy", "yy")
_ZERO_EXPONENT = 1e-9
"""Below this the limit of the curve is as good as the curve."""
_LEAST_LOSS = 1e-12
"""Keeps the logarithm finite."""
_FEWEST_STEPS = 50.0
"""Steps before a slope is believed at all."""


def power_law_budget(percent: float, exponent: float, *, first: int, most: int) -> float:
    """Splats at ``percent`` (1..100) of the time for growth: from ``first`` at 1 to ``most`` at 100.

    B(t) = N + (t^a - 1) / (100^a - 1) (M - N); for a = 0 its limit, N + ln t / ln 100 (M - N). The more negative the
    exponent, the earlier the growth; a = 1 is a straight line. Percentages outside 1..100 are taken as the end nearer.
    """
    log_percent, log_all = math.log(min(max(percent, 1.0), 100.0)), math.log(100.0)
    if abs(exponent) < _ZERO_EXPONENT:
        share = log_percent / log_all
    else:
        share = math.expm1(exponent * log_percent) / math.expm1(exponent * log_all)
    return first + share * (most - first)


def record_loss(scalars: Scalars, step: int, loss: float, *, window: int) -> None:
    """Take in the loss of a view at ``step`` (from 1): running sums of a line through log loss over log step, once of
    the smoothed history with equal weights, once of the losses themselves with weights that fade over ``window``
    steps. Losses that are not finite or not positive say nothing."""
    if not (math.isfinite(loss) and loss > 0):
        return
    smooth = scalars.get("loss_ema", loss)
    smooth = EMA * smooth + (1 - EMA) * loss
    scalars["loss_ema"] = smooth
    x = math.log(step)
    _add(scalars, "history", x, math.log(max(smooth, _LEAST_LOSS)), keep=1.0)
    _add(scalars, "recent", x, math.log(max(loss, _LEAST_LOSS)), keep=1.0 - 1.0 / max(window, 1))


def refit_exponent(scalars: Scalars, *, base: float) -> float:
    """The exponent for now, and one more entry in the mean of the slopes of the history.

    a = a_base + 0.5 tanh(e) with e = recent slope - slope of the history; a_base is the mean of the slopes found at
    each refit, ``base`` while there is none. The losses of single views scatter more than they fall in ``window``
    steps, so e is shrunk by e^2 / (e^2 + its variance): within its own noise it says nothing (our addition).
    """
    history, recent = _slope(scalars, "history"), _slope(scalars, "recent")
    if history is None or recent is None:
        return scalars["exponent_sum"] / scalars["exponent_fits"] if "exponent_fits" in scalars else base
    scalars["exponent_sum"] = scalars.get("exponent_sum", 0.0) + history[0]
    scalars["exponent_fits"] = scalars.get("exponent_fits", 0.0) + 1.0
    lead = recent[0] - history[0]
    trusted = lead * lead / (lead * lead + recent[1]) if lead else 0.0
    return scalars["exponent_sum"] / scalars["exponent_fits"] + EXPONENT_RANGE * math.tanh(lead * trusted)


def next_budget(scalars: Scalars, percent: float, exponent: float, *, count: int, most: int) -> int:
    """The budget at ``percent`` of the time for growth that starts with ``count`` splats now, if this is the first
    question; never less than at the last one, never above ``most``."""
    first = int(scalars.setdefault("first_count", float(count)))
    budget = power_law_budget(percent, exponent, first=min(first, most), most=most)
    scalars["budget"] = max(float(math.floor(budget)), scalars.get("budget", 0.0))
    return min(int(scalars["budget"]), most)


def _add(scalars: Scalars, which: str, x: float, y: float, *, keep: float) -> None:
    for name, value in zip(_SUMS, (1.0, x, y, x * x, x * y, y * y), strict=True):
        key = f"{which}_{name}"
        scalars[key] = keep * scalars.get(key, 0.0) + value


def _slope(scalars: Scalars, which: str) -> tuple[float, float] | None:
    """Slope of the line and the variance of that slope; None while there is too little to fit."""
    n, x, y, xx, xy, yy = (scalars.get(f"{which}_{name}", 0.0) for name in _SUMS)
    if n < _FEWEST_STEPS:
        return None
    spread_x, spread_y, common = xx - x * x / n, yy - y * y / n, xy - x * y / n
    if spread_x <= 1e-12 * xx:
        return None
    slope = common / spread_x
    residual = max(spread_y - slope * common, 0.0)
    return slope, residual / (n - 2) / spread_x
