"""cameras.json in Inria's layout, in the capture's own frame."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gaussians import camera_at

from splat.errors import UserError
from splat.io.cameras_json import read_cameras_json, write_cameras_json
from splat.scene.types import PointCloud, Scene


def similarity(scale: float = 2.5) -> np.ndarray:
    """A turn about z, a scale and a shift."""
    world_from_input = np.eye(4)
    world_from_input[:3, :3] = scale * np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])
    world_from_input[:3, 3] = (1, -2, 3)
    return world_from_input


def scene_of(cameras, world_from_input) -> Scene:
    points = PointCloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
    indices = tuple(range(len(cameras)))
    return Scene("s", Path("."), tuple(cameras), points, indices[1:], indices[:1], 1.0, world_from_input)


def test_layout_and_values_in_the_training_frame(tmp_path):
    camera = camera_at((1.0, 0.5, -3.0), name="left/a.jpg")
    path = write_cameras_json(tmp_path / "cameras.json", scene_of([camera], np.eye(4)))
    (entry,) = json.loads(path.read_text())
    assert {"id", "img_name", "width", "height", "position", "rotation", "fy", "fx"} <= set(entry)
    assert (entry["id"], entry["img_name"], entry["width"], entry["height"]) == (0, "left/a.jpg", 48, 36)
    assert (entry["fx"], entry["fy"]) == (50.0, 52.0)
    np.testing.assert_allclose(entry["position"], [1.0, 0.5, -3.0], atol=1e-12)
    # The third column of the camera-to-world rotation is where the camera looks.
    np.testing.assert_allclose(np.array(entry["rotation"])[:, 2], camera.camera_from_world[2, :3], atol=1e-12)


def test_poses_return_to_the_captures_frame(tmp_path):
    cameras = [camera_at((1.0, 0.5, -3.0), name="a.jpg"), camera_at((-2.0, 0.1, 1.0), name="b.jpg")]
    world_from_input = similarity()
    back = read_cameras_json(write_cameras_json(tmp_path / "c.json", scene_of(cameras, world_from_input)))
    point_input = np.array([0.3, -0.2, 0.4, 1.0])
    for camera, read in zip(cameras, back, strict=True):
        np.testing.assert_allclose(np.linalg.det(read.camera_from_world[:3, :3]), 1, atol=1e-12)
        seen = camera.K @ (camera.camera_from_world @ world_from_input @ point_input)[:3]
        seen_input = read.K @ (read.camera_from_world @ point_input)[:3]
        np.testing.assert_allclose(seen[:2] / seen[2], seen_input[:2] / seen_input[2], atol=1e-9)


def test_inrias_own_file_has_a_centred_lens(tmp_path):
    entry = {"id": 0, "img_name": "x", "width": 100, "height": 60, "position": [0, 0, 0],
             "rotation": np.eye(3).tolist(), "fy": 80, "fx": 81}  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps([entry]))
    (camera,) = read_cameras_json(tmp_path / "c.json")
    assert camera.K.tolist() == [[81, 0, 50], [0, 80, 30], [0, 0, 1]]


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"id": 0}]', '{"a": 1}', "null", '[{"position": [1]}]'])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(UserError, match="not an Inria cameras"):
        read_cameras_json(tmp_path / "c.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_cameras_json(tmp_path / "absent.json")
