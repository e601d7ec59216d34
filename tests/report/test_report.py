"""The report: complete in itself, well-formed, honest about what a run does not have yet."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from synthetic_run import make_run, metrics_lines

from splat.errors import UserError
from splat.report.charts import (
    Series,
    change_chart,
    duration,
    line_chart,
    nice_ticks,
    share_bar,
    short_number,
    smoothed,
)
from splat.report.html import write_report
from splat.report.run_folder import read_run

DEFAULTS = {"steps": 30000, "preset": "cpu", "optim": {"ssim_weight": 0.2, "sh_degree": 3}}


class Page(HTMLParser):
    """Checks that every element is closed in order; keeps texts and addresses."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def report(folder, **options):
    html = write_report(folder, **options).read_text(encoding="utf-8")
    return html, Page(html)


def test_a_finished_run_shows_everything(tmp_path):
    html, page = report(make_run(tmp_path / "garden" / "first"), defaults=DEFAULTS)
    for part in (
        "27.50 dB", "0.8500", "27,200", "3,000", "2 min 42 s", "finished", "native", "seed 7",
        "35 train + 5 test views", "PSNR of held-out views", "Training loss",
        "Steps per second", "backward", "evaluation, files, other",
        "Splats added (up) and removed (down)", "0.125 0 2.1 (2 x 1 x 0.25)",
        "split", "prune", "images_4", "every 8th", "model.safetensors", "2.50 MB",
    ):  # fmt: skip
        assert part in page.text, part
    assert page.tags.count("img") == 18 and page.tags.count("svg") == 8
    worst, best = page.text.index("Worst"), page.text.index("Best")
    assert worst < page.text.index("left/view_0.jpg") < best < page.text.index("left/view_6.jpg")
    assert len(html) < 3_000_000


LOSS = {
    "kind": "export", "step": 3000, "what": "gef splats are <approximated>", "views": 5, "source": "held-out views",
    "psnr": 31.234, "psnr_model": 27.5, "psnr_gaussians": 26.25, "ssim_model": 0.85, "ssim_gaussians": 0.8125,
}  # fmt: skip


def test_what_the_ply_lost_is_shown_and_does_not_hide_the_end(tmp_path):
    folder = make_run(tmp_path / "r")
    assert "Export as plain Gaussians" not in report(folder)[1].text
    with open(folder / "metrics.jsonl", "a") as stream:
        stream.write(json.dumps(LOSS | {"step": 2000, "psnr": 77.0}) + "\n" + json.dumps(LOSS) + "\n")
    html, page = report(folder)
    for part in ("finished", "gef splats are <approximated> in the PLY", "31.23 dB (5 held-out views)",
                 "model as trained 27.50 dB 0.8500", "PLY 26.25 dB 0.8125"):  # fmt: skip
        assert part in page.text, part
    assert "<approximated>" not in html and "77.00 dB" not in page.text
    assert read_run(folder).finish["reason"] == "done"


def test_a_packed_file_after_the_end_does_not_make_a_run_unfinished(tmp_path):
    folder = make_run(tmp_path / "r")
    ended = read_run(folder).finish
    with open(folder / "metrics.jsonl", "a") as stream:
        stream.write(json.dumps({"kind": "pack", "step": 3000, "compressor": "rvq", "size_bytes": 1}) + "\n")
    assert ended and read_run(folder).finish == ended


def test_an_export_measured_without_photographs_or_half_told(tmp_path):
    folder = make_run(tmp_path / "r", finished=False)
    for line in ({name: LOSS[name] for name in ("kind", "step", "what", "views", "source", "psnr")},
                 {"kind": "export", "step": 2999, "psnr": None}):  # fmt: skip
        text = "".join(json.dumps(each) + "\n" for each in [*metrics_lines(finished=False), line])
        (folder / "metrics.jsonl").write_text(text)
        _, page = report(folder)
        assert "Export as plain Gaussians" in page.text and "not finished" in page.text
        assert "against the photographs" not in page.text


