"""Medians and spreads over seeds, and the tables of ``bench_densifiers.py`` in Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from splat.report.charts import duration

Results = Mapping[str, Any]
Row = Mapping[str, Any]

Column = tuple[str, str, Callable[[Any], str], int]
"""Key, title, format, and which end is best: 1 largest, -1 smallest, 0 neither."""
COLUMNS: tuple[Column, ...] = (
    ("psnr", "PSNR", "{:.2f}".format, 1), ("ssim", "SSIM", "{:.4f}".format, 1),
    ("splats", "splats", "{:,.0f}".format, 0), ("train_secs", "trained in", duration, 0),
    ("steps", "steps", "{:,.0f}".format, 0), ("steps_per_sec", "steps/s", "{:.1f}".format, 0),
    ("far", "far splats", "{:,.0f}".format, -1), ("far_percent", "far", "{:.2f} %".format, -1),
)  # fmt: skip
SPREAD_FORMATS: dict[str, Callable[[Any], str]] = {"train_secs": "{:.1f} s".format, "far_percent": "{:.2f}".format}
README_KEYS = ("psnr", "ssim", "splats", "train_secs", "far")


def summarised(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One line per budget, densifier and limit, in the order of the rows: median and spread over the seeds.

    A line's ``psnr`` is {"median", "spread", "values"}, and so on; ``failed`` holds the reasons of seeds that did not
    end. The spread is largest minus smallest, None for one seed.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["budget"] != "curve":
            groups.setdefault((row["budget"], row["label"], row["max_splats"]), []).append(row)
    lines = []
    for (budget, label, limit), members in groups.items():
        done = [row for row in members if row["status"] == "ok"]
        line: dict[str, Any] = {
            "budget": budget, "label": label, "max_splats": limit, "densifier": members[0]["densifier"],
            "change": members[0].get("change", ""), "steps_asked": members[0]["steps_asked"],
            "seeds": len(done), "cut": sum(row.get("ended") == "time" for row in done),
            "failed": [f"seed {r['seed']}: {r['reason']}" for r in members if r["status"] != "ok"],
        }  # fmt: skip
        lines.append(line | {key: middle([row.get(key) for row in done]) for key, *_ in COLUMNS})
    return lines


def middle(values: Sequence[Any]) -> dict[str, Any] | None:
    """Median, spread and the numbers themselves; None when there are none."""
    found = [value for value in values if number(value)]
    if not found:
        return None
    spread = max(found) - min(found) if len(found) > 1 else None
    return {"median": statistics.median(found), "spread": spread, "values": found}


def median_of(line: Row, key: str) -> Any:
    return None if line.get(key) is None else line[key]["median"]


def tables(lines: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Title and lines of every table of a capture. The first line of each is what the others are told against."""
    found = [
        ("Equal steps", [line for line in lines if line["budget"] == "steps"]),
        ("Equal splats", [line for line in lines if line["budget"] == "splats"]),
        ("Equal time", [line for line in lines if line["budget"] == "time"]),
        ("A third of the steps", [line for line in lines if line["budget"] == "third"]),
    ]
    limits = sorted({line["max_splats"] for line in lines if line["budget"] == "share"}, reverse=True)
    for limit in limits:
        at_limit = [line for line in lines if line["budget"] == "share" and line["max_splats"] == limit]
        found.append((f"At most {limit:,} splats", at_limit))
    for densifier in dict.fromkeys(line["densifier"] for line in lines if line["budget"] == "ablate"):
        members = [line for line in lines if line["budget"] == "ablate" and line["densifier"] == densifier]
        found.append((f"{densifier} with one thing changed", members))
    return [(title, members) for title, members in found if members]


def overview(captures: Sequence[Results], title: str) -> list[tuple[str, list[float | None]]]:
    """(densifier, PSNR minus that of the table's first, one per capture) over all captures for one kind of table."""
    columns: list[dict[str, float]] = []
    for results in captures:
        members = dict(tables(results["summary"])).get(title, [])
        first = median_of(members[0], "psnr") if members else None
        columns.append({} if first is None else {
            line["label"]: median_of(line, "psnr") - first for line in members if median_of(line, "psnr") is not None
        })  # fmt: skip
    labels = dict.fromkeys(label for column in columns for label in column)
    return [(label, [column.get(label) for column in columns]) for label in labels]


def mean(values: Sequence[float | None]) -> float | None:
    """None unless all are there: a mean over other captures than its neighbour's would mislead."""
    return None if not values or None in values else statistics.fmean(v for v in values if v is not None)


def markdown(captures: Sequence[Results]) -> str:
    """Tables for README.md: all numbers, then what the captures say together."""
    columns = [column for column in COLUMNS if column[0] in README_KEYS]
    if not any(line.get("far") for results in captures for line in results["summary"]):
        columns = [column for column in columns if column[0] != "far"]
    lines = [f"| capture | budget | densifier | {' | '.join(title for _, title, _, _ in columns)} |"]
    lines.append("|---|---|---|" + "---|" * len(columns))
    for results in captures:
        for title, members in tables(results["summary"]):
            for line in members:
                label = cell(line["label"]) + (f" ({cut_text(line)})" if line["cut"] else "")
                head = f"| {results['capture']} | {title.lower()} | {label} | "
                if not line["seeds"]:
                    reason = f"failed: {cell(line['failed'][0])}"
                    lines.append(head + reason + " |" + " |" * (len(columns) - 1))
                else:
                    lines.append(head + " | ".join(shown(line, column) for column in columns) + " |")
    return "\n".join([*lines, *_overview_lines(captures)]) + "\n"


def _overview_lines(captures: Sequence[Results]) -> list[str]:
    if len(captures) < 2:
        return []
    names = " | ".join(cell(results["capture"]) for results in captures)
    lines = ["", f"| PSNR against the first | densifier | {names} | mean |", "|---|---|" + "---|" * (len(captures) + 1)]
    for title in shared_titles(captures):
        for label, deltas in overview(captures, title):
            numbers = (signed(delta) for delta in (*deltas, mean(deltas)))
            lines.append(f"| {title.lower()} | {cell(label)} | {' | '.join(numbers)} |")
    return lines


def shared_titles(captures: Sequence[Results]) -> list[str]:
    """Tables that at least two captures have and that compare something."""
    titles = [title for results in captures for title, members in tables(results["summary"]) if len(members) > 1]
    return [title for title in dict.fromkeys(titles) if titles.count(title) > 1]


def shown(line: Row, column: Column) -> str:
    """``24.31 ±0.12``-like text would claim a deviation; the spread stands in brackets instead."""
    key, _, form, _ = column
    value = line.get(key)
    if value is None:
        return "–"
    return form(value["median"]) + spread_text(line, column, " ({})")


def spread_text(line: Row, column: Column, frame: str) -> str:
    key, _, form, _ = column
    spread = None if line.get(key) is None else line[key]["spread"]
    return "" if not spread else frame.format(SPREAD_FORMATS.get(key, form)(spread))


def cut_text(line: Row) -> str:
    """A run that the clock cut off ends amid its schedules: it deserves better than its score."""
    return f"clock stopped {line['cut']} of {line['seeds']}"


def signed(value: float | None) -> str:
    return "–" if value is None else f"{round(value, 2) + 0.0:+.2f}"


def number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def cell(text: Any) -> str:
    return str(text).replace("|", "\\|")
