"""Camera paths by hand: through their keys, on time, smooth, and the same after a file."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splat.errors import UserError
from splat.geometry.keyframe_json import path_from_bytes, path_to_text, read_path
from splat.geometry.keyframes import EASES, TIMINGS, CameraPath, Keyframe
from splat.geometry.paths import look_at
from splat.geometry.rotations import matrix_from_quat, quat_from_matrix

UP = np.array([0.0, -1.0, 0.0])


def key(position, target=(0, 0, 0), **rest):
    position = np.asarray(position, float)
    wxyz = quat_from_matrix(torch.from_numpy(look_at(position, np.asarray(target, float), UP)))
    return Keyframe(tuple(position.tolist()), tuple(wxyz.tolist()), **rest)


def arc(count=5, **rest):
    angles = np.linspace(0, 1.5 * math.pi, count)
    return tuple(key((4 * math.cos(a), -1.0, 4 * math.sin(a)), name=str(i), **rest) for i, a in enumerate(angles))


def positions(keys):
    return np.array([each.position for each in keys])


def rotation(each):
    return matrix_from_quat(torch.tensor(each.wxyz, dtype=torch.float64)).numpy()


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("ease", EASES)
@pytest.mark.parametrize("loop", [False, True])
def test_keys_are_met_on_time(timing, ease, loop):
    keys = tuple(
        key((i**1.5, -1, -3), (i, 0, 0), secs=1 + i, hold_secs=0.5 * (i % 2), fov_deg=40 + 5 * i) for i in range(4)
    )
    path = CameraPath(keys, loop=loop, timing=timing, ease=ease)
    for wanted, met in zip(keys, path.at(np.array(path.key_times)), strict=True):
        np.testing.assert_allclose(met.position, wanted.position, atol=1e-9)
        np.testing.assert_allclose(rotation(met), rotation(wanted), atol=1e-9)
        assert met.fov_deg == pytest.approx(wanted.fov_deg)
    travel = sum(each.secs for each in keys) if loop else sum(each.secs for each in keys[:-1])
    assert path.duration_secs == pytest.approx(travel + 1.0)
    if timing == "keys":
        assert path.key_times == pytest.approx((0, 1, 3.5, 6.5))
    held = path.at(np.array([path.key_times[1], path.key_times[1] + 0.49]))
    assert held[0].position == pytest.approx(held[1].position)


def test_even_timing_keeps_one_speed():
    path = CameraPath(arc(6, secs=1.0), timing="even", ease="none")
    steps = np.linalg.norm(np.diff(positions(path.at(np.linspace(0, path.duration_secs, 400))), axis=0), axis=1)
    assert steps.max() / steps.min() < 1.1


def test_easing_rests_where_it_says():
    def speed(path, moment):
        before, after = positions(path.at(np.array([moment - 1e-4, moment + 1e-4])))
        return np.linalg.norm(after - before) / 2e-4

    keys, end = arc(4), 6.0
    at_rest = {
        ease: [speed(CameraPath(keys, ease=ease), t) < 0.05 for t in (1e-4, 2.0, 4.0, end - 1e-4)] for ease in EASES
    }
    assert at_rest == {"none": [False] * 4, "ends": [True, False, False, True], "keys": [True] * 4}


def test_speed_and_turning_never_jump_when_times_differ():
    keys = tuple(key((2.0 * i, -1, -4), (2.0 * i, 0, 0), secs=(1.0, 3.0, 1.0, 2.0)[i]) for i in range(4))
    at = positions(CameraPath(keys, ease="ends").at(np.linspace(0, 5, 2001)))
    speeds = np.linalg.norm(np.diff(at, axis=0), axis=1) / (5 / 2000)
    assert np.abs(np.diff(speeds)).max() < 0.02 * speeds.max()


def test_a_loop_closes_without_a_kink():
    path = CameraPath(arc(6), loop=True)
    around = path.at(np.linspace(0, path.duration_secs, 721))
    np.testing.assert_allclose(around[0].position, around[-1].position, atol=1e-9)
    velocity = np.diff(positions(around), axis=0)
    np.testing.assert_allclose(velocity[0], velocity[-1], atol=0.03 * np.linalg.norm(velocity, axis=1).max())
    assert len(path.frame_times()) == round(path.duration_secs * path.fps)  # the seam is shown once
    later = path.at(np.array([1.0, 1.0 + path.duration_secs]))
    assert later[0].position == pytest.approx(later[1].position)


def test_a_pure_turn_and_a_pure_zoom_take_their_time():
    turned = CameraPath((key((0, 0, 0), (0, 0, 1)), key((0, 0, 0), (1, 0, 0.0))), ease="none")
    angles = [math.acos(np.clip(rotation(each)[2, 2], -1, 1)) for each in turned.at(np.array([0.0, 1.0, 2.0]))]
    assert angles == pytest.approx([0, math.pi / 4, math.pi / 2], abs=1e-3)
    zoomed = CameraPath((key((0, 0, 1), fov_deg=30), key((0, 0, 1), fov_deg=60)), ease="none")
    fovs = [each.fov_deg for each in zoomed.at(np.linspace(0, 2, 5))]
    assert fovs[0] == pytest.approx(30) and fovs[-1] == pytest.approx(60)
    assert (np.diff(fovs) > 3).all()


def test_odd_paths_are_finite():
    one = CameraPath((key((0, 0, -3), hold_secs=1.0),), loop=True, fps=10)
    assert len(one.frame_times()) == 11 and one.cameras(size=(32, 24))[5].center_world[2] == pytest.approx(-3)
    same = CameraPath((key((0, 0, -3)), key((0, 0, -3)), key((0, 0, -3))), timing="even")
    assert np.isfinite(positions(same.at(np.linspace(-1, 9, 50)))).all()
    assert CameraPath().duration_secs == 0 and CameraPath().key_times == ()
    with pytest.raises(UserError, match="at least one key"):
        CameraPath().at(np.zeros(1))
    with pytest.raises(UserError, match="36,000"):
        CameraPath(arc(2, secs=3600.0), fps=100.0).frame_times()


def test_tension_makes_corners():
    def bow(tension):
        path = CameraPath(arc(4), tension=tension, ease="none")
        middle = positions(path.at(np.array([1.0, 3.0, 5.0])))
        ends = positions(path.keys)
        return np.linalg.norm(middle - (ends[:-1] + ends[1:]) / 2, axis=1).max()

    assert bow(1.0) < 1e-6 < bow(0.5) < bow(0.0) < bow(-0.5)


def test_looks_change_on_the_way():
    keys = (key((0, 0, -3), look={"background": (0.0, 0.0, 0.0), "mode": "color"}),
            key((1, 0, -3), look={"background": (1.0, 0.5, 0.0), "mode": "depth"}))  # fmt: skip
    start, middle, end = CameraPath(keys, ease="none").at(np.array([0.0, 1.0, 2.0]))
    assert middle.look["background"] == pytest.approx((0.5, 0.25, 0.0))
    assert (start.look["mode"], middle.look["mode"], end.look["mode"]) == ("color", "color", "depth")
    assert end.camera(64, 48).background == pytest.approx((1.0, 0.5, 0.0))


def test_a_path_in_another_frame_shows_the_same():
    turn = look_at(np.zeros(3), np.array([1.0, 2, 3]), UP)
    similarity = np.eye(4)
    similarity[:3, :3], similarity[:3, 3] = 2.5 * turn, (1, -2, 3)
    path = CameraPath(arc(4), size=(64, 48))
    for a, b in zip(path.cameras(size=(64, 48), fps=3), path.moved(similarity).cameras(size=(64, 48), fps=3),
                    strict=True):  # fmt: skip
        point = np.array([0.3, -0.2, 0.1, 1])
        there = similarity @ point
        pixel = [(view.K @ (view.camera_from_world @ p)[:3]) for view, p in ((a, point), (b, there))]
        np.testing.assert_allclose(pixel[0][:2] / pixel[0][2], pixel[1][:2] / pixel[1][2], atol=1e-5)


def test_the_key_of_a_camera_is_that_camera():
    camera = key((1, 2, -5), fov_deg=33.0).camera(80, 60)
    again = Keyframe.of(camera).camera(80, 60)
    np.testing.assert_allclose(again.camera_from_world, camera.camera_from_world, atol=1e-12)
    np.testing.assert_allclose(again.K, camera.K, atol=1e-9)


numbers = st.floats(-1e6, 1e6)
looks = st.dictionaries(
    st.text(max_size=8),
    st.none() | st.booleans() | st.text(max_size=8) | numbers | st.lists(numbers, max_size=4).map(tuple), max_size=3,
)  # fmt: skip
quats = st.tuples(numbers, numbers, numbers, st.floats(0.1, 10))
keys_strategy = st.builds(
    Keyframe, st.tuples(numbers, numbers, numbers), quats, st.floats(1, 170), st.floats(0.01, 60), st.floats(0, 60),
    looks, st.text(max_size=8),
)  # fmt: skip
paths = st.builds(
    CameraPath, st.lists(keys_strategy, min_size=1, max_size=4).map(tuple), loop=st.booleans(),
    tension=st.floats(-1, 1), timing=st.sampled_from(list(TIMINGS)), ease=st.sampled_from(list(EASES)),
    fps=st.floats(1, 60), size=st.none() | st.tuples(st.integers(16, 8192), st.integers(16, 8192)),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(path=paths)
def test_the_file_gives_the_path_again(path):
    assert path_from_bytes(path_to_text(path).encode(), "x") == path


@settings(max_examples=60, deadline=None)
@given(path=paths)
def test_every_path_can_be_walked(path):
    met = path.at(np.linspace(0, path.duration_secs, 7))
    assert np.isfinite(positions(met)).all()
    assert all(np.linalg.norm(each.wxyz) > 0.9 for each in met) or len(path.keys) == 1


GOOD = json.loads(path_to_text(CameraPath(arc(2), size=(64, 48))))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": 2}, r"version is 2; choices: 1"),
        ({"version": True}, r"version is true; choices: 1"),
        ({"frame": "page"}, r'frame is "page"; choices: capture'),
        ({"timing": "slow"}, r'timing is "slow"; choices: keys, even'),
        ({"ease": ["ends"]}, r"choices: none, ends, keys"),
        ({"loop": 1}, r"loop is 1; choices: true, false"),
        ({"tension": 1.5}, r"tension is 1\.5; a number from -1 to 1"),
        ({"fps": float("nan")}, r"fps is NaN"),
        ({"size": [8, 8.5]}, r"size is \[8, 8\.5\]; two whole numbers from 16 to 8192, or null"),
        ({"keys": []}, r"keys is \[\]; a list of 1 to 1000"),
        ({"keys": [3]}, r"keys\[0\] is 3: an object"),
        ({"kyes": []}, r'"kyes" is not known; choices: ease, format'),
        ({"format": "splat-edits"}, r'it needs "format": "splat-path"'),
        ({"keys.position": None}, r"keys\[1\]: position is null; 3 finite numbers"),
        ({"keys.position": [0, 0, 10**400]}, r"position is"),
        ({"keys.wxyz": [0, 0, 0, 0]}, r"wxyz is \[0, 0, 0, 0\]; four numbers that are not all 0"),
        ({"keys.fov_deg": 180}, r"fov_deg is 180; a number from 1 to 170"),
        ({"keys.secs": 0}, r"secs is 0; a number from 0\.01"),
        ({"keys.look": {"background": [1, 2, "x"]}}, r"'background' must be a word"),
        ({"keys.name": 3}, r"name is 3"),
        ({"keys.lens": 3}, r'keys\[1\]: "lens" is not known'),
    ],
)  # fmt: skip
def test_bad_files_are_told_by_place(change, told):
    whole = json.loads(json.dumps(GOOD))
    for name, value in change.items():
        place, _, inner = name.rpartition(".")
        (whole[place][1] if place else whole)[inner] = value
    with pytest.raises(UserError, match=r"^p\.json.*" + told):
        path_from_bytes(json.dumps(whole).encode(), "p.json")


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[" * 100_000, b"[1]", b'"x"', b"x" * 4_000_001])
def test_rubbish_is_refused(data):
    with pytest.raises(UserError, match=r"^p\.json: "):
        path_from_bytes(data, "p.json")


def test_reading_from_the_disk(tmp_path):
    with pytest.raises(UserError, match=r"none\.json: cannot be read \(No such file"):
        read_path(tmp_path / "none.json")
    file = tmp_path / "p.json"
    file.write_text(json.dumps(GOOD))
    assert read_path(file).size == (64, 48)
