"""``splat render --path``: a file of keyframes makes the same pictures of a run and of the files exported from it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from splat.cli.main import main
from splat.geometry.keyframe_json import path_to_text
from splat.geometry.keyframes import CameraPath, Keyframe
from splat.io.png import read_png


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    from helpers import make_tiny_scene

    folder = tmp_path_factory.mktemp("paths")
    scene = make_tiny_scene(folder / "tiny")
    assert main(["train", str(scene), "-o", str(folder / "run"), "--preset", "cpu", "--steps", "5", "-q"]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def path_file(run) -> Path:
    """From the first to the last photograph's place, through the capture's own frame."""
    from splat.cli.opening import run_config, run_scene

    scene = run_scene(run_config(run), lambda line: None)
    keys = [Keyframe.of(camera, secs=1.0, look={"background": (0.0, 0.0, 1.0)})
            for camera in (scene.cameras[0], scene.cameras[-1])]  # fmt: skip
    path = CameraPath(tuple(keys), fps=4.0, size=(48, 32)).moved(np.linalg.inv(scene.world_from_input))
    file = run.parent / "fly.json"
    file.write_text(path_to_text(path))
    return file


def frames_of(file) -> list[np.ndarray]:
    stream = cv2.VideoCapture(str(file))
    frames = []
    while True:
        good, frame = stream.read()
        if not good:
            return frames
        frames.append(frame[..., ::-1])


def test_a_path_file_becomes_a_video_in_the_run(run, path_file, capsys):
    assert main(["render", str(run), "--path", str(path_file), "-q"]) == 0
    assert capsys.readouterr().out.split() == [str(run / "renders" / "fly.mp4")]
    frames = frames_of(run / "renders" / "fly.mp4")
    assert len(frames) == 5 and frames[0].shape == (32, 48, 3)


def test_run_and_exported_file_show_the_same_and_need_no_capture(run, path_file, tmp_path, capsys):
    ply = run / "point_cloud" / "iteration_5" / "point_cloud.ply"
    for source, out in ((run, "a"), (ply, "b"), (run / "model.safetensors", "c")):
        flags = ["--path", str(path_file), "-o", str(tmp_path / out), "--size", "40x30", "--fps", "2", "-q"]
        assert main(["render", str(source), *flags]) == 0
    pictures = [[read_png(file).astype(int) for file in sorted((tmp_path / out).iterdir())] for out in "abc"]
    assert [len(each) for each in pictures] == [3, 3, 3] and pictures[0][0].shape == (30, 40, 3)
    assert np.array_equal(pictures[0], pictures[2])
    assert np.abs(np.array(pictures[0]) - pictures[1]).max() <= 1
    assert (np.array(pictures[0])[..., 2] >= np.array(pictures[0])[..., 0]).mean() > 0.5  # the keys' blue lies behind


def test_a_stopped_run_takes_its_frame_from_the_capture(run, path_file, tmp_path):
    import shutil

    stopped = tmp_path / "stopped"
    shutil.copytree(run, stopped)
    flags = ["--path", str(path_file), "-q", "--fps", "1", "-o"]
    assert main(["render", str(run), *flags, str(tmp_path / "a")]) == 0
    (stopped / "model.safetensors").unlink()
    assert main(["render", str(stopped), *flags, str(tmp_path / "b")]) == 0
    for file in (tmp_path / "a").iterdir():
        assert np.abs(read_png(file).astype(int) - read_png(tmp_path / "b" / file.name)).max() <= 1


@pytest.mark.parametrize(("flags", "told"), [
    (["--views", "orbit"], "--views does not fit --path"), (["--size", "40"], "WIDTHxHEIGHT"),
    (["--fps", "0"], "above 0"), (["-r", "2"], "--downscale does not fit"),
    (["--frames", "9"], "--frames does not fit"),
])  # fmt: skip
def test_flags_that_do_not_go_with_a_path(run, path_file, capsys, flags, told):
    assert main(["render", str(run), "--path", str(path_file), *flags]) == 2
    assert told in capsys.readouterr().err


def test_bad_path_files_are_told(run, tmp_path, capsys):
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({"format": "splat-path", "version": 1, "keys": [{"position": [0, 0]}]}))
    assert main(["render", str(run), "--path", str(wrong)]) == 2
    assert "keys[0]: position is [0, 0]; 3 finite numbers" in capsys.readouterr().err
    assert main(["render", str(run), "--size", "40x30"]) == 2
    assert "--size is for --path" in capsys.readouterr().err


def test_display_settings_of_keys_are_honoured(run, path_file, tmp_path, capsys):
    styled = tmp_path / "styled.json"

    def drawn(name: str, *flags: str, **look) -> list[np.ndarray]:
        data = json.loads(path_file.read_text())
        for key in data["keys"]:
            key["look"] = look
        styled.write_text(json.dumps(data))
        out = tmp_path / name
        assert main(["render", str(run), "--path", str(styled), "--fps", "2", "-o", str(out), "-q", *flags]) == 0
        return frames_of(out) if out.suffix else [read_png(file) for file in sorted(out.iterdir())]

    plain, alpha = drawn("plain"), drawn("alpha", mode="alpha")
    assert len(plain) == len(alpha) == 3
    assert np.array_equal(alpha[0], drawn("channel", "--channels", "alpha", mode="depth")[0][..., None].repeat(3, 2))
    ramps = [drawn(ramp, mode="depth", ramp=ramp)[0] for ramp in ("grey", "spectrum")]
    assert (np.ptp(ramps[0].astype(int), axis=2) == 0).all() and np.ptp(ramps[1].astype(int), axis=2).max() > 50
    assert len(drawn("film.mp4", mode="normal")) == 3
    as_color = drawn("color", mode="color", background=(0.0, 0.0, 0.0))
    assert np.abs(np.array(as_color).astype(int) - plain).max() <= 1
    capsys.readouterr()
    for look, told in (({"mode": "dpth"}, "did you mean 'depth'"), ({"mode": "error"}, "without its capture")):
        data = json.loads(path_file.read_text())
        data["keys"][0]["look"] = look
        styled.write_text(json.dumps(data))
        assert main(["render", str(run), "--path", str(styled), "-o", str(tmp_path / "no.mp4")]) == 2
        assert told in capsys.readouterr().err and not (tmp_path / "no.mp4").exists()
