"""The page of ``bench_densifiers.py``: tables and small charts, in one document that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from bench_densifiers_tables import (
    COLUMNS,
    Column,
    Results,
    Row,
    cut_text,
    mean,
    median_of,
    number,
    overview,
    shared_titles,
    signed,
    spread_text,
    tables,
)
from bench_densifiers_truth import FAR_SHARE, MIN_OPACITY
from bench_page import document, table
from bench_primitives_page import BUSY_LOAD

from splat.report.charts import Series, line_chart

HUES = 8
"""Colours of the report's palette; more densifiers than that share them."""

OWN_STYLE = """
td b { font-weight:650; } td.failed { color:var(--b); } .aside { color:var(--soft); margin-left:6px; font-size:12px; }
td.n, th.n { white-space:nowrap; } .card.scroll { margin-bottom:6px; max-height:none; }
td .key { margin-right:0; } .charts { margin-top:14px; }
.protocol { color:var(--soft); font-size:13px; padding-left:18px; }
""" + "".join(
    f".line.s{i}{{stroke:var(--s{i})}} .dot.s{i}{{fill:var(--s{i})}}\n" for i in range(HUES)
)  # fmt: skip

PROTOCOL = (
    "Every number is the median over the seeds; beside it, largest minus smallest. Scores are means over the held-out "
    "views. Every run is one splat train, one after the other on one machine.",
    "Equal steps: each densifier grows as it will, up to the preset's limit if it has one; those that grow to a given "
    "number get the limit of the equal-splats table. Equal splats: the same steps and the same limit; who stops below "
    "it keeps what it has.",
    "Equal time: the steps that fit into the median time of the first densifier, by the speed measured at equal "
    "splats, with schedules stretched to that length; the clock stops what takes a fifth longer.",
    "A third of the steps: against the first densifier at all of them, under the same limit.",
    "Time is that of training alone, without the evaluation at its end. Steps per second: median over the lines of "
    "metrics.jsonl.",
    "PSNR over time: the first seed of the equal-splats table, trained once more with evaluations on the way, told "
    "with the seconds of the run without them. PSNR over splats: medians of the tables with the same number of steps.",
    f"Far splats: more opaque than {MIN_OPACITY:g}, in sight of a view, and farther from the surface than "
    f"{FAR_SHARE:.0%} of the scene's extent along the ray of every view that frames them; the share is of those in "
    "sight.",
)


def page(captures: Sequence[Results], *, title: str = "Densifiers side by side") -> str:
    """The whole document."""
    sections = _together(captures) + "\n".join(_capture(results) for results in captures)
    return document(title, captures, sections, style=OWN_STYLE, protocol=PROTOCOL, script="bench_densifiers.py")


def _together(captures: Sequence[Results]) -> str:
    """PSNR against the first densifier over all captures; '' for a single one."""
    titles = shared_titles(captures) if len(captures) > 1 else []
    parts = []
    for title in titles:
        names = [*(results["capture"] for results in captures), "mean"]
        head = "<th>densifier</th>" + "".join(f'<th class="n">{escape(name)}</th>' for name in names)
        body = []
        for label, deltas in overview(captures, title):
            cells = "".join(f'<td class="n">{signed(delta)}</td>' for delta in (*deltas, mean(deltas)))
            body.append(f"<tr><td>{escape(label)}</td>{cells}</tr>")
        parts.append(f"<h3>{escape(title)}</h3>{table(head, body)}")
    return f"<section><h2>PSNR against the first densifier</h2>{''.join(parts)}</section>" if parts else ""


