"""Rectangle, lasso, polygon and brush in a real browser: what was drawn is what is selected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import serving
import torch
from tooling import Hands, middle, ring

from splat.edit.shapes import Rect
from splat.viewer.tools.screen import chain, distance_to_chain


@pytest.fixture
def hands(opened: tuple[Any, Any], served: serving.Served) -> Hands:
    return Hands(*opened, served)


def rect_of(hands: Hands, low: tuple[float, float], high: tuple[float, float]) -> Rect:
    return Rect(hands.view, middle(low), middle(high))


def drawn(hands: Hands, points: list[tuple[float, float]], *hold: str) -> Any:
    before = len(hands.ops)
    hands.stroke(points, hold=hold)
    return hands.next_op(before, "select")


def test_a_rectangle_takes_what_lies_in_it_and_modifiers_combine(hands: Hands) -> None:
    hands.take("r", "rect")
    a, b = [(100, 200), (180, 260), (300, 330)], [(220, 420), (300, 300), (380, 240)]
    op = drawn(hands, a)
    first, second = hands.taken_by(rect_of(hands, a[0], a[2])), hands.taken_by(rect_of(hands, (220, 240), (380, 420)))
    assert op.shape.view == hands.view and op.combine == "set"
    np.testing.assert_allclose((op.shape.low, op.shape.high), (middle(a[0]), middle(a[2])), atol=1e-9)
    assert 10 < int(first.sum()) < 590 and bool((first & second).any())
    assert torch.equal(hands.chosen, first)
    assert drawn(hands, b, "Shift").combine == "add" and torch.equal(hands.chosen, first | second)
    assert drawn(hands, a, "Control").combine == "subtract" and torch.equal(hands.chosen, second & ~first)
    drawn(hands, a, "Shift")
    assert drawn(hands, b, "Control", "Shift").combine == "intersect" and torch.equal(hands.chosen, second)


def test_visible_only_leaves_out_what_stands_behind(hands: Hands) -> None:
    hands.box.set(reach="visible")
    hands.take("r", "rect")
    op = drawn(hands, [(60, 180), (200, 300), (380, 430)])
    behind = hands.taken_by(op.shape, "centers")
    assert op.reach == "visible" and torch.equal(hands.chosen, hands.taken_by(op.shape, "visible"))
    assert not torch.equal(hands.chosen, behind)


def test_a_lasso_takes_what_it_goes_around(hands: Hands) -> None:
    hands.take("l", "lasso")
    path = [*ring((240, 300), 100, 24), (340, 300)]
    op = drawn(hands, path)
    border = np.array(op.shape.points)
    line = chain([middle(point) for point in path], closed=True)
    assert op.shape.kind == "lasso" and op.shape.view == hands.view and len(border) >= 6
    assert distance_to_chain(border, line).max() < 1.0  # on the way the pointer went (the page tells whole pixels)
    assert torch.equal(hands.chosen, hands.taken_by(op.shape)) and int(hands.chosen.sum()) > 10
    assert hands.box.lines._nodes is None, "the stroke goes when it is done"


def test_a_stroke_is_seen_while_it_is_drawn(hands: Hands) -> None:
    hands.take("l", "lasso")
    serving.resting(hands.ours)
    hands.heard()
    before = serving.pixels(hands.page)
    hands.stroke(ring((240, 300), 100, 12), release=False)
    assert hands.box.runner.idle(serving.PATIENCE_SECS)

    def yellow() -> bool:
        now = serving.pixels(hands.page).astype(int)
        changed = np.abs(now - before).max(axis=-1) > 60
        return bool(changed[190:410, 130:350].sum() > 200)

    serving.wait_for(yellow, why="the line of the lasso")
    hands.page.mouse.up()


def test_the_brush_takes_what_it_passes_over_at_its_size(hands: Hands) -> None:
    hands.take("b", "brush")
    size = 40.0
    for key, factor in (("]", 1.05), ("]", 1.05), ("]", 1.05), ("[", 1 / 1.05)):
        hands.page.keyboard.press(key)
        size *= factor
        serving.wait_for(lambda wanted=size: hands.box.options.brush_px == pytest.approx(wanted), why="another brush")
    path = [(120.0, 250.0), (180.0, 270.0), (240.0, 290.0), (300.0, 310.0)]
    op = drawn(hands, path, "Shift")
    assert op.shape.kind == "brush" and op.combine == "add"
    assert op.shape.radius_px == pytest.approx(40 * 1.05**2)
    assert op.shape.points[0] == pytest.approx(middle(path[0]))
    assert op.shape.points[-1] == pytest.approx(middle(path[-1]))
    assert torch.equal(hands.chosen, hands.taken_by(op.shape)) and int(hands.chosen.sum()) > 5


def test_a_polygon_closes_by_enter_and_by_its_first_corner(hands: Hands) -> None:
    hands.take("p", "polygon")
    before = len(hands.ops)
    for spot in ((120, 200), (340, 220), (40, 40 + 360), (300, 400)):
        hands.click(spot)
    serving.wait_for(lambda: len(hands.box.tool.points) == 4, why="four corners")
    hands.page.keyboard.press("Backspace")
    serving.wait_for(lambda: len(hands.box.tool.points) == 3, why="one corner less")
    hands.page.keyboard.press("Enter")
    op = hands.next_op(before, "select")
    np.testing.assert_allclose(op.shape.points, [(120.5, 200.5), (340.5, 220.5), (40.5, 400.5)], atol=1e-6)
    first = hands.chosen.clone()
    assert torch.equal(first, hands.taken_by(op.shape)) and 0 < int(first.sum())
    before = len(hands.ops)
    for spot in ((100, 180), (380, 180), (380, 420), (100, 420), (103, 182)):
        hands.click(spot, hold=("Control",) if spot == (100, 180) else ())
    op = hands.next_op(before, "select")
    assert op.combine == "subtract" and len(op.shape.points) == 4
    assert torch.equal(hands.chosen, first & ~hands.taken_by(op.shape))


def test_escape_gives_the_mouse_back_to_the_camera(hands: Hands) -> None:
    hands.take("r", "rect")
    hands.page.keyboard.press("Escape")
    serving.wait_for(lambda: hands.box.tool is None, why="no tool")
    hands.heard()
    before, ops = hands.ours.camera().center_world, len(hands.ops)
    hands.stroke([(200, 300), (240, 310), (300, 330)])
    serving.wait_for(lambda: not np.allclose(hands.ours.camera().center_world, before), why="the camera to turn")
    assert len(hands.ops) == ops
