"""What ``bench_viewer.py`` measured, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

SPLIT = {"to_server_ms": "to the server", "server_ms": "server", "drawing_ms": "of it drawing",
         "way_back_ms": "way back", "page_ms": "in the page"}  # fmt: skip


def table(result: dict[str, Any]) -> str:
    load = ", ".join(f"{part} {load:.1f}" for part, load in result["load"].items())
    lines = [f"{result['cores']} cores, pictures {result['size']}, load before: {load}"]
    for name, row in result.get("training", {}).get("rows", {}).items():
        lines.append(f"{name:<28} {row['steps_per_sec']:7.2f} steps/s  x{row['ratio']:.3f}")
    for where in ("opened", "while_training"):
        lines += of_page(where, result.get(where, {}))
    for count, row in result.get("drag", {}).items():
        lines.append(of_drag(int(count), row))
    if "browser" in result:
        lines += of_browser(result["browser"])
    return "\n".join(lines)


def of_page(where: str, found: dict[str, Any]) -> Iterator[str]:
    """Latency and pictures per second of a page without a browser."""
    for name in ("first_ms", "sharp_ms"):
        if found.get(name):
            yield f"{where:<15} {name:<9} {told(found[name])}"
    if found.get("unanswered"):
        yield f"{where:<15} {found['unanswered']} movements had no answer"
    if "orbit" in found:
        orbit = found["orbit"]
        yield f"{where:<15} orbit     {orbit['frames_per_sec']:.1f} pictures/s, width {orbit['width']}"


def of_drag(count: int, row: dict[str, Any]) -> str:
    return (f"drag of {count:>7,}: event {row['event_ms']['median']:.1f} ms, with its picture "
            f"{row['event_and_picture_ms']['median']:.1f} ms, to begin {row['begin_ms']:.0f} ms")  # fmt: skip


def of_browser(found: dict[str, Any]) -> Iterator[str]:
    orbit = found["orbit"]
    yield f"Chromium {found['chromium']}, {found['splats']:,} splats; its clock is known to " \
          f"{orbit['clock_error_ms']['median']:.1f} ms"  # fmt: skip
    yield from of_page("without browser", found["without_browser"])
    yield from of_single("orbit", orbit["single"])
    yield from of_stream("orbit", orbit["stream"])
    yield from of_stream("stream off", orbit["stream_off"])
    for count, row in found["drag"].items():
        name = f"drag {int(count) // 1000}k"
        yield f"{name}: {row['rows']:,.0f} rows move, of {row['splats']:,.0f}"
        yield from of_single(name, row["single"])
        yield from of_stream(name, row["stream"])
        yield f"{name:<15} without a page: " + of_drag(int(count), row["without_page"]).partition(": ")[2]


def of_single(name: str, row: dict[str, Any]) -> Iterator[str]:
    """Single movements, and where their time went."""
    for key, title in (("first_ms", "first picture"), ("sharp_ms", "sharp one"), ("event_ms", "event on the server")):
        if row.get(key):
            yield f"{name:<15} {title:<20} {told(row[key])}"
    if row.get("server_ms"):
        parts = ", ".join(f"{title} {row[key]['median']:.0f}" for key, title in SPLIT.items())
        yield f"{name:<15} {'first picture is':<20} {parts}"
    if row.get("unanswered"):
        yield f"{name:<15} {row['unanswered']} movements had no answer"


def of_stream(name: str, row: dict[str, Any]) -> Iterator[str]:
    """Movement without rest."""
    rates, cores = row["per_sec"], ", ".join(f"{who} {number:.2f}" for who, number in row["cores"].items())
    yield (f"{name:<15} {'without rest, per s':<20} {rates['pictures']:.1f} pictures shown of "
           f"{rates['pictures_sent']:.1f} sent (width {row['width']:.0f}), {rates['mouse_events']:.1f} mouse "
           "events")  # fmt: skip
    yield (f"{'':<36} the page draws {rates['webgl_frames']:.1f}, of {rates['animation_frames']:.1f} animation frames; "
           f"cores: {cores}")  # fmt: skip
    for key, title in (("lag_ms", "behind the mouse"), ("event_ms", "event on the server")):
        if row.get(key):
            yield f"{name:<15} {title:<20} {told(row[key])}"


def told(row: dict[str, float]) -> str:
    return f"median {row['median']:.1f} ms (10 % {row['p10']:.1f}, 90 % {row['p90']:.1f}, of {row['count']:.0f})"
