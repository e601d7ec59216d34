"""Drags as functions of their arguments: what goes where, and what must not move."""

from dataclasses import replace

import pytest
import torch
from drag_models import bar, block, everything, joined, near

from splat.edit.drag.drag import DragSession, drag_values
from splat.edit.ops import Drag, Handle
from splat.errors import UserError
from splat.geometry.rotations import matrix_from_quat
from splat.model.primitives import PRIMITIVES
from splat.native.neighbours import nearest_points
from splat.native.ops import set_threads

MODES = ("arap", "rigid", "smooth", "lattice")
EVERY_MODE = pytest.mark.parametrize("mode", MODES)
TURN = (0.8, 0.1, -0.3, 0.5)


def dragged(model, mask, drag, **settings):
    """All rows after the drag."""
    rows, values = drag_values(model, mask, drag, **settings)
    after = {name: table.clone() for name, table in model.rows.items()}
    for name, table in values.items():
        after[name][rows] = table
    return after


def rigidly(points, turn=TURN, about=(0.2, 0.1, 0.0), shift=(0.4, -0.3, 0.9)):
    rotation = matrix_from_quat(torch.tensor(turn).double())
    about = torch.tensor(about).double()
    return (torch.as_tensor(points).double() - about) @ rotation.T + about + torch.tensor(shift).double()


def handle_moved(at, radius=0.12):
    norm = sum(v * v for v in TURN) ** 0.5
    return Handle(at, tuple(rigidly(at).tolist()), radius, tuple(v / norm for v in TURN))


@EVERY_MODE
@pytest.mark.parametrize("count", [1, 3])
def test_handles_that_move_rigidly_take_everything_along_exactly(mode, count):
    model = bar()
    handles = tuple(handle_moved(at) for at in [(0.9, 0, 0), (-0.9, 0, 0), (0.0, 0.05, 0)][:count])
    after = dragged(model, everything(model), Drag(handles, mode=mode))
    assert torch.allclose(after["means"].double(), rigidly(model.rows["means"]), atol=2e-6)
    expected = model.primitive.transformed(model.rows, _matrix())
    assert torch.allclose(after["log_scales"].sort(dim=1).values, expected["log_scales"].sort(dim=1).values, atol=1e-4)
    assert torch.allclose(after["sh_rest"], expected["sh_rest"], atol=1e-4)


def _matrix():
    matrix = torch.eye(4).double()
    matrix[:3, :3] = matrix_from_quat(torch.tensor(TURN).double())
    matrix[:3, 3] = rigidly((0.0, 0, 0))
    return matrix


@pytest.mark.parametrize("radius", [0.0, 0.15])
def test_a_rigid_body_turns_about_its_anchor_and_stays_on_it(radius):
    model = bar()
    handle, anchor = Handle((0.9, 0, 0), (0.5, 0.9, 0.0), radius), Handle((-0.9, 0, 0), (-0.9, 0, 0), 0.2)
    after = dragged(model, everything(model), Drag((handle,), (anchor,), mode="rigid"))["means"].double()
    before = model.rows["means"].double()
    arm, place = before - torch.tensor([-0.9, 0, 0]), after - torch.tensor([-0.9, 0, 0])
    assert torch.allclose(arm.norm(dim=1), place.norm(dim=1), atol=1e-5)
    tip = place[before[:, 0].argmax()]
    angle = torch.atan2(tip[1], tip[0])
    assert abs(float(angle) - float(torch.atan2(torch.tensor(0.9), torch.tensor(1.4)))) < 0.1
    two = (anchor, Handle((0.9, 0, 0), (0.9, 0, 0)))
    pulled = Handle((0.0, 0.08, 0), (0.0, 0.0, 0.3))
    turned = dragged(model, everything(model), Drag((pulled,), two, mode="rigid"))["means"]
    assert (turned[:, 0] - before[:, 0]).abs().max() < 2e-3
    assert (turned - before).norm(dim=1).max() > 0.05


@EVERY_MODE
def test_a_handle_of_one_point_turns_what_it_holds(mode):
    model = bar()
    half = 0.5**0.5
    handle = Handle((0.9, 0, 0), (0.9, 0, 0), 0.0, (half, half, 0.0, 0.0))
    anchor = Handle((-0.9, 0, 0), (-0.9, 0, 0), 0.2)
    after = dragged(model, everything(model), Drag((handle,), (anchor,), mode=mode))["means"].double()
    before = model.rows["means"].double()
    tip = (before[:, 0] > 0.85) & (before[:, 1] > 0.05)
    if mode == "rigid":  # as the handle asks, about its axis
        tip = before[:, 1] > 0.05
    assert (after - before)[tip, 2].mean() > 0.03


