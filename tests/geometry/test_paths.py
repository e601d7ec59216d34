"""Camera paths: smooth, even, rigid, and looking where the photographs look."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from splat.errors import UserError
from splat.geometry.camera import Camera
from splat.geometry.paths import focus_point, interpolated_path, look_at, orbit_path, up_direction

UP = np.array([0.0, -1.0, 0.0])


def camera(name, position, target, *, size=(80, 60), focal=70.0):
    rotation = look_at(np.asarray(position, float), np.asarray(target, float), UP)
    camera_from_world = np.eye(4)
    camera_from_world[:3, :3] = rotation.T
    camera_from_world[:3, 3] = -rotation.T @ position
    width, height = size
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    return Camera(name, camera_from_world, intrinsics, width, height)


def ring(count=12, radii=(4.0, 2.0), target=(0.5, 0.2, -0.3), height=-1.0, arc=2 * math.pi):
    angles = np.arange(count) * arc / count
    return [
        camera(f"{i:03d}.jpg", (radii[0] * math.cos(a) + target[0], height, radii[1] * math.sin(a) + target[2]), target)
        for i, a in enumerate(angles)
    ]


def assert_rigid(cameras):
    for view in cameras:
        rotation = view.camera_from_world[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(rotation) > 0 and np.isfinite(view.camera_from_world).all()


def turn_between(a, b):
    """Angle in radians between two cameras' orientations."""
    relative = a.camera_from_world[:3, :3] @ b.camera_from_world[:3, :3].T
    return math.acos(np.clip((np.trace(relative) - 1) / 2, -1, 1))


def test_the_path_passes_through_its_cameras_and_takes_them_by_name():
    cameras = ring(9, arc=3.0)
    path = interpolated_path(cameras[::-1], 2001, keyframes=None)
    assert_rigid(path)
    np.testing.assert_allclose(path[0].center_world, cameras[0].center_world, atol=1e-9)
    np.testing.assert_allclose(path[-1].camera_from_world, cameras[-1].camera_from_world, atol=1e-6)
    for wanted in cameras:
        nearest = min(path, key=lambda view: np.linalg.norm(view.center_world - wanted.center_world))
        assert np.linalg.norm(nearest.center_world - wanted.center_world) < 0.01
        assert turn_between(nearest, wanted) < 0.02


def test_the_path_has_even_speed_and_no_jumps():
    rng = np.random.default_rng(0)
    cameras = [
        camera(f"{i:02d}", np.array([0.3 * i**1.5, 0, -4]) + rng.normal(0, 0.05, 3), (i * 0.3, 0, 0)) for i in range(12)
    ]
    path = interpolated_path(cameras, 300)
    centers = np.stack([view.center_world for view in path])
    steps = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    assert steps.max() / steps.min() < 1.15
    assert max(turn_between(a, b) for a, b in pairwise(path)) < math.radians(4)


def test_the_sign_of_a_quaternion_never_makes_the_camera_spin():
    cameras = ring(40)  # a full turn passes every sign change
    for view in interpolated_path(cameras, 400, keyframes=None):
        towards = np.array([0.5, 0.2, -0.3]) - view.center_world
        assert view.camera_from_world[2, :3] @ towards / np.linalg.norm(towards) > 0.999


def test_one_camera_and_cameras_in_one_place():
    one = camera("a", (0, 0, -3), (0, 0, 0))
    assert len(interpolated_path([one], 5)) == 5
    assert_rigid(orbit_path([one], 5))
    turned = [camera(f"{i}", (0, 0, -3), (i, 0, 0)) for i in range(4)]
    path = interpolated_path(turned, 7)
    assert_rigid(path)
    np.testing.assert_allclose(path[3].center_world, (0, 0, -3), atol=1e-9)
    assert_rigid(orbit_path(turned, 7))


def test_the_orbit_is_the_ellipse_of_the_cameras():
    cameras = ring(60)
    orbit = orbit_path(cameras, 36)
    assert_rigid(orbit)
    centers = np.stack([view.center_world for view in orbit]) - (0.5, -1.0, -0.3)
    np.testing.assert_allclose((centers[:, 0] / 4) ** 2 + (centers[:, 2] / 2) ** 2, 1, atol=1e-6)
    np.testing.assert_allclose(centers[:, 1], 0, atol=1e-9)
    for view in orbit:
        seen = view.K @ (view.camera_from_world @ np.array([0.5, 0.2, -0.3, 1]))[:3]
        np.testing.assert_allclose(seen[:2] / seen[2], (40, 30), atol=0.1)
        assert view.camera_from_world[1, :3] @ UP < 0  # image y points down


def test_focus_and_up_of_a_scattered_capture():
    rng = np.random.default_rng(1)
    target = np.array([1.0, 2.0, 3.0])
    cameras = [camera(f"{i}", target + rng.normal(0, 2, 3) + (0, -2, 0), target) for i in range(30)]
    np.testing.assert_allclose(focus_point(cameras), target, atol=1e-2)
    assert up_direction(cameras) @ UP > 0.97


def test_parallel_cameras_focus_in_front_of_them():
    cameras = [camera(f"{i}", (i * 0.5, 0, 0), (i * 0.5, 0, 10)) for i in range(7)]
    focus = focus_point(cameras)
    assert focus[2] > 0.5 and abs(focus[0] - 1.5) < 1e-6
    assert_rigid(orbit_path(cameras, 8))


def test_sizes_and_lenses_come_from_the_capture():
    cameras = ring(6) + [camera(f"z{i}", (3, 0, i), (0, 0, 0), size=(40, 60)) for i in range(3)]
    for path in (interpolated_path(cameras, 4), orbit_path(cameras, 4)):
        assert {(view.width, view.height) for view in path} == {(80, 60)}
        assert all(60 < view.K[0, 0] < 80 and view.K[0, 2] == pytest.approx(40) for view in path)
        assert len({view.name for view in path}) == 4


def test_nothing_to_follow_is_a_user_error():
    for make in (interpolated_path, orbit_path):
        with pytest.raises(UserError, match="at least one camera"):
            make([], 3)
        with pytest.raises(UserError, match="at least one frame"):
            make(ring(3), 0)


@pytest.mark.parametrize(("degrees", "surrounds"), [(360, True), (220, True), (90, False)])
def test_the_orbit_goes_around_only_what_the_photographs_surround(degrees, surrounds):
    target = np.array([0.5, 0.2, -0.3])
    orbit = orbit_path(ring(40, radii=(3.0, 3.0), arc=math.radians(degrees)), 60)
    assert_rigid(orbit)
    offsets = np.stack([view.center_world for view in orbit]) - target
    distances = np.hypot(offsets[:, 0], offsets[:, 2])
    if surrounds:
        np.testing.assert_allclose(distances, 3.0, rtol=0.15)
    else:
        assert distances.min() > 1.5  # never through the object
        assert np.ptp(np.unwrap(np.arctan2(offsets[:, 2], offsets[:, 0]))) < math.radians(120)
