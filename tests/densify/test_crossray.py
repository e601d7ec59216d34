"""Windows, rays and boxes on made-up cameras, where the answers are known."""

import numpy as np
import pytest
import torch

from splat.densify.crossray import (
    Box,
    Gates,
    Sighting,
    Window,
    boxes_of,
    corner_rays,
    crossed_box,
    median_angle,
    middle_of,
    pixel_error,
    ray_crossing,
    seen_together,
    sighting,
    worst_window,
)
from splat.densify.protocol import Look
from splat.geometry.camera import Camera
from splat.render.types import SplatStats

WIDTH, HEIGHT, FOCAL = 200, 150, 180.0
POINT = np.array([0.3, -0.2, 0.1])
OPEN = Gates(near=0.01, gap_px=2.0, diagonal=1.0)


def camera_at(place, look_at=(0.0, 0.0, 0.0), name="0.png"):
    """A camera at ``place`` that looks at a point, its x axis level."""
    place, forward = np.asarray(place, float), np.asarray(look_at, float) - np.asarray(place, float)
    forward /= np.linalg.norm(forward)
    right = np.cross((0.0, 1.0, 0.0), forward)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, -rotation @ place
    intrinsics = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    return Camera(name, pose, intrinsics, WIDTH, HEIGHT)


def pixel_of(camera, point):
    x, y, z = camera.camera_from_world[:3, :3] @ point + camera.camera_from_world[:3, 3]
    return camera.K[0, 0] * x / z + camera.K[0, 2], camera.K[1, 1] * y / z + camera.K[1, 2]


def window_around(camera, point, size=10):
    column, row = pixel_of(camera, point)
    return Window(round(column - size / 2), round(row - size / 2), size, size)


FRONT, SIDE = camera_at((0.0, 0.0, -4.0)), camera_at((2.5, 0.3, -3.0), name="1.png")


class TestRays:
    def test_crossing_of_two_skew_lines(self):
        found = ray_crossing(np.array([-2.0, 0, 0]), np.array([1.0, 0, 0]), np.array([0, -3.0, 1]), np.array([0, 1, 0]))
        assert found.point == pytest.approx([0, 0, 0.5])
        assert found.gap == pytest.approx(1) and found.along == pytest.approx((2, 3))

    def test_oblique_lines_through_one_point(self):
        ends = np.array([1.0, 2, 3]), np.array([-2.0, 0.5, -1])
        directions = [(POINT - end) / np.linalg.norm(POINT - end) for end in ends]
        found = ray_crossing(ends[0], directions[0], ends[1], directions[1])
        assert found.point == pytest.approx(POINT) and found.gap == pytest.approx(0, abs=1e-9)
        assert found.along == pytest.approx([np.linalg.norm(POINT - end) for end in ends])

    def test_parallel_lines_do_not_cross(self):
        direction = np.array([0.0, 0.6, 0.8])
        assert ray_crossing(np.zeros(3), direction, np.ones(3), direction) is None
        assert ray_crossing(np.zeros(3), direction, np.ones(3), -direction) is None

    def test_corner_rays_go_through_their_corners(self):
        window = Window(20, 30, 11, 7)
        for (origin, direction), corner in zip(corner_rays(SIDE, window), window.corners(), strict=True):
            assert origin == pytest.approx([2.5, 0.3, -3.0]) and np.linalg.norm(direction) == pytest.approx(1)
            assert pixel_of(SIDE, origin + 2 * direction) == pytest.approx(corner)
        assert window.corners().tolist() == [[20, 30], [31, 30], [20, 37], [31, 37]]