@EVERY_MODE
def test_a_drag_to_nowhere_changes_no_place(mode):
    model = joined(bar(), block(800, (2.0, 2.0, 0.2), at=(0, 0, -0.2)))
    mask = torch.arange(model.count) < 3000
    rest = (Handle((0.9, 0, 0), (0.9, 0, 0), 0.1), Handle((-0.9, 0, 0), (-0.9, 0, 0)))
    after = dragged(model, mask, Drag(rest, mode=mode))
    assert torch.equal(after["means"], model.rows["means"])
    assert torch.allclose(after["sh_rest"], model.rows["sh_rest"], atol=1e-6)
    assert torch.allclose(after["log_scales"], model.rows["log_scales"], atol=1e-5)


@pytest.mark.parametrize(("mode", "tolerance"), [("arap", 1e-6), ("smooth", 1e-6), ("lattice", 0.005)])
def test_handles_reach_their_targets_while_anchors_stay(mode, tolerance):
    """Rows around the handle land within the tolerance of where it takes them, over a way of 0.8; anchored ones keep
    every bit."""
    model = bar()
    handle, anchor = Handle((0.9, 0, 0), (0.5, 0.7, 0.0), 0.15), Handle((-0.9, 0, 0), (-0.9, 0, 0), 0.2)
    after = dragged(model, everything(model), Drag((handle,), (anchor,), mode=mode))
    taken, held = near(model, handle.at, 0.1), near(model, anchor.at, 0.2)
    moved = after["means"][taken] - model.rows["means"][taken]
    assert torch.allclose(moved.mean(dim=0), torch.tensor([-0.4, 0.7, 0.0]), atol=tolerance)
    assert held.sum() > 100 and torch.equal(after["means"][held], model.rows["means"][held])


@EVERY_MODE
@pytest.mark.parametrize("radius", [0.0, 0.1])
def test_what_a_drag_cannot_reach_is_told(mode, radius):
    """Two ends drawn apart by half a length: a rigid body misses both, the others follow."""
    model = bar()
    handles = tuple(Handle((x, 0, 0), (1.5 * x, 0.2, 0), radius) for x in (-0.9, 0.9))
    session = DragSession(model, everything(model), Drag(handles, mode=mode))
    session.move(handles)
    session.finish()
    missed = session.missed(handles)
    if mode == "rigid":
        assert missed == pytest.approx((0.45, 0.45), abs=1e-3)
    elif mode != "arap" or radius:
        assert max(missed) < 2e-3
    rows, values = session.rows, session.finish()
    if radius:
        taken = near(model, handles[0].at, 0.05)[rows]
        moved = (values["means"] - model.rows["means"][rows])[taken].mean(dim=0)
        gap = (moved - torch.tensor([-0.45, 0.2, 0])).norm()
        assert float(gap) == pytest.approx(missed[0], abs=0.01)


def test_a_handle_in_the_middle_of_a_cage_does_not_tear_it():
    """Anchors are weighed less than the handle: 64 control points cannot follow all to the last digits."""
    model = bar()
    drag = Drag(
        (Handle((0.2, 0.05, 0.03), (0.2, 0.5, 0), 0.15),), (Handle((-0.9, 0, 0), (-0.9, 0, 0), 0.2),), "lattice"
    )
    after = dragged(model, everything(model), drag)
    places, squares = nearest_points(model.rows["means"], model.rows["means"], 7)
    ratio = (after["means"][:, None] - after["means"][places]).norm(dim=2)[:, 1:] / squares[:, 1:].sqrt()
    assert ratio.log().abs().mean() < 0.12 and ratio.quantile(0.99) < 1.6


def test_anchors_hold_under_nodes_far_apart():
    """A dozen nodes, an anchor smaller than their spacing, a handle beside it."""
    model = bar()
    handle, anchor = Handle((0.2, 0, 0), (0.2, 0.5, 0), 0.1), Handle((0, 0, 0), (0, 0, 0), 0.07)
    drag = Drag((handle,), (anchor,), nodes=12)
    assert DragSession(model, everything(model), drag).spacing > 0.1
    after, held = dragged(model, everything(model), drag), near(model, anchor.at, 0.07)
    assert held.sum() > 20 and torch.equal(after["means"][held], model.rows["means"][held])


