"""Columns, summaries and the Markdown tables of ``bench_compression.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench_densifiers_tables import cell, number, signed

from splat.report.charts import duration

Results = Mapping[str, Any]
Row = Mapping[str, Any]
Column = tuple[str, str, Callable[[Any], str]]
"""Key, title, format."""


def _drop(value: float) -> str:
    return signed(-value)


COLUMNS: tuple[Column, ...] = (
    ("mb", "MB", "{:.3f}".format), ("times_smaller", "x smaller", "{:.1f}".format),
    ("bits_per_splat", "bits/splat", "{:.1f}".format), ("splats", "splats", "{:,}".format),
    ("psnr", "PSNR", "{:.2f}".format), ("drop", "against base", _drop), ("ssim", "SSIM", "{:.4f}".format),
    ("encode_secs", "encode s", "{:.2f}".format), ("decode_secs", "decode s", "{:.2f}".format),
    ("train_secs", "trained in", duration),
)  # fmt: skip
SMALLEST: tuple[Column, ...] = (
    ("mb", "MB", "{:.3f}".format), ("times_smaller", "x smaller", "{:.1f}".format),
    ("bytes_per_base_splat", "MB per million splats of the base", "{:.1f}".format),
    ("drop", "against base", _drop), ("ssim", "SSIM", "{:.4f}".format),
)  # fmt: skip
MASK_COLUMNS: tuple[Column, ...] = (
    ("splats", "splats", "{:,}".format), ("removed", "removed", "{:.1%}".format), ("psnr", "PSNR", "{:.2f}".format),
    ("drop", "against base", _drop), ("ssim", "SSIM", "{:.4f}".format), ("train_secs", "trained in", duration),
)  # fmt: skip
SORT_COLUMNS: tuple[Column, ...] = (
    ("psnr", "PSNR", "{:.2f}".format), ("splats", "splats", "{:,}".format),
    ("near", "to neighbours", "{:.3f}".format), ("turns", "of rotations", "{:.3f}".format),
    ("sort_secs", "sort s", "{:.2f}".format), ("bytes_per_splat", "bytes/splat", "{:.2f}".format),
)  # fmt: skip
TITLES = {
    "formats": "Formats", "splat-transform": "The same PLY through splat-transform", "after": "Compressed afterwards",
    "training": "Compressed while training",
}  # fmt: skip
SORT_NAMES = {
    "means": "places", "quats": "rotations", "log_scales": "sizes", "logit_opacities": "opacities", "sh0": "colour",
    "sh_rest": "SH", "vertices": "vertices",
}  # fmt: skip


def tables(results: Results) -> list[tuple[str, list[Row]]]:
    """Title and rows of every group that has any, in the order of ``TITLES``."""
    found = [(title, [row for row in results["rows"] if row["group"] == group]) for group, title in TITLES.items()]
    return [(title, rows) for title, rows in found if rows]


def smallest(results: Results) -> list[Row]:
    """Of each family, the smallest file that loses no more than the limit; smallest first."""
    best: dict[str, Row] = {}
    for row in results["rows"]:
        fits = row["status"] == "ok" and number(row.get("drop")) and row["drop"] <= results["settings"]["drop_limit"]
        if fits and row["mb"] < best.get(family_of(row), {"mb": float("inf")})["mb"]:
            best[family_of(row)] = row
    return sorted(best.values(), key=lambda row: row["mb"])


def family_of(row: Row) -> str:
    """What competes as one: a compressor in training is not the same as afterwards."""
    when = {"after": ", afterwards", "training": ", in training"}
    return f"{row['family']}{when.get(row['group'], '')}"


def smallest_title(results: Results) -> str:
    return f"Smallest that loses at most {results['settings']['drop_limit']:g} dB"


def sort_columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    """The measures, then bytes per splat of each attribute that is there."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row.get("bytes", ()))]
    return (*SORT_COLUMNS, *((f"bytes.{name}", SORT_NAMES.get(name, name), "{:.2f}".format) for name in names))


def value_of(row: Row, key: str) -> Any:
    """``bytes.NAME`` is that attribute's bytes per splat."""
    group, _, name = key.partition(".")
    if not name:
        return row.get(key)
    return row[group][name] / max(row["splats"], 1) if name in row.get(group, ()) else None


def shown(row: Row, column: Column) -> str:
    value = value_of(row, column[0])
    return column[2](value) if number(value) else "–"


def markdown(captures: Sequence[Results]) -> str:
    """Tables for README.md."""
    parts = [_main_table(captures)]
    found = [(results, row) for results in captures for row in smallest(results)]
    if found:
        limits = sorted({smallest_title(results) for results, _ in found})
        lines = [(results["capture"], family_of(row), row["method"], row) for results, row in found]
        parts.append(_table(("capture", " / ".join(limits), "method"), SMALLEST, lines))
    masks = [(results["capture"], row["label"], row) for results in captures for row in results.get("masks", ())]
    if masks:
        parts.append(_table(("capture", "masks"), MASK_COLUMNS, masks))
    sorting = [(r["capture"], row["model"], row["order"], row) for r in captures for row in r.get("sorting", ())]
    if sorting:
        parts.append(_table(("capture", "model", "order"), sort_columns([line[-1] for line in sorting]), sorting))
    return "\n".join(parts)


def _main_table(captures: Sequence[Results]) -> str:
    lines: list[tuple[Any, ...]] = []
    for results in captures:
        if results.get("base"):
            lines.append((results["capture"], "base", "as trained", {**results["base"], "status": "ok"}))
        for title, rows in tables(results):
            lines += [(results["capture"], title.lower(), row["method"], row) for row in rows]
    return _table(("capture", "", "method"), COLUMNS, lines)


def _table(heads: Sequence[str], columns: Sequence[Column], lines: Sequence[tuple[Any, ...]]) -> str:
    """Each line: the cells under ``heads``, then the row."""
    titles = [*heads, *(title for _, title, _ in columns)]
    text = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for *names, row in lines:
        head = f"| {' | '.join(cell(name) for name in names)} | "
        if row.get("status", "ok") != "ok":
            text.append(head + f"{row['status']}: {cell(row['reason'])} |" + " |" * (len(columns) - 1))
        else:
            text.append(head + " | ".join(shown(row, column) for column in columns) + " |")
    return "\n".join(text) + "\n"