class TestBoxes:
    def test_box_of_a_known_point(self):
        """Windows of 10 px at a depth of about 4: a box of 10 * 4 / 180 = 0.22 in height around the point."""
        box = crossed_box(FRONT, window_around(FRONT, POINT), SIDE, window_around(SIDE, POINT), OPEN)
        assert (box.low < POINT).all() and (box.high > POINT).all()
        assert (box.high - box.low)[1] == pytest.approx(0.22, abs=0.05)
        points = torch.tensor(np.array([POINT, POINT + 0.5, POINT - 0.5, [np.nan] * 3]), dtype=torch.float32)
        assert box.holds(points).tolist() == [True, False, False, False]

    def test_windows_of_different_things_give_no_box(self):
        elsewhere = POINT + np.array([0.0, 0.8, 0.0])
        assert crossed_box(FRONT, window_around(FRONT, POINT), SIDE, window_around(SIDE, elsewhere), OPEN) is None
        loose = Gates(near=0.01, gap_px=100.0, diagonal=1.0)
        assert crossed_box(FRONT, window_around(FRONT, POINT), SIDE, window_around(SIDE, elsewhere), loose) is not None

    def test_a_crossing_behind_a_camera_gives_no_box(self):
        """Turned round, both cameras see the point on the other side of their centres: the lines are the same."""
        turned = [camera_at(c.center_world, 2 * c.center_world - POINT) for c in (FRONT, SIDE)]
        centred = Window(WIDTH // 2 - 5, HEIGHT // 2 - 5, 10, 10)
        facing = [camera_at(c.center_world, POINT) for c in (FRONT, SIDE)]
        assert crossed_box(facing[0], centred, facing[1], centred, OPEN) is not None
        assert crossed_box(turned[0], centred, turned[1], centred, OPEN) is None
        assert crossed_box(facing[0], centred, turned[1], centred, OPEN) is None

    def test_near_and_diagonal_gates(self):
        """The nearer camera is 3.8 away, the box 0.4 across."""
        windows = window_around(FRONT, POINT), window_around(SIDE, POINT)
        for near, diagonal, found in ((3.0, 1.0, True), (4.0, 1.0, False), (0.01, 0.1, False)):
            box = crossed_box(FRONT, windows[0], SIDE, windows[1], Gates(near=near, gap_px=2.0, diagonal=diagonal))
            assert (box is not None) == found

    def test_all_four_corners_must_meet(self):
        windows = window_around(FRONT, POINT, 30), window_around(SIDE, POINT, 30)
        gaps = []
        for ours, theirs in zip(corner_rays(FRONT, windows[0]), corner_rays(SIDE, windows[1]), strict=True):
            found = ray_crossing(*ours, *theirs)
            gaps.append(found.gap / min(found.along) * FOCAL)
        below, above = 0.99 * max(gaps), 1.01 * max(gaps)
        assert below > min(gaps)
        assert crossed_box(FRONT, windows[0], SIDE, windows[1], Gates(0.01, below, 3.0)) is None
        assert crossed_box(FRONT, windows[0], SIDE, windows[1], Gates(0.01, above, 3.0)) is not None

    def test_gap_is_measured_in_pixels_at_the_depth(self):
        """The same skew rays: small in pixels when near, so a finer picture closes the gate."""
        shifted = window_around(SIDE, POINT)
        shifted = Window(shifted.left, shifted.top + 2, 10, 10)
        windows = window_around(FRONT, POINT), shifted
        assert crossed_box(FRONT, windows[0], SIDE, shifted, Gates(0.01, 4.0, 1.0)) is not None
        fine = [camera.resized(4 * WIDTH, 4 * HEIGHT) for camera in (FRONT, SIDE)]
        scaled = [Window(4 * w.left, 4 * w.top, 40, 40) for w in windows]
        assert crossed_box(fine[0], scaled[0], fine[1], scaled[1], Gates(0.01, 4.0, 1.0)) is None
        assert crossed_box(fine[0], scaled[0], fine[1], scaled[1], Gates(0.01, 16.0, 1.0)) is not None

    def test_every_pair_is_tried_at_the_size_of_the_look(self):
        cameras = [FRONT, SIDE, camera_at((-2.5, 0.0, -3.0), name="2.png")]
        half = [camera.resized(WIDTH // 2, HEIGHT // 2) for camera in cameras]
        found = [
            Sighting(view, window_around(half[view], POINT, 6), torch.zeros(1), WIDTH // 2, HEIGHT // 2)
            for view in range(3)
        ]
        boxes = boxes_of(found, cameras, OPEN)
        assert len(boxes) == 3
        assert all(isinstance(box, Box) and (box.low < POINT).all() and (box.high > POINT).all() for box in boxes)
        assert boxes_of(found[:1], cameras, OPEN) == []


class TestWindows:
    def test_finds_the_planted_error(self):
        error = torch.full((60, 80), 0.1)
        error[37:43, 50:58] = 0.6
        assert worst_window(error, share=0.1) == Window(50, 37, 8, 6)

    def test_equals_the_slow_way(self):
        error = torch.rand(30, 40, generator=torch.Generator().manual_seed(1))
        window = worst_window(error, share=0.1)
        means = error.double().unfold(0, 3, 1).unfold(1, 4, 1).mean(dim=(2, 3))
        assert means[window.top, window.left] >= means.max() - 1e-6
        assert (window.width, window.height) == (4, 3)

    def test_of_equals_the_upper_left(self):
        assert worst_window(torch.ones(20, 40), share=0.25) == Window(0, 0, 10, 5)

    def test_no_error_no_window(self):
        assert worst_window(torch.zeros(20, 20), share=0.1) is None
        assert worst_window(torch.full((20, 20), torch.nan), share=0.1) is None

    def test_never_smaller_than_three_pixels_nor_larger_than_the_picture(self):
        assert worst_window(torch.ones(40, 40), share=0.01) == Window(0, 0, 3, 3)
        assert worst_window(torch.ones(2, 1), share=0.5) == Window(0, 0, 1, 2)

    def test_mask_of_a_window(self):
        mask = Window(3, 1, 4, 2).mask(6, 10)
        assert mask.shape == (6, 10) and mask.sum() == 8 and mask[1:3, 3:7].all()

    def test_error_counts_where_the_mask_does(self):
        color, target = torch.zeros(2, 2, 3), torch.tensor([0.3, 0.6, 0.9]).expand(2, 2, 3)
        mask = torch.tensor([[1.0, 0.0], [0.5, 1.0]])
        assert pixel_error(color, target).tolist() == pytest.approx(np.full((2, 2), 0.6))
        assert pixel_error(color, target, mask).flatten().tolist() == pytest.approx([0.6, 0, 0.3, 0.6])


class OnePicture:
    """Every view shows the same error picture; splat i is drawn at pixel i of the first row, with weight 1."""

    count = 1

    def __init__(self, error, mask=None):
        self.error, self.mask, self.looks = error, mask, 0

    def look(self, view, *, stats, maps=None, background=None):
        assert stats == {"weighted_blend"}
        self.looks += 1
        height, width = self.error.shape
        color, target = torch.zeros(height, width, 3), self.error[..., None].expand(-1, -1, 3)
        weights = maps(color, target)
        found = SplatStats(weighted_blend=weights[None, :, 0, :])
        return Look(
            found, color, target, torch.ones(height, width), torch.ones(height, width), width, height, self.mask
        )


class TestSightings:
    def test_blend_is_of_the_worst_window(self):
        error = torch.zeros(12, 20)
        error[0:3, 6:9] = 1
        probe = OnePicture(error)
        found = sighting(probe, 0, share=0.15)
        assert found.window == Window(6, 0, 3, 3) and probe.looks == 1
        assert found.blend.nonzero().flatten().tolist() == [6, 7, 8]
        assert (found.width, found.height) == (20, 12)

    def test_what_the_mask_hides_is_no_error(self):
        error = torch.zeros(12, 20)
        error[0:3, 6:9], error[0:3, 15:18] = 1, 0.5
        mask = torch.ones(12, 20)
        mask[:, :12] = 0
        found = sighting(OnePicture(error, mask), 0, share=0.15)
        assert found.window == Window(15, 0, 3, 3)
        assert found.blend.nonzero().flatten().tolist() == [15, 16, 17]
        assert sighting(OnePicture(error, torch.zeros(12, 20)), 0, share=0.15) is None

    def test_no_error_no_sighting(self):
        assert sighting(OnePicture(torch.zeros(12, 20)), 0, share=0.15) is None

    def test_two_views_must_agree(self):
        blends = [[0.0, 0.5, 0.2, 9.0], [0.0, 0.05, 0.3, 0.0], [0.4, 0.0, 0.15, 0.0]]
        found = [Sighting(v, Window(0, 0, 1, 1), torch.tensor(blend), 4, 4) for v, blend in enumerate(blends)]
        candidates, second = seen_together(found, least_blend=0.1)
        assert candidates.tolist() == [False, False, True, False]
        assert second.tolist() == pytest.approx([0.0, 0.05, 0.2, 0.0])
        assert seen_together(found[:1], least_blend=0.1) is None


class TestAngles:
    def test_right_angle(self):
        cameras = [camera_at((4.0, 0.0, 0.0)), camera_at((0.0, 0.0, 4.0))]
        assert median_angle(cameras, np.zeros(3)) == pytest.approx(90)
        assert median_angle(cameras, np.array([100.0, 0, 100.0])) < 5, "seen from afar they are close together"

    def test_weights_count_pairs(self):
        cameras = [camera_at((4.0, 0, 0.001)), camera_at((4.0, 0, 0.0)), camera_at((0.0, 0, 4.0))]
        assert median_angle(cameras, np.zeros(3)) == pytest.approx(90, abs=0.1)
        assert median_angle(cameras, np.zeros(3), weights=[9, 9, 1]) < 1

    def test_no_pair_no_angle(self):
        assert median_angle([], np.zeros(3)) is None
        assert median_angle([FRONT], np.zeros(3)) is None
        assert median_angle([FRONT, SIDE], FRONT.center_world) is None, "from inside a camera it has no direction"

    def test_middle_is_a_median_of_what_is_finite(self):
        points = torch.tensor([[0.0, 1, 2], [1, 2, 3], [2, 3, 4], [1e6, -1e6, 3], [0.5, 2, torch.nan]])
        assert middle_of(points).tolist() == [1, 1, 3]
        assert middle_of(torch.full((2, 3), torch.nan)).tolist() == [0, 0, 0]
