"""The page of ``bench_compression.py``: tables and a rate-distortion plot, in one document that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bench_compression_chart import DEEP_DB, SCATTER_STYLE, Point, scatter
from bench_compression_tables import (
    COLUMNS,
    MASK_COLUMNS,
    SMALLEST,
    Column,
    Results,
    Row,
    family_of,
    shown,
    smallest,
    smallest_title,
    sort_columns,
    tables,
    value_of,
)
from bench_densifiers_tables import number
from bench_page import document, table
from bench_primitives_page import BUSY_LOAD

OWN_STYLE = """
td.failed { color:var(--b); } td.n, th.n { white-space:nowrap; } td.name { min-width:104px; overflow-wrap:normal; }
th, td { padding:5px 8px; } .aside { color:var(--soft); font-size:12px; }
.card.scroll { margin-bottom:6px; max-height:none; } .protocol { color:var(--soft); font-size:13px; padding-left:18px; }
"""

HUES = ("formats", "splat-transform", "rvq", "grid", "budget")
"""Families in the order of the palette; further ones follow."""

PROTOCOL = (
    "Every number is of a file as it was read again: PSNR and SSIM are means over the held-out views of the decoded "
    "model; against base is the difference to the model as trained. One thing ran after the other on one machine.",
    "MB are 10^6 bytes; bits per splat count the splats in the file, MB per million splats those of the base. Times "
    "smaller: than the base as a PLY in Inria's layout.",
    "Compressed afterwards: splat compress on the base. Trained in: its steps and the search for a goal; without "
    "steps, sorts and books count as encoding. Compressed while training: the base's training again, with the same "
    "steps and limits, through the compressor; encode s is told where the run noted it.",
    "splat-transform: npm's @playcanvas/splat-transform on the base's PLY, on the CPU, with its own defaults; decoded "
    "to a PLY by itself and judged like all others. Its seconds hold the start of node; ours are those of the codec.",
    "The plot: circles are files made afterwards, squares those compressed while training; dashed lines stand where "
    f"the goals are. What lies more than {DEEP_DB:g} dB below the base stands hollow on the lower edge.",
    "Masks: rvq's masks alone on a training that grows as it will (adaptive, without a limit of its own), sizes, "
    "rotations and colours in fine equal steps; removed is the share of splats against the training without.",
    "Sorting: the rows that fill a square, in several orders. To neighbours: the mean distance to the next cell "
    "(right, below) of places, base colours and sizes at variance 1, and of rotations; random order is 1. Bytes per "
    "splat: as the grid's file keeps them (lossless WebP), in each order.",
    "For comparison, published models without view-dependent colour at higher precision took, in lossless WebP, 14.8 "
    "and 14.0 bytes per splat at random, 12.7 and 11.9 in Morton order, 12.5 and 12.4 sorted onto a grid after the "
    "fact.",
)


def page(captures: Sequence[Results], *, title: str = "Small models side by side") -> str:
    """The whole document."""
    sections = "\n".join(_capture(results) for results in captures)
    return document(
        title, captures, sections, style=SCATTER_STYLE + OWN_STYLE, protocol=PROTOCOL, script="bench_compression.py"
    )


def _capture(results: Results) -> str:
    parts = [f"<h2>{escape(results['capture'])}</h2>"]
    parts.append(f'<p class="sub">{escape(" · ".join(fact for fact in _facts(results) if fact))}</p>')
    parts.append(plot(results))
    found = smallest(results)
    if found:
        lines = [((family_of(row), row["method"]), row) for row in found]
        parts.append(f"<h3>{escape(smallest_title(results))}</h3>{_rows(('', 'method'), SMALLEST, lines)}")
    for title, rows in tables(results):
        lines = [((row["method"],), row) for row in rows]
        parts.append(f"<h3>{escape(title)}</h3>{_rows(('method',), COLUMNS, lines)}")
    if results.get("masks"):
        lines = [((row["label"],), row) for row in results["masks"]]
        parts.append(f"<h3>Masks alone</h3>{_rows(('masks',), MASK_COLUMNS, lines)}")
    if results.get("sorting"):
        lines = [((row["model"], row["order"]), row) for row in results["sorting"]]
        columns = sort_columns(results["sorting"])
        parts.append(f"<h3>What an order is worth</h3>{_rows(('model', 'order'), columns, lines)}")
    parts += [f'<p class="note">{escape(note)}</p>' for note in results.get("notes", ())]
    return f"<section>{''.join(parts)}</section>"


def _facts(results: Results) -> list[str]:
    settings, base = results["settings"], results.get("base")
    trained = [f"preset {settings['preset']}", f"densifier {settings['densifier']}", f"seed {settings['seed']}"]
    return [
        f"{results['views_train']} views to train on, {results['views']} held out" if results.get("views") else "",
        results.get("sizes") or "", *(["a run that was there"] if settings.get("given") else trained),
        f"{settings['steps']:,} steps",
        f"base: {base['splats']:,} splats, {base['mb']:.2f} MB as PLY, {base['psnr']:.2f} dB" if base else "",
        " ".join(settings["flags"]),
        *(f"{kind}: {' '.join(flags)}" for kind, flags in settings.get("flags_of", {}).items()),
        f"load of the machine at the start {results['load']:.1f}" if (results.get("load") or 0) > BUSY_LOAD else "",
    ]  # fmt: skip


def hues_of(results: Results) -> dict[str, int]:
    """A colour per family."""
    families = dict.fromkeys([*HUES, *(row["family"] for row in results["rows"])])
    return {family: i % 8 for i, family in enumerate(families)}


def plot(results: Results) -> str:
    points = [
        Point(_short(row), row["mb"], row["psnr"], row["family"], row["group"] == "training", _path(row))
        for row in results["rows"]
        if row["status"] == "ok" and number(row.get("mb")) and number(row.get("psnr"))
    ]
    base = results.get("base")
    at = Point("as trained, PLY", base["mb"], base["psnr"], "base") if base else None
    return scatter(
        "PSNR of the decoded file, dB, over its size, MB",
        points,
        hues_of(results),
        base=at,
        limit=results["settings"]["drop_limit"],
    )


def _short(row: Row) -> str:
    """The method; the colour says whose it is, and the shape of the mark when."""
    return row["method"].removeprefix("splat-transform ")


def _path(row: Row) -> str:
    """One curve: a compressor afterwards, with the same steps, at several sizes."""
    return f"{row['family']}-{row.get('steps')}" if row["group"] == "after" and row.get("goal") == "size" else ""


def _rows(heads: Sequence[str], columns: Sequence[Column], lines: Sequence[tuple[Sequence[str], Row]]) -> str:
    columns = [column for column in columns if any(number(value_of(row, column[0])) for _, row in lines)] or columns[:1]
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    head += "".join(f'<th class="n">{escape(title)}</th>' for _, title, _ in columns)
    body = []
    for names, row in lines:
        cells = "".join(f'<td class="name">{escape(name)}</td>' for name in names)
        if row.get("status", "ok") != "ok":
            said = escape(f"{row['status']}: {row['reason']}")
            cells += f'<td class="failed" colspan="{len(columns)}">{said}</td>'
        else:
            aside = f' <span class="aside">{escape(row["notes"])}</span>' if row.get("notes") else ""
            cells = cells.removesuffix("</td>") + f"{aside}</td>"
            cells += "".join(f'<td class="n">{escape(shown(row, column))}</td>' for column in columns)
        body.append(f"<tr>{cells}</tr>")
    return table(head, body)
