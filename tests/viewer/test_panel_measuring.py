"""The measuring panel in a browser: lengths between clicks, scale and up for exports, screenshots; the preview."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path

import numpy as np
import pytest
import serving
import torch
from hands import choose, press, row_of, tab, type_into

from splat.errors import UserError
from splat.geometry.camera import Camera
from splat.io.placement import FILE, Placement, read_placement
from splat.io.png import read_png
from splat.model.gaussian import GaussianPrimitive
from splat.model.splat_model import SplatModel
from splat.viewer.figures.measure import normal_of, ray_point, scale_from, surface_point
from splat.viewer.output.placement import placement_of
from splat.viewer.picture.draw import draw
from splat.viewer.picture.light_copy import NODE_UNITS, light_copy

WALL_Z = 0.5


def wall(side: int = 40) -> SplatModel:
    """Small opaque splats that close a wall across z."""
    line = torch.linspace(-2, 2, side)
    x, y = torch.meshgrid(line, line, indexing="ij")
    xyz = torch.stack([x.reshape(-1), y.reshape(-1), torch.full((side * side,), WALL_Z)], dim=1)
    rgb = (xyz + 2) / 4
    rows = GaussianPrimitive(init_scale=1.0).start(xyz, rgb, sh_degree=0, generator=torch.Generator())
    rows["logit_opacities"] = torch.full_like(rows["logit_opacities"], 6.0)
    return SplatModel(GaussianPrimitive(), rows, 0)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving.serve(wall(), run_dir=tmp_path_factory.mktemp("wall")) as found:
        yield found


@pytest.fixture
def front(page, shown):
    """The browser page, looking straight at the wall."""
    pose = np.eye(4)
    pose[2, 3] = 4.0
    serving.flown(shown, shown.camera().posed(pose))
    tab(page, "Measure")
    page.get_by_role("button", name="Measure between two points").wait_for()
    return page


def pixel_of(shown, point) -> tuple[float, float]:
    camera = shown.camera()
    local = camera.camera_from_world[:3, :3] @ np.asarray(point, float) + camera.camera_from_world[:3, 3]
    x, y, z = camera.K @ local
    return float(x / z), float(y / z)


def click(page, shown, *points) -> None:
    serving.wait_for(lambda: shown.tool, why="the tool")
    serving.heard(shown, page)
    for i, point in enumerate(points):
        page.mouse.click(*pixel_of(shown, point))
        serving.node(shown, f"/splat/measure/point_{i}")
        serving.said(page)  # clicks too are sent one at a time


def test_a_distance_is_measured_and_becomes_the_scale(front, shown, served):
    press(front, "Measure between two points")
    click(front, shown, (-1.0, 0.2, WALL_Z), (-0.4, 1.0, WALL_Z))
    label = front.locator("strong", has_text=re.compile(r"^(0\.9\d*|1(\.0\d*)?)$")).first
    label.wait_for()
    assert float(label.inner_text()) == pytest.approx(1.0, abs=0.02)
    type_into(front, "Its true length", "2.5")
    press(front, "Set the scale")
    serving.wait_for(lambda: placement_of(served.desk).scale != 1, why="the scale")
    serving.wait_for((served.desk.run_dir / FILE).exists, why="the placement")
    assert read_placement(served.desk.run_dir / FILE).scale == pytest.approx(2.5, rel=0.02)
    front.get_by_text("of the capture are 2.5").first.wait_for()
    press(front, "Forget scale and up")
    serving.wait_for(lambda: placement_of(served.desk) == Placement(), why="nothing known")


def test_up_from_three_points_and_from_the_view(front, shown, served):
    press(front, "From three points on the ground")
    click(front, shown, (-1.5, 0.0, WALL_Z), (-0.5, 0.2, WALL_Z), (-1.0, 1.0, WALL_Z))
    serving.wait_for(lambda: placement_of(served.desk).up is not None, why="an up axis")
    np.testing.assert_allclose(placement_of(served.desk).up, (0, 0, -1), atol=0.02)  # towards the camera
    front.get_by_text("is level now").wait_for()
    press(front, "Forget scale and up")
    serving.wait_for(lambda: placement_of(served.desk).up is None, why="nothing known")
    front.get_by_text("Click two points of a surface.").wait_for()
    assert not serving.nodes(shown, "/splat/measure/")
    press(front, "From this view")
    serving.wait_for(lambda: placement_of(served.desk).up is not None, why="an up axis")
    np.testing.assert_allclose(np.linalg.norm(placement_of(served.desk).up), 1, atol=1e-6)


def test_a_screenshot_of_any_size(front, shown, served):
    type_into(front, "Size, px", "90", "120")
    with front.expect_download() as got:
        press(front, "Save the picture")
    picture = read_png(Path(got.value.path()))
    assert picture.shape == (120, 90, 3)
    here = shown.camera()
    focal = 120 / 2 / np.tan(np.arctan(here.height / 2 / here.K[1, 1]))
    camera = Camera("", here.camera_from_world, np.array([[focal, 0, 45], [0, focal, 60], [0, 0, 1.0]]), 90, 120)
    wanted = draw(served.desk.snapshot, camera, shown.look, rasterizer=served.desk.rasterizer).rgb
    assert np.abs(wanted.astype(int) - picture).max() <= 1 and picture.std() > 20


def test_the_browsers_preview_is_labelled_and_can_be_switched_off(front, shown, served):
    tab(front, "View")
    choose(front, "In the browser", "Always")
    front.get_by_text("a light copy, not the true picture").first.wait_for()
    front.get_by_text("of 1,600 splats of step 0").first.wait_for()
    assert serving.node(shown, "/splat/preview").visible

    def rests() -> bool:
        before = shown.last.number
        shown.redraw()
        serving.heard(shown, front)
        return shown.last.number == before

    serving.wait_for(rests, why="streaming to rest")
    number = shown.last.number
    choose(front, "In the browser", "Off")
    serving.wait_for(lambda: "/splat/preview" not in serving.nodes(shown), why="the copy to go")
    serving.wait_for(lambda: shown.last.number > number, why="a streamed picture")
    assert row_of(front, "Splats at most").count() == 1


def test_the_preview_stands_in_while_the_view_moves(front, shown):
    tab(front, "View")
    choose(front, "In the browser", "While moving")
    copy = serving.node(shown, "/splat/preview")
    serving.resting(shown)
    assert not copy.visible, "at rest the picture is streamed"
    steps = itertools.count(1)
    numbers: list[int] = []

    def rests() -> bool:
        """Whether the copy stands alone; the number of the last picture is taken while it does."""
        shown.client.camera.position = (0.1 * np.sin(next(steps)), 0.0, -4.0)
        time.sleep(0.1)
        numbers.append(shown.last.number)
        return copy.visible and shown._worker._held

    serving.wait_for(rests, why="streaming to rest")
    number = numbers[-1]
    serving.wait_for(lambda: not copy.visible, why="the end of the movement")
    assert shown.last.number > number and shown.last.why != "moving"
    choose(front, "In the browser", "Off")
    serving.wait_for(lambda: "/splat/preview" not in serving.nodes(shown), why="the end")


# --- without a browser -----------------------------------------------------------------------------------------------


def looking() -> Camera:
    return Camera("c", np.eye(4), np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]]), 64, 48)


def test_points_under_pixels():
    camera = looking()
    np.testing.assert_allclose(ray_point(camera, 32, 24, 3.0), (0, 0, 3))
    np.testing.assert_allclose(ray_point(camera, 57, 24, 4.0), (2, 0, 4))
    depth = np.zeros((48, 64), np.float32)
    depth[:, 32:] = 2.0
    np.testing.assert_allclose(surface_point(camera, depth, 0.5, 0.5), (0, 0, 2))
    assert surface_point(camera, depth, 0.2, 0.5) is None
    assert surface_point(camera, depth, 1.0, 1.0) is not None


def test_planes_and_scales():
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 1.0]])
    np.testing.assert_allclose(normal_of(points, np.array([0, -5.0, 0])), (0, -1, 0))
    np.testing.assert_allclose(normal_of(points, np.array([0, 5.0, 0])), (0, 1, 0))
    with pytest.raises(UserError, match="three points on a line"):
        normal_of(np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0.0]]), np.zeros(3))
    assert scale_from(3.0, 1.5) == 2.0
    for known, measured in ((0, 1), (1, 0), (float("nan"), 1)):
        with pytest.raises(UserError):
            scale_from(known, measured)


def test_a_broken_placement_is_told(tmp_path):
    assert read_placement(tmp_path / FILE) == Placement()
    no_axis = '{"format": "splat-placement", "version": 1, "up": [0, 0, 0], "scale": 1, "why": ""}'
    for text in ("{", "[]", '{"format": "x"}', no_axis):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(UserError, match=r"placement\.json"):
            read_placement(tmp_path / FILE)


def test_the_light_copy_is_small_and_whole():
    from splat.viewer.serving.standing import StandingHost

    some = StandingHost(wall()).snapshot()
    copy = light_copy(some, most=400, scale=2.0, eye=np.array([0, 0, -4.0]), focal_px=200.0)
    assert len(copy.centers) == 400 and copy.of == 1600
    np.testing.assert_allclose(copy.centers[:, 2], WALL_Z * 2.0 * NODE_UNITS, rtol=1e-5)
    sizes = np.sqrt(np.linalg.eigvalsh(copy.covariances.astype(np.float64)))
    assert sizes.min() > 0.7 * 4 / 200 * 2.0 * NODE_UNITS * 0.99
    assert copy.rgbs.dtype == copy.opacities.dtype == np.uint8 and (copy.opacities > 250).all()
    whole = light_copy(some, most=10_000, scale=2.0, eye=np.array([0, 0, -4.0]), focal_px=200.0)
    assert len(whole.centers) == 1600
