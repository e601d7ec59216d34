"""Photos and videos without poses."""

from __future__ import annotations

import builtins
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from scene_writer import picture, write_capture, write_image

from splat.scene.open import open_scene
from splat.scene.options import SceneOptions
from splat.scene.sfm import run_sfm
from splat.scene.types import SceneError
from splat.scene.unposed import default_workspace, is_unposed, photos_in, sfm_command
from splat.scene.video import extract_sharpest, sharpness

PLUSH = Path(__file__).resolve().parents[3] / "shared/data/scenes/plush_pinhole"


def texture(width: int = 320, height: int = 240) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def video(tmp_path):
    """24 frames; every fourth is sharp, the others are blurred. A dark bar moves to tell them apart."""
    path = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12, (320, 240))
    if not writer.isOpened():
        pytest.skip("this OpenCV build writes no MJPG video")
    for index in range(24):
        frame = texture()
        frame[:, 10 * index : 10 * index + 10] = 0
        writer.write(frame if index % 4 == 2 else cv2.GaussianBlur(frame, (15, 15), 4))
    writer.release()
    return path


def test_sharpness_falls_with_blur_at_any_size():
    for scale in (1, 4):
        big = cv2.resize(texture(), None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        assert sharpness(big) > 3 * sharpness(cv2.GaussianBlur(big, (0, 0), 3 * scale))


def test_the_sharpest_frame_of_each_stretch(tmp_path, video):
    names = extract_sharpest(video, tmp_path / "out", max_frames=6)
    assert names == [f"frame_{index:06d}.jpg" for index in range(2, 24, 4)]
    assert sorted(os.listdir(tmp_path / "out")) == names
    assert cv2.imdecode(np.fromfile(tmp_path / "out" / names[0], np.uint8), cv2.IMREAD_COLOR).shape == (240, 320, 3)
    assert len(extract_sharpest(video, tmp_path / "all")) == 24, "a short video gives all it has"


def test_a_broken_video_is_one_line(tmp_path):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"no video at all")
    with pytest.raises(SceneError, match=r"x.mp4: cannot be opened as a video"):
        extract_sharpest(path, tmp_path / "out")


def test_photos_are_told_from_masks_and_hidden_files(tmp_path):
    for name in ("b.JPG", "sub/a.png", "a_mask.png", ".thumbs/a.png", "masks/a.png", "note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert photos_in(tmp_path) == ["b.JPG", "sub/a.png"]
    assert not is_unposed(tmp_path)
    (tmp_path / "c.jpg").write_bytes(b"x")
    assert is_unposed(tmp_path)


def test_the_command_names_where_the_model_goes(tmp_path):
    assert sfm_command(tmp_path) == f"splat sfm {tmp_path}"
    (tmp_path / "a b.mp4").write_bytes(b"x")
    assert default_workspace(tmp_path / "a b.mp4") == tmp_path / "a b_colmap"
    assert sfm_command(tmp_path / "a b.mp4") == f"splat sfm '{tmp_path}/a b.mp4' -o '{tmp_path}/a b_colmap'"


def test_a_video_that_was_posed_before_is_not_posed_again(tmp_path, video):
    write_capture(tmp_path / "walk_colmap", ["a.png", "b.png"])
    told: list[str] = []
    scene = open_scene(video, SceneOptions(allow_sfm=True, on_message=told.append))
    assert len(scene.cameras) == 2 and told == [f"Using the camera poses found in {tmp_path / 'walk_colmap'}."]
    with pytest.raises(SceneError, match=r"has no camera poses; run `splat sfm .*walk.avi -o .*walk_colmap` first"):
        open_scene(video)


def test_without_pycolmap_the_install_command_is_told(tmp_path, monkeypatch):
    original = builtins.__import__

    def refusing(name, *args, **kwargs):
        if name == "pycolmap":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refusing)
    with pytest.raises(SceneError, match=r'needs pycolmap; install it with `pip install pycolmap`'):
        run_sfm(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: None, "holds neither 3 photos"),
        (lambda root: (root / "sparse").mkdir(), "sparse exists already"),
        (lambda root: root.rmdir(), "no such file"),
    ],
)
def test_sources_that_cannot_be_posed(tmp_path, make, words):
    pytest.importorskip("pycolmap", reason="pycolmap is not installed")
    source = tmp_path / "source"
    source.mkdir()
    make(source)
    with pytest.raises(SceneError, match=words):
        run_sfm(source, source)
    with pytest.raises(SceneError, match="camera model 'BOX' is unknown; known are SIMPLE_PINHOLE"):
        run_sfm(tmp_path, tmp_path / "out", camera_model="BOX")


def test_pictures_without_overlap_leave_nothing_behind(tmp_path):
    pytest.importorskip("pycolmap", reason="pycolmap is not installed")
    for index in range(3):
        write_image(tmp_path / "in" / f"{index}.png", picture(160, 120, seed=index))
    with pytest.raises(SceneError, match=r"no poses could be estimated from 3 images"):
        run_sfm(tmp_path / "in", tmp_path / "out", threads=1)
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.slow
@pytest.mark.skipif(not PLUSH.is_dir(), reason="shared capture plush_pinhole is absent")
def test_photos_are_posed_like_the_published_model(tmp_path):
    pytest.importorskip("pycolmap", reason="pycolmap is not installed")
    truth = open_scene(PLUSH)
    names = [camera.name for camera in truth.cameras[:12]]
    for name in names:
        (tmp_path / "photos").mkdir(exist_ok=True)
        shutil.copy(PLUSH / "images" / name, tmp_path / "photos" / name)
    told: list[str] = []
    scene = open_scene(tmp_path / "photos", SceneOptions(allow_sfm=True, on_message=told.append))
    assert "has no camera poses; estimating them" in told[0] and "Posed 12 of 12 images" in told[-1]
    assert [camera.name for camera in scene.cameras] == names and len(scene.points) > 500
    assert sorted(entry.name for entry in (tmp_path / "photos").iterdir() if entry.is_dir()) == ["sparse"]
    ours = np.array([camera.center_world for camera in scene.cameras])
    theirs = np.array([camera.center_world for camera in truth.cameras[:12]])
    ours, theirs = ours - ours.mean(0), theirs - theirs.mean(0)
    left, stretch, right = np.linalg.svd(ours.T @ theirs)
    turn = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
    scale = (stretch * [1, 1, np.linalg.det(left @ right)]).sum() / (ours**2).sum()
    residual = np.linalg.norm(scale * ours @ turn - theirs, axis=1)
    assert residual.max() < 0.05 * np.linalg.norm(theirs, axis=1).max()


@pytest.mark.slow
@pytest.mark.skipif(not PLUSH.is_dir(), reason="shared capture plush_pinhole is absent")
def test_a_video_becomes_a_scene(tmp_path):
    pytest.importorskip("pycolmap", reason="pycolmap is not installed")
    path = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 3, (983, 733))
    if not writer.isOpened():
        pytest.skip("this OpenCV build writes no MJPG video")
    for name in sorted(os.listdir(PLUSH / "images"))[:10]:
        writer.write(cv2.imdecode(np.fromfile(PLUSH / "images" / name, np.uint8), cv2.IMREAD_COLOR))
    writer.release()
    scene = open_scene(path, SceneOptions(allow_sfm=True))
    assert scene.root == tmp_path / "walk_colmap" and len(scene.cameras) >= 8 and len(scene.points) > 300
    assert scene.cameras[0].image_path.parent == tmp_path / "walk_colmap" / "images"
