"""Real photographs, where the shared folder beside the repository is present."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from splat.scene.images import ImageStore, read_frame, undistortion_map
from splat.scene.open import open_scene
from splat.scene.options import SceneOptions
from splat.scene.types import Scene

SCENES = Path(__file__).resolve().parents[3] / "shared/data/scenes"


def opened(name: str, options: SceneOptions | None = None) -> Scene:
    path = SCENES / name
    if not path.exists():
        pytest.skip(f"shared capture {name} is absent")
    return open_scene(path, options)


@pytest.mark.parametrize(
    ("name", "views", "points", "size", "lens"),
    [
        ("plush_pinhole", 97, 12654, (983, 733), None),
        ("plush_opencv", 97, 12654, (1000, 750), "OPENCV"),
        ("fox", 50, 11121, (540, 960), "OPENCV"),
        ("skull", 25, 3691, (1000, 667), None),
        ("brighton_drone", 18, 6227, (992, 558), "SIMPLE_RADIAL"),
    ],
)
def test_the_counts_of_the_data_sheet(name, views, points, size, lens):
    scene = opened(name)
    assert (len(scene.cameras), len(scene.points)) == (views, points) and not scene.warnings
    assert len(scene.test_indices) == -(-views // 8) and scene.test_indices[0] == 0
    camera = scene.cameras[0]
    assert (camera.width, camera.height) == size and (camera.lens.model if camera.lens else None) == lens
    with ImageStore(scene.cameras[:3]) as store:
        frame = store.frame(0)
        assert frame.pixels.shape == (size[1], size[0], 3)
        assert (frame.mask is None) == (lens is None)
        if frame.mask is not None:
            assert 0.9 < (frame.mask == 255).mean() < 1.0


@pytest.mark.parametrize("name", ["plush_pinhole", "plush_opencv", "fox", "skull", "brighton_drone"])
def test_points_lie_in_front_of_the_cameras_that_see_them(name):
    scene = opened(name)
    inside = np.zeros(len(scene.points), int)
    for camera in scene.cameras:
        local = scene.points.xyz @ camera.camera_from_world[:3, :3].T + camera.camera_from_world[:3, 3]
        pixel = local[:, :2] / np.maximum(local[:, 2:], 1e-9) * np.diag(camera.K)[:2] + camera.K[:2, 2]
        inside += (local[:, 2] > 0) & (pixel >= 0).all(1) & (pixel <= (camera.width, camera.height)).all(1)
    assert (inside >= 2).mean() > 0.99


def test_text_and_binary_are_the_same_model():
    binary, text = opened("skull"), opened("skull", SceneOptions(model="sparse_txt/0"))
    order, other = (np.lexsort(scene.points.xyz.T) for scene in (binary, text))
    np.testing.assert_allclose(binary.points.xyz[order], text.points.xyz[other], rtol=1e-6)
    for ours, theirs in zip(binary.cameras, text.cameras, strict=True):
        np.testing.assert_allclose(ours.camera_from_world, theirs.camera_from_world, atol=1e-9)
        np.testing.assert_allclose(ours.K, theirs.K)


@pytest.mark.parametrize("json_name", ["transforms.json", "transforms_with_missing.json"])
def test_both_loaders_give_the_same_cameras(json_name):
    colmap, transforms = opened("fox"), opened(f"fox/{json_name}")
    assert [camera.name for camera in colmap.cameras] == [camera.name for camera in transforms.cameras]
    for ours, theirs in zip(colmap.cameras, transforms.cameras, strict=True):
        # The JSON's rotations are orthonormal to 5e-7 only, and its cameras stand 7 units from the origin.
        np.testing.assert_allclose(ours.camera_from_world, theirs.camera_from_world, atol=5e-6)
        np.testing.assert_allclose(ours.K, theirs.K, rtol=1e-9)
        np.testing.assert_allclose(ours.lens.params, theirs.lens.params, rtol=1e-9)
        assert (ours.width, ours.height, ours.image_path) == (theirs.width, theirs.height, theirs.image_path)
    missing = any("17 images of 67 skipped" in warning for warning in transforms.warnings)
    assert missing == (json_name == "transforms_with_missing.json")


@pytest.mark.parametrize("index", [0, 60])
def test_our_undistortion_is_colmaps(index):
    """plush_pinhole is plush_opencv undistorted by COLMAP; a quarter of a pixel's shift would cost two decibels."""
    bent, straight = opened("plush_opencv").cameras[index], opened("plush_pinhole").cameras[index]
    work = (bent.lens.width, bent.lens.height)
    positions, valid = undistortion_map(bent.lens, straight.K, straight.width, straight.height, work)
    file_pixels = read_frame(replace(bent, lens=None)).pixels
    truth = read_frame(straight).pixels.astype(float)

    def psnr(shift: float) -> float:
        ours = cv2.remap(file_pixels, positions + np.float32([shift, 0]), None, cv2.INTER_CUBIC)
        return 10 * np.log10(255**2 / np.mean((ours - truth)[4:-4, 4:-4] ** 2))

    assert valid.all() and psnr(0) > 38
    assert psnr(0) > max(psnr(-0.25), psnr(0.25)) + 0.5
