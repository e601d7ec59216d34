"""``open_scene``: files, sizes, masks, split, frame, and what it says when a capture is broken."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from scene_writer import (
    HEIGHT,
    PINHOLE,
    WIDTH,
    Model,
    model_of,
    picture,
    write_capture,
    write_image,
    write_mask,
    write_model,
)

from splat.geometry.lens import Lens
from splat.scene.images import read_frame
from splat.scene.open import open_scene
from splat.scene.options import SceneOptions
from splat.scene.types import SceneError

NAMES = [f"{index:02d}.png" for index in range(10)]


def test_a_plain_capture(tmp_path):
    scene = open_scene(write_capture(tmp_path / "toy", NAMES[::-1]))
    assert scene.name == "toy" and not scene.warnings
    assert [camera.name for camera in scene.cameras] == NAMES
    assert scene.test_indices == (0, 8) and scene.train_indices == (1, 2, 3, 4, 5, 6, 7, 9)
    np.testing.assert_array_equal(scene.cameras[0].K, [[40, 0, 25], [0, 41, 17], [0, 0, 1]])
    assert scene.points.xyz.dtype == np.float32 and len(scene.points) == 30 and scene.points.source == "sfm"
    np.testing.assert_array_equal(scene.world_from_input, np.eye(4))
    centers = np.array([camera.center_world for camera in scene.train_cameras])
    assert scene.extent_world == pytest.approx(1.1 * np.linalg.norm(centers - centers.mean(0), axis=1).max())
    assert scene.protocol["images"] == "images" and scene.protocol["downscale"] == "none"
    np.testing.assert_array_equal(read_frame(scene.cameras[2]).pixels, picture(seed=10 - 1 - 2))


def test_nested_names_and_several_cameras_of_several_sizes(tmp_path):
    wide = Lens("SIMPLE_PINHOLE", (30.0, 32.0, 10.0), 64, 20)
    model = model_of(["left/a.png", "right/a.png"])
    model.cameras[2] = wide
    model.images[1] = (*model.images[1][:1], 2, *model.images[1][2:])
    write_model(model, tmp_path / "sparse" / "0")
    write_image(tmp_path / "images" / "left" / "a.png", picture())
    write_image(tmp_path / "images" / "right" / "a.png", picture(64, 20))
    left, right = open_scene(tmp_path).cameras
    assert (left.width, left.height, right.width, right.height) == (WIDTH, HEIGHT, 64, 20)
    np.testing.assert_array_equal(right.K, [[30, 0, 32], [0, 30, 10], [0, 0, 1]])
    assert read_frame(right).pixels.shape == (20, 64, 3)


def test_intrinsics_follow_each_files_true_size(tmp_path):
    """The camera says 48x36; one file was shrunk to a third, rounded differently on the two axes."""
    root = write_capture(tmp_path, NAMES[:3])
    lens = Lens("PINHOLE", (40.0, 41.0, 25.0, 17.0), 49, 37)
    write_model(model_of(NAMES[:3], lens), root / "sparse" / "0")
    write_image(root / "images" / NAMES[1], picture(24, 19))
    cameras = open_scene(root).cameras
    assert (cameras[1].width, cameras[1].height) == (24, 19)
    np.testing.assert_allclose(np.diag(cameras[1].K), [40 * 24 / 49, 41 * 19 / 37, 1])
    np.testing.assert_allclose(cameras[1].K[:2, 2], [25 * 24 / 49, 17 * 19 / 37])


def test_downscale_on_the_fly_is_area_averaged(tmp_path):
    root = write_capture(tmp_path, NAMES[:3])
    camera = open_scene(root, SceneOptions(downscale=2)).cameras[1]
    assert (camera.width, camera.height) == (24, 18)
    np.testing.assert_allclose(camera.K, [[20, 0, 12.5], [0, 20.5, 8.5], [0, 0, 1]])
    blocks = picture(seed=1).reshape(18, 2, 24, 2, 3).astype(float).mean(axis=(1, 3))
    np.testing.assert_allclose(read_frame(camera).pixels, blocks, atol=0.51)


def test_auto_shrinks_only_what_is_longer_than_1600(tmp_path):
    lens = Lens("PINHOLE", (1000.0, 1000.0, 1000.0, 500.0), 2000, 1000)
    scene = open_scene(write_capture(tmp_path, ["a.png", "b.png"], lens))
    assert (scene.cameras[0].width, scene.cameras[0].height) == (1600, 800)
    assert scene.cameras[0].K[0, 0] == pytest.approx(800)
    assert scene.protocol["downscale"] == "auto, cv2 INTER_AREA"
    small = open_scene(tmp_path, SceneOptions(downscale=1, max_size=100)).cameras[0]
    assert (small.width, small.height) == (100, 50)


def test_a_folder_of_shrunk_copies_is_used_by_name_and_true_size(tmp_path):
    root = write_capture(tmp_path, NAMES[:4])
    for index, name in enumerate(NAMES[:3]):  # the fourth was forgotten; a stray file must not shift the others
        write_image(root / "images_4" / f"{Path(name).stem}.jpg", picture(12, 9, seed=index))
    write_image(root / "images_4" / "000_stray.jpg", picture(12, 9))
    scene = open_scene(root, SceneOptions(downscale=4))
    assert [camera.image_path.parent.name for camera in scene.cameras] == ["images_4"] * 3 + ["images"]
    assert scene.cameras[0].image_path.name == "00.jpg"
    assert {(camera.width, camera.height) for camera in scene.cameras} == {(12, 9)}
    assert scene.protocol["images"] == "images, images_4"
    assert open_scene(root).cameras[0].width == WIDTH, "without a downscale the originals are used"
    assert len(open_scene(root, SceneOptions(images="images_4")).cameras) == 3
    shutil.rmtree(root / "images")
    alone = open_scene(root)
    assert alone.protocol["images"] == "images_4" and alone.cameras[0].width == 12
    assert "1 image of 4 skipped, not found in" in alone.warnings[0]


def test_images_that_cannot_be_used_are_skipped_and_counted_by_reason(tmp_path):
    root = write_capture(tmp_path, [f"{index:02d}.jpg" for index in range(10)])
    (root / "images" / "01.jpg").unlink()
    (root / "images" / "02.jpg").unlink()
    (root / "images" / "03.jpg").write_bytes(b"this is no picture")
    whole = (root / "images" / "04.jpg").read_bytes()
    (root / "images" / "04.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    write_image(root / "images" / "05.jpg", picture(HEIGHT, WIDTH))
    scene = open_scene(root)
    assert [camera.name for camera in scene.cameras] == ["00.jpg", "06.jpg", "07.jpg", "08.jpg", "09.jpg"]
    assert scene.warnings == (
        f"2 images of 10 skipped, not found in {root / 'images'}: 01.jpg, 02.jpg.",
        "1 image of 10 skipped, not readable as an image: 03.jpg.",
        "1 image of 10 skipped, the file is cut short (no end marker): 04.jpg.",
        "1 image of 10 skipped, the shape is not that of its camera: 05.jpg (36x48, not 48x36).",
    )


def test_no_image_at_all_is_an_error_that_says_where_was_looked(tmp_path):
    root = write_capture(tmp_path, NAMES)
    shutil.rmtree(root / "images")
    (root / "images").mkdir()
    with pytest.raises(
        SceneError, match=rf"none of its 10 images can be used; 10 not found in {root / 'images'}: 00.png"
    ):
        open_scene(root)
    with pytest.raises(SceneError, match=r"image folder .*nothing does not exist; folders in .*: images, sparse"):
        open_scene(root, SceneOptions(images="nothing"))


@pytest.mark.parametrize(
    "place",
    [
        "masks/cam/a.jpg",
        "masks/cam/a.jpg.png",
        "masks/cam/a.png",
        "masks/cam/a.jpg.mask.png",
        "masks/cam/a.mask.png",
        "images/cam/a_mask.png",
    ],
)
def test_masks_under_every_usual_name(tmp_path, place):
    root = write_capture(tmp_path, ["cam/a.jpg", "cam/b.jpg"])
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[:, :24] = 0
    write_mask(root / place, mask)
    scene = open_scene(root)
    assert [camera.mask_path for camera in scene.cameras] == [root / place, None]
    assert "1 of 2 views have a mask; the others count whole." in scene.warnings
    assert scene.protocol["masks"] == "1 of 2"
    seen = read_frame(scene.cameras[0]).mask
    assert (seen[:, :20] < 8).all() and (seen[:, 28:] > 247).all()
    inverted = read_frame(open_scene(root, SceneOptions(invert_masks=True)).cameras[0]).mask
    np.testing.assert_array_equal(inverted, 255 - seen)
    assert open_scene(root, SceneOptions(masks="none")).cameras[0].mask_path is None


def test_masks_are_resized_with_area(tmp_path):
    root = write_capture(tmp_path, NAMES[:2])
    mask = np.zeros((2 * HEIGHT, 2 * WIDTH), np.uint8)
    mask[:, ::2] = 255
    write_mask(root / "other" / NAMES[0], mask)
    camera = open_scene(root, SceneOptions(masks="other", downscale=2)).cameras[0]
    np.testing.assert_allclose(read_frame(camera).mask, np.full((18, 24), 127.5), atol=1)


def test_mask_folders_that_fit_nothing(tmp_path):
    root = write_capture(tmp_path, NAMES[:2])
    write_mask(root / "masks" / "unrelated.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    assert "holds no mask of any view; expected 00.png.png or the like." in open_scene(root).warnings[0]
    with pytest.raises(SceneError, match="has no mask for any view"):
        open_scene(root, SceneOptions(masks="masks"))
    with pytest.raises(SceneError, match=r"mask folder .* does not exist"):
        open_scene(root, SceneOptions(masks="nothing"))


def test_alpha_is_a_mask_unless_a_background_is_given(tmp_path):
    root = write_capture(tmp_path, NAMES[:2])
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:10] = 0
    write_image(root / "images" / NAMES[0], picture(), alpha)
    frame = read_frame(open_scene(root).cameras[0])
    np.testing.assert_array_equal(frame.mask, alpha)
    np.testing.assert_array_equal(frame.pixels, picture())
    green = open_scene(root, SceneOptions(background=(0.0, 1.0, 0.0)))
    frame = read_frame(green.cameras[0])
    assert frame.mask is None and (frame.pixels[:10] == (0, 255, 0)).all()
    np.testing.assert_array_equal(frame.pixels[10:], picture()[10:])
    assert green.cameras[1].background is None and green.protocol["alpha"] == "1 images, over (0.0, 1.0, 0.0)"


@pytest.mark.parametrize("tag", [3, 6, 8])
def test_orientation_tags_are_ignored(tmp_path, tag):
    """COLMAP measures the stored pixels; a viewer would turn them."""
    root = write_capture(tmp_path, ["a.jpg", "b.jpg"])
    path = root / "images" / "a.jpg"
    plain = path.read_bytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + bytes([0, tag, 0, 0]) + b"\0\0\0\0"
    path.write_bytes(plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:])
    turned = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    assert turned.shape[:2] == ((36, 48) if tag == 3 else (48, 36)), "the tag is really there"
    frame = read_frame(open_scene(root).cameras[0])
    np.testing.assert_allclose(frame.pixels.astype(float), picture(), atol=12)


def test_large_coordinates_are_recentred(tmp_path):
    root = write_capture(tmp_path, NAMES, offset=5e6)
    scene = open_scene(root)
    near = open_scene(write_capture(tmp_path / "near", NAMES))
    shift = scene.world_from_input[:3, 3]
    assert np.abs(shift + 5e6).max() < 10 and "Coordinates are large" in scene.warnings[0]
    for camera, other in zip(scene.cameras, near.cameras, strict=True):
        np.testing.assert_allclose(camera.center_world - shift - 5e6, other.center_world, atol=1e-6)
        ours = scene.points.xyz.astype(float) @ camera.camera_from_world[:3, :3].T + camera.camera_from_world[:3, 3]
        theirs = near.points.xyz.astype(float) @ other.camera_from_world[:3, :3].T + other.camera_from_world[:3, 3]
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert scene.extent_world == pytest.approx(near.extent_world)


def test_without_points_the_start_is_random_repeatable_and_in_sight(tmp_path):
    model = model_of(NAMES, points=0)
    root = write_capture(tmp_path, NAMES)
    write_model(model, root / "sparse" / "0")
    scene = open_scene(root, SceneOptions(random_points=500, seed=4))
    assert scene.points.source == "random" and len(scene.points) == 500 and scene.points.xyz.dtype == np.float32
    assert "The capture has no points; starting from 500 random points." in scene.warnings
    again = open_scene(root, SceneOptions(random_points=500, seed=4))
    np.testing.assert_array_equal(scene.points.xyz, again.points.xyz)
    assert (scene.points.xyz != open_scene(root, SceneOptions(random_points=500, seed=5)).points.xyz).any()
    seen = np.zeros(500, bool)
    for camera in scene.train_cameras:
        local = scene.points.xyz @ camera.camera_from_world[:3, :3].T + camera.camera_from_world[:3, 3]
        pixel = local[:, :2] / local[:, 2:] * (40, 41) + (25, 17)
        seen |= (local[:, 2] > 0) & (pixel > -0.01).all(1) & (pixel < (WIDTH + 0.01, HEIGHT + 0.01)).all(1)
    assert seen.all()
    assert np.median(np.linalg.norm(scene.points.xyz, axis=1)) < 3, "the cameras look at the origin from 4 away"
    (root / "sparse" / "0" / "points3D.bin").unlink()
    assert open_scene(root).points.source == "random", "no file is the same as no points"


def test_cameras_in_one_place_take_their_extent_from_the_points(tmp_path):
    root = write_capture(tmp_path, NAMES)
    model = model_of(NAMES)
    model.images = [(name, 1, np.array([1.0, 0, 0, 0]), np.array([0, 0, 4.0])) for name in NAMES]
    write_model(model, root / "sparse" / "0")
    assert 2 < open_scene(root).extent_world < 6
    write_model(Model(model.cameras, model.images), root / "sparse" / "0")
    assert open_scene(root).extent_world == 1.0


def test_at_most_so_many_points(tmp_path):
    root = write_capture(tmp_path, NAMES)
    few = open_scene(root, SceneOptions(max_points=7)).points
    every = {tuple(row) for row in open_scene(root).points.xyz.tolist()}
    assert len(few) == 7 and {tuple(row) for row in few.xyz.tolist()} <= every


def test_the_model_folder_itself_may_be_given(tmp_path):
    root = write_capture(tmp_path / "toy", NAMES)
    scene = open_scene(root / "sparse" / "0")
    assert scene.name == "toy" and len(scene.cameras) == 10


def test_a_directory_that_is_no_scene_lists_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SceneError) as caught:
        open_scene(tmp_path)
    for word in ("sparse/*", "colmap/sparse", "transforms.json", "transforms_train.json", "images/", "video"):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [("scene.zip", "unpack it"), ("scene.ply", "expected a scene folder"), ("absent", "no such file")],
)
def test_paths_that_are_no_folder(tmp_path, name, words):
    if name != "absent":
        (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(SceneError, match=words):
        open_scene(tmp_path / name)


def test_what_the_system_refuses_is_one_line():
    with pytest.raises(SceneError, match=r"cannot be read \(File name too long\)"):
        open_scene("x" * 5000)


def test_photos_without_poses_name_the_command(tmp_path):
    for name in NAMES[:4]:
        write_image(tmp_path / "my photos" / name, picture())
    with pytest.raises(SceneError, match=r"has no camera poses; run `splat sfm '.*my photos'` first"):
        open_scene(tmp_path / "my photos")


@pytest.mark.parametrize("setting", [{"downscale": 0}, {"downscale": "much"}, {"test_every": -1}, {"max_points": 0}])
def test_options_that_cannot_be(setting):
    with pytest.raises(SceneError, match=rf"{next(iter(setting))} .* is not usable"):
        SceneOptions(**setting)


def test_a_size_given_as_downscale_is_noticed():
    with pytest.raises(SceneError, match="downscale 1600 divides every side; use max_size"):
        SceneOptions(downscale=1600)


def test_a_panorama_becomes_six_pinholes_that_stay_together_in_the_split(tmp_path):
    """Every side is a photograph of the same sphere: what two sides and the panorama show of a direction agrees."""
    width = 600
    lens = Lens("EQUIRECTANGULAR", (width, width / 2), width, width // 2)
    root = write_capture(tmp_path / "pano", ["a.png", "b.png", "c.png"], lens)
    u, v = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(width // 2) + 0.5) / (width // 2))
    longitude, latitude = (u - 0.5) * 2 * np.pi, (v - 0.5) * np.pi
    sphere = np.stack(
        [np.cos(latitude) * np.sin(longitude), np.sin(latitude), np.cos(latitude) * np.cos(longitude)], axis=-1
    )
    write_image(root / "images" / "a.png", np.rint(127.5 + 120 * sphere).astype(np.uint8))
    scene = open_scene(root, SceneOptions(test_every=3))
    sides = ["back", "down", "front", "left", "right", "up"]
    assert len(scene.cameras) == 18
    assert sorted(camera.name for camera in scene.test_cameras) == [f"a@{side}.png" for side in sides]
    pose = model_of(["a.png"], lens).images[0]
    for camera in scene.test_cameras:
        assert camera.width == camera.height == round(width / np.pi)
        frame = read_frame(camera)
        assert frame.mask is None
        x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
        rays = np.stack(
            [(x - camera.K[0, 2]) / camera.K[0, 0], (y - camera.K[1, 2]) / camera.K[1, 1], np.ones_like(x)], -1
        )
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        # The panorama of the first view has the identity as its rotation, so its axes are the world's.
        world = rays @ camera.camera_from_world[:3, :3]
        np.testing.assert_allclose(frame.pixels, 127.5 + 120 * world, atol=3)
        np.testing.assert_allclose(camera.center_world, -pose[3], atol=1e-9)
    assert "EQUIRECTANGULAR images are cut into front, right, back, left, up, down." in scene.warnings


def test_pinhole_captures_have_no_lens_and_distorted_ones_do(tmp_path):
    lens = Lens("SIMPLE_RADIAL", (40.0, 25.0, 17.0, -0.1), WIDTH, HEIGHT)
    scene = open_scene(write_capture(tmp_path, NAMES[:2], lens))
    assert scene.cameras[0].lens == lens and scene.protocol["undistortion"].startswith("SIMPLE_RADIAL to pinhole")
    straight = Lens("SIMPLE_RADIAL", (40.0, 25.0, 17.0, 0.0), WIDTH, HEIGHT)
    assert open_scene(write_capture(tmp_path / "b", NAMES[:2], straight)).cameras[0].lens is None
    assert PINHOLE.is_pinhole
