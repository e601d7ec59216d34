import io
import json
import math
from types import SimpleNamespace

import pytest
from helpers_train import make_trainer

from splat.errors import UserError
from splat.train.progress import ProgressSink, clock
from splat.train.sinks import ExportSink, MetricsSink, drop_metrics_after
from splat.train.trainer import drive

EVALUATION = SimpleNamespace(
    psnr=20.0, ssim=0.5, psnr_8bit=19.9, ssim_8bit=math.nan, lpips=None, protocol={"split": "every 8th"}
)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_metrics_tell_the_whole_run_in_order(tmp_path):
    sink = MetricsSink(tmp_path, {"scene": "tiny", "seed": 3}, every=5)
    drive(make_trainer(eval_at=frozenset({5}), evaluate=lambda state: EVALUATION), [sink])
    told = lines(tmp_path)
    order = [(line["kind"], line["step"]) for line in told if line["kind"] != "refine"]
    assert order == [("start", 0), ("train", 1), ("train", 5), ("eval", 5), ("train", 10), ("train", 12), ("eval", 12),
                     ("finish", 12)]  # fmt: skip
    assert told[0] == {"kind": "start", "step": 0, "splats": 12, "scene": "tiny", "seed": 3}
    train = next(line for line in told if line["kind"] == "train" and line["step"] == 10)
    assert set(train["stage_secs"]) == {"load", "render", "loss", "backward", "optimizer", "refine"}
    assert train["its_per_sec"] > 0 and 0 < train["loss"] < 1 and train["lr_means"] > 0
    evaluation = next(line for line in told if line["kind"] == "eval")
    assert {"step", "psnr", "ssim", "splats", "elapsed_secs", "protocol"} <= set(evaluation)
    assert evaluation["ssim_8bit"] is None and evaluation["lpips"] is None
    refine = [line for line in told if line["kind"] == "refine"]
    added_at, removed_at = refine[0].pop("added_at"), refine[1].pop("removed_at")
    assert refine[0] == {"kind": "refine", "step": 3, "reason": "clone", "added": 2, "removed": 0, "splats": 14}
    assert refine[1] == {"kind": "refine", "step": 3, "reason": "prune", "added": 0, "removed": 1, "splats": 13}
    for place in (added_at, removed_at):
        assert all(len(place[name]) == 3 for name in ("low", "high", "median"))
        assert all(a <= b <= c for a, b, c in zip(place["low"], place["median"], place["high"], strict=True))


def test_dropping_lines_of_lost_steps_and_a_torn_last_line(tmp_path):
    drive(make_trainer(), [MetricsSink(tmp_path, {}, every=1)])
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"kind": "train", "st')
    kept = drop_metrics_after(tmp_path, 7)
    assert kept > 0
    assert [line["step"] for line in lines(tmp_path) if line["kind"] == "train"] == list(range(1, 8))
    assert all(line["kind"] != "finish" for line in lines(tmp_path))
    assert drop_metrics_after(tmp_path, 7) == 0


def test_dropping_from_a_run_without_metrics_is_nothing(tmp_path):
    assert drop_metrics_after(tmp_path, 3) == 0
    assert list(tmp_path.iterdir()) == []


def test_metrics_that_cannot_be_written_are_a_user_error(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        drive(make_trainer(), [MetricsSink(tmp_path, {})])


def test_exports_at_the_steps_asked_for_and_once_at_the_end():
    exported = []
    drive(make_trainer(), [ExportSink(lambda state: exported.append(state.step), frozenset({4, 12}))])
    assert exported == [4, 12]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_quiet_when_piped():
    stream = io.StringIO()
    drive(make_trainer(evaluate=lambda state: EVALUATION), [ProgressSink(stream, test_views=2)])
    told = stream.getvalue()
    assert "\r" not in told and len(told.splitlines()) == 2
    assert "PSNR 20.00" in told and "over 2 held-out views" in told and "step 12/12  done, 16 splats" in told


def test_progress_rewrites_one_line_on_a_terminal(monkeypatch):
    monkeypatch.setattr("splat.train.progress.REFRESH_SECS", 0.0)
    monkeypatch.setenv("COLUMNS", "79")
    stream = Terminal()
    drive(make_trainer(eval_at=frozenset({6}), evaluate=lambda state: EVALUATION), [ProgressSink(stream)])
    told = stream.getvalue()
    live = [part for part in told.split("\r") if "it/s" in part]
    assert len(live) == 12
    assert all(word in live[-1] for word in ("step 12/12 (100%)", "ETA", "16 splats", "PSNR 20.00", "GiB"))
    assert told.count("\n") == 3 and max(map(len, live)) < 79


@pytest.mark.parametrize(("secs", "text"), [(0, "0:00"), (61, "1:01"), (3599.9, "59:59"), (3661, "1:01:01")])
def test_clock(secs, text):
    assert clock(secs) == text
