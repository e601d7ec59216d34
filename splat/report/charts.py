"""Small inline SVG charts. Colours are CSS variables of the page, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 520, 220  # units of the viewBox; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 26
MAX_POINTS = 600  # a curve is thinned to this many


@dataclass(frozen=True)
class Series:
    """One curve: points (x, y) in data units, and the class that colours it."""

    label: str
    points: Sequence[tuple[float, float]]
    style: str = "a"
    """``a``, ``b`` or ``c``: the palette of the page; ``faint`` for raw values behind a smooth curve."""
    dots: bool = False


def line_chart(
    title: str, series: Sequence[Series], *, unit: str = "", zero: bool = False, across: str = "step"
) -> str:
    """A figure with one or more curves over what ``across`` names; '' when there is nothing to draw.

    ``zero`` starts the vertical axis at 0.
    """
    series = [Series(s.label, _finite(s.points), s.style, s.dots) for s in series]
    series = [s for s in series if s.points]
    if not series:
        return ""
    xs = [x for s in series for x, _ in s.points]
    ys = [y for s in series for _, y in s.points]
    x_ticks = nice_ticks(min(0.0, *xs) if len(xs) > 1 else 0.0, max(xs), 5)
    y_ticks = nice_ticks(0.0 if zero else min(ys), max(ys), 4)
    frame = _Frame(min(x_ticks[0], *xs, 0), max(xs), y_ticks[0], y_ticks[-1])
    body = [_grid(frame, x_ticks, y_ticks)]
    for s in series:
        body.append(_curve(frame, s, unit, across))
    legend = "".join(f'<span class="key {s.style}">{escape(s.label)}</span>' for s in series if s.label)
    return _figure(title, legend, "".join(body))


def change_chart(title: str, changes: Sequence[tuple[int, str, int, int]]) -> str:
    """Stacked bars over steps, one colour per reason: rows added upwards, rows removed downwards.

    ``changes`` holds (step, reason, added, removed); '' when nothing was added or removed.
    """
    changes = [change for change in changes if change[2] or change[3]]
    if not changes:
        return ""
    width = max(step for step, *_ in changes)
    reasons = sorted({reason for _, reason, _, _ in changes})
    cells: dict[int, tuple[int, dict[str, list[int]]]] = {}
    for step, reason, added, removed in changes:  # neighbouring refinements share a bar when there are very many
        _, sums = cells.setdefault(step * 100 // max(width, 1), (step, {}))
        total = sums.setdefault(reason, [0, 0])
        total[0], total[1] = total[0] + added, total[1] + removed
    most = [max(sum(pair[side] for pair in sums.values()) for _, sums in cells.values()) for side in (0, 1)]
    y_ticks = nice_ticks(-most[1], most[0], 4)
    frame = _Frame(0, width, y_ticks[0], y_ticks[-1])
    body = [_grid(frame, nice_ticks(0, width, 5), y_ticks)]
    for step, sums in cells.values():
        for side, sign in ((0, 1), (1, -1)):
            parts = [(reason, sign * sums[reason][side]) for reason in reasons if reason in sums]
            body.append(_stack(frame, step, parts, reasons))
    legend = "".join(f'<span class="key s{i % 8}">{escape(reason)}</span>' for i, reason in enumerate(reasons))
    return _figure(title, legend, "".join(body))


def _stack(frame: _Frame, step: int, parts: Sequence[tuple[str, int]], reasons: Sequence[str]) -> str:
    """One side of a bar, from zero outwards; the amounts share a sign."""
    bar = max(1.5, 0.7 * (WIDTH - LEFT - RIGHT) / 100)
    pieces, end = [], 0
    for reason, amount in parts:
        if amount:
            y0, y1 = sorted((frame.y(end), frame.y(end + amount)))
            tip = escape(f"step {step:,}: {reason} {amount:+,}")
            pieces.append(
                f'<rect class="s{reasons.index(reason) % 8}" x="{frame.x(step) - bar / 2:.1f}" y="{y0:.1f}" '
                f'width="{bar:.1f}" height="{max(y1 - y0, 0.5):.1f}"><title>{tip}</title></rect>'
            )
            end += amount
    return "".join(pieces)


def share_bar(parts: Sequence[tuple[str, float]]) -> str:
    """One horizontal bar cut into shares, with a legend in seconds and per cent; '' when all are zero."""
    total = sum(value for _, value in parts)
    if total <= 0:
        return ""
    pieces, legend, x = [], [], 0.0
    for i, (name, value) in enumerate(parts):
        share = value / total
        label = f"{name} {duration(value)} ({share:.0%})"
        pieces.append(
            f'<rect class="s{i % 8}" x="{1000 * x:.1f}" y="0" width="{1000 * share:.1f}" height="36">'
            f"<title>{escape(label)}</title></rect>"
        )
        legend.append(f'<span class="key s{i % 8}">{escape(label)}</span>')
        x += share
    svg = f'<svg class="share" viewBox="0 0 1000 36" preserveAspectRatio="none" role="img">{"".join(pieces)}</svg>'
    return f'<figure class="wide">{svg}<div class="keys">{"".join(legend)}</div></figure>'


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers that enclose [low, high], about ``count`` steps apart."""
    if not high > low:
        low, high = low - max(abs(low) * 0.05, 0.5), high + max(abs(high) * 0.05, 0.5)
    raw = (high - low) / count
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def smoothed(points: Sequence[tuple[float, float]], window: int = 9) -> list[tuple[float, float]]:
    """A centred running mean that shrinks at both ends."""
    half, result = window // 2, []
    for i, (x, _) in enumerate(points):
        reach = min(half, i, len(points) - 1 - i)
        near = points[i - reach : i + reach + 1]
        result.append((x, sum(y for _, y in near) / len(near)))
    return result


