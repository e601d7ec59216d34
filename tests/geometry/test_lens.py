"""Every COLMAP camera model, against pycolmap where it is installed, and the pinhole it is undistorted to."""

from __future__ import annotations

import math

import numpy as np
import pytest

from splat.geometry.lens import (
    CANVAS_LIMIT,
    LENS_MODELS,
    LENS_NAMES_BY_ID,
    Lens,
    fold_angle,
    panorama_sides,
    pinhole_of,
    project,
)

WIDTH, HEIGHT = 1000, 750
BENDS = {
    "SIMPLE_RADIAL": (-0.07,),
    "RADIAL": (-0.07, 0.02),
    "OPENCV": (-0.07, 0.02, 0.003, -0.004),
    "OPENCV_FISHEYE": (0.02, -0.01, 0.003, -0.001),
    "FULL_OPENCV": (-0.07, 0.02, 0.003, -0.004, 0.005, 0.04, -0.02, 0.003),
    "FOV": (0.9,),
    "SIMPLE_RADIAL_FISHEYE": (0.03,),
    "RADIAL_FISHEYE": (0.03, -0.01),
    "THIN_PRISM_FISHEYE": (0.02, -0.01, 0.003, -0.004, 0.003, -0.001, 0.002, -0.003),
    "RAD_TAN_THIN_PRISM_FISHEYE": (0.02, -0.01, 0.003, -0.001, 4e-4, -1e-4, 0.003, -0.004, 0.002, 1e-3, -0.003, 5e-4),
    "SIMPLE_DIVISION": (-0.08,),
    "DIVISION": (-0.08,),
    "EUCM": (0.55, 1.1),
}


def lens_of(name: str, *, bent: bool = True) -> Lens:
    names = LENS_MODELS[name].params
    head = {"f": (610.0, 480.0, 390.0), "fx": (610.0, 590.0, 480.0, 390.0), "w": (WIDTH, HEIGHT)}[names[0]]
    tail = BENDS.get(name, ()) if bent else (0.0,) * (len(names) - len(head))
    return Lens(name, (*head, *tail), WIDTH, HEIGHT)


def rays(count: int = 500, spread: float = 0.9) -> np.ndarray:
    rng = np.random.default_rng(7)
    return np.column_stack([rng.uniform(-spread, spread, (count, 2)), np.ones(count)]) * rng.uniform(0.5, 4, (count, 1))


def test_table_is_colmaps():
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap (the oracle of the lens models) is not installed")
    theirs = {name: member for name, member in pycolmap.CameraModelId.__members__.items() if name != "INVALID"}
    assert {name: int(member) for name, member in theirs.items()} == {n: m.id for n, m in LENS_MODELS.items()}
    assert LENS_NAMES_BY_ID[17] == "EQUIRECTANGULAR" and len(LENS_NAMES_BY_ID) == 18
    for name, member in theirs.items():
        camera = pycolmap.Camera.create_from_model_id(1, member, 500.0, WIDTH, HEIGHT)
        assert tuple(part.strip() for part in camera.params_info.split(",")) == LENS_MODELS[name].params, name


@pytest.mark.parametrize("name", LENS_MODELS)
def test_projection_equals_pycolmap(name):
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap (the oracle of the lens models) is not installed")
    lens = lens_of(name)
    camera = pycolmap.Camera(model=name, width=WIDTH, height=HEIGHT, params=np.array(lens.params, dtype=float))
    points = np.vstack([rays(), [[0.0, 0.0, 2.0]]])
    np.testing.assert_allclose(project(lens, points), camera.img_from_cam(points), atol=1e-8, rtol=1e-10)


@pytest.mark.parametrize("name", [n for n in LENS_MODELS if "FISHEYE" in n or n in ("EUCM", "EQUIRECTANGULAR")])
def test_wide_rays_equal_pycolmap(name):
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap (the oracle of the lens models) is not installed")
    lens = lens_of(name)
    camera = pycolmap.Camera(model=name, width=WIDTH, height=HEIGHT, params=np.array(lens.params, dtype=float))
    angles, turns = np.meshgrid(np.linspace(0.2, 1.5, 9), np.linspace(0, 6, 9))
    across = np.sin(angles)
    points = np.stack([across * np.cos(turns), across * np.sin(turns), np.cos(angles)], -1).reshape(-1, 3)
    np.testing.assert_allclose(project(lens, points), camera.img_from_cam(points), atol=1e-8, rtol=1e-10)


