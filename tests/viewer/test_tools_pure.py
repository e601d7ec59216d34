"""What the tools compute without a browser: pixels and rays, outlines, matrices of gizmos, the order of work."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from splat.edit.ops import Handle
from splat.geometry.camera import Camera
from splat.viewer.tools.combine import MODIFIERS, combined
from splat.viewer.tools.handles import missed_text
from splat.viewer.tools.matrices import (
    about,
    between,
    euler,
    frozen,
    is_identity,
    long_axes,
    quaternion,
    rotation,
)
from splat.viewer.tools.runner import Runner
from splat.viewer.tools.screen import (
    at_depth,
    chain,
    circle,
    distance_to_chain,
    in_view_plane,
    pixel,
    project,
    rectangle,
    swept,
    thinned,
)


@pytest.fixture
def camera() -> Camera:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = euler((20.0, -35.0, 10.0)), (0.3, -0.2, 4.0)
    return Camera("test", pose, np.array([[500.0, 0, 400], [0, 510.0, 225], [0, 0, 1]]), 800, 450)


def test_the_first_pixel_is_at_one_half(camera: Camera) -> None:
    assert pixel(((0 + 0.5) / 800, (449 + 0.5) / 450), camera) == pytest.approx((0.5, 449.5))


def test_a_ray_meets_the_pixel_it_came_from(camera: Camera) -> None:
    pixels = np.array([[[10.5, 20.5], [799.5, 0.5]], [[400.0, 225.0], [3.25, 449.0]]])
    depth = np.array([[0.5, 3.0], [10.0, 2.5]])
    seen, z = project(camera, at_depth(camera, pixels, depth))
    np.testing.assert_allclose(seen, pixels, atol=1e-9)
    np.testing.assert_allclose(z, depth, atol=1e-12)


def test_a_point_in_the_view_plane_follows_the_pointer(camera: Camera) -> None:
    point = at_depth(camera, np.array([200.0, 100.0]), 3.0)
    moved = in_view_plane(camera, (205.0, 95.0), (305.0, 145.0), point)  # the pointer held it 5 px beside its middle
    seen, depth = project(camera, moved)
    np.testing.assert_allclose(seen, (300.0, 150.0), atol=1e-9)
    assert depth == pytest.approx(3.0)


def test_a_stroke_is_thinned_but_keeps_its_ends() -> None:
    assert thinned([(0, 0), (0.2, 0), (0.6, 0), (1.5, 0), (1.6, 0)]) == [(0, 0), (1.5, 0), (1.6, 0)]
    assert thinned([]) == [] and thinned([(3, 4)]) == [(3, 4)]
    assert rectangle((5, 1), (2, 7)) == ((2, 1), (5, 7))


def test_outlines_close_where_they_should() -> None:
    corners = [(0, 0), (4, 0), (4, 3)]
    assert chain(corners, closed=False).shape == (2, 2, 2) and chain(corners, closed=True).shape == (3, 2, 2)
    assert chain([(1, 1)], closed=True).shape == (0, 2, 2)
    np.testing.assert_allclose(np.linalg.norm(circle((3, 4), 5.0) - (3, 4), axis=-1), 5.0)


def test_the_brush_outline_lies_at_its_radius_everywhere() -> None:
    path = [(0.0, 0.0), (60.0, 10.0), (70.0, 80.0)]
    edges = swept(path, 12.0)
    away = distance_to_chain(edges.mean(axis=1), chain(path, closed=False))
    assert len(edges) > 20 and away.min() > 0.96 * 12 and away.max() < 12.01


def test_a_similarity_about_a_pivot_leaves_it() -> None:
    matrix = about((1.0, 2.0, 3.0), turn=euler((0, 0, 90)), scale=2.0)
    np.testing.assert_allclose(matrix @ (1, 2, 3, 1), (1, 2, 3, 1), atol=1e-12)
    np.testing.assert_allclose(matrix @ (2, 2, 3, 1), (1, 4, 3, 1), atol=1e-12)
    assert is_identity(about((5.0, 5.0, 5.0))) and not is_identity(matrix)
    assert isinstance(frozen(matrix)[0][0], float)


def test_a_gizmo_takes_its_own_pose_along() -> None:
    start, end = np.array([0.9, 0.1, -0.2, 0.3]), np.array([0.2, -0.5, 0.4, 0.1])
    matrix = between(start, (1.0, 0.0, 2.0), end, (3.0, 1.0, 0.0))
    np.testing.assert_allclose(matrix[:3, :3] @ rotation(start), rotation(end), atol=1e-12)
    np.testing.assert_allclose(matrix @ (1, 0, 2, 1), (3, 1, 0, 1), atol=1e-12)


def test_turns_about_the_axes_come_in_order() -> None:
    np.testing.assert_allclose(euler((90, 0, 0)) @ (0, 1, 0), (0, 0, 1), atol=1e-12)
    np.testing.assert_allclose(euler((90, 0, 90)) @ (0, 1, 0), (0, 0, 1), atol=1e-12)  # x before z


def test_held_modifiers_win_over_the_choice() -> None:
    assert [combined(modifier, "intersect") for modifier in MODIFIERS] == ["intersect", "add", "subtract", "intersect"]
    assert combined(None, "set") == "set"


def test_work_is_done_in_order_and_of_moves_only_the_newest() -> None:
    runner, done, gate = Runner(), [], threading.Event()
    runner.do(gate.wait)
    for number in range(5):
        runner.newest("move", lambda number=number: done.append(("move", number)))
    runner.do(lambda: done.append(("end", 0)))
    runner.newest("move", lambda: done.append(("move", 9)))
    gate.set()
    assert runner.idle(60.0)
    assert done == [("move", 4), ("end", 0), ("move", 9)]
    runner.close()
    runner.do(lambda: done.append(("late", 0)))
    assert runner.idle(60.0) and len(done) == 3


def test_an_exception_does_not_end_the_thread() -> None:
    told: list[Exception] = []

    def guard(job):
        def run() -> None:
            try:
                job()
            except Exception as error:
                told.append(error)

        return run

    runner, done = Runner(guard), []
    runner.do(lambda: 1 / 0)
    runner.do(lambda: done.append(1))
    assert runner.idle(60.0)
    runner.close()
    assert done == [1] and isinstance(told[0], ZeroDivisionError)


@pytest.mark.parametrize("degrees", [(0, 0, 0), (20, -35, 10), (180, 0, 0), (0, 180, 0), (120, 70, -200)])
def test_a_quaternion_and_its_rotation_say_the_same(degrees: tuple[float, ...]) -> None:
    turn = euler(degrees)
    np.testing.assert_allclose(rotation(quaternion(turn)), turn, atol=1e-12)
    assert quaternion(turn)[0] >= 0


def test_long_axes_are_a_rotation_near_the_worlds() -> None:
    """Of a slab that was turned a little: its own sides, each named after the axis it came from."""
    points = np.random.default_rng(0).normal(size=(4000, 3)) * (0.2, 3.0, 1.0)
    turn = euler((12.0, -20.0, 9.0))
    found = long_axes(points @ turn.T)
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-12)
    assert np.linalg.det(found) == pytest.approx(1.0)
    np.testing.assert_allclose(found, turn, atol=0.02)
    np.testing.assert_allclose(long_axes(points[:2]), np.eye(3))
    assert np.isfinite(long_axes(np.zeros((5, 3)))).all()


def test_only_what_stays_behind_by_more_than_can_be_seen_is_told() -> None:
    far, near, wide = (Handle((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), radius) for radius in (0.0, 0.0, 0.5))
    assert missed_text([far], [0.0099], 1.0) == "" and missed_text([wide], [0.4], 1.0) == ""
    assert missed_text([far], [0.25], 1.0).startswith("The handle misses its place by 0.25 (world units, 25% of")
    assert missed_text([far, near, wide], [0.25, 0.001, 0.6], 2.0).startswith(
        "2 of 3 handles miss their place by up to 0.6"
    )
    assert "%" not in missed_text([far], [0.25], 0.0)
