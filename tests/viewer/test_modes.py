"""Every mode: a contract for all, and what each shows of scenes that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from viewer_scene import FakeDesk, camera, labels_of, random_snapshot, snapshot_of

from splat.errors import UserError
from splat.model.labels import HIDDEN, SELECTED
from splat.render.registry import rasterizer
from splat.viewer.picture.draw import draw
from splat.viewer.picture.look import Look
from splat.viewer.picture.modes import MODES
from splat.viewer.picture.modes.categories import id_colors, kind_colors, legend
from splat.viewer.picture.modes.marks import OUTLINE_SIGMAS
from splat.viewer.picture.modes.numbers import spread_evenly
from splat.viewer.picture.modes.plain import flattest_axes
from splat.viewer.picture.modes.projected import projected
from splat.viewer.picture.modes.view import View
from splat.viewer.picture.ramps import table

PAINTER = rasterizer("native")
VIEW = camera()
CENTER = (18, 24)
RAMP = {name: table(name, torch.device("cpu")).numpy() for name in ("depth", "grey")}
PLAIN = Look()


def drawn(snapshot, mode, look=PLAIN, view=VIEW, **more):
    return draw(snapshot, view, replace(look, mode=mode), rasterizer=PAINTER, **more)


def numbers(snapshot, mode, *, low, high, **more):
    """The numbers a ramp mode shows, read back from its colours to a 255th of the range."""
    grey = drawn(snapshot, mode, Look(ramp="grey", low=low, high=high, **more), desk=FakeDesk()).rgb[..., 0]
    return low + grey / 255.0 * (high - low)


SCENES = {
    "gaussian": random_snapshot,
    "convex": lambda: random_snapshot(kind="convex"),
    "empty": lambda: snapshot_of(np.zeros((0, 3))),
    "empty convex": lambda: random_snapshot(0, kind="convex"),
    "nothing in view": lambda: snapshot_of([[0, 0, -2], [0.5, 0, -3]]),
    "all hidden": lambda: snapshot_of([[0, 0, 2], [0.5, 0, 2]], flags=[HIDDEN, HIDDEN]),
    "selected": lambda: snapshot_of([[0, 0, 2], [0.5, 0, 2]], flags=[SELECTED, 0]),
}


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("mode", MODES)
def test_contract(mode, scene):
    snapshot = SCENES[scene]()
    desk = FakeDesk()
    first = drawn(snapshot, mode, Look(background=(0.1, 0.2, 0.3)), want_depth=True, desk=desk)
    assert first.rgb.shape == (36, 48, 3) and first.rgb.dtype == np.uint8 and first.rgb.flags["C_CONTIGUOUS"]
    assert first.depth.shape == (36, 48) and np.isfinite(first.depth).all()
    assert (first.values is not None) == MODES[mode].has_ramp
    assert first.values is None or np.isfinite(first.values).all()
    again = drawn(snapshot, mode, Look(background=(0.1, 0.2, 0.3)), want_depth=True, desk=desk)
    assert np.array_equal(first.rgb, again.rgb) and first.values == again.values
    if scene in ("empty", "empty convex", "nothing in view", "all hidden"):
        expected = (0, 0, 0) if mode == "alpha" else (26, 51, 77)
        if mode == "outlines":
            expected = tuple(round(0.35 * part) for part in (25.5, 51, 76.5))
        assert (first.rgb == np.uint8(expected)).all()


@pytest.mark.parametrize("mode", MODES)
def test_odd_and_tiny_pictures(mode):
    assert drawn(random_snapshot(20), mode, view=camera(width=1, height=1), desk=FakeDesk()).rgb.shape == (1, 1, 3)
    assert drawn(random_snapshot(20), mode, view=camera(width=7, height=3), desk=FakeDesk()).rgb.shape == (3, 7, 3)


@pytest.mark.parametrize("mode", MODES)
def test_modes_say_what_they_need(mode):
    assert MODES[mode].purpose
    if MODES[mode].needs == "photos":
        with pytest.raises(UserError, match="photographs"):
            drawn(random_snapshot(20), mode)
    else:
        drawn(random_snapshot(20), mode)


def test_depth_of_two_layers_is_weighted_as_they_blend():
    snapshot = snapshot_of([[0, 0, 2], [0, 0, 4]], opacities=[0.5, 0.99], scales=[5.0, 20.0])
    shown = numbers(snapshot, "depth", low=1.0, high=5.0, invert=True)  # near is the high end
    weights = np.array([0.5, 0.5 * 0.99])
    assert shown[CENTER] == pytest.approx((weights @ [2, 4]) / weights.sum(), abs=0.02)


def test_alpha_of_two_layers():
    snapshot = snapshot_of([[0, 0, 2], [0, 0, 4]], opacities=[0.5, 0.5], scales=[5.0, 20.0])
    assert drawn(snapshot, "alpha").rgb[CENTER].tolist() == pytest.approx([191] * 3, abs=1)


def test_the_normal_of_a_disc_is_its_flat_axis_and_faces_the_camera():
    snapshot = snapshot_of([[0, 0, 2]], scales=torch.tensor([[0.5, 0.5, 0.01]]))
    assert np.allclose(drawn(snapshot, "normal").rgb[CENTER], [128, 128, 255], atol=1)
    turned = torch.tensor([[np.cos(np.pi / 8), 0, np.sin(np.pi / 8), 0]], dtype=torch.float32)  # 45 degrees about y
    snapshot.model.rows["quats"] = turned
    assert flattest_axes(snapshot.model)[0].tolist() == pytest.approx([0.5**0.5, 0, 0.5**0.5], abs=1e-6)
    normal = drawn(replace(snapshot, version=2), "normal").rgb[CENTER] / 127.5 - 1
    assert np.allclose(normal, [-(0.5**0.5), 0, 0.5**0.5], atol=0.02)


def test_colors_of_ids_stay_and_differ():
    ids = torch.arange(1000)
    colors = id_colors(ids)
    assert torch.equal(colors[500:], id_colors(ids[500:]))
    assert len(torch.unique(colors, dim=0)) > 990
    assert (colors[1:].int() - colors[:-1].int()).abs().amax(dim=1).float().mean() > 60
    snapshot = snapshot_of([[-0.5, 0, 2], [0.5, 0, 2]], ids=[41, 7], scales=0.3)
    picture = drawn(snapshot, "id").rgb
    assert picture[18, 14].tolist() == id_colors(torch.tensor([41]))[0].tolist()
    assert picture[18, 34].tolist() == id_colors(torch.tensor([7]))[0].tolist()


def test_reasons_have_the_colours_of_their_legend():
    labels = {"reasons": [2, 0], "names": ("start", "clone", "split")}
    snapshot = snapshot_of([[-0.5, 0, 2], [0.5, 0, 2]], scales=0.3, **labels)
    colors = dict(legend(snapshot.labels))
    picture = drawn(snapshot, "reason").rgb
    assert tuple(picture[18, 14]) == colors["split"] and tuple(picture[18, 34]) == colors["start"]
    assert len(torch.unique(kind_colors(40), dim=0)) == 40


def test_numbers_of_splats_blend_as_colour_does():
    snapshot = snapshot_of([[0, 0, 2], [0, 0, 4]], opacities=[0.5, 0.99], scales=[5.0, 20.0], born=[0, 10], step=10)
    weights = np.array([0.5, 0.5 * 0.99])
    weights /= weights.sum()
    for mode, values in {"opacity": [0.5, 0.99], "scale": [5, 20], "age": [10, 0]}.items():
        shown = numbers(snapshot, mode, low=0.0, high=20.0 if mode != "opacity" else 1.0)
        assert shown[CENTER] == pytest.approx(weights @ values, abs=0.06), mode


def test_a_previewed_number_is_that_of_the_preview():
    snapshot = snapshot_of([[0, 0, 2]], opacities=0.9, scales=2.0)
    preview = (torch.tensor([0]), {"log_scales": torch.full((1, 3), float(np.log(4.0)))})
    look = Look(mode="scale", ramp="grey", low=0.0, high=5.0)
    picture = draw(snapshot, VIEW, look, rasterizer=PAINTER, preview=preview).rgb
    assert picture[CENTER][0] / 51 == pytest.approx(4, abs=0.03)
    assert draw(snapshot, VIEW, look, rasterizer=PAINTER).rgb[CENTER][0] / 51 == pytest.approx(2, abs=0.03)


def test_the_range_is_what_the_picture_shows_and_can_be_set():
    snapshot = snapshot_of([[-0.5, 0, 2], [0.5, 0, 2]], scales=[0.1, 0.3])
    assert drawn(snapshot, "scale").values == pytest.approx((0.1, 0.3), abs=0.02)
    assert drawn(snapshot, "scale", Look(low=0.0, high=7.0)).values == (0.0, 7.0)


def test_a_footprint_has_its_own_size_and_place():
    snapshot = snapshot_of([[0.25, 0, 2]], scales=0.2, opacities=0.9)
    view = View(snapshot, VIEW, PLAIN, PAINTER)
    splat = projected(view, torch.tensor([0]))
    assert splat.centers[0].tolist() == pytest.approx([24 + 5, 18]) and splat.z.tolist() == [2]
    variance = (40 * 0.2 / 2) ** 2
    skewed = variance * (1 + 0.125**2) + 0.3  # the view is not along its axis
    assert torch.allclose(splat.spread[0], torch.tensor([[skewed, 0], [0, variance + 0.3]]), atol=1e-3)


def test_the_density_of_one_splat_is_one_inside_its_footprint_and_its_total_is_exact():
    snapshot = snapshot_of([[0.1, 0.05, 2]], scales=torch.tensor([[0.25, 0.08, 0.1]]), opacities=0.8)
    view = View(snapshot, VIEW, PLAIN, PAINTER)
    fragments = view.render(stats=frozenset({"fragments"})).stats.fragments[0]
    density = spread_evenly(view, torch.tensor([0]), fragments)
    assert float(density.sum()) == pytest.approx(float(fragments[0]), rel=1e-5)
    alpha = view.output.alpha[0]
    assert (density[alpha > 2 / 255] > 0.85).all() and (density <= 1.0001).all()
    assert float(density[alpha == 0].sum()) < 0.15 * float(fragments[0])


def test_what_lies_outside_the_picture_is_not_counted_at_its_border():
    snapshot = snapshot_of([[-1.2, 0, 2]], scales=0.15, opacities=0.9)  # its centre is left of the picture
    view = View(snapshot, VIEW, PLAIN, PAINTER)
    fragments = view.render(stats=frozenset({"fragments"})).stats.fragments[0]
    density = spread_evenly(view, torch.tensor([0]), fragments)
    assert float(density.sum()) == pytest.approx(float(fragments[0]), rel=1e-5) and fragments[0] > 50
    assert float(density.max()) <= 1.0001 and float(density[:3].max()) == 0


def test_the_density_is_said_to_be_an_estimate():
    assert "estimate" in MODES["density"].purpose and "estimate" in MODES["density"].unit


def test_a_large_picture_has_the_same_density_in_blocks():
    snapshot = random_snapshot(50)
    small, large = camera(), camera(width=401, height=301)
    large.K[:2] *= 8
    large.K[:2, 2] = (200.5, 150.5)
    look = Look(ramp="grey", low=0.0, high=12.0)
    shown = drawn(snapshot, "density", look, view=large).rgb[..., 0].astype(float)
    assert shown.shape == (301, 401)
    assert np.abs(shown[:300:2, :400:2] - shown[1:300:2, 1:400:2]).mean() < 3  # but for thin places
    expected = drawn(snapshot, "density", look, view=small).rgb[..., 0].astype(float)
    assert abs(shown.mean() - expected.mean()) < 0.12 * expected.mean()


def test_density_counts_layers_and_not_what_is_hidden():
    stack = snapshot_of([[0, 0, 2 + i] for i in range(4)], opacities=0.3, scales=[1.0 * (2 + i) for i in range(4)])
    assert numbers(stack, "density", low=0.0, high=8.0)[CENTER] == pytest.approx(4, abs=0.1)
    wall = snapshot_of([[0, 0, 2 + 0.1 * i] for i in range(8)], opacities=0.9999, scales=20.0)
    assert numbers(wall, "density", low=0.0, high=8.0)[CENTER] < 4


def test_outlines_lie_on_the_border():
    snapshot = snapshot_of([[0, 0, 2]], rgb=[[0.2, 0.4, 0.1]], scales=0.4, opacities=0.9)
    picture = drawn(snapshot, "outlines").rgb
    v, u = np.nonzero((picture == [127, 255, 64]).all(-1))
    radius = np.hypot(u + 0.5 - 24, v + 0.5 - 18)
    expected = OUTLINE_SIGMAS * np.hypot(40 * 0.4 / 2, 0.3**0.5)
    assert len(u) > 50 and np.abs(radius - expected).max() < 1.1
    assert len(np.unique(np.round(np.degrees(np.arctan2(v + 0.5 - 18, u + 0.5 - 24)) / 15))) >= 24  # closed


def test_centers_are_dots_of_the_base_colour_nearest_first():
    snapshot = snapshot_of([[0, 0, 4], [0, 0, 2], [0.5, 0, 2]], rgb=[[0, 1, 0], [1, 0, 0], [0, 0, 1]], scales=0.001)
    picture = drawn(snapshot, "centers").rgb
    assert picture[17:19, 23:25].reshape(-1, 3).tolist() == [[255, 0, 0]] * 4
    assert picture[17:19, 33:35].reshape(-1, 3).tolist() == [[0, 0, 255]] * 4
    assert int((picture.sum(-1) > 0).sum()) == 8
    assert drawn(snapshot, "centers", Look(near=3.0)).rgb[17, 23].tolist() == [0, 255, 0]


def test_hidden_splats_have_no_marks():
    hidden = snapshot_of([[0, 0, 2]], flags=[HIDDEN])
    for mode in ("centers", "outlines", "id", "density"):
        assert drawn(hidden, mode).rgb.max() == 0, mode
        assert drawn(hidden, mode, Look(show_hidden=True)).rgb.max() > 0, mode


def test_error_is_where_the_photograph_differs():
    """Two splats; the photograph agrees with the left one only."""
    snapshot = snapshot_of([[-0.5, 0, 2], [0.5, 0, 2]], rgb=[[0.8] * 3, [0.2] * 3], scales=0.25)
    right = snapshot_of([[-0.5, 0, 2], [0.5, 0, 2]], rgb=[[0.8] * 3, [0.6] * 3], scales=0.25)
    desk = FakeDesk(right, PAINTER)
    grey = drawn(snapshot, "error", Look(ramp="grey", low=0.0, high=0.5), desk=desk).rgb[..., 0] / 255 * 0.5
    assert grey[18, 14] < 0.03 and grey[18, 34] > 0.18
    pulled = drawn(snapshot, "gradient", Look(ramp="grey", low=0.0), desk=desk)
    assert pulled.values[1] > 0


def test_what_the_photographs_say_is_carried_to_a_newer_snapshot_by_ids():
    snapshot = snapshot_of([[-0.5, 0, 2], [0.5, 0, 2.5]], rgb=[[0.8] * 3, [0.2] * 3], scales=0.25)
    right = snapshot_of([[-0.5, 0, 2], [0.5, 0, 2.5]], rgb=[[0.8] * 3, [0.6] * 3], scales=0.25)
    desk = FakeDesk(right, PAINTER)
    look = Look(ramp="grey", low=0.0, high=0.5)
    before = drawn(snapshot, "error", look, desk=desk).rgb
    asked = desk.asked
    rows = {name: table.flip(0) for name, table in snapshot.model.rows.items()}
    newer = replace(snapshot, model=replace(snapshot.model, rows=rows), labels=labels_of(2, ids=[1, 0]), version=2)
    assert np.array_equal(drawn(newer, "error", look, desk=desk).rgb, before)
    assert desk.asked == asked  # nothing was compared again
