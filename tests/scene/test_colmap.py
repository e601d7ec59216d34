"""COLMAP readers: round trips, corruption, the choice of a model."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scene_writer import PINHOLE, Model, model_of, write_model

from splat.geometry.lens import LENS_MODELS, Lens
from splat.scene import colmap_binary
from splat.scene.colmap import find_models, load_colmap, read_model
from splat.scene.types import SceneError

NAMES = ["a/1.jpg", "b c.jpg", "ü.png"]
FILES = ("cameras", "images", "points3D")
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("kind", ["bin", "txt"])
def test_round_trip(tmp_path, kind):
    model = model_of(NAMES)
    model.cameras[7] = Lens("OPENCV", (50.0, 51.0, 25.0, 17.0, 0.01, -0.02, 0.003, 0.004), 48, 36)
    write_model(model, tmp_path, kind)
    read = read_model(tmp_path)
    assert read.cameras == model.cameras
    assert [image.name for image in read.images] == NAMES
    np.testing.assert_array_equal(read.points.xyz, model.xyz)
    np.testing.assert_array_equal(read.points.rgb, model.rgb)
    np.testing.assert_array_equal(read.points.error_px, 0.5)
    pose = read.images[1].camera_from_world
    angle = 2.0 / 3.0
    np.testing.assert_allclose(pose[:3, :3] @ [0, 0, 1.0], [np.sin(angle), 0, np.cos(angle)], atol=1e-12)
    np.testing.assert_allclose(pose[:3, 3], model.images[1][3])


@pytest.mark.parametrize("name", LENS_MODELS)
@pytest.mark.parametrize("kind", ["bin", "txt"])
def test_every_camera_model_is_read(tmp_path, name, kind):
    lens = Lens(name, tuple(1.0 + 0.5 * i for i in range(len(LENS_MODELS[name].params))), 640, 480)
    write_model(Model({3: lens}, model_of(["x.jpg"]).images), tmp_path, kind)
    assert read_model(tmp_path).cameras == {3: lens}


def test_files_that_pycolmap_writes_are_read_alike(tmp_path):
    """The writer of these tests is not merely the mirror of the reader."""
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed")
    model = model_of(NAMES)
    write_model(Model(model.cameras, model.images), tmp_path / "ours", "txt")
    theirs = pycolmap.Reconstruction(str(tmp_path / "ours"))
    for xyz, rgb in zip(model.xyz, model.rgb, strict=True):
        theirs.add_point3D(xyz, pycolmap.Track(), rgb)
    for kind, write in (("bin", theirs.write_binary), ("txt", theirs.write_text)):
        (tmp_path / kind).mkdir()
        write(str(tmp_path / kind))
        read = read_model(tmp_path / kind)
        assert read.cameras == model.cameras
        order = np.argsort(read.points.xyz[:, 0])
        np.testing.assert_allclose(read.points.xyz[order], model.xyz[np.argsort(model.xyz[:, 0])], rtol=1e-12)
        np.testing.assert_array_equal(read.points.rgb[order], model.rgb[np.argsort(model.xyz[:, 0])])
        for image in theirs.images.values():
            ours = next(other for other in read.images if other.name == image.name)
            np.testing.assert_allclose(ours.camera_from_world[:3], image.cam_from_world().matrix(), atol=1e-12)


@FEW
@given(data=st.data(), kind=st.sampled_from(["bin", "txt"]), which=st.sampled_from(FILES))
def test_a_cut_file_is_one_clear_error_or_a_shorter_model(tmp_path, data, kind, which):
    write_model(model_of(NAMES), tmp_path, kind)
    path = tmp_path / f"{which}.{kind}"
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    try:
        read_model(tmp_path)
    except SceneError as error:
        assert str(path) in str(error) or kind == "txt"
        assert "\n" not in str(error)
    else:
        assert kind == "txt", "a binary file knows its own length"
    finally:
        for other in tmp_path.iterdir():
            other.unlink()


@FEW
@given(data=st.data(), kind=st.sampled_from(["bin", "txt"]), which=st.sampled_from(FILES))
def test_garbled_bytes_never_raise_anything_else(tmp_path, data, kind, which):
    write_model(model_of(NAMES), tmp_path / "sparse", kind)
    path = tmp_path / "sparse" / f"{which}.{kind}"
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 12))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        load_colmap(tmp_path)
    except SceneError as error:
        assert "\n" not in str(error)


@FEW
@given(content=st.binary(max_size=400), kind=st.sampled_from(["bin", "txt"]), which=st.sampled_from(FILES))
def test_noise_never_raises_anything_else(tmp_path, content, kind, which):
    write_model(model_of(NAMES), tmp_path / "sparse", kind)
    (tmp_path / "sparse" / f"{which}.{kind}").write_bytes(content)
    try:
        load_colmap(tmp_path)
    except SceneError as error:
        assert "\n" not in str(error)


def test_a_count_that_cannot_be_true_allocates_nothing(tmp_path):
    write_model(model_of(NAMES), tmp_path)
    (tmp_path / "points3D.bin").write_bytes(struct.pack("<Q", 2**60) + b"\0" * 100)
    with pytest.raises(SceneError, match=r"points3D.bin: announces .* points but holds 100 bytes"):
        read_model(tmp_path)


def test_unknown_model_id_lists_the_known_ones(tmp_path):
    write_model(model_of(NAMES), tmp_path)
    content = bytearray((tmp_path / "cameras.bin").read_bytes())
    content[12:16] = struct.pack("<i", 42)
    (tmp_path / "cameras.bin").write_bytes(content)
    with pytest.raises(SceneError, match=r"model id 42; known are 0 SIMPLE_PINHOLE.*17 EQUIRECTANGULAR"):
        read_model(tmp_path)


def test_bad_text_line_is_named(tmp_path):
    write_model(model_of(NAMES), tmp_path, "txt")
    path = tmp_path / "points3D.txt"
    lines = path.read_text().splitlines()
    lines[3] = lines[3].replace(lines[3].split()[2], "nonsense")
    path.write_text("\n".join(lines))
    with pytest.raises(SceneError, match=r"points3D.txt: line 4 .*expected POINT3D_ID X Y Z"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    ("lens", "words"),
    [
        (Lens("PINHOLE", (0.0, 41.0, 25.0, 17.0), 48, 36), "focal length"),
        (Lens("PINHOLE", (float("nan"), 41.0, 25.0, 17.0), 48, 36), "not finite"),
        (Lens("PINHOLE", (40.0, 41.0, 25.0, 17.0), 0, 36), "size 0x36"),
    ],
)
def test_impossible_cameras_are_refused(tmp_path, lens, words):
    write_model(Model({1: lens}, model_of(NAMES).images), tmp_path)
    with pytest.raises(SceneError, match=rf"cameras.bin: camera 1 .*{words}"):
        read_model(tmp_path)


def test_the_biggest_model_wins_and_is_said(tmp_path):
    write_model(model_of(["a.jpg"]), tmp_path / "sparse" / "0")
    write_model(model_of(["a.jpg", "b.jpg", "c.jpg"]), tmp_path / "sparse" / "1", "txt")
    write_model(model_of(["a.jpg", "b.jpg"]), tmp_path / "colmap" / "sparse" / "0")
    capture = load_colmap(tmp_path)
    assert len(capture.views) == 3
    assert capture.warnings == (
        "3 COLMAP models found; using sparse/1 with 3 images, not sparse/0 (1), colmap/sparse/0 (2).",
    )
    assert len(load_colmap(tmp_path, model="sparse/0").views) == 1


@pytest.mark.parametrize("place", ["sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", "."])
def test_every_usual_place_is_looked_in(tmp_path, place):
    write_model(model_of(NAMES), tmp_path / place)
    assert find_models(tmp_path) == [tmp_path / place]


def test_rigs_and_frames_are_ignored(tmp_path):
    write_model(model_of(NAMES), tmp_path / "sparse")
    for name in ("rigs.bin", "frames.bin", "rigs.txt"):
        (tmp_path / "sparse" / name).write_bytes(b"\xff" * 9)
    assert len(load_colmap(tmp_path).views) == 3


def test_points_that_are_not_finite_are_dropped_and_counted(tmp_path):
    model = model_of(NAMES)
    model.xyz[4, 1], model.xyz[9, 0] = np.nan, np.inf
    write_model(model, tmp_path / "sparse")
    capture = load_colmap(tmp_path)
    assert len(capture.points) == 28
    assert capture.warnings == ("2 points of 30 dropped, position is not finite.",)


def test_images_without_a_pose_are_skipped_and_counted(tmp_path):
    model = model_of(NAMES)
    model.images[0][2][:] = 0.0
    model.images.append(model.images[1])
    write_model(model, tmp_path / "sparse")
    capture = load_colmap(tmp_path)
    assert [view.name for view in capture.views] == NAMES[1:]
    assert capture.warnings[0] == "1 image skipped, pose is not finite: a/1.jpg."
    assert capture.warnings[1] == "1 image skipped, name occurs twice: b c.jpg."


def test_empty_model_and_foreign_camera_are_errors(tmp_path):
    write_model(Model({1: PINHOLE}), tmp_path / "sparse")
    with pytest.raises(SceneError, match="no registered images"):
        load_colmap(tmp_path)
    write_model(Model({5: PINHOLE}, model_of(NAMES).images), tmp_path / "sparse")
    with pytest.raises(SceneError, match=r"image a/1.jpg uses camera 1; there are 5"):
        load_colmap(tmp_path)


def test_an_unreadable_file_is_named(tmp_path):
    write_model(model_of(NAMES), tmp_path / "sparse")
    path = tmp_path / "sparse" / "images.bin"
    path.unlink()
    os.symlink(tmp_path, path)  # a folder where a file should be: unreadable for root as well
    with pytest.raises(SceneError, match=r"images.bin: cannot be read"):
        colmap_binary.read_images(Path(path))


def test_many_points_are_read_fast(tmp_path):
    import time

    count = 200_000
    record = (
        struct.pack("<Q3d3B", 1, 1.0, 2.0, 3.0, 4, 5, 6) + struct.pack("<dQ", 0.5, 2) + struct.pack("<4i", 1, 2, 3, 4)
    )
    path = tmp_path / "points3D.bin"
    path.write_bytes(struct.pack("<Q", count) + record * count)
    start = time.process_time()
    points = colmap_binary.read_points(path)
    assert points.xyz.shape == (count, 3) and (points.xyz == [1, 2, 3]).all() and (points.rgb == [4, 5, 6]).all()
    assert time.process_time() - start < 3.0  # about 0.1 s on an idle machine