def _capture(results: Results) -> str:
    settings = results["settings"]
    seeds = settings["seeds"]
    facts = [
        f"{results['views_train']} views to train on, {results['views']} held out" if results.get("views") else "",
        results.get("sizes") or "", f"preset {settings['preset']}", settings["primitive"],
        f"{settings['steps']:,} steps", f"at most {settings['max_splats']:,} splats",
        f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}", " ".join(settings["flags"]),
        f"load of the machine at the start {results['load']:.1f}" if (results.get("load") or 0) > BUSY_LOAD else "",
        *(f"{kind}: {' '.join(flags)}" for kind, flags in settings.get("flags_of", {}).items()),
    ]  # fmt: skip
    lines = results["summary"]
    hues = {label: i % HUES for i, label in enumerate(dict.fromkeys(line["label"] for line in lines))}
    parts = [f"<h2>{escape(results['capture'])}</h2>"]
    parts.append(f'<p class="sub">{escape(" · ".join(fact for fact in facts if fact))}</p>')
    charts = time_chart(results.get("curves", ()), hues) + splats_chart(lines, settings["steps"], hues)
    parts.append(f'<div class="charts">{charts}</div>' if charts else "")
    for title, members in tables(lines):
        parts.append(f"<h3>{escape(title)}</h3>{_budget_table(members, hues)}")
    parts += [f'<p class="note">{escape(note)}</p>' for note in results.get("notes", ())]
    lost = [row for row in results["rows"] if row["budget"] == "curve" and row["status"] != "ok"]
    parts += [f'<p class="note">No curve of {escape(row["label"])}: {escape(row["reason"])}</p>' for row in lost]
    return f"<section>{''.join(parts)}</section>"


def time_chart(curves: Sequence[Mapping[str, Any]], hues: Mapping[str, int]) -> str:
    """PSNR over seconds of training."""
    series = [
        Series(curve["label"], [(point["secs"], point["psnr"]) for point in curve["points"]],
               f"s{hues.get(curve['label'], 0)}", dots=True)
        for curve in curves
    ]  # fmt: skip
    return line_chart("PSNR over seconds of training", series, unit="dB", across="second")


def splats_chart(lines: Sequence[Row], steps: int, hues: Mapping[str, int]) -> str:
    """Median PSNR over median splats of what was trained for all the steps."""
    points: dict[str, set[tuple[float, float]]] = {}
    for line in lines:
        at = median_of(line, "splats"), median_of(line, "psnr")
        if line["budget"] in ("splats", "steps", "share") and line["steps_asked"] == steps and all(map(number, at)):
            points.setdefault(line["label"], set()).add(at)
    series = [Series(label, sorted(found), f"s{hues[label]}", dots=True) for label, found in points.items()]
    return line_chart("PSNR over splats", series, unit="dB", across="splats")


def _budget_table(lines: Sequence[Row], hues: Mapping[str, int]) -> str:
    shown = [column for column in COLUMNS if any(line.get(column[0]) is not None for line in lines)] or [COLUMNS[0]]
    best = {key: _best(lines, key, end) for key, _, _, end in shown}
    reference = median_of(lines[0], "psnr")
    head = "<th>densifier</th>" + "".join(f'<th class="n">{escape(title)}</th>' for _, title, _, _ in shown)
    body = []
    for line in lines:
        name = f'<td><span class="key s{hues[line["label"]]}">{escape(line["label"])}</span></td>'
        failed = "".join(f"<div>{escape(reason)}</div>" for reason in line["failed"])
        if line["seeds"]:
            cells = "".join(_cell(line, column, best[column[0]], reference if line is not lines[0] else None)
                            for column in shown)  # fmt: skip
            body.append(f"<tr>{name}{cells}</tr>")
            name = "<td></td>"
        if failed:
            body.append(f'<tr>{name}<td class="failed" colspan="{len(shown)}">{failed}</td></tr>')
    return table(head, body)


def _cell(line: Row, column: Column, best: Any, reference: float | None) -> str:
    key, _, form, _ = column
    value = median_of(line, key)
    if not number(value):
        return '<td class="n">–</td>'
    text = escape(form(value))
    text = f"<b>{text}</b>" if best is not None and value == best else text
    asides = [spread_text(line, column, "({})")]
    if key == "psnr" and number(reference):
        asides.insert(0, signed(value - reference))
    if key == "steps" and line["cut"]:
        asides.append(f"of {line['steps_asked']:,}: {cut_text(line)}")
    return f'<td class="n">{text}' + "".join(f'<span class="aside">{a}</span>' for a in asides if a) + "</td>"


def _best(lines: Sequence[Row], key: str, end: int) -> Any:
    """The value to stress: only where there is something to compare."""
    values = [median_of(line, key) for line in lines if number(median_of(line, key))]
    return (max if end > 0 else min)(values) if end and len(values) > 1 and len(set(values)) > 1 else None
