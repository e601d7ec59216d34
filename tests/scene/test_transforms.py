"""nerfstudio, instant-ngp and Blender captures, and the points beside them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scene_writer import HEIGHT, WIDTH, gl_pose, picture, write_image, write_mask, write_transforms

from splat.scene.images import read_frame
from splat.scene.open import open_scene
from splat.scene.options import SceneOptions
from splat.scene.point_ply import read_point_ply
from splat.scene.types import SceneError

INTRINSICS = {"fl_x": 40.0, "fl_y": 41.0, "cx": 25.0, "cy": 17.0, "w": WIDTH, "h": HEIGHT}
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def capture(root, count=3, frame_extra=None, **top):
    frames = [{"file_path": f"images/{i}.png", "transform_matrix": gl_pose(i)} for i in range(count)]
    for index, extra in (frame_extra or {}).items():
        frames[index].update(extra)
    for index in range(count):
        write_image(root / "images" / f"{index}.png", picture(seed=index))
    return write_transforms(root / "transforms.json", frames, **{**INTRINSICS, **top})


def test_poses_become_opencv(tmp_path):
    capture(tmp_path)
    scene = open_scene(tmp_path)
    assert [camera.name for camera in scene.cameras] == ["0.png", "1.png", "2.png"]
    first = scene.cameras[0]
    np.testing.assert_allclose(first.center_world, [0, 0, 4])
    # The camera sits on +z and looks at the origin; the world's y points up, so it is the image's -y.
    np.testing.assert_allclose(first.camera_from_world @ [0, 0, 0, 1], [0, 0, 4, 1], atol=1e-12)
    np.testing.assert_allclose(first.camera_from_world @ [0, 1, 0, 1], [0, -1, 4, 1], atol=1e-12)
    np.testing.assert_allclose(first.K, [[40, 0, 25], [0, 41, 17], [0, 0, 1]])
    assert first.lens is None and scene.protocol["format"] == "transforms"


def test_each_frame_may_have_its_own_lens(tmp_path):
    capture(
        tmp_path,
        5,
        {
            0: {"fl_x": 30.0, "k1": 0.1, "p2": 0.01},
            1: {"k1": 0.1, "k3": 0.02},
            2: {"camera_model": "OPENCV_FISHEYE", "k1": 0.1, "k4": 0.01},
            3: {"camera_model": "PINHOLE", "k1": 0.1},
        },
        is_fisheye=False,
    )
    lenses = [camera.lens for camera in open_scene(tmp_path).cameras]
    assert lenses[0].model == "OPENCV" and lenses[0].params == (30.0, 41.0, 25.0, 17.0, 0.1, 0.0, 0.0, 0.01)
    assert lenses[1].model == "FULL_OPENCV" and lenses[1].params[4:] == (0.1, 0, 0, 0, 0.02, 0, 0, 0)
    assert lenses[2].model == "OPENCV_FISHEYE" and lenses[2].params[4:] == (0.1, 0, 0, 0.01)
    assert lenses[3] is None and lenses[4] is None


def test_a_size_that_is_not_stated_is_the_images(tmp_path):
    capture(tmp_path)
    content = json.loads((tmp_path / "transforms.json").read_text())
    for key in ("w", "h", "fl_x", "fl_y", "cx", "cy"):
        del content[key]
    (tmp_path / "transforms.json").write_text(json.dumps({**content, "camera_angle_x": np.pi / 2}))
    np.testing.assert_allclose(open_scene(tmp_path).cameras[0].K, [[24, 0, 24], [0, 24, 18], [0, 0, 1]])
    del content["frames"][1]["file_path"]
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(SceneError, match="frame 1 has no file_path"):
        open_scene(tmp_path)


def test_missing_images_masks_times_and_downscaled_copies(tmp_path):
    capture(tmp_path, 4, {1: {"mask_path": "m/1.png", "time": 0.5}, 2: {"mask_path": "m/gone.png"}})
    write_mask(tmp_path / "m" / "1.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    (tmp_path / "images" / "0.png").unlink()
    write_image(tmp_path / "images_2" / "3.png", picture(24, 18))
    scene = open_scene(tmp_path, SceneOptions(downscale=2))
    assert [camera.name for camera in scene.cameras] == ["1.png", "2.png", "3.png"]
    assert "1 image of 4 skipped, not found in" in scene.warnings[0]
    assert any(f"1 mask named by the capture do not exist: {tmp_path / 'm' / 'gone.png'}" in w for w in scene.warnings)
    assert scene.cameras[0].time == 0.5 and not read_frame(scene.cameras[0]).mask.any()
    assert scene.cameras[2].image_path.parent.name == "images_2" and scene.cameras[2].width == 24


def test_the_file_may_be_given_itself_and_may_lie_beside_the_images(tmp_path):
    frames = [{"file_path": f"../photos/sub/{i}.png", "transform_matrix": gl_pose(i)} for i in range(2)]
    for index in range(2):
        write_image(tmp_path / "photos" / "sub" / f"{index}.png", picture())
    path = write_transforms(tmp_path / "poses" / "mine.json", frames, **INTRINSICS)
    assert [camera.name for camera in open_scene(path).cameras] == ["sub/0.png", "sub/1.png"]


def test_nerfstudio_split_lists(tmp_path):
    capture(tmp_path, 4, train_filenames=["images/0.png", "./images/1.png"], test_filenames=["images/3.png"])
    scene = open_scene(tmp_path)
    assert scene.test_indices == (3,) and scene.protocol["split"] == "as the capture states"


def test_blender(tmp_path):
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:5] = 0
    for split, count in (("train", 3), ("test", 2)):
        frames = [{"file_path": f"./{split}/r_{i}", "transform_matrix": gl_pose(i)} for i in range(count)]
        write_transforms(tmp_path / f"transforms_{split}.json", frames, camera_angle_x=np.pi / 2)
        for index in range(count):
            write_image(tmp_path / split / f"r_{index}.png", picture(), alpha)
    scene = open_scene(tmp_path)
    assert [camera.name for camera in scene.test_cameras] == ["test/r_0", "test/r_1"]
    assert [camera.name for camera in scene.train_cameras] == ["train/r_0", "train/r_1", "train/r_2"]
    np.testing.assert_allclose(scene.cameras[0].K, [[24, 0, 24], [0, 24, 18], [0, 0, 1]])
    frame = read_frame(scene.cameras[0])
    assert frame.mask is None and (frame.pixels[:5] == 255).all()
    np.testing.assert_array_equal(frame.pixels[5:], picture()[5:])
    assert scene.points.source == "random" and scene.protocol["format"] == "blender"
    (tmp_path / "transforms_test.json").unlink()
    alone = open_scene(tmp_path)
    assert len(alone.cameras) == 3 and alone.test_indices == (0,) and "transforms_test.json" in alone.warnings[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[1, 2]", "has no list of frames"),
        ('{"frames": []}', "list of frames is empty"),
        ('{"frames": [{"file_path": "a.png"}]}', "frame a.png has no 4x4 transform_matrix"),
        ('{"frames": [{"file_path": "a.png", "transform_matrix": [[1, 2], [3]]}]}', "has no 4x4 transform_matrix"),
    ],
)
def test_broken_files(tmp_path, text, words):
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(SceneError, match=words):
        open_scene(tmp_path)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"fl_x": "wide"}, "fl_x of 1.png is 'wide'; expected a finite number"),
        ({"fl_x": None, "fl_y": None}, "frame 1.png has no focal length"),
        ({"camera_model": "PERISCOPE"}, "camera_model of 1.png is 'PERISCOPE'; known are OPENCV"),
        ({"w": -5}, "size -5x36"),
    ],
)
def test_frames_that_cannot_be_read(tmp_path, extra, words):
    capture(tmp_path, 3, {1: extra})
    with pytest.raises(SceneError, match=words):
        open_scene(tmp_path)


def test_poses_that_are_no_rotation_are_skipped(tmp_path):
    capture(
        tmp_path,
        4,
        {1: {"transform_matrix": np.zeros((4, 4)).tolist()}, 2: {"transform_matrix": [[float("nan")] * 4] * 4}},
    )
    scene = open_scene(tmp_path)
    assert len(scene.cameras) == 2
    assert scene.warnings[0] == "2 frames skipped, pose is not a finite rotation: 1.png, 2.png."


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
KEYS = "fl_x w h cx k1 camera_model is_fisheye camera_angle_x ply_file_path train_filenames".split()


@FEW
@given(data=st.data(), junk=JUNK)
def test_junk_values_never_raise_anything_else(tmp_path, data, junk):
    place = data.draw(st.sampled_from(["top", "frame"]))
    keys = KEYS if place == "top" else [*KEYS, "file_path", "transform_matrix", "mask_path", "time"]
    key = data.draw(st.sampled_from(keys))
    if place == "top":
        capture(tmp_path, 2, **{key: junk})
    else:
        capture(tmp_path, 2, {1: {key: junk}})
    try:
        open_scene(tmp_path, SceneOptions(random_points=10))
    except SceneError as error:
        assert "\n" not in str(error)


HEADER = (
    "ply\nformat {kind} 1.0\ncomment x\nelement vertex 2\n{fields}"
    "element face 0\nproperty list uchar int i\nend_header\n"
)
FIELDS = "".join(
    f"property {kind} {name}\n"
    for kind, name in zip("double float float uchar uchar uchar".split(), "x y z red green blue".split(), strict=True)
)


@pytest.mark.parametrize("order", ["<", ">", "ascii"])
def test_points_from_ply(tmp_path, order):
    kind = {"<": "binary_little_endian", ">": "binary_big_endian"}.get(order, order)
    head = HEADER.format(kind=kind, fields=FIELDS).encode()
    if order == "ascii":
        body = b"1 2 3 4 5 6\n7 8 9 10 11 12\n"
    else:
        layout = [("x", order + "f8"), ("y", order + "f4"), ("z", order + "f4"), ("rgb", "u1", 3)]
        body = np.array([(1, 2, 3, (4, 5, 6)), (7, 8, 9, (10, 11, 12))], layout).tobytes()
    (tmp_path / "p.ply").write_bytes(head + body)
    points = read_point_ply(tmp_path / "p.ply", [])
    assert points.xyz.tolist() == [[1, 2, 3], [7, 8, 9]] and points.rgb.tolist() == [[4, 5, 6], [10, 11, 12]]
    capture(tmp_path, ply_file_path="p.ply")
    scene = open_scene(tmp_path)
    assert scene.points.source == "ply" and scene.points.xyz.dtype == np.float32 and not scene.warnings
    (tmp_path / "p.ply").write_bytes((head + body)[:-5])
    with pytest.raises(SceneError, match=r"p.ply: announces 2 points"):
        open_scene(tmp_path)


def test_ply_colours_and_points_that_are_not_finite(tmp_path):
    fields = "".join(f"property float {name}\n" for name in ("x", "y", "z", "red", "green", "blue"))
    head = HEADER.format(kind="ascii", fields=fields)
    (tmp_path / "p.ply").write_text(head + "1 2 nan 0 0 0\n1 2 3 1.0 0.5 0\n")
    warnings: list[str] = []
    assert read_point_ply(tmp_path / "p.ply", warnings).rgb.tolist() == [[255, 128, 0]]
    assert warnings == ["1 point of 2 dropped, position is not finite."]


def test_points_that_are_named_but_not_there(tmp_path):
    capture(tmp_path, ply_file_path="gone.ply")
    scene = open_scene(tmp_path)
    assert scene.points.source == "random" and "names the points gone.ply, which do not exist" in scene.warnings[0]


@FEW
@given(data=st.data(), ascii_rows=st.booleans())
def test_garbled_ply_never_raises_anything_else(tmp_path, data, ascii_rows):
    kind = "ascii" if ascii_rows else "binary_little_endian"
    content = bytearray(
        HEADER.format(kind=kind, fields=FIELDS).encode() + (b"1 2 3 4 5 6\n" * 2 if ascii_rows else b"\1" * 38)
    )
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "p.ply").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        read_point_ply(tmp_path / "p.ply", [])
    except SceneError as error:
        assert "\n" not in str(error)
