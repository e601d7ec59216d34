"""The tables, the plot and the page of ``scripts/bench_compression.py``."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import bench_compression_chart as charts
import bench_compression_page as pages
import bench_compression_tables as tables


def _row(group: str, method: str, mb: float, drop: float, family: str | None = None, **changes) -> dict:
    row = {"group": group, "method": method, "family": family or method, "status": "ok", "reason": "", "mb": mb,
           "splats": 1000, "psnr": 20 - drop, "ssim": 0.5, "drop": drop, "times_smaller": 10 / mb,
           "bits_per_splat": 8.0, "bytes_per_base_splat": mb, "encode_secs": 0.1, "decode_secs": 0.2}  # fmt: skip
    return row | changes


def _results(name: str = "desk & chair") -> dict:
    failed = {"status": "failed", "reason": "no <such> thing | here", "psnr": None, "drop": None}
    rows = [
        _row("formats", "ply", 10, 0.0, "formats"), _row("formats", "spz", 1.2, 0.1, "formats"),
        _row("formats", "splat", 1.0, 5.0, "formats"), _row("splat-transform", "splat-transform sog", 0.9, 0.15),
        _row("splat-transform", "splat-transform spz", 1, 0, status="skipped", reason="no node"),
        _row("after", "rvq, as it is", 0.8, 0.3, "rvq", steps=0, notes="missed its goal"),
        *(_row("after", f"both, {mb} MB", mb, 0.5 - mb, "both", steps=9, goal="size") for mb in (0.3, 0.4, 0.5)),
        _row("training", "rvq", 0.7, 0.2, "rvq", train_secs=90.0),
        _row("training", "grid", 0.7, 0.2, "grid") | failed,
    ]  # fmt: skip
    masks = [
        {"label": "no masks", "status": "ok", "splats": 900, "psnr": 20.0, "removed": 0.0, "drop": 0.0},
        {"label": "weight 0.0005", "status": "ok", "splats": 600, "psnr": 19.9, "removed": 1 / 3, "drop": 0.1},
    ]
    orders = [{"model": "base", "order": "random", "status": "ok", "splats": 100, "near": 1.0, "turns": 1.0,
               "bytes": {"means": 500, "odd": 70}, "bytes_per_splat": 5.7, "psnr": 20.0, "sort_secs": 0.1}]  # fmt: skip
    settings = {"preset": "cpu", "steps": 600, "max_splats": 1000, "densifier": "budget", "seed": 0, "fine_tune": [0],
                "methods": [], "drop_limit": 0.2, "flags": ["-r", "2"], "given": False, "flags_of": {}}  # fmt: skip
    base = {"splats": 1000, "mb": 10.0, "psnr": 20.0, "ssim": 0.5, "times_smaller": 1.0, "drop": 0.0}
    return {"capture": name, "machine": "a machine", "views": 2, "views_train": 9, "sizes": "8x8", "load": 3.0,
            "base": base, "settings": settings, "rows": rows, "masks": masks, "sorting": orders,
            "notes": ["something <is> off"], "protocol": {}}  # fmt: skip


def test_the_smallest_within_the_limit_of_each_family() -> None:
    found = [(tables.family_of(row), row["mb"]) for row in tables.smallest(_results())]
    assert found == [
        ("both, afterwards", 0.3), ("rvq, in training", 0.7), ("splat-transform sog", 0.9), ("formats", 1.2),
    ]  # fmt: skip


def test_every_line_of_a_table_has_every_column() -> None:
    text = tables.markdown([_results(), _results("fox")])
    parts = text.split("\n\n")
    assert len(parts) == 4
    for part in parts:
        assert len({line.replace("\\|", "").count("|") for line in part.splitlines()}) == 1
    assert "| desk & chair | base | as trained | 10.000 | 1.0 | – | 1,000 | 20.00 | +0.00 |" in text
    assert "| fox | compressed while training | rvq | 0.700 | 14.3 | 8.0 | 1,000 | 19.80 | -0.20 |" in text
    assert "1 min 30 s |" in text and "failed: no <such> thing \\| here |" in text and "skipped: no node |" in text
    assert "| fox | weight 0.0005 | 600 | 33.3% | 19.90 | -0.10 |" in text
    assert "places | odd |" in text and "| 5.70 | 5.00 | 0.70 |" in text


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.seen: list[tuple[str, dict]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "img")
        assert not [value for name, value in attrs if name in ("src", "href", "srcset")]
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_in_itself() -> None:
    reader, document = _Reader(), pages.page([_results()])
    reader.feed(document)
    text = " ".join(reader.text)
    assert reader.open == [] and "url(" not in document and "@import" not in document
    for said in ("desk & chair", "failed: no <such> thing | here", "something <is> off", "skipped: no node",
                 "missed its goal", "Masks alone", "What an order is worth", "Smallest that loses at most 0.2 dB",
                 "load of the machine", "base: 1,000 splats, 10.00 MB as PLY, 20.00 dB"):  # fmt: skip
        assert said in text
    marks = [(tag, attrs["class"]) for tag, attrs in reader.seen if "fill" in attrs.get("class", "") or "hollow" in
             attrs.get("class", "")]  # fmt: skip
    assert [tag for tag, _ in marks].count("rect") == 1  # in training, and it did not fail
    assert len(marks) == 9 + 1 and [style.split()[0] for _, style in marks].count("hollow") == 1
    assert [attrs["class"] for tag, attrs in reader.seen if tag == "polyline"] == [
        f"path edge s{pages.hues_of(_results())['both']}"
    ]
    empty = _results() | {"rows": [], "base": None, "masks": [], "sorting": []}
    again = _Reader()
    again.feed(pages.page([empty]))
    assert again.open == [] and not [tag for tag, _ in again.seen if tag == "svg"]


def test_the_plot_puts_points_where_they_belong() -> None:
    base = charts.Point("PLY", 10.0, 20.0, "base")
    points = [charts.Point(f"a rather long name {i}", 1.0, 19.9 + i / 1000, "x") for i in range(30)]
    drawn = charts.scatter("t", [*points, charts.Point("small", 0.1, 19.8, "x")], {"x": 0}, base=base)
    spots = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    ply, near, small = spots[-1], spots[0], spots[-2]
    assert ply[0] - near[0] == pytest.approx(near[0] - small[0], abs=0.2)  # ten times each
    assert ply[1] < near[1] < small[1]
    names = re.findall(r'<text class="mark"[^>]*>([^<]*)<', drawn)
    assert {"PLY", "small"} <= set(names) and len(names) < 20  # where there is no room, there is no label
    assert drawn.count("<title>a rather long name") == 30
    assert drawn.count('class="guide"') == 2
    assert charts.scatter("t", [], {}) == "" and charts.scatter("t", points[:1], {"x": 0})
