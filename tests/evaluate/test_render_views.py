"""``splat render``: choosing views, PNGs, depth in numbers, videos."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from small_scene import cameras_around, model_of_balls, scene_around

from splat.errors import UserError
from splat.evaluate.render import depth_range, render_view, render_views, select_cameras
from splat.io.png import read_png
from splat.io.ramps import color_table, colored
from splat.render.registry import rasterizer
from splat.scene.video_writer import VideoWriter

MODEL, PAINTER = model_of_balls(), rasterizer("reference")


def test_views_by_word_name_and_index():
    scene = scene_around()
    assert [c.name for c in select_cameras(scene, "test")] == ["left/000.jpg", "left/001.jpg"]
    assert len(select_cameras(scene, "train")) == 3 and len(select_cameras(scene, "all")) == 5
    assert select_cameras(scene, "left/003.jpg") == select_cameras(scene, "3") == (scene.cameras[3],)
    assert select_cameras(scene, "003") == (scene.cameras[3],)  # a stem goes before an index
    assert len(select_cameras(scene, "path", frames=7)) == len(select_cameras(scene, "orbit", frames=7)) == 7
    with pytest.raises(UserError, match=r"'left/03.jpg' .*did you mean 'left/003\.jpg'"):
        select_cameras(scene, "left/03.jpg")
    with pytest.raises(UserError, match="below 5"):
        select_cameras(scene, "5")
    with pytest.raises(UserError, match="no test views"):
        select_cameras(scene_around(tests=0), "test")


def test_pictures_with_depth_and_alpha(tmp_path):
    cameras = cameras_around(2)
    written = render_views(
        MODEL, PAINTER, cameras, tmp_path, channels=("color", "depth", "alpha"), raw_depth="png16", background=(0, 0, 1)
    )
    assert sorted(path.name for path in written) == sorted(
        ["depth.json", *(f"left__00{i}{part}.png" for i in (0, 1) for part in ("", "_depth", "_alpha", "_depth16"))]
    )
    view = render_view(MODEL, PAINTER, cameras[0], depth="expected", background=(0, 0, 1))
    assert np.array_equal(read_png(tmp_path / "left__000.png"), view.color)
    assert np.array_equal(read_png(tmp_path / "left__000_alpha.png"), view.alpha)
    steps = read_png(tmp_path / "left__000_depth16.png")
    unit = json.loads((tmp_path / "depth.json").read_text())["world_units_per_step"]
    np.testing.assert_allclose(steps * unit, view.depth, atol=unit)
    assert (steps[view.alpha == 0] == 0).all()
    assert 1.5 < view.depth[12, 16] < 4.0  # balls around the origin, seen from 3 units away
    assert view.color[0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("kind", ["expected", "median"])
def test_raw_depth_as_numbers(tmp_path, kind):
    render_views(MODEL, PAINTER, cameras_around(1), tmp_path, depth=kind, raw_depth="npy")
    depth = np.load(tmp_path / "left__000_depth.npy")
    assert depth.dtype == np.float32 and depth.shape == (24, 33) and 2 < np.median(depth[depth > 0]) < 4


def test_a_video_per_channel(tmp_path):
    cameras = cameras_around(6, size=(33, 24))
    written = render_views(MODEL, PAINTER, cameras, tmp_path / "orbit.mp4", channels=("color", "depth"), fps=10)
    assert [path.name for path in written] == ["orbit.mp4", "orbit_depth.mp4"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["orbit.mp4", "orbit_depth.mp4"]
    stream = cv2.VideoCapture(str(written[0]))
    frames = []
    while (got := stream.read())[0]:
        frames.append(got[1][..., ::-1])
    assert len(frames) == 6 and frames[0].shape == (24, 32, 3)  # codecs want even sides
    expected = render_view(MODEL, PAINTER, cameras[2]).color[:, :32]
    assert np.abs(frames[2].astype(int) - expected).mean() < 12


def test_a_failed_video_leaves_the_old_one(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"old")

    def failing(indices):
        yield next(iter(indices))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_views(MODEL, PAINTER, cameras_around(3), tmp_path / "a.mp4", progress=failing)
    assert (tmp_path / "a.mp4").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": ("colour",)}, "choices: color, depth, alpha"),
        ({"channels": ()}, "choices: color"),
        ({"raw_depth": "exr"}, "choices: none, png16, npy"),
        ({"raw_depth": "npy", "out": "a.mp4"}, "give a folder"),
        ({"cameras": ()}, "nothing to render"),
        ({"cameras": (*cameras_around(1), *cameras_around(1, size=(10, 10))), "out": "a.mp4"}, "one size"),
    ],
)
def test_wishes_that_make_no_sense(tmp_path, options, words):
    options = {"cameras": cameras_around(1), "out": "pictures", **options}
    cameras, out = options.pop("cameras"), tmp_path / options.pop("out")
    with pytest.raises(UserError, match=words):
        render_views(MODEL, PAINTER, cameras, out, **options)
    assert not list(tmp_path.iterdir())


def test_the_depth_range_is_that_of_what_is_seen():
    low, high = depth_range(MODEL, cameras_around(8))
    assert 1.0 < low < 3.0 < high < 5.0
    behind = [camera.posed(np.diag([-1.0, 1, -1, 1]) @ camera.camera_from_world) for camera in cameras_around(2)]
    assert depth_range(MODEL, behind) == (0.0, 1.0)


def test_color_ramps_grow_lighter_from_end_to_end():
    for name in ("depth", "error"):
        lightness = color_table(name).astype(float) @ (0.2126, 0.7152, 0.0722)
        assert (np.diff(lightness) > -0.5).all() and lightness[-1] - lightness[0] > 180
    values = np.array([[-1.0, 0.0, 5.0, 10.0, 99.0, np.nan, np.inf]])
    table = color_table()
    assert np.array_equal(colored(values, 0, 10)[0], table[[0, 0, 128, 255, 255, 0, 255]])


def test_a_video_that_cannot_be_written_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="MP4"):
        VideoWriter(tmp_path / "absent" / "a.mp4", fps=30, width=16, height=16)