def test_a_handle_without_radius_comes_near_and_lets_its_part_turn():
    model = bar()
    handle, anchor = Handle((0.95, 0, 0), (0.36, 1.26, 0.0)), Handle((-0.9, 0, 0), (-0.9, 0, 0), 0.2)
    after = dragged(model, everything(model), Drag((handle,), (anchor,)))
    end = near(model, (0.95, 0, 0), 0.1)
    assert (after["means"][end].mean(dim=0) - torch.tensor(handle.to)).norm() < 0.12
    before = model.rows["means"][near(model, (0.8, 0, 0), 0.06)].mean(0) - model.rows["means"][end].mean(0)
    now = after["means"][near(model, (0.8, 0, 0), 0.06)].mean(0) - after["means"][end].mean(0)
    assert torch.nn.functional.cosine_similarity(before, now, dim=0) < 0.8  # by more than 35 degrees


@EVERY_MODE
def test_nothing_beyond_the_band_moves(mode):
    plate = block(9000, (3.0, 3.0, 0.1))
    mask = near(plate, (0, 0, 0), 0.5)
    drag = Drag((Handle((0, 0, 0), (0, 0, 0.4), 0.2),), mode=mode, band=4.0)
    session = DragSession(plate, mask, drag)
    rows, values = drag_values(plate, mask, drag)
    assert torch.equal(rows, session.rows) and len(set(rows.tolist())) == len(rows)
    width = 4.0 * session.spacing
    beyond = ~near(plate, (0, 0, 0), 0.5 + 1.01 * width)
    touched = torch.zeros(plate.count, dtype=torch.bool)
    touched[rows] = True
    assert mask[touched].sum() == mask.sum() and not touched[beyond].any() and touched[~mask].any()
    # The band goes over into what stays without a step.
    moved = (values["means"] - plate.rows["means"][rows]).norm(dim=1)
    outer = ~near(plate, (0, 0, 0), 0.5 + 0.8 * width)[rows]
    assert moved[outer].max() < 0.12 and moved.max() > 0.39


def test_without_a_band_the_selection_alone_moves():
    plate = block(3000, (3.0, 3.0, 0.1))
    mask = near(plate, (0, 0, 0), 0.5)
    rows, _ = drag_values(plate, mask, Drag((Handle((0, 0, 0), (0, 0, 1), 0.2),), band=0.0))
    assert torch.equal(rows, mask.nonzero().squeeze(1))


def test_frozen_rows_stay():
    plate = block(3000, (3.0, 3.0, 0.1))
    frozen = plate.rows["means"][:, 0] > 0.3
    rows, _ = drag_values(plate, near(plate, (0, 0, 0), 0.5), Drag((Handle((0, 0, 0), (0, 0, 1), 0.2),)), frozen=frozen)
    assert not frozen[rows].any() and len(rows) > 100


def test_a_bar_bends_and_keeps_its_lengths():
    """Turned by 90 degrees at one end: distances between neighbours stay what they were within a few percent, and
    splats are not stretched."""
    model = bar(4000)
    turn = (0.5**0.5, 0.0, 0.0, 0.5**0.5)
    drag = Drag((Handle((0.9, 0, 0), (0.25, 0.75, 0), 0.15, turn),), (Handle((-0.9, 0, 0), (-0.9, 0, 0), 0.15),))
    after = dragged(model, everything(model), drag)
    places, squares = nearest_points(model.rows["means"], model.rows["means"], 7)
    now = (after["means"][:, None] - after["means"][places]).norm(dim=2)[:, 1:]
    ratio = now / squares[:, 1:].sqrt()
    assert ratio.log().abs().mean() < 0.06 and ratio.quantile(0.99) < 1.35 and ratio.quantile(0.01) > 0.7
    grown = (after["log_scales"].amax(1) - model.rows["log_scales"].amax(1)).exp()
    assert grown.median() < 1.1 and grown.quantile(0.99) < 1.5


def test_parts_beyond_a_gap_are_not_dragged():
    """Two bars a third of a bar's width apart, both selected, a handle on one."""
    model = joined(bar(2500), bar(2500, at=(0, 0.35, 0), seed=1))
    drag = Drag((Handle((0.9, 0, 0), (0.6, -0.6, 0), 0.12),), (Handle((-0.9, 0, 0), (-0.9, 0, 0), 0.12),))
    after = dragged(model, everything(model), drag)
    second = torch.arange(model.count) >= 2500
    assert torch.equal(after["means"][second], model.rows["means"][second])
    assert (after["means"] - model.rows["means"])[~second].norm(dim=1).max() > 0.6


