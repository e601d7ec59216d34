"""``scripts/bench_viewer.py``: its page without a browser gets pictures, and what it says of them is true."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "viewer"))

pytest.importorskip("viser")

import bench_viewer as bench
import bench_viewer_client as client
import bench_viewer_drag as drag
import bench_viewer_load as load
import bench_viewer_table as table
import serving

from splat.errors import UserError
from splat.geometry.rotations import matrix_from_quat
from splat.scene.video_writer import encode_jpeg
from splat.viewer.serving.pace import QUALITY_MOVING, QUALITY_STILL


def test_the_page_without_a_browser_gets_pictures() -> None:
    with serving.serve(serving.ball(200)) as served:
        told = bench.heard(served.url, "orbit", 1.0, "160x120")
    assert told["frames_per_sec"] > 0 and told["width"] is not None and told["kbytes_per_frame"] > 0.3


def test_pictures_made_while_moving_are_told_from_sharp_ones() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    assert client.jpeg_facts(encode_jpeg(noise, quality=QUALITY_MOVING)) == (64, True)
    assert client.jpeg_facts(encode_jpeg(noise, quality=QUALITY_STILL)) == (64, False)
    assert client.jpeg_facts(b"\xff\xd8") == (0, False)


@pytest.mark.parametrize("eye", [(0, 0, -3), (0, 0, 3), (3, -1, 0), (-2, -2, 1), (0.1, -3, 0)])
def test_the_camera_looks_at_the_point(eye) -> None:
    wxyz = client.facing(list(map(float, eye)), [0.0, 0.0, 0.0], [0.0, -1.0, 0.0])
    turn = matrix_from_quat(torch.tensor(wxyz, dtype=torch.float64)).numpy()
    assert np.linalg.norm(wxyz) == pytest.approx(1)
    np.testing.assert_allclose(turn[:, 2], -np.array(eye) / np.linalg.norm(eye), atol=1e-9)
    assert turn[1, 1] > 0 or abs(eye[1]) > 2.9  # upright: y of the picture points down
    np.testing.assert_allclose(client.turned([1.0, 0, 0], [0.0, 0, 1], np.pi / 2), [0, 1, 0], atol=1e-12)


class Clock:
    """Time that passes only in ``sleep``, and a training in it that tells its step now and then."""

    def __init__(self, steps_per_sec: float, tick_secs: float) -> None:
        self.now, self.rate, self.tick = 100.03, steps_per_sec, tick_secs
        self.news = self

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, secs: float) -> None:
        self.now += secs

    @property
    def status(self) -> SimpleNamespace:
        told_at = self.now // self.tick * self.tick
        return SimpleNamespace(step=int(told_at * self.rate))


@pytest.mark.parametrize("secs", [1.0, 1.1, 1.2, 2.13])
def test_steps_are_counted_from_one_telling_to_another(monkeypatch, secs: float) -> None:
    clock = Clock(steps_per_sec=40, tick_secs=0.25)
    monkeypatch.setattr(bench, "time", clock)
    assert bench.steps_per_sec(clock, secs) == pytest.approx(40, rel=0.01)


def test_a_training_that_tells_nothing_is_an_error(monkeypatch) -> None:
    clock = Clock(steps_per_sec=0, tick_secs=0.25)
    monkeypatch.setattr(bench, "time", clock)
    with pytest.raises(UserError, match="no step"):
        bench.steps_per_sec(clock, 1.0)


def test_a_page_that_went_down_is_an_error() -> None:
    with pytest.raises(UserError, match="went down"):
        bench.told_by(SimpleNamespace(stdout=SimpleNamespace(readline=lambda: "")))


def test_the_table() -> None:
    spread = {"median": 10.0, "p10": 9.0, "p90": 12.0, "count": 8}
    result = {
        "cores": 2, "size": "640x480", "load": {"drag": 0.1, "training": 0.7},
        "training": {"rows": {"no viewer": {"steps_per_sec": 5.0, "ratio": 1.0}}},
        "opened": {"splats": 5, "first_ms": spread, "unanswered": 1, "orbit": {"frames_per_sec": 30.0, "width": 640}},
        "drag": {"10000": {"event_ms": {"median": 4.0}, "event_and_picture_ms": {"median": 9.0}, "begin_ms": 100.0}},
    }  # fmt: skip
    text = table.table(result)
    for part in ("no viewer", "5.00 steps/s", "first_ms", "90 % 12.0", "30.0 pictures/s", "1 movements had no answer",
                 "drag of  10,000", "4.0 ms", "drag 0.1, training 0.7"):  # fmt: skip
        assert part in text


def test_the_dragged_ball_has_its_selection_on_one_side() -> None:
    model, mask, labels = drag.bumpy_ball(400)
    assert (model.count, int(mask.sum()), labels.count) == (500, 400, 500)
    x = model.rows["means"][:, 0]
    assert x[mask].max() <= x[~mask].min()


def test_a_model_too_small_is_doubled_beside_itself(monkeypatch) -> None:
    small, large = serving.ball(100), serving.ball(300)
    files = {Path("small"): small, Path("large"): large}
    monkeypatch.setattr(drag, "read_model", lambda path: SimpleNamespace(model=files[path]))
    assert drag.model_to_drag(list(files)[::-1], 80) is small
    assert drag.model_to_drag(list(files), 200) is large
    assert drag.model_to_drag([], 80).count == 100
    thick = drag.model_to_drag(list(files), 400)
    assert thick.count == 500
    for name, table_ in large.rows.items():
        assert torch.equal(thick.rows[name][:300], table_)
        assert name == "means" or torch.equal(thick.rows[name][300:], table_[:200])
    away = ((thick.rows["means"][300:] - large.rows["means"][:200]).abs() / large.scales[:200]).flatten()
    assert 0 < float(away.median()) < 1 and bool((away < 5).all())


def test_processor_time_of_what_descends_from_a_process() -> None:
    def line(pid: int, name: str, parent: int, user: int, system: int) -> str:
        return f"{pid} ({name}) S {parent} 1 1 0 -1 4194560 1 2 3 4 {user} {system} 9 9 20 0"

    stats = [line(10, "bench", 1, 700, 0), line(11, "node", 10, 20, 5), line(12, "a) (b 3", 11, 100, 50),
             line(13, "other", 1, 999, 0), line(14, "below", 13, 999, 0)]  # fmt: skip
    assert load.below_secs(10, stats, 100) == pytest.approx(1.75)
    assert load.machine_secs("cpu  100 10 20 5000 30 1 2 3 0 0\ncpu0 1 2", 100) == pytest.approx(1.36)


def test_wrong_calls_are_told(capsys, tmp_path, monkeypatch) -> None:
    assert bench.main([str(tmp_path), "--only", "training", "--rounds", "1", "--secs", "1"]) == 2
    assert "bench_viewer: " in capsys.readouterr().err
    monkeypatch.setattr(bench, "drag_cost", lambda *_: {})
    assert bench.main(["--only", "drag", "--json", str(tmp_path)]) == 2, "a folder stands where the file should"
    assert str(tmp_path) in capsys.readouterr().err
    for wrong in (["--only", "everything"], ["--size", "640"], ["--size", "0x3"], ["--secs", "0.1"], ["--secs", "x"],
                  ["--rounds", "0"], ["--share", "1.2"]):  # fmt: skip
        with pytest.raises(SystemExit):
            bench.main(wrong)
        assert "invalid choice" in (said := capsys.readouterr().err) or "does not fit" in said