def test_it_needs_no_network_and_no_script(tmp_path):
    html, page = report(make_run(tmp_path / "r"))
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|<link", re.sub(r"base64,[^\"]*", "", html))


def test_names_from_outside_are_escaped(tmp_path):
    html, page = report(make_run(tmp_path / "r"))
    assert "garden<b>" not in html and "garden<b> / r" in page.text


def test_differences_from_the_defaults_come_first(tmp_path):
    _, page = report(make_run(tmp_path / "r"), defaults=DEFAULTS)
    text = page.text[page.text.index("Configuration") :]
    assert text.index("steps 3000 30000") < text.index("optim.sh_degree 2 3") < text.index("2 settings at the default")
    assert text.index("2 settings at the default") < text.index("optim.ssim_weight")
    _, page = report(make_run(tmp_path / "s"))
    assert "All 4 settings" in page.text


def test_changes_may_be_told_by_the_run_itself(tmp_path):
    folder = make_run(tmp_path / "r")
    lines = metrics_lines()
    lines[0]["changed"] = {"optim.sh_degree": 3}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, page = report(folder)
    assert "optim.sh_degree 2 3" in page.text and "3 settings at the default" in page.text


def test_a_run_without_evaluation_or_end(tmp_path):
    _, page = report(make_run(tmp_path / "r", evals=False, finished=False))
    assert "not finished" in page.text and "not measured yet" in page.text and "dB" not in page.text
    assert "img" not in page.tags and "27,200" in page.text


@pytest.mark.parametrize("lines", [0, 1, 2])
def test_a_run_that_only_just_began(tmp_path, lines):
    folder = make_run(tmp_path / "r", evals=False)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics_lines()[:lines]))
    _, page = report(folder)
    assert "not finished" in page.text and "Configuration" in page.text


def test_torn_and_repeated_lines(tmp_path):
    folder = make_run(tmp_path / "r")
    lines = metrics_lines(finished=False)
    again = [line | {"loss": 9.0} for line in lines if line["kind"] == "train" and line["step"] == 2950]
    text = "".join(json.dumps(line) + "\n" for line in [*lines, lines[0], *again])
    (folder / "metrics.jsonl").write_text(text + '{"kind": "train", "step": 30\n[1]\n{"kind": "train"}\n')
    record = read_run(folder)
    assert record.resumed == 1 and record.finish is None
    assert len(record.train) == 60 and [line["loss"] for line in record.train if line["step"] == 2950] == [9.0]
    _, page = report(folder)
    assert "taken up again 1 time" in page.text


def test_missing_pictures_and_broken_files_cost_only_themselves(tmp_path):
    folder = make_run(tmp_path / "r")
    (folder / "renders/step_3000/left__view_0_render.png").write_bytes(b"no picture")
    (folder / "renders/step_3000/left__view_1_error.png").unlink()
    (folder / "config.toml").write_text("= broken")
    _, page = report(folder)
    assert page.tags.count("img") == 16
    (folder / "per_view.json").write_text("[")
    _, page = report(folder)
    assert page.tags.count("img") == 10  # pictures without scores: the first four, less what is broken


def test_stage_times_are_means_per_step(tmp_path):
    totals = read_run(make_run(tmp_path / "r")).stage_totals()
    assert totals["render"] == pytest.approx(3000 * 0.016) and totals["load"] == pytest.approx(3000 * 0.002)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        write_report(tmp_path)
    with pytest.raises(UserError, match="no such run folder"):
        write_report(tmp_path / "absent")


def test_ticks_are_round_and_enclose():
    assert nice_ticks(0, 3000, 5) == [0, 1000, 2000, 3000]
    assert nice_ticks(21.3, 27.6, 4) == [20, 22, 24, 26, 28]
    for low, high in ((0, 0), (5, 5), (-3, 1e-9), (1e-7, 2e-7), (-1e9, 3)):
        ticks = nice_ticks(low, high, 4)
        slack = 1e-6 * (high - low)
        assert ticks[0] <= low + slack and ticks[-1] >= high - slack and 2 <= len(ticks) <= 8