def test_crumbs_go_along():
    """A few splats off the end that nothing connects follow it."""
    crumb = block(6, (0.01, 0.01, 0.01), at=(1.15, 0, 0))
    model = joined(bar(2500), crumb)
    drag = Drag((Handle((0.9, 0, 0), (0.9, 0.5, 0), 0.15),), (Handle((-0.9, 0, 0), (-0.9, 0, 0), 0.12),))
    after = dragged(model, everything(model), drag)
    moved = (after["means"] - model.rows["means"])[2500:]
    assert torch.allclose(moved, torch.tensor([0.0, 0.5, 0.0]).expand(6, 3), atol=0.05)


@EVERY_MODE
def test_the_same_bits_again_and_on_any_number_of_threads(mode):
    model = bar(2000)
    drag = Drag((Handle((0.9, 0, 0), (0.6, 0.5, 0.1), 0.15, (0.9, 0, 0, 0.3)),), mode=mode, band=2.0)
    mask, threads = model.rows["means"][:, 0] > -0.5, torch.get_num_threads()
    first = drag_values(model, mask, drag)
    try:
        torch.set_num_threads(1)
        set_threads(1)
        second = drag_values(model, mask, drag)
    finally:
        torch.set_num_threads(threads)
        set_threads(0)
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])


@pytest.mark.parametrize("kind", PRIMITIVES)
@EVERY_MODE
def test_every_primitive_can_be_dragged(kind, mode):
    model = bar(600, kind=kind)
    before = {name: table.clone() for name, table in model.rows.items()}
    drag = Drag((Handle((0.9, 0, 0), (0.6, 0.5, 0), 0.2),), mode=mode)
    session = DragSession(model, everything(model), drag)
    quick, final = session.move(drag.handles), session.finish()
    assert set(quick) <= set(final) | {"quats"} and "sh_rest" in final and "sh_rest" not in quick
    for name, table in (*quick.items(), *final.items()):
        assert table.shape == model.rows[name].shape and torch.isfinite(table).all(), name
    assert all(torch.equal(model.rows[name], before[name]) for name in before)


@EVERY_MODE
@pytest.mark.parametrize("kind", ["one", "two", "flat", "line", "same place"])
def test_degenerate_selections(mode, kind):
    places = {
        "one": torch.zeros(1, 3),
        "two": torch.tensor([[0.0, 0, 0], [1, 0, 0]]),
        "flat": torch.rand(200, 3) * torch.tensor([1.0, 1, 0]),
        "line": torch.rand(200, 3) * torch.tensor([1.0, 0, 0]),
        "same place": torch.full((20, 3), 0.25),
    }[kind]
    model = block(len(places), (1.0, 1, 1))
    model.rows["means"] = places
    at = tuple(places[0].tolist())
    drag = Drag((Handle(at, (at[0] + 0.5, at[1], at[2] + 1.0), 0.1),), mode=mode)
    after = dragged(model, everything(model), drag)
    assert all(torch.isfinite(table).all() for table in after.values())
    assert torch.allclose(after["means"][0] - places[0], torch.tensor([0.5, 0, 1.0]), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"handles": ()}, "at least one handle"),
        ({"handles": (Handle((0, 0, 0), (float("nan"), 0, 0)),)}, "handle 1: to"),
        ({"anchors": (Handle((0, 0, float("inf")), (0, 0, 0)),)}, "anchor 1: at"),
        ({"handles": (Handle((0, 0, 0), (0, 0, 0), -1.0),)}, "radius = -1.0"),
        ({"handles": (Handle((0, 0, 0), (0, 0, 0), 0.0, (0, 0, 0, 0)),)}, "turn"),
        ({"mode": "bend"}, "arap, rigid, smooth, lattice"),
        ({"band": float("nan")}, "band = nan"),
        ({"nodes": 0}, "nodes = 0"),
    ],
)
def test_what_does_not_fit_is_named(change, named):
    model = bar(50)
    with pytest.raises(UserError, match=named):
        drag_values(model, everything(model), replace(Drag((Handle((0, 0, 0), (1, 0, 0)),)), **change))


def test_an_empty_selection_is_named():
    model = bar(50)
    with pytest.raises(UserError, match="no splat is selected"):
        drag_values(model, torch.zeros(50, dtype=torch.bool), Drag((Handle((0, 0, 0), (1, 0, 0)),)))
