"""The smooth curve through the keys of a camera path, and the time at which each of its points is reached."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

SAMPLES = 64
"""Of a segment, to measure its length."""


@dataclass(frozen=True, eq=False)
class Curve:
    """A cubic through rows of values: position [0:3], quaternion [3:7], logarithm of the lens [7].

    Hermite segments with centripetal Catmull-Rom tangents (Barry and Goldman 1988; knots spaced by the square root of
    the distance neither loop nor overshoot), scaled by ``1 - tension`` (Kochanek and Bartels 1984).
    """

    knots: np.ndarray  # [n]
    values: np.ndarray  # [n,8]
    tangents: np.ndarray  # [n,8]
    lengths: np.ndarray  # [n], distance along the curve at each knot
    _along: np.ndarray  # [T] distance
    _dense: np.ndarray  # [T] parameter there

    @staticmethod
    def through(rows: np.ndarray, *, closed: bool, tension: float) -> Curve:  # [n,8], n >= 2
        """``closed``: the curve returns to the first row, which then stands at its end once more."""
        count = len(rows)
        order = [-1, *range(count), 0, 1] if closed else list(range(count))
        values = rows[[index % count for index in order]].copy()
        for i in range(1, len(values)):  # q and -q turn alike: take the nearer one
            if values[i, 3:7] @ values[i - 1, 3:7] < 0:
                values[i, 3:7] *= -1
        reach = _reach(values)
        steps = _distances(values, reach)
        floor = max(float(steps.max()) * 1e-3, 1e-9)  # two keys in one place still need knots apart
        knots = np.concatenate([[0.0], np.cumsum(np.sqrt(np.maximum(steps, floor)))])
        tangents = (1 - tension) * _tangents(knots, values)
        if closed:
            knots, values, tangents = knots[1:-1] - knots[1], values[1:-1], tangents[1:-1]
        inner = [np.linspace(a, b, SAMPLES, endpoint=False) for a, b in pairwise(knots)]
        dense = np.concatenate([*inner, knots[-1:]])
        walked = _distances(unit(_hermite(knots, values, tangents, dense)), reach) + floor / SAMPLES
        along = np.concatenate([[0.0], np.cumsum(walked)])
        return Curve(knots, values, tangents, along[::SAMPLES], along, dense)

    def at_length(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [T] -> [T,8], [T]
        """The values there, and how many keys have been passed (2.25: a quarter of the way from key 2 to key 3)."""
        at = np.interp(lengths, self._along, self._dense)
        segment = _segment(self.knots, at)
        passed = segment + (at - self.knots[segment]) / np.diff(self.knots)[segment]
        return unit(_hermite(self.knots, self.values, self.tangents, at)), passed


def unit(values: np.ndarray) -> np.ndarray:  # [T,8]
    """The same with quaternions of length 1."""
    values = values.copy()
    values[:, 3:7] /= np.maximum(np.linalg.norm(values[:, 3:7], axis=1, keepdims=True), 1e-12)
    return values


def monotone(times: np.ndarray, values: np.ndarray, at: np.ndarray, *, wrap: bool, stops: np.ndarray) -> np.ndarray:
    """``values [n]`` (never falling) at ``times [n]`` (rising), joined without jumps of speed and without overshooting
    (Fritsch and Butland 1984).

    ``stops [n]`` are the points that are passed at speed 0. ``wrap``: the speed at the end is that at the start.
    """
    gaps = np.diff(times)
    speeds = np.diff(values) / gaps
    if wrap:
        gaps, speeds = np.concatenate([gaps[-1:], gaps, gaps[:1]]), np.concatenate([speeds[-1:], speeds, speeds[:1]])
        slopes = _middle_slopes(gaps, speeds)
    else:
        slopes = np.concatenate([speeds[:1], _middle_slopes(gaps, speeds), speeds[-1:]])
    slopes = np.where(stops, 0.0, slopes)
    return _hermite(times, values[:, None], slopes[:, None], np.clip(at, times[0], times[-1]))[:, 0]


def _middle_slopes(gaps: np.ndarray, speeds: np.ndarray) -> np.ndarray:
    before, after = speeds[:-1], speeds[1:]
    first, second = 2 * gaps[1:] + gaps[:-1], gaps[1:] + 2 * gaps[:-1]
    moving = (before > 0) & (after > 0)
    safe_before, safe_after = np.where(moving, before, 1.0), np.where(moving, after, 1.0)
    return np.where(moving, (first + second) / (first / safe_before + second / safe_after), 0.0)


def _reach(values: np.ndarray) -> float:
    """World units that count as much as a turn by one radian: over the whole path both weigh the same."""
    moved, turned = np.linalg.norm(np.diff(values[:, :3], axis=0), axis=1).sum(), _turns(values).sum()
    return float(moved / max(turned, 0.5)) if moved > 0 else 1.0


def _distances(values: np.ndarray, reach: float) -> np.ndarray:  # [n,8] -> [n-1]
    """From row to row, what moves, turns and zooms together."""
    moved = np.linalg.norm(np.diff(values[:, :3], axis=0), axis=1)
    return np.sqrt(moved**2 + reach**2 * (_turns(values) ** 2 + np.diff(values[:, 7]) ** 2))


def _turns(values: np.ndarray) -> np.ndarray:  # radians
    chords = np.linalg.norm(np.diff(values[:, 3:7], axis=0), axis=1)
    return 4 * np.arcsin(np.clip(chords / 2, 0, 1))


def _tangents(knots: np.ndarray, values: np.ndarray) -> np.ndarray:
    gaps = np.diff(knots)[:, None]
    slopes = np.diff(values, axis=0) / gaps
    middle = (slopes[:-1] * gaps[1:] + slopes[1:] * gaps[:-1]) / (gaps[1:] + gaps[:-1])
    return np.concatenate([slopes[:1], middle, slopes[-1:]])


def _hermite(knots: np.ndarray, values: np.ndarray, tangents: np.ndarray, at: np.ndarray) -> np.ndarray:
    segment = _segment(knots, at)
    gap = np.diff(knots)[segment][:, None]
    t = (at - knots[segment])[:, None] / gap
    return (
        values[segment] * (2 * t**3 - 3 * t**2 + 1) + values[segment + 1] * (3 * t**2 - 2 * t**3)
        + tangents[segment] * gap * (t**3 - 2 * t**2 + t) + tangents[segment + 1] * gap * (t**3 - t**2)
    )  # fmt: skip


def _segment(knots: np.ndarray, at: np.ndarray) -> np.ndarray:
    return np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