def test_charts_of_odd_data():
    assert line_chart("t", []) == line_chart("t", [Series("a", [(1, float("nan"))])]) == ""
    assert share_bar([("a", 0.0)]) == "" and change_chart("t", [(1, "reset", 0, 0)]) == ""
    assert line_chart("t", [Series("a", [(5, 2.0)])]).count("<circle") == 1
    many = line_chart("t", [Series("a", [(i, i % 7) for i in range(100_000)])])
    assert len(many) < 20_000
    Page(line_chart("<t>", [Series("<a>", [(0, 1e9), (1, -1e-9)], dots=True)], unit="<u>"))


def test_changes_are_stacked_by_reason():
    edits = [(100, "clone", 30, 0), (100, "split", 10, 0), (100, "prune", 0, 20), (200, "clone", 5, 0),
             (200, "<odd>", 5, 5), (300, "reset", 0, 0)]  # fmt: skip
    chart = change_chart("t", edits)
    bars = re.findall(r'<rect class="(s\d)" x="([\d.]+)" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"><title>([^<]+)',
                      chart)  # fmt: skip
    assert [bar[4] for bar in bars] == [
        "step 100: clone +30", "step 100: split +10", "step 100: prune -20", "step 200: &lt;odd&gt; +5",
        "step 200: clone +5", "step 200: &lt;odd&gt; -5",
    ]  # fmt: skip
    style, x, y, height = zip(*[(s, *map(float, rest)) for s, *rest, _ in bars], strict=True)
    assert style[0] == style[4] != style[1] and x[0] == x[1] == x[2] < x[3]
    assert height[0] == pytest.approx(3 * height[1], abs=0.2) and y[1] + height[1] == pytest.approx(y[0], abs=0.11)
    assert y[2] == pytest.approx(y[0] + height[0], abs=0.11)  # what is removed hangs from the zero line
    assert re.findall(r'class="key (s\d)">([^<]+)', chart) == [
        ("s0", "&lt;odd&gt;"), ("s1", "clone"), ("s2", "prune"), ("s3", "split")
    ]  # fmt: skip
    Page(chart)


@pytest.mark.parametrize("place", [None, 3, {"low": [1, 2, 3]}, {"low": [1], "high": [2], "median": [1]},
                                   {"low": [None] * 3, "high": [1] * 3, "median": [0] * 3}])  # fmt: skip
def test_a_place_half_told_is_left_out(tmp_path, place):
    folder = make_run(tmp_path / "r")
    line = {"kind": "refine", "step": 3100, "reason": "odd", "added": 1, "removed": 0, "splats": 5, "added_at": place}
    with open(folder / "metrics.jsonl", "a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
    assert "odd" in report(folder)[1].text


def test_the_reason_of_an_early_end_is_told(tmp_path):
    folder = make_run(tmp_path / "r", finished=False)
    with open(folder / "metrics.jsonl", "a", encoding="utf-8") as stream:
        stream.write(json.dumps({"kind": "finish", "step": 3000, "reason": "target", "splats": 5}) + "\n")
    assert "target PSNR reached" in report(folder)[1].text


def test_numbers_as_people_read_them():
    assert [short_number(v) for v in (0, 950, 1234, 2_500_000, 0.00012)] == ["0", "950", "1.234k", "2.5M", "0.00012"]
    assert [duration(v) for v in (0.25, 59.9, 725, 12_000)] == ["0.2 s", "59.9 s", "12 min 05 s", "3 h 20 min"]
    assert smoothed([(0, 0), (1, 3), (2, 0), (3, 3)], 3) == [(0, 0), (1, 1.0), (2, 2.0), (3, 3)]
