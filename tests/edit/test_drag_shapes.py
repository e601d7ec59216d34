"""Shapes that drags lead to, against what is known of them: an arc, an even twist, a fold's energy."""

import math

import pytest
import torch
from drag_models import bar, everything, hose, near

from splat.edit.drag.arap import ArapMode
from splat.edit.drag.drag import DragSession, drag_values
from splat.edit.drag.reference import arap_energy
from splat.edit.ops import Drag, Handle
from splat.native.neighbours import nearest_points

FREE = 0.8
"""Half the length of a bar between its ends, which are held."""
HELD = Handle((-0.9, 0, 0), (-0.9, 0, 0), 0.1)


def turned(axis, degrees):
    half = math.radians(degrees) / 2
    return (math.cos(half), *(math.sin(half) * a for a in axis))


def on_the_arc(points, angle):
    """[P,3]: a bar whose free length is bent by ``angle`` in the plane of x and y, every cross section flat."""
    radius, along = 2 * FREE / angle, points[:, 0] + FREE
    t = (along / radius).clamp(0, angle)
    straight, inner = along - t * radius, radius - points[:, 1]
    x = -FREE + inner * t.sin() + straight * t.cos()
    return torch.stack([x, radius - inner * t.cos() + straight * t.sin(), points[:, 2]], dim=1)


def lengths(before, after):
    """[P*6] distances to the six nearest after over before."""
    places, squares = nearest_points(before, before, 7)
    return ((after[:, None] - after[places]).norm(dim=2)[:, 1:] / squares[:, 1:].sqrt()).flatten()


@pytest.mark.parametrize("degrees", [60, 180])
def test_a_bar_bends_to_an_arc(degrees):
    model = bar(3000)
    at = torch.tensor([[0.9, 0.0, 0.0]]).double()
    end = tuple(on_the_arc(at, math.radians(degrees))[0].tolist())
    drag = Drag((Handle((0.9, 0, 0), end, 0.1, turned((0, 0, 1), degrees)),), (HELD,))
    rows, values = drag_values(model, everything(model), drag)
    expected = on_the_arc(model.rows["means"][rows].double(), math.radians(degrees))
    off = (values["means"].double() - expected).norm(dim=1)
    assert off.mean() < 0.006 and off.max() < 0.03


def test_a_twist_is_spread_evenly():
    """A bar held at one end, its other end turned by 180 degrees: slices between turn by their share of it."""
    model = bar(3000)
    drag = Drag((Handle((0.9, 0, 0), (0.9, 0, 0), 0.1, turned((1, 0, 0), 179)),), (HELD,))
    rows, values = drag_values(model, everything(model), drag)
    before, after = model.rows["means"][rows].double(), values["means"].double()
    for x in (-0.4, 0.0, 0.4):
        slab = (before[:, 0] - x).abs() < 0.03
        b, a = before[slab][:, 1:], after[slab][:, 1:]
        angle = torch.atan2((b[:, 0] * a[:, 1] - b[:, 1] * a[:, 0]).sum(), (b * a).sum())
        assert abs(math.degrees(float(angle)) - 179 * (x + FREE) / (2 * FREE)) < 8
    ratio = lengths(before, after)
    assert ratio.quantile(0.01) > 0.85 and ratio.quantile(0.99) < 1.15


@pytest.mark.parametrize(
    ("handle", "most"),
    [(Handle((0.9, 0, 0), (0.9, 0, 0), 0.28, turned((1, 0, 0), 179)), 0.042),
     (Handle((0.9, 0, 0), (-0.3, 0, 0), 0.28), 0.03)],
)  # fmt: skip
def test_a_hose_that_is_twisted_or_pushed_together_folds_little(handle, most):
    """Without the stiff way: 0.05 and more."""
    model = hose(2000)
    rows, values = drag_values(model, everything(model), Drag((handle,), (Handle((-0.9, 0, 0), (-0.9, 0, 0), 0.28),)))
    ratio = lengths(model.rows["means"][rows], values["means"])
    assert ratio.log().abs().mean() < most


def test_at_the_end_nothing_is_left_to_gain():
    model = bar(2000)
    drag = Drag((Handle((0.9, 0, 0), (0.6, 0.6, 0), 0.15, turned((1, 0, 0), 120)),), (HELD,))
    session = DragSession(model, everything(model), drag)
    session.finish()
    mode = session._mode
    assert isinstance(mode, ArapMode)
    graph, end = mode._graph.graph, mode._places.clone()
    energy = arap_energy(graph, mode._places, mode._rotations)
    places, rotations = mode._arap.iterate(mode._places, mode._rotations, mode._targets, 500)
    assert arap_energy(graph, places, rotations) > 0.999 * energy
    assert (places - end).norm(dim=1).max() < 0.1 * session.spacing


def test_a_drag_in_one_move_ends_where_it_ends_in_many():
    """Where there is no fold to fall into, the way of the mouse does not matter."""
    model, end = bar(2000), Handle((0.9, 0, 0), (0.6, 0.8, 0.0), 0.15)
    drag = Drag((end,), (HELD,))
    session = DragSession(model, everything(model), drag)
    for share in (0.0, 0.2, 0.9, 0.5, 1.0):
        at, to = torch.tensor(end.at), torch.tensor(end.to)
        session.move((Handle(end.at, tuple((at + share * (to - at)).tolist()), end.radius),))
    session.move((end,))
    _, values = drag_values(model, everything(model), drag)
    assert (session.finish()["means"] - values["means"]).norm(dim=1).max() < 0.1 * session.spacing
    assert near(model, (0.9, 0, 0), 0.1).sum() > 20


@pytest.mark.parametrize("apart", [0.0001, 0.01, 0.03, 0.1])
@pytest.mark.parametrize("mode", ["smooth", "lattice", "arap"])
def test_handles_beside_each_other_that_part_do_not_throw_the_rest_away(mode, apart):
    """Each goes 0.15 its own way; to meet both exactly a cage would go 4 to 4,000 lengths, a smooth field 200."""
    model = bar()
    handles = (Handle((0.4, 0, 0), (0.4, 0.15, 0)), Handle((0.4 - apart, 0, 0), (0.4 - apart, -0.15, 0)))
    rows, values = drag_values(model, everything(model), Drag(handles, mode=mode))
    assert (values["means"] - model.rows["means"][rows]).norm(dim=1).max() < 3
    session = DragSession(model, everything(model), Drag(handles, mode=mode))
    assert max(session.missed(handles)) < 0.35


def test_a_cage_stays_whole_when_handles_are_far_from_it():
    model = bar(300)
    mask, tiny = torch.arange(300) < 1, Handle((40.0, 30.0, 0), (41.0, 30.0, 0), 0.5)
    handles = (Handle((0.4, 0, 0), (0.4, 0.1, 0)), tiny, Handle((-700.0, 300.0, 99.0), (-700.0, 300.0, 99.0), 3.0))
    _, values = drag_values(model, mask, Drag(handles, mode="lattice", band=0.0))
    assert values["means"].isfinite().all() and values["means"].norm(dim=1).max() < 20


@pytest.mark.parametrize("mode", ["smooth", "lattice"])
def test_a_handle_so_small_that_its_points_are_nearly_one(mode):
    model = bar(500)
    handles = tuple(Handle((x, 0.5, 0), (x, 0.6, 0), radius) for x in (0.1, 0.4, 0.7) for radius in (1e-5, 1e-6))
    rows, values = drag_values(model, everything(model), Drag(handles, mode=mode))
    assert (values["means"] - model.rows["means"][rows] - torch.tensor([0, 0.1, 0])).norm(dim=1).max() < 0.05
