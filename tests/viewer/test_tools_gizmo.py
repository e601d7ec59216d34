"""Gizmos in a real browser: the selection goes where the matrix says, and is seen on its way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import serving
import torch
from tooling import Hands

from splat.edit.moving import moved_values
from splat.edit.ops import Invert, Select
from splat.edit.shapes import Sphere
from splat.viewer.tools.matrices import long_axes, rotation
from splat.viewer.tools.screen import project


@pytest.fixture
def hands(opened: tuple[Any, Any], served: serving.Served) -> Hands:
    hands = Hands(*opened, served)
    hands.do(Select(Sphere(hands.deep((230, 290)), 0.6)))
    return hands


def stands_as(hands: Hands, before: dict[str, torch.Tensor], rows: torch.Tensor, matrix: np.ndarray) -> bool:
    """Whether ``rows`` were moved by ``matrix``, and nothing else was."""
    model = hands.bench.model
    values = moved_values(type(model)(model.primitive, {k: before[k] for k in model.rows}, model.sh_degree), rows,
                          torch.as_tensor(matrix))  # fmt: skip
    expected = {name: before[name].clone() for name in model.rows}
    for name, new in values.items():
        expected[name][rows] = new
    return all(torch.equal(model.rows[name], table) for name, table in expected.items())


def test_an_arrow_moves_the_selection_and_it_is_seen_on_its_way(hands: Hands) -> None:
    before, rows, ops = hands.bits(), hands.chosen.nonzero().squeeze(1), len(hands.ops)
    hands.take("1", "move")
    pivot = hands.box.tool.pivot
    np.testing.assert_allclose(pivot, before["means"][rows].median(dim=0).values.numpy(), atol=1e-6)
    axis, start, end = hands.pull_arrow(pivot, 70.0, release=False)
    ids, values = serving.wait_for(lambda: hands.ours.preview_rows, why="a preview")
    assert torch.equal(ids, before["labels.ids"][rows]) and len(hands.ops) == ops
    assert not torch.equal(values["means"], before["means"][rows])
    hands.page.mouse.up()
    matrix = np.array(hands.next_op(ops, "transform").similarity)
    assert stands_as(hands, before, rows, matrix)
    others = [i for i in range(3) if i != axis]
    np.testing.assert_allclose(matrix[:3, :3], np.eye(3), atol=1e-9)
    np.testing.assert_allclose(matrix[others, 3], 0, atol=1e-5)
    pulled = project(hands.ours.camera(), pivot + matrix[:3, 3])[0] - project(hands.ours.camera(), pivot)[0]
    assert np.linalg.norm(pulled - np.subtract(end, start)) < 8.0
    serving.wait_for(lambda: hands.ours.preview_rows is None, why="the preview to end")
    hands.page.keyboard.press("Control+z")
    serving.wait_for(lambda: len(hands.ops) == ops, why="undo")
    assert hands.same_bits(before)


def test_a_ring_turns_the_selection_about_its_middle(hands: Hands) -> None:
    before, rows, ops = hands.bits(), hands.chosen.nonzero().squeeze(1), len(hands.ops)
    hands.take("2", "rotate")
    pivot = hands.box.tool.pivot
    spot = hands.ring_spot(pivot)
    hands.stroke([spot, *[(spot[0] + 4 * i, spot[1] + 3 * i) for i in range(1, 9)]])
    matrix = np.array(hands.next_op(ops, "transform").similarity)
    assert stands_as(hands, before, rows, matrix)
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-6)
    assert not np.allclose(matrix[:3, :3], np.eye(3), atol=1e-3)
    np.testing.assert_allclose(matrix[:3, :3] @ pivot + matrix[:3, 3], pivot, atol=1e-5)


def test_the_knob_scales_by_how_far_it_is_pulled(hands: Hands) -> None:
    before, rows, ops = hands.bits(), hands.chosen.nonzero().squeeze(1), len(hands.ops)
    hands.take("3", "scale")
    pivot, camera = hands.box.tool.pivot, hands.ours.camera()
    knob = np.round(project(camera, hands.box.tool._knob)[0] - 0.5)
    hands.stroke([tuple(knob), *[(knob[0] + 9 * i, knob[1]) for i in range(1, 6)]])
    matrix = np.array(hands.next_op(ops, "transform").similarity)
    center = project(camera, pivot)[0]
    begin, end = (np.linalg.norm(knob + np.array([0.5 + dx, 0.5]) - center) for dx in (0, 45))
    assert matrix[0, 0] == pytest.approx(end / begin, rel=1e-6) and matrix[0, 0] > 1.2
    np.testing.assert_allclose(matrix[:3, :3], matrix[0, 0] * np.eye(3), atol=1e-9)
    assert stands_as(hands, before, rows, matrix)


def test_a_clicked_point_becomes_the_pivot(hands: Hands) -> None:
    hands.take("3", "scale")
    hands.box.set(pick_pivot=True)
    hands.heard()
    hands.click((200, 320))
    serving.wait_for(lambda: hands.box.clicked_pivot is not None, why="the pivot")
    seen, _ = project(hands.ours.camera(), hands.box.clicked_pivot)
    np.testing.assert_allclose(seen, (200.5, 320.5), atol=1e-6)
    hands.idle()
    np.testing.assert_allclose(hands.box.tool.pivot, hands.box.clicked_pivot)
    hands.box.clicked_pivot = None
    hands.do(Invert())
    serving.wait_for(lambda: not np.allclose(hands.box.tool.pivot[2], 0, atol=0), why="the middle")


def test_its_own_axes_are_those_the_selection_is_long_along(hands: Hands) -> None:
    hands.take("1", "move")
    hands.page.keyboard.press("Shift+c")
    serving.wait_for(lambda: hands.box.options.axes == "own", why="other axes")
    axes = long_axes(hands.bench.model.rows["means"][hands.chosen].numpy())

    def turned() -> bool:
        nodes = list(hands.box.tool._nodes)  # none while others are made
        return bool(nodes) and np.allclose(rotation(nodes[0].wxyz), axes, atol=1e-5)

    serving.wait_for(turned, why="the axes")
    hands.idle()
    assert not np.allclose(axes, np.eye(3), atol=0.05)
    before, rows, ops = hands.bits(), hands.chosen.nonzero().squeeze(1), len(hands.ops)
    hands.heard()
    axis, _, _ = hands.pull_arrow(hands.box.tool.pivot, 60.0, axes=axes)
    matrix = np.array(hands.next_op(ops, "transform").similarity)
    assert stands_as(hands, before, rows, matrix)
    np.testing.assert_allclose(matrix[:3, :3], np.eye(3), atol=1e-6)
    way = axes.T @ matrix[:3, 3]
    assert abs(way[axis]) > 0.1 and np.abs(np.delete(way, axis)).max() < 1e-4
    np.testing.assert_allclose(rotation(hands.box.tool._nodes[0].wxyz), axes, atol=1e-5)
    hands.box.set(axes="world")
    hands.idle()
    np.testing.assert_allclose(hands.box.tool._nodes[0].wxyz, (1, 0, 0, 0), atol=1e-9)
