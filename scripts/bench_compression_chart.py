"""The rate-distortion plot of ``bench_compression.py``: size on a logarithmic axis, PSNR of the decoded files above."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from splat.report.charts import nice_ticks, short_number

WIDTH, HEIGHT = 1060, 440  # units of the viewBox; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 14, 26
LETTER, LINE = 5.9, 12.0
"""Of labels, units: they are placed where nothing else is."""
DEEP_DB = 3.0
"""Points farther below the base stand on the lower edge, hollow: they would press the others together."""

SCATTER_STYLE = """
.hollow { fill:var(--card); stroke-width:1.6; } .guide { stroke:var(--soft); stroke-dasharray:4 4; opacity:.7; }
.path { fill:none; stroke-width:1.4; opacity:.75; } svg text.mark { font-size:10.5px; }
""" + "".join(
    f".fill.s{i}{{fill:var(--s{i})}} .edge.s{i}{{stroke:var(--s{i})}}\n" for i in range(8)
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A file."""

    label: str
    mb: float
    psnr: float
    family: str
    square: bool = False
    """Square marks: compressed while training."""
    path: str = ""
    """Points with the same one are joined."""


@dataclass(frozen=True)
class _Frame:
    x_low: float  # log10 MB
    x_high: float
    y_low: float
    y_high: float

    def x(self, mb: float) -> float:
        share = (math.log10(mb) - self.x_low) / (self.x_high - self.x_low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, psnr: float) -> float:
        share = (max(psnr, self.y_low) - self.y_low) / (self.y_high - self.y_low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def scatter(
    title: str, points: Sequence[Point], hues: Mapping[str, int], *, base: Point | None = None, limit: float = 0.2
) -> str:
    """A figure; '' when there is nothing to draw. Guides: ``limit`` dB below the base, and a tenth of its size."""
    points = [p for p in points if p.mb > 0 and math.isfinite(p.psnr)]
    if not points:
        return ""
    everyone = [*points, *([base] if base else [])]
    frame = _frame(everyone, base)
    parts = [_axes(frame), _guides(frame, base, limit), _paths(frame, points, hues)]
    taken: list[tuple[float, float, float, float]] = [_box(frame, p) for p in everyone]
    marks = [_mark(frame, p, hues.get(p.family, 7)) for p in everyone]
    labels = [_label(frame, p, taken) for p in sorted(everyone, key=lambda p: -p.psnr)]
    legend = "".join(f'<span class="key s{hues[name]}">{escape(name)}</span>'
                     for name in hues if any(p.family == name for p in points))  # fmt: skip
    svg = (f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
           f"{''.join([*parts, *marks, *labels])}</svg>")  # fmt: skip
    return f'<figure><figcaption>{escape(title)}<span class="keys">{legend}</span></figcaption>{svg}</figure>'


def _frame(points: Sequence[Point], base: Point | None) -> _Frame:
    logs = [math.log10(p.mb) for p in points]
    margin = max(0.06 * (max(logs) - min(logs)), 0.05)
    top = max(p.psnr for p in points)
    floor = (top if base is None else base.psnr) - DEEP_DB
    seen = [p.psnr for p in points if p.psnr >= floor] or [top]
    ticks = nice_ticks(min(seen) - 0.05, top + 0.05, 6)
    return _Frame(min(logs) - margin, max(logs) + margin, ticks[0], ticks[-1])


def _axes(frame: _Frame) -> str:
    parts = []
    for tick in nice_ticks(frame.y_low, frame.y_high, 6):
        y = frame.y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{short_number(tick)}</text>')
    decades = range(math.floor(frame.x_low), math.ceil(frame.x_high) + 1)
    for mb in (step * 10.0**decade for decade in decades for step in (1, 2, 5)):
        if frame.x_low <= math.log10(mb) <= frame.x_high:
            x = frame.x(mb)
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{short_number(mb)}</text>')
    return "".join(parts)


def _guides(frame: _Frame, base: Point | None, limit: float) -> str:
    if base is None:
        return ""
    parts = []
    level = base.psnr - limit
    if level > frame.y_low:
        y = frame.y(level)
        parts.append(f'<line class="guide" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}">'
                     f"<title>{limit:g} dB below the base</title></line>")  # fmt: skip
    if math.log10(base.mb / 10) > frame.x_low:
        x = frame.x(base.mb / 10)
        parts.append(f'<line class="guide" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}">'
                     "<title>a tenth of the PLY</title></line>")  # fmt: skip
    return "".join(parts)


def _paths(frame: _Frame, points: Sequence[Point], hues: Mapping[str, int]) -> str:
    parts = []
    for path in dict.fromkeys(p.path for p in points if p.path):
        members = sorted((p for p in points if p.path == path), key=lambda p: p.mb)
        at = " ".join(f"{frame.x(p.mb):.1f},{frame.y(p.psnr):.1f}" for p in members)
        if len(members) > 1:
            parts.append(f'<polyline class="path edge s{hues.get(members[0].family, 7)}" points="{at}"/>')
    return "".join(parts)


def _mark(frame: _Frame, point: Point, hue: int) -> str:
    x, y = frame.x(point.mb), frame.y(point.psnr)
    style = f"hollow edge s{hue}" if point.psnr < frame.y_low else f"fill s{hue}"
    tip = f"<title>{escape(point.label)}: {point.mb:.3f} MB, {point.psnr:.2f} dB</title>"
    if point.square:
        return f'<rect class="{style}" x="{x - 3.6:.1f}" y="{y - 3.6:.1f}" width="7.2" height="7.2">{tip}</rect>'
    return f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="4">{tip}</circle>'


def _box(frame: _Frame, point: Point) -> tuple[float, float, float, float]:
    x, y = frame.x(point.mb), frame.y(point.psnr)
    return x - 5, y - 5, x + 5, y + 5


def _label(frame: _Frame, point: Point, taken: list[tuple[float, float, float, float]]) -> str:
    """Beside its mark where there is room; otherwise only the mark's tip names it."""
    x, y, width = frame.x(point.mb), frame.y(point.psnr), LETTER * len(point.label)
    places = [("start", x + 8, y + 4), ("end", x - 8, y + 4), ("middle", x, y - 8), ("middle", x, y + 16)]
    places += [(anchor, x + shift, line) for anchor, shift in (("start", 6), ("end", -6)) for line in (y - 7, y + 15)]
    for anchor, at, line in places:
        low = {"start": at, "end": at - width, "middle": at - width / 2}[anchor]
        box = (low, line - LINE + 3, low + width, line + 2)
        inside = box[0] > LEFT and box[2] < WIDTH - RIGHT and box[1] > TOP - 8 and box[3] < HEIGHT - BOTTOM + 8
        if inside and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return f'<text class="mark" x="{at:.1f}" y="{line:.1f}" text-anchor="{anchor}">{escape(point.label)}</text>'
    return ""


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
