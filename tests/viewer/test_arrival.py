"""Where a page begins: its scale, its up direction, its first camera."""

from __future__ import annotations

import numpy as np
import pytest
import serving
import torch
from pageless import visited

from splat.scene.open import open_scene
from splat.scene.options import SceneOptions
from splat.viewer.picture.space import Space
from splat.viewer.serving.arrival import COMFORTABLE_UNITS, chosen_space, start_pose

TURN = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # x -> y -> z -> x


def test_a_capture_gives_scale_up_and_the_first_training_view(tiny_scene) -> None:
    scene = open_scene(tiny_scene, SceneOptions())
    space = chosen_space(scene, None)
    assert space.scale * scene.extent_world == pytest.approx(COMFORTABLE_UNITS)
    assert np.allclose(space.up, (0, -1, 0), atol=1e-6)
    pose = start_pose(scene, None, space)
    camera = scene.train_cameras[0]
    assert np.allclose(pose["position"], camera.center_world * space.scale)
    ahead = (np.array(pose["look_at"]) - pose["position"]) / space.scale
    assert np.allclose(np.cross(ahead, camera.camera_from_world[2, :3]), 0, atol=1e-9)
    assert 3 < np.linalg.norm(ahead) < 5, "as far as the balls, which lie about 4 away"
    assert pose["fov"] == pytest.approx(2 * np.arctan(camera.height / 2 / camera.K[1, 1]))


def test_a_file_alone_is_seen_from_outside() -> None:
    model = serving.ball(500)
    model.rows["means"] = model.rows["means"] * 10 + torch.tensor([100.0, 0, 0])
    model.rows["means"][0] = 1e6  # a floater
    model.rows["means"][1] = torch.nan
    space = chosen_space(None, model)
    assert 0.1 < space.scale < 0.5
    pose = start_pose(None, model, space)
    assert np.allclose(np.array(pose["look_at"]) / space.scale, (100, 0, 0), atol=2)
    apart = np.linalg.norm(np.subtract(pose["position"], pose["look_at"]))
    assert apart == pytest.approx(2.5 * COMFORTABLE_UNITS) and pose["position"][1] < pose["look_at"][1], "from above"


@pytest.mark.parametrize("frame", [None, "own"])
def test_what_a_file_says_is_turned_into_the_frame_of_its_rows(frame) -> None:
    header = {
        "up_axis": [0, 0, 2.0],
        "start_view": {"position": [1, 2, 3], "target": [1, 2, 7], "up": [0, 0, 1], "fov": 40},
    }
    turn, shift, size = np.eye(3), np.zeros(3), 1.0
    if frame is not None:
        turn, shift, size = TURN, np.array([5.0, 0, 0]), 2.0
        header["world_from_input"] = [*np.column_stack([size * turn, shift]).tolist(), [0, 0, 0, 1]]
    space = chosen_space(None, serving.ball(50), header)
    assert np.allclose(space.up, turn @ (0, 0, 1))
    pose = start_pose(None, serving.ball(50), space, header)
    assert np.allclose(np.array(pose["position"]) / space.scale, size * turn @ (1, 2, 3) + shift)
    assert np.allclose(np.array(pose["look_at"]) / space.scale, size * turn @ (1, 2, 7) + shift)
    assert pose["fov"] == pytest.approx(np.radians(40))


@pytest.mark.parametrize("broken", [
    {"up_axis": [0, 0, 0]}, {"up_axis": [1, 2]}, {"up_axis": [float("nan"), 0, 0]},
    {"start_view": {"position": [0, 0, 0]}},
    {"start_view": {"position": [0, 0, 0], "target": [0, 0, 0], "fov": 40}}, {"start_view": "there"},
    {"world_from_input": [[1]]},
])  # fmt: skip
def test_nonsense_in_a_file_is_passed_over(broken) -> None:
    model = serving.ball(50)
    assert chosen_space(None, model, broken) == chosen_space(None, model)
    assert start_pose(None, model, Space(), broken) == start_pose(None, model, Space())


@pytest.mark.parametrize("count", [0, 1])
def test_next_to_nothing_can_be_opened(count: int) -> None:
    model = serving.ball(4)
    model.rows = {name: table[:count] for name, table in model.rows.items()}
    space = chosen_space(None, model)
    assert np.isfinite(space.scale) and space.scale > 0
    pose = start_pose(None, model, space)
    assert np.isfinite([*pose["position"], *pose["look_at"]]).all()
    assert not np.allclose(pose["position"], pose["look_at"])


def test_a_page_begins_before_the_background_that_was_trained_with() -> None:
    with serving.serve(serving.ball(5), background=(1.0, 1.0, 1.0)) as served:
        with visited(served) as (_, ours):
            assert ours.look.background == (1.0, 1.0, 1.0)
        served.link.news.update(settings={"background": (0.25, 0.5, 0.75)})
        with visited(served) as (_, ours):
            assert ours.look.background == (0.25, 0.5, 0.75)
        served.link.news.update(settings={"background": None})
        with visited(served) as (_, ours):
            assert ours.look.background == (1.0, 1.0, 1.0), "a random one is no colour"
