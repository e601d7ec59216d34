"""``report.html``: one page about a run, from the run folder's files alone; it needs no network and no script."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from splat.io.atomic import write_text
from splat.report.charts import Series, change_chart, duration, line_chart, share_bar, smoothed
from splat.report.pictures import thumbnail
from splat.report.run_folder import RunRecord, flat, read_run, view_pictures
from splat.report.style import STYLE

WORST_VIEWS, BEST_VIEWS = 4, 2
MAX_LOG_ROWS = 400


def write_report(run_dir: str | Path, *, defaults: Mapping[str, Any] | None = None) -> Path:
    """Write ``report.html`` into the run folder and return its path.

    Works on runs that have not been evaluated, are interrupted or still going. ``defaults`` are the settings
    the configuration is compared with, shaped like ``config.toml``; without them the page lists what the run
    recorded as ``changed`` on its start line, if anything.
    """
    record = read_run(run_dir)
    return write_text(record.folder / "report.html", page(record, defaults))


def page(record: RunRecord, defaults: Mapping[str, Any] | None = None) -> str:
    """The whole document."""
    folder = record.folder.resolve()
    title = escape(f"{record.start.get('scene') or folder.parent.name} / {folder.name}")
    sections = [
        _header(record, title),
        _section("Curves", f'<div class="charts">{_curves(record)}</div>' if record.train or record.evals else ""),
        _section("Held-out views", _views(record)),
        _section("Where the time went", _time(record)),
        _section("Densification", _densification(record)),
        _section("Export as plain Gaussians", _export(record)),
        _section("Configuration", _configuration(record, defaults)),
        _section("Protocol and files", f'<div class="two">{_protocol(record)}{_files(record)}</div>'),
    ]
    version = escape(str(record.start.get("version", "")))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>"
        + "\n".join(section for section in sections if section)
        + f"<footer>Written by splat {version}. This page is complete in itself.</footer></main></body></html>\n"
    )


def _header(record: RunRecord, title: str) -> str:
    last, finish = record.last, record.finish
    steps = last.get("step", 0)
    states = {"done": "finished", "time": "time budget used up", "target": "target PSNR reached",
              "stopped": "stopped on request"}  # fmt: skip
    if finish:
        state = f'<span class="state">{escape(states.get(finish.get("reason"), str(finish.get("reason"))))}</span>'
    else:
        state = '<span class="state partial">not finished</span>'
    scores = record.evals[-1] if record.evals else {}
    elapsed = record.value("elapsed_secs")
    tiles = [
        ("PSNR, held-out", _number(scores.get("psnr"), "{:.2f} dB")),
        ("SSIM, held-out", _number(scores.get("ssim"), "{:.4f}")),
        ("LPIPS, held-out", _number(scores.get("lpips"), "{:.4f}")),
        ("splats", _number(record.value("splats"), "{:,.0f}")),
        ("training time", duration(elapsed) if elapsed is not None else None),
        ("steps", f"{steps:,}"),
        ("steps per second", _number(steps / elapsed if elapsed and steps else None, "{:.1f}")),
    ]
    shown = "".join(f'<div class="tile"><b>{escape(v)}</b><span>{n}</span></div>' for n, v in tiles if v)
    start = record.start
    facts = [
        f"{start['views_train']} train + {start.get('views_test', 0)} test views" if start.get("views_train") else "",
        *(start.get(key) for key in ("machine", "device")),
        *(f"{key} {start[key]}" for key in ("rasterizer", "seed") if start.get(key) is not None),
        f"taken up again {record.resumed} time{'s' if record.resumed > 1 else ''}" if record.resumed else "",
    ]
    line = " · ".join(escape(str(fact)) for fact in facts if fact)
    missing = "" if scores else '<p class="note">Held-out views were not measured yet.</p>'
    return f'<h1>{title}{state}</h1><p class="sub">{line}</p><div class="tiles">{shown}</div>{missing}'


def _curves(record: RunRecord) -> str:
    loss = _points(record.train, "loss")
    by_minute = [(e["elapsed_secs"] / 60, e["psnr"]) for e in record.evals if _both(e, "elapsed_secs", "psnr")]
    charts = [
        line_chart("Training loss", [Series("per window", loss, "faint"), Series("smoothed", smoothed(loss))]),
        line_chart("PSNR of held-out views, dB", [Series("", _points(record.evals, "psnr"), dots=True)], unit="dB"),
        line_chart("PSNR over training time, minutes", [Series("", by_minute, dots=True)], unit="dB", across="minute"),
        line_chart("SSIM of held-out views", [Series("", _points(record.evals, "ssim"), "c", dots=True)]),
        line_chart("Splats", [Series("", _points(record.train, "splats"), "c")], zero=True),
        line_chart("Steps per second", [Series("", _points(record.train, "its_per_sec"), "b")], zero=True),
    ]
    return "".join(charts)


def _views(record: RunRecord) -> str:
    pictures = view_pictures(record)
    scores = {view["name"]: view for view in record.views}
    shown = [name for name in pictures if "render" in pictures[name]]
    measured = [name for name in shown if _is_number(scores.get(name, {}).get("psnr"))]
    measured.sort(key=lambda name: scores[name]["psnr"])
    worst = measured[:WORST_VIEWS]
    best = [name for name in reversed(measured[WORST_VIEWS:])][:BEST_VIEWS]
    unmeasured = [] if measured else shown[:WORST_VIEWS]
    groups = [("Worst", worst), ("Best", best), ("", unmeasured)]
    parts = []
    for title, names in groups:
        cards = "".join(_view_card(name, scores.get(name, {}), pictures[name]) for name in names)
        parts.append((f"<h3>{title}</h3>" if title and cards else "") + f'<div class="views">{cards}</div>')
    return "".join(parts) + _view_table(record)


def _view_card(name: str, score: Mapping[str, Any], files: Mapping[str, Path]) -> str:
    captions = {"render": "render", "truth": "photograph", "error": "error, black 0 to white 25 %"}
    cells, upright = [], False
    for kind, caption in captions.items():
        picture = thumbnail(files[kind]) if kind in files else None
        if picture:
            upright = upright or picture.upright
            cells.append(f'<div><img src="{picture.address}" alt="{caption} of {escape(name)}">{caption}</div>')
    texts = [_number(score.get("psnr"), "{:.2f} dB"), _number(score.get("ssim"), "SSIM {:.4f}")]
    texts.append(_number(score.get("lpips"), "LPIPS {:.4f}"))
    head = "".join(f"<span>{text}</span>" for text in texts if text)
    title = f"<header><b>{escape(name)}</b>{head}</header>"
    style = "card view upright" if upright else "card view"
    return f'<div class="{style}">{title}<div class="trio">{"".join(cells)}</div></div>'


def _view_table(record: RunRecord) -> str:
    if not record.views:
        return ""
    columns = ("psnr", "ssim", "psnr_8bit", "ssim_8bit", "lpips")
    columns = [column for column in columns if any(_is_number(view.get(column)) for view in record.views)]
    head = "<th>view</th>" + "".join(f'<th class="n">{c.replace("_", " ")}</th>' for c in columns)
    rows = []
    for view in sorted(record.views, key=lambda v: v["psnr"] if _is_number(v.get("psnr")) else math.inf):
        cells = "".join(f'<td class="n">{_number(view.get(c), "{:.4f}") or "–"}</td>' for c in columns)
        rows.append(f"<tr><td>{escape(str(view['name']))}</td>{cells}</tr>")
    return f"<details><summary>All {len(rows)} views</summary>{_table(head, rows)}</details>"


def _time(record: RunRecord) -> str:
    totals = record.stage_totals()
    measured = sum(totals.values())
    if not measured:
        return ""
    elapsed = record.value("elapsed_secs") or 0.0
    parts = [*totals.items(), ("evaluation, files, other", max(elapsed - measured, 0.0))]
    return share_bar([part for part in parts if part[1] > 0])


def _densification(record: RunRecord) -> str:
    if not record.refine:
        return ""
    lines = [(r["step"], str(r.get("reason") or "?"), int(r.get("added") or 0), int(r.get("removed") or 0))
             for r in record.refine]  # fmt: skip
    sums: dict[str, list[int]] = {}
    for line in record.refine:
        total = sums.setdefault(str(line.get("reason") or "?"), [0, 0, 0])
        for i, amount in enumerate((1, int(line.get("added") or 0), int(line.get("removed") or 0))):
            total[i] += amount
    head = '<th>reason</th><th class="n">times</th><th class="n">added</th><th class="n">removed</th>'
    rows = [
        f"<tr><td>{escape(reason)}</td>" + "".join(f'<td class="n">{n:,}</td>' for n in counts) + "</tr>"
        for reason, counts in sorted(sums.items())
    ]
    chart = change_chart("Splats added (up) and removed (down)", lines)
    return f'<div class="two">{chart}{_table(head, rows)}</div>{_densification_log(record)}'


def _densification_log(record: RunRecord) -> str:
    columns = ("step", "added", "removed", "splats")
    head = "".join(f'<th class="n">{column}</th>' for column in columns) + "<th>reason</th>"
    head += '<th title="median of the places, and the size of the box that holds all but 2 %">added around</th>'
    head += "<th>removed around</th>"
    rows = []
    for line in record.refine[-MAX_LOG_ROWS:]:
        cells = "".join(f'<td class="n">{_number(line.get(column), "{:,}") or "–"}</td>' for column in columns)
        words = (str(line.get("reason", "")), _place(line.get("added_at")), _place(line.get("removed_at")))
        rows.append(f"<tr>{cells}{''.join(f'<td>{escape(word)}</td>' for word in words)}</tr>")
    left = len(record.refine) - len(rows)
    note = f'<p class="note">The first {left} edits are left out here; metrics.jsonl has them.</p>' if left else ""
    return f"<details><summary>Every edit ({len(record.refine)})</summary>{_table(head, rows)}{note}</details>"


def _place(place: Any) -> str:
    """Median and size of a box, world units: ``0.1 -2 3 (1 x 2 x 0.5)``."""
    corners = [_mapping(place).get(name) for name in ("median", "low", "high")]
    if not all(isinstance(c, list) and len(c) == 3 and all(map(_is_number, c)) for c in corners):
        return ""
    median, low, high = corners
    sides = " x ".join(f"{b - a:.3g}" for a, b in zip(low, high, strict=True))
    return f"{' '.join(f'{x:.3g}' for x in median)} ({sides})"


def _export(record: RunRecord) -> str:
    """What the PLY lost, where plain Gaussians cannot draw the same picture."""
    loss = record.export
    if not loss:
        return ""
    between = _number(loss.get("psnr"), "{:.2f} dB") or "–"
    where = f"{_number(loss.get('views'), '{:,.0f}') or '–'} {loss.get('source', 'views')}"
    told = f"{loss.get('what', '')} in the PLY. PSNR between its pictures and the model's: {between} ({where})."
    rows = []
    for name, key in (("model as trained", "model"), ("PLY", "gaussians")):
        scores = _number(loss.get(f"psnr_{key}"), "{:.2f} dB"), _number(loss.get(f"ssim_{key}"), "{:.4f}")
        if all(scores):
            cells = "".join(f'<td class="n">{score}</td>' for score in scores)
            rows.append(f"<tr><td>{name}</td>{cells}</tr>")
    head = '<th>against the photographs</th><th class="n">PSNR</th><th class="n">SSIM</th>'
    return f'<p class="note">{escape(told)}</p>' + (_table(head, rows) if rows else "")


def _configuration(record: RunRecord, defaults: Mapping[str, Any] | None) -> str:
    settings = flat(record.config)
    if not settings:
        return ""
    usual = flat(dict(defaults or {}))
    noted = record.start.get("changed") or ()  # names, or name -> default
    changed = {key for key, value in settings.items() if (usual and usual.get(key) != value) or key in noted}
    if isinstance(noted, Mapping):
        usual = {**usual, **noted}
    known = bool(usual) or bool(noted)
    head = f"<th>setting</th><th>value</th>{'<th>default</th>' if known else ''}"

    def row(key: str) -> str:
        was = f'<td class="was">{escape(_setting(usual.get(key)))}</td>' if known else ""
        style = ' class="changed"' if key in changed else ""
        return f"<tr{style}><td>{escape(key)}</td><td>{escape(_setting(settings[key]))}</td>{was}</tr>"

    first = _table(head, [row(key) for key in settings if key in changed]) if changed else ""
    if known and not changed:
        first = '<p class="note">Every setting is at its default.</p>'
    rest = [row(key) for key in settings if key not in changed]
    count = f"{len(rest)} setting{'' if len(rest) == 1 else 's'}"
    title = f"{count} at the default" if known else f"All {count}"
    return first + (f"<details><summary>{title}</summary>{_table(head, rest)}</details>" if rest else "")


def _protocol(record: RunRecord) -> str:
    facts = {**_mapping(record.start.get("protocol")), **record.protocol}
    rows = [f"<tr><td>{escape(str(k))}</td><td>{escape(_setting(v))}</td></tr>" for k, v in sorted(facts.items())]
    return _table("<th>how the numbers were made</th><th></th>", rows) if rows else ""


def _files(record: RunRecord) -> str:
    folder = record.folder
    patterns = ["model.*", "point_cloud/*/*.ply", "checkpoints/*", "cameras.json", "metrics.jsonl"]
    paths = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]
    rows = []
    for path in paths[:40]:
        name, size = path.relative_to(folder).as_posix(), path.stat().st_size / 1e6
        rows.append(f'<tr><td>{escape(name)}</td><td class="n">{size:,.2f} MB</td></tr>')
    return _table('<th>file</th><th class="n">size</th>', rows) if rows else ""


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""


def _table(head: str, rows: list[str]) -> str:
    return f'<div class="card scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _points(lines: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(line["step"], line[name]) for line in lines if _is_number(line.get(name))]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _both(line: Mapping[str, Any], *names: str) -> bool:
    return all(_is_number(line.get(name)) for name in names)


def _number(value: Any, pattern: str) -> str | None:
    return pattern.format(value) if _is_number(value) else None


def _setting(value: Any) -> str:
    if value is None:
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
