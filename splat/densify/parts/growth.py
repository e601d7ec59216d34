"""How many: curves from the first number of splats to the last, and thresholds that move."""

from __future__ import annotations

from math import sqrt
from typing import Literal

GrowthCurve = Literal["root", "quadratic", "linear"]


def grown_count(start: int, cap: int, progress: float, *, curve: GrowthCurve = "root") -> int:
    """Splats allowed at ``progress`` (0..1) of growth: ``start`` at 0, ``cap`` at 1, never more and never falling. A
    start above the cap gives the cap. ``root`` is Improved-GS's, ``quadratic`` Taming-3DGS's 2x - x^2."""
    if start >= cap:
        return cap
    x = min(max(progress, 0.0), 1.0)
    share = {"root": sqrt(x), "quadratic": 2 * x - x * x, "linear": x}[curve]
    return min(start + int((cap - start) * share + 1e-9), cap)


def annealed(first: float, last: float, progress: float) -> float:
    """From ``first`` to ``last`` in a straight line over ``progress`` 0..1, constant outside."""
    return first + (last - first) * min(max(progress, 0.0), 1.0)
