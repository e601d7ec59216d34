"""Changing the selection in a real browser: by shortcuts, by buttons, and back again to the bit."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import serving
import torch
from tooling import Hands

from splat.edit.ops import Delete, Duplicate, Invert, Mark, Recolor, Select
from splat.edit.recolor import recolored_values
from splat.edit.shapes import Everything, Nothing, Sphere
from splat.model.labels import HIDDEN, LOCKED
from splat.viewer.panels.editing import history_text
from splat.viewer.panels.status import counts_text
from splat.viewer.tools.screen import project


@pytest.fixture
def hands(opened: tuple[Any, Any], served: serving.Served) -> Hands:
    hands = Hands(*opened, served)
    hands.do(Select(Sphere(hands.deep((230, 290)), 0.6)))
    return hands


def pressed(hands: Hands, key: str, op: Any) -> None:
    """A shortcut sends ``op``."""
    before = len(hands.ops)
    hands.page.keyboard.press(key)
    serving.wait_for(lambda: len(hands.ops) > before, why=f"{key}: {op}")
    assert hands.ops[-1] == op and len(hands.ops) == before + 1, key
    hands.arrived()


def test_delete_undo_and_redo_restore_the_bits(hands: Hands) -> None:
    before, chosen, ops = hands.bits(), hands.chosen, len(hands.ops)
    pressed(hands, "Delete", Delete())
    after = hands.bits()
    assert torch.equal(after["labels.ids"], before["labels.ids"][~chosen])
    hands.page.keyboard.press("Control+z")
    serving.wait_for(lambda: len(hands.ops) == ops, why="undo")
    assert hands.same_bits(before)
    hands.page.keyboard.press("Control+Shift+z")
    serving.wait_for(lambda: len(hands.ops) == ops + 1, why="redo")
    assert hands.same_bits(after)
    assert history_text(hands.ours).lower().startswith("- delete")
    hands.page.keyboard.press("Control+z")
    serving.wait_for(lambda: len(hands.ops) == ops, why="undo")
    assert hands.same_bits(before)


def test_a_key_with_a_modifier_does_not_move_the_camera(hands: Hands) -> None:
    start = np.array(hands.ours.client.camera.position)
    time.sleep(0.5)  # the page rests: its next step would be as long
    for held, keys in (("Control", "a"), ("Shift", "d"), ("Control", "e")):
        before = len(hands.ops)
        hands.page.keyboard.down(held)
        hands.page.keyboard.down(keys)
        time.sleep(0.3)
        hands.page.keyboard.up(keys)
        hands.page.keyboard.up(held)
        if keys != "e":
            serving.wait_for(lambda before=before: len(hands.ops) == before + 1, why=keys)
    hands.heard()
    assert np.allclose(hands.ours.client.camera.position, start)
    hands.page.keyboard.down("a")
    serving.wait_for(lambda: not np.allclose(hands.ours.client.camera.position, start), why="the camera to fly")
    hands.page.keyboard.up("a")


def test_every_shortcut_of_selection_and_marks_does_its_work(hands: Hands) -> None:
    some = hands.chosen.clone()
    pressed(hands, "Control+i", Invert())
    assert torch.equal(hands.chosen, ~some)
    pressed(hands, "Control+a", Select(Everything()))
    assert bool(hands.chosen.all())
    pressed(hands, "Control+Shift+a", Select(Nothing()))
    assert not bool(hands.chosen.any())
    hands.page.keyboard.press("Control+z")
    serving.wait_for(lambda: bool(hands.chosen.all()), why="undo of a selection")
    hands.do(Select(Sphere(hands.deep((230, 290)), 0.6)))
    pressed(hands, "h", Mark("hide"))
    assert torch.equal(hands.bench.labels.having(HIDDEN), some)
    serving.wait_for(lambda: f"**{int(some.sum()):,}** hidden" in counts_text(hands.ours), why="the count")
    pressed(hands, "Control+a", Select(Everything()))
    assert torch.equal(hands.chosen, ~some), "hidden ones are not taken"
    pressed(hands, "Shift+h", Mark("show"))
    assert not bool(hands.bench.labels.having(HIDDEN).any())
    pressed(hands, "k", Mark("lock"))
    assert torch.equal(hands.bench.labels.having(LOCKED), ~some)
    pressed(hands, "Control+a", Select(Everything()))
    assert not bool((hands.chosen & ~some).any()), "locked ones are not taken"
    pressed(hands, "Shift+k", Mark("unlock"))


def test_duplicates_become_the_selection(hands: Hands) -> None:
    count, chosen, ops = hands.bench.model.count, int(hands.chosen.sum()), len(hands.ops)
    pressed(hands, "Shift+d", Duplicate())
    assert hands.bench.model.count == count + chosen and int(hands.chosen[count:].sum()) == chosen
    assert not bool(hands.chosen[:count].any())
    hands.page.keyboard.press("Control+z")
    serving.wait_for(lambda: len(hands.ops) == ops, why="undo")
    assert hands.bench.model.count == count


def test_the_buttons_do_the_same(hands: Hands) -> None:
    page, some, ops = hands.page, hands.chosen.clone(), len(hands.ops)
    page.get_by_role("tab", name="Edit").click()
    page.get_by_text("Invert", exact=True).click()
    assert hands.next_op(ops, "invert") == Invert() and torch.equal(hands.chosen, ~some)
    page.get_by_text("Undo", exact=True).click()
    serving.wait_for(lambda: len(hands.ops) == ops, why="undo")
    page.get_by_text("Redo", exact=True).click()
    serving.wait_for(lambda: len(hands.ops) == ops + 1, why="redo")
    page.get_by_text("Lasso", exact=True).first.click()
    serving.wait_for(lambda: hands.ours.tool == "lasso", why="the lasso")
    page.get_by_text("Draw around what you want").wait_for()
    page.get_by_text("Keep only", exact=True).click()
    assert hands.next_op(ops + 1, "delete") == Delete(outside=True)
    assert hands.bench.model.count == int((~some).sum())
    page.get_by_text("Undo", exact=True).click()
    serving.wait_for(lambda: len(hands.ops) == ops + 1, why="undo")
    assert hands.bench.model.count == len(some)


def test_the_selection_moves_by_numbers(hands: Hands) -> None:
    page, before, rows, ops = hands.page, hands.bits(), hands.chosen.nonzero().squeeze(1), len(hands.ops)
    page.get_by_role("tab", name="Edit").click()
    page.get_by_text("Move by numbers").click()
    apply = page.get_by_role("button", name="Apply to the selection")
    fields = apply.locator("xpath=ancestor::*[count(.//input) >= 7][1]").locator("input")
    fields.nth(0).fill("0.25")
    page.keyboard.press("Tab")
    serving.said(page)
    apply.click()
    matrix = np.array(hands.next_op(ops, "transform").similarity)
    np.testing.assert_allclose(matrix, [[1, 0, 0, 0.25], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], atol=1e-9)
    moved = hands.bench.model.rows["means"][rows] - before["means"][rows]
    np.testing.assert_allclose(moved.numpy(), np.tile([0.25, 0, 0], (len(rows), 1)), atol=1e-5)


def test_every_tool_has_its_key_and_the_same_key_ends_it(hands: Hands) -> None:
    keys = {"r": "rect", "l": "lasso", "p": "polygon", "b": "brush", "v": "click", "o": "flood",
            "Control+e": "eyedropper", "1": "move", "2": "rotate", "3": "scale", "g": "drag"}  # fmt: skip
    for key, name in keys.items():
        hands.page.keyboard.press(key)
        serving.wait_for(lambda name=name: hands.ours.tool == name, why=f"{key}: {name}")
    hands.page.keyboard.press("g")
    serving.wait_for(lambda: hands.ours.tool == "", why="no tool")


def test_framing_brings_the_selection_to_the_middle(hands: Hands) -> None:
    center, start = hands.box.center(), hands.ours.camera().center_world
    hands.page.keyboard.press("f")

    def framed() -> bool:
        camera = hands.ours.camera()
        seen, depth = project(camera, center)
        return float(depth) > 0 and np.abs(seen - (camera.width / 2, camera.height / 2)).max() < 2

    serving.wait_for(framed, why="the selection in the middle")
    assert not np.allclose(hands.ours.camera().center_world, start)


def test_colours_are_seen_while_the_slider_moves_and_come_by_one_operation(hands: Hands) -> None:
    page, before, rows, ops = hands.page, hands.bits(), hands.chosen.nonzero().squeeze(1), len(hands.ops)
    page.get_by_role("tab", name="Edit").click()
    page.get_by_text("Colour", exact=True).last.click()  # opens the folder
    slider = page.get_by_role("slider").nth(4)
    slider.scroll_into_view_if_needed()
    slider.press("ArrowLeft")
    ids, values = serving.wait_for(lambda: hands.ours.preview_rows, why="a preview")
    assert torch.equal(ids, before["labels.ids"][rows]) and len(hands.ops) == ops and hands.same_bits(before)
    page.get_by_role("button", name="Apply colours").click()
    op = hands.next_op(ops, "recolor")
    assert op != Recolor()
    model = hands.bench.model
    old = type(model)(model.primitive, {name: before[name] for name in model.rows}, model.sh_degree)
    for name, new in recolored_values(old, rows, op).items():
        assert torch.equal(model.rows[name][rows], new) and torch.equal(values[name], new)
    serving.wait_for(lambda: hands.ours.preview_rows is None, why="the preview to end")
