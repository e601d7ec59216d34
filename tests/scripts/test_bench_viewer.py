"""``scripts/bench_viewer.py``: its page without a browser gets pictures, and what it says of them is true."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "viewer"))

pytest.importorskip("viser")

import bench_viewer as bench
import bench_viewer_client as client
import serving

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


def test_the_numbers_and_the_table() -> None:
    assert bench.quartiles([3.0, 1.0, 2.0])["median"] == 2 and bench.quartiles([]) == {}
    result = {
        "cores": 2, "size": "640x480", "load_before": 0.1,
        "training": {"rows": {"no viewer": {"steps_per_sec": 5.0, "ratio": 1.0}}},
        "opened": {"splats": 5, "first_ms": bench.quartiles([10.0]), "orbit": {"frames_per_sec": 30.0, "width": 640}},
        "drag": {"10000": {"event_ms": {"median": 4.0}, "event_and_picture_ms": {"median": 9.0}, "begin_ms": 100.0}},
    }  # fmt: skip
    text = bench.table(result)
    for part in ("no viewer", "5.00 steps/s", "first_ms", "30.0 pictures/s", "drag of  10,000", "4.0 ms"):
        assert part in text


def test_the_dragged_ball_has_its_selection_on_one_side() -> None:
    model, mask, labels = bench.bumpy_ball(400)
    assert (model.count, int(mask.sum()), labels.count) == (500, 400, 500)
    x = model.rows["means"][:, 0]
    assert x[mask].max() <= x[~mask].min()


def test_wrong_calls_are_told(capsys, tmp_path) -> None:
    assert bench.main([str(tmp_path), "--only", "training", "--rounds", "1", "--secs", "0.1"]) == 2
    assert "bench_viewer: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        bench.main(["--only", "everything"])