@pytest.mark.parametrize("name", [n for n in LENS_MODELS if n != "EQUIRECTANGULAR"])
def test_pinhole_keeps_the_scale_and_place_of_the_centre(name):
    lens = lens_of(name)
    pinhole = pinhole_of(lens)
    near = np.array([[0.0, 0.0, 1.0], [1e-3, 0.0, 1.0], [0.0, 1e-3, 1.0]])
    straight = near[:, :2] @ pinhole.K[:2, :2].T
    bent = project(lens, near)
    np.testing.assert_allclose(straight - straight[0], bent - bent[0], atol=5e-3)
    assert WIDTH <= pinhole.width <= CANVAS_LIMIT * WIDTH + 1 and HEIGHT <= pinhole.height <= CANVAS_LIMIT * HEIGHT + 1
    if (pinhole.width, pinhole.height) == (WIDTH, HEIGHT):
        np.testing.assert_allclose(pinhole.K[:2, 2], lens.focal_and_center[2:])


def test_a_wide_fisheye_gets_a_wider_canvas_of_the_same_field_of_view():
    lens = Lens("OPENCV_FISHEYE", (600.0, 600.0, 500.0, 375.0, 0.0, 0.0, 0.0, 0.0), WIDTH, HEIGHT)
    pinhole = pinhole_of(lens)
    assert pinhole.width == round(2 * 600 * math.tan(500 / 600)), "the edge of the file is the edge of the canvas"
    assert pinhole.fov_deg[0] == pytest.approx(2 * math.degrees(500 / 600), abs=0.05)
    assert pinhole.fov_deg[0] == pytest.approx(pinhole.lens_fov_deg[0], abs=0.05)


def test_a_half_sphere_fisheye_is_cropped_to_the_canvas_limit():
    pinhole = pinhole_of(Lens("SIMPLE_FISHEYE", (WIDTH / math.pi, 500.0, 375.0), WIDTH, HEIGHT))
    assert pinhole.width == CANVAS_LIMIT * WIDTH
    assert pinhole.lens_fov_deg[0] > 175 and 120 < pinhole.fov_deg[0] < 140


def test_distortion_that_turns_back_is_known():
    lens = Lens("SIMPLE_RADIAL", (600.0, 500.0, 375.0, -0.3), WIDTH, HEIGHT)
    assert math.tan(fold_angle(lens)) == pytest.approx(1 / math.sqrt(3 * 0.3), abs=0.01)  # d(r + k r^3)/dr = 0
    assert fold_angle(lens_of("PINHOLE")) > math.radians(88)


def test_zero_distortion_needs_no_resampling():
    for name in ("SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "DIVISION"):
        assert lens_of(name, bent=False).is_pinhole and not lens_of(name).is_pinhole
    assert not lens_of("FISHEYE").is_pinhole


def test_a_panorama_has_no_pinhole_but_its_sides_have():
    with pytest.raises(ValueError, match="EQUIRECTANGULAR sees all around"):
        pinhole_of(lens_of("EQUIRECTANGULAR"))
    sides = panorama_sides(lens_of("EQUIRECTANGULAR"))
    turns = np.array([np.reshape(side.turn, (3, 3)) for side in sides.values()])
    np.testing.assert_array_equal(np.linalg.det(turns).round(12), 1)
    assert len({tuple(turn[:, 2]) for turn in turns}) == 6, "six directions ahead"
    np.testing.assert_allclose(project(sides["right"], np.array([[0.0, 0.0, 1.0]])), [[0.75 * WIDTH, HEIGHT / 2]])
    np.testing.assert_allclose(project(sides["up"], np.array([[0.0, 0.0, 1.0]]))[0, 1], 0, atol=1e-9)
    pinhole = pinhole_of(sides["front"])
    step = project(sides["front"], np.array([[1 / pinhole.K[0, 0], 0.0, 1.0]]))[0, 0] - WIDTH / 2
    assert step == pytest.approx(1.0, abs=0.01), "one pixel at the centre is one pixel of the panorama"


def test_rays_behind_a_perspective_lens_are_not_seen():
    assert np.isnan(project(lens_of("OPENCV"), np.array([[0.1, 0.1, -1.0]]))).all()
