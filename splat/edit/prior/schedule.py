"""What changes over a run, as functions of its progress (specs: viewer_editing 4.1)."""

from __future__ import annotations

from math import acos, pi

T_MAX, T_MIN = 0.98, 0.02
"""Noise levels at the first and the last step, as shares of the steps a network was trained with."""
T_SWITCH = 0.7
"""The noise level whose place on a cosine from ``T_MAX`` to ``T_MIN`` ends the first stage."""
POINTS_FIRST = 4.0
"""Guidance by the dragged points at the first step; 1 (none beyond the prediction itself) at the last."""


def noise_level(progress: float) -> float:
    """From 0.98 down to 0.02, in a straight line; ``progress`` in 0..1."""
    return T_MAX + (T_MIN - T_MAX) * min(max(progress, 0.0), 1.0)


def timestep(progress: float, count: int) -> int:
    """The same as a step of a network trained with ``count`` steps, 0..count-1."""
    return min(max(round(noise_level(progress) * count), 0), count - 1)


def stage_switch(steps: int) -> int:
    """How many of ``steps`` belong to the first stage: (N/pi) acos(2 (0.7 - 0.02) / (0.98 - 0.02) - 1)."""
    return round(steps / pi * acos(2 * (T_SWITCH - T_MIN) / (T_MAX - T_MIN) - 1))


def point_guidance(progress: float) -> float:
    """Factor on the difference that the points make: 3 (1 - r)^2 + 1."""
    return (POINTS_FIRST - 1) * (1 - progress) ** 2 + 1
