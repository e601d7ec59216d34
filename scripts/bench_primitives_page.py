"""What ``bench_primitives.py`` writes for people: tables in Markdown, and one page that needs no network."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from bench_page import document, table

from splat.report.charts import duration

Results = Mapping[str, Any]
Row = Mapping[str, Any]

OWN_STYLE = """
td b { font-weight:650; } td.failed { color:var(--b); } .delta { color:var(--soft); margin-left:6px; font-size:12px; }
td.n, th.n { white-space:nowrap; } .card.scroll { margin-bottom:6px; }
.crop { padding:10px 12px 12px; margin-bottom:12px; overflow-x:auto; }
.crop header { font-size:14px; margin-bottom:8px; } .crop header span { color:var(--soft); margin-left:10px; }
.shots { display:flex; gap:10px; width:max-content; } .shots div { font-size:12px; color:var(--soft); }
.shots img { display:block; image-rendering:pixelated; border-radius:4px; background:#000; margin-bottom:3px; }
.shots b { color:var(--ink); font-weight:600; }
.protocol { color:var(--soft); font-size:13px; padding-left:18px; }
"""

NARROW_PX = 96
"""Captions of smaller crops may be wider than they are."""
BUSY_LOAD = 0.5
"""Load average from which speeds are told with a warning."""

Column = tuple[str, str, Callable[[Any], str], int]
"""Key, title, format, and which end is best: 1 largest, -1 smallest, 0 neither."""
PAGE_COLUMNS: tuple[Column, ...] = (
    ("psnr", "PSNR", "{:.2f}".format, 1), ("ssim", "SSIM", "{:.4f}".format, 1),
    ("edge_psnr", "on edges", "{:.2f}".format, 1), ("flat_psnr", "on flat", "{:.2f}".format, 1),
    ("splats", "splats", "{:,}".format, 0), ("native_mb", "MB", "{:.2f}".format, -1),
    ("ply_mb", "MB as PLY", "{:.2f}".format, -1), ("ply_psnr", "PSNR of PLY", "{:.2f}".format, 1),
    ("steps", "steps", "{:,}".format, 0), ("train_secs", "trained in", duration, 0),
    ("steps_per_sec", "steps/s", "{:.1f}".format, 1), ("frames_per_sec", "frames/s", "{:.1f}".format, 1),
)  # fmt: skip
README_COLUMNS = ("psnr", "ssim", "edge_psnr", "splats", "native_mb", "ply_mb", "steps_per_sec", "frames_per_sec")
README_TITLES = {"edge_psnr": "PSNR on edges", "native_mb": "MB", "ply_mb": "MB as PLY"}

PROTOCOL = (
    "Every row is one run of splat train, one after the other on one machine. Equal splats: the same steps and the "
    "same limit of splats. Equal time: the steps that fit into the time the first primitive took, by the speed "
    "measured at equal splats, with schedules stretched to that length; the clock stops what takes a fifth longer.",
    "Time is that of training alone, without the evaluation at its end. Steps per second: median over the lines of "
    "metrics.jsonl.",
    "Frames per second: held-out views drawn by the rasterizer that trained, models taking turns view by view; median "
    "of seven rounds. Ratios within a capture mean more than the numbers.",
    "On edges: the tenth of each photograph's pixels with the steepest brightness (Sobel). On flat: the gentlest half. "
    "Both from 8-bit renders.",
    "MB are 10^6 bytes. PSNR of PLY: the exported plain 3DGS file read back and drawn; where the primitive's export is "
    "lossy this is what other viewers would show.",
    "Crops are chosen by numbers alone (side at most 64 px): largest mean squared gradient of the photograph, smallest "
    "one where it is neither black nor blown out, largest variance between the models. Shown without smoothing.",
    "Scales: trained at full size alone, then drawn with cameras resized to 1/2, 1/4 and 1/8 and compared with "
    "photographs averaged over boxes.",
)


def budget_titles(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """The tables of a capture: title and rows, in the order of the budgets."""
    tables = [("Equal splats", [row for row in rows if row["budget"] == "splats"])]
    limits = sorted({row["max_splats"] for row in rows if row["budget"] == "share"}, reverse=True)
    for limit in limits:
        shared = [row for row in rows if row["budget"] == "share" and row["max_splats"] == limit]
        tables.append((f"At most {limit:,} splats", shared))
    tables.append(("Equal time", [row for row in rows if row["budget"] == "time"]))
    return [(title, found) for title, found in tables if found]


def markdown(captures: Sequence[Results]) -> str:
    """Tables for README.md."""
    columns = [column for key in README_COLUMNS for column in PAGE_COLUMNS if column[0] == key]
    titles = [README_TITLES.get(key, title) for key, title, _, _ in columns]
    lines = [f"| capture | budget | primitive | {' | '.join(titles)} |", "|---|---|---|" + "---|" * len(columns)]
    for results in captures:
        for title, rows in budget_titles(results["rows"]):
            for row in rows:
                head = f"| {results['capture']} | {title.lower()} | {row['primitive']} | "
                if row["status"] != "ok":
                    lines.append(head + f"failed: {_cell(row['reason'])} |" + " |" * (len(columns) - 1))
                    continue
                cells = (_shown(row.get(key), form) for key, _, form, _ in columns)
                lines.append(head + " | ".join(cells) + " |")
    scales = [line for results in captures for line in _scale_lines(results)]
    if scales:
        factors = _factors(captures)
        lines += ["", f"| capture | primitive | filter | {' | '.join(map(_scale_name, factors))} |"]
        lines += ["|---|---|---|" + "---|" * len(factors), *scales]
    return "\n".join(lines) + "\n"


def page(captures: Sequence[Results], folders: Sequence[Path], *, title: str = "Splat primitives side by side") -> str:
    """The whole document. ``folders`` hold the crops of each capture under ``crops``."""
    sections = [_capture(results, folder) for results, folder in zip(captures, folders, strict=True)]
    return document(title, captures, "\n".join(sections), style=OWN_STYLE, protocol=PROTOCOL,
                    script="bench_primitives.py")  # fmt: skip


def _capture(results: Results, folder: Path) -> str:
    settings = results["settings"]
    facts = [
        f"{results['views_train']} views to train on, {results['views']} held out" if results.get("views") else "",
        results.get("sizes") or "", f"preset {settings['preset']}", f"{settings['steps']:,} steps",
        f"at most {settings['max_splats']:,} splats", f"seed {settings['seed']}", " ".join(settings["flags"]),
        f"load of the machine at the start {results['load']:.1f}" if (results.get("load") or 0) > BUSY_LOAD else "",
        *(f"{kind}: {' '.join(flags)}" for kind, flags in settings.get("flags_of", {}).items()),
    ]  # fmt: skip
    parts = [f"<h2>{escape(results['capture'])}</h2>"]
    parts.append(f'<p class="sub">{escape(" · ".join(fact for fact in facts if fact))}</p>')
    for title, rows in budget_titles(results["rows"]):
        parts.append(f"<h3>{escape(title)}</h3>{_budget_table(rows)}")
    parts += [f'<p class="note">{escape(note)}</p>' for note in results.get("notes", ())]
    if results.get("crops"):
        parts.append("<h3>Crops, equal splats</h3>" + "".join(_crop(crop, folder) for crop in results["crops"]))
    if results.get("scales"):
        parts.append(f"<h3>Trained at full size, seen smaller: PSNR and SSIM</h3>{_scale_table(results['scales'])}")
    if results.get("scale_crops"):
        parts.append("<h3>Crops at 1/8</h3>" + "".join(_crop(crop, folder) for crop in results["scale_crops"]))
    return f"<section>{''.join(parts)}</section>"


def _budget_table(rows: Sequence[Row]) -> str:
    shown = [column for column in PAGE_COLUMNS if any(row.get(column[0]) is not None for row in rows)]
    if not shown:
        shown = list(PAGE_COLUMNS[:1])
    best = {key: _best(rows, key, end) for key, _, _, end in shown}
    reference = next((row.get("psnr") for row in rows if row["status"] == "ok"), None)
    head = "<th>primitive</th>" + "".join(f'<th class="n">{escape(title)}</th>' for _, title, _, _ in shown)
    body = []
    for row in rows:
        cells = f"<td>{escape(row['label'])}</td>"
        if row["status"] != "ok":
            body.append(f'<tr>{cells}<td class="failed" colspan="{len(shown)}">{escape(str(row["reason"]))}</td></tr>')
            continue
        for key, _, form, _ in shown:
            text = escape(_shown(row.get(key), form))
            text = f"<b>{text}</b>" if best[key] is not None and row.get(key) == best[key] else text
            delta = ""
            if key == "psnr" and _number(row.get(key)) and _number(reference) and row is not rows[0]:
                delta = f'<span class="delta">{row[key] - reference:+.2f}</span>'
            cut = key == "steps" and _number(row.get(key)) and row[key] < row["steps_asked"]
            cells += f'<td class="n">{text}{delta}{" of " + format(row["steps_asked"], ",") if cut else ""}</td>'
        body.append(f"<tr>{cells}</tr>")
    return table(head, body)


def _scale_table(scales: Sequence[Row]) -> str:
    factors = sorted({score["scale"] for row in scales for score in row.get("scores", ())}) or [1]
    columns = {f: {id(row): _score(row, f) for row in scales} for f in factors}
    tops = {f: max((s["psnr"] for s in found.values() if s), default=None) for f, found in columns.items()}
    head = "<th>primitive</th><th>filter</th>" + "".join(f'<th class="n">{_scale_name(f)}</th>' for f in factors)
    body = []
    for row in scales:
        cells = f"<td>{escape(row['primitive'])}</td><td>{escape(row['filters'])}</td>"
        if row["status"] != "ok":
            body.append(
                f'<tr>{cells}<td class="failed" colspan="{len(factors)}">{escape(str(row["reason"]))}</td></tr>'
            )
            continue
        for f in factors:
            score = columns[f][id(row)]
            text = "–" if score is None else f"{score['psnr']:.2f}"
            text = f"<b>{text}</b>" if score is not None and score["psnr"] == tops[f] else text
            aside = "" if score is None else f'<span class="delta">{score["ssim"]:.4f}</span>'
            cells += f'<td class="n">{text}{aside}</td>'
        body.append(f"<tr>{cells}</tr>")
    return table(head, body)


def _scale_lines(results: Results) -> list[str]:
    lines = []
    for row in results.get("scales", ()):
        head = f"| {results['capture']} | {row['primitive']} | {row['filters']} | "
        factors = _factors([results])
        if row["status"] != "ok":
            lines.append(head + f"failed: {_cell(row['reason'])} |" + " |" * (len(factors) - 1))
            continue
        scores = [_score(row, factor) for factor in factors]
        cells = ("–" if s is None else f"{s['psnr']:.2f} / {s['ssim']:.3f}" for s in scores)
        lines.append(head + " | ".join(cells) + " |")
    return lines


def _factors(captures: Sequence[Results]) -> list[int]:
    rows = [row for results in captures for row in results.get("scales", ())]
    return sorted({score["scale"] for row in rows for score in row.get("scores", ())}) or [1]


def _score(row: Row, factor: int) -> Mapping[str, Any] | None:
    found = next((score for score in row.get("scores", ()) if score["scale"] == factor), None)
    return found if found is not None and _number(found["psnr"]) and _number(found["ssim"]) else None


def _scale_name(factor: int) -> str:
    return "full size" if factor == 1 else f"1/{factor}"


def _crop(crop: Mapping[str, Any], folder: Path) -> str:
    scores = [cell["psnr"] for cell in crop["cells"] if cell["psnr"] is not None]
    side = crop["side"] * crop["zoom"]
    cells = ""
    for cell in crop["cells"]:
        data = base64.b64encode((folder / "crops" / cell["file"]).read_bytes()).decode("ascii")
        text = escape(cell["label"])
        if cell["psnr"] is not None:
            score = f"{cell['psnr']:.2f} dB"
            text += f"<br><b>{score}</b>" if cell["psnr"] == max(scores) else f"<br>{score}"
        image = f'<img src="data:image/png;base64,{data}" width="{side}" height="{side}" alt="{escape(cell["label"])}">'
        cells += f'<div style="max-width:{max(side, NARROW_PX)}px">{image}{text}</div>'
    where = f"{crop['view']}, {crop['side']} px at ({crop['x']}, {crop['y']}), {crop['zoom']}x"
    header = f"<header><b>{escape(crop['title'])}</b><span>{escape(where)}</span></header>"
    return f'<div class="card crop">{header}<div class="shots">{cells}</div></div>'


def _best(rows: Sequence[Row], key: str, end: int) -> Any:
    """The value to stress: only where there is something to compare."""
    values = [row[key] for row in rows if row["status"] == "ok" and _number(row.get(key))]
    return (max if end > 0 else min)(values) if end and len(values) > 1 and len(set(values)) > 1 else None


def _shown(value: Any, form: Callable[[Any], str]) -> str:
    return form(value) if _number(value) else "–"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|")