def short_number(value: float) -> str:
    """1.2k, 3.4M; small numbers with what digits they need."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.4g}{suffix}"
    return f"{value:.4g}"


def duration(secs: float) -> str:
    """1.5 s, 12 min 05 s, 3 h 20 min."""
    if secs < 60:
        return f"{secs:.1f} s"
    minutes, rest = divmod(round(secs), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


@dataclass(frozen=True)
class _Frame:
    """Data range of the plot area."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / max(self.x_high - self.x_low, 1e-12) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y_low) / max(self.y_high - self.y_low, 1e-12) * (HEIGHT - TOP - BOTTOM)


def _finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    points = [(x, y) for x, y in points if isinstance(y, int | float) and math.isfinite(y)]
    stride = max(1, -(-len(points) // MAX_POINTS))
    return points if stride == 1 else [*points[:-1:stride], points[-1]]


def _grid(frame: _Frame, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> str:
    parts = []
    for tick in y_ticks:
        y = frame.y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{short_number(tick)}</text>')
    for tick in x_ticks:
        if frame.x_low <= tick <= frame.x_high:
            x = frame.x(tick)
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{short_number(tick)}</text>')
    return "".join(parts)


def _curve(frame: _Frame, series: Series, unit: str, across: str) -> str:
    at = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in series.points)
    parts = [f'<polyline class="line {series.style}" points="{at}"/>'] if len(series.points) > 1 else []
    if series.dots or len(series.points) == 1:
        for x, y in series.points:
            tip = f"{across} {x:,.7g}: {y:.4g}{' ' + unit if unit else ''}"
            parts.append(
                f'<circle class="dot {series.style}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3.2">'
                f"<title>{escape(tip)}</title></circle>"
            )
    return "".join(parts)


def _figure(title: str, legend: str, body: str) -> str:
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{body}</svg>'
    return f'<figure><figcaption>{escape(title)}<span class="keys">{legend}</span></figcaption>{svg}</figure>'
