"""Selecting by a click (a splat, a region, a colour) and by solids, in a real browser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import serving
import torch
from tooling import Hands, middle

from splat.edit.attributes import base_colors
from splat.edit.lifting import splat_at
from splat.edit.shapes import Flood

AT = (260, 300)


@pytest.fixture
def hands(opened: tuple[Any, Any], served: serving.Served) -> Hands:
    return Hands(*opened, served)


def under(hands: Hands, spot: tuple[float, float] = AT) -> int:
    row = splat_at(hands.bench.model, hands.ours.camera(), *middle(spot), hands.served.desk.rasterizer)
    assert row is not None
    return row


def test_a_click_takes_the_splat_that_shows_most_there(hands: Hands) -> None:
    hands.take("v", "click")
    before = len(hands.ops)
    hands.click(AT)
    op = hands.next_op(before, "select")
    np.testing.assert_allclose(op.shape.at, middle(AT), atol=1e-9)
    assert hands.chosen.nonzero().tolist() == [[under(hands)]]


def test_flood_takes_what_is_seen_in_the_region_of_like_colour(hands: Hands) -> None:
    hands.box.set(tolerance=0.1)
    hands.take("o", "flood")
    before = len(hands.ops)
    hands.click(AT)
    op = hands.next_op(before, "select")
    assert isinstance(op.shape, Flood) and op.shape.tolerance == 0.1
    assert torch.equal(hands.chosen, hands.taken_by(op.shape)) and int(hands.chosen.sum()) > 0


def test_the_eyedropper_takes_every_splat_of_a_like_colour(hands: Hands) -> None:
    hands.box.set(tolerance=0.15)
    hands.take("Control+e", "eyedropper")
    before = len(hands.ops)
    hands.click(AT)
    op = hands.next_op(before, "select")
    colors = base_colors(hands.bench.model)
    picked = colors[under(hands)]
    assert op.shape.rgb == pytest.approx(picked.tolist(), abs=1e-6)
    assert torch.equal(hands.chosen, (colors - picked).abs().amax(dim=1) <= 0.15)


def test_a_sphere_stands_where_it_was_clicked_and_enter_takes_what_is_inside(hands: Hands) -> None:
    hands.box.use("sphere")
    hands.heard()
    hands.click(AT)
    serving.wait_for(lambda: hands.box.tool.center is not None, why="the sphere")
    hands.box.set(radius=1.2)
    hands.heard()
    center, before = hands.box.tool.center, len(hands.ops)
    hands.page.keyboard.press("Enter")
    op = hands.next_op(before, "select")
    away = (hands.bench.model.rows["means"] - torch.as_tensor(center)).norm(dim=1)
    assert op.shape.radius == 1.2 and torch.equal(hands.chosen, away <= 1.2) and int(hands.chosen.sum()) > 3
    before = len(hands.ops)
    hands.page.keyboard.press("Control+Enter")
    assert hands.next_op(before, "select").combine == "subtract" and not bool(hands.chosen.any())


def test_the_arrows_of_the_box_move_it(hands: Hands) -> None:
    hands.box.use("box")
    hands.heard()
    hands.click(AT)
    serving.wait_for(lambda: hands.box.tool.center is not None, why="the box")
    hands.box.set(size=(2.0, 1.6, 2.4))
    hands.heard()
    start = hands.box.tool.center.copy()
    hands.pull_arrow(start, 40.0)
    serving.wait_for(lambda: np.linalg.norm(hands.box.tool.center - start) > 0.05, why="the box to move")
    hands.idle()
    before = len(hands.ops)
    hands.page.keyboard.press("Enter")
    op = hands.next_op(before, "select")
    pose = np.array(op.shape.world_from_box)
    np.testing.assert_allclose(pose[:3, 3], hands.box.tool.center)
    local = (hands.bench.model.rows["means"].double().numpy() - pose[:3, 3]) @ pose[:3, :3]
    inside = (np.abs(local) <= np.array([2.0, 1.6, 2.4]) / 2).all(axis=1)
    assert hands.chosen.tolist() == inside.tolist() and inside.sum() > 3
