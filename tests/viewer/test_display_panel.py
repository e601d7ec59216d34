"""Every control of the tab "View" reaches the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import serving
from controls import check, choose, control, fill, nudge, offered, press, tab
from viewer_scene import random_snapshot

from splat.model.labels import SELECTED
from splat.viewer.panels.display import legend_html, ramp_html
from splat.viewer.picture.look import Look
from splat.viewer.picture.modes import MODES


def reached(shown, **fields) -> None:
    serving.wait_for(lambda: all(getattr(shown.look, name) == value for name, value in fields.items()), why=f"{fields}")


def test_modes_of_a_model_without_photographs(page, shown) -> None:
    tab(page, "View")
    assert offered(page, "Mode") == [name for name, mode in MODES.items() if not mode.needs]
    page.get_by_role("option", name="depth", exact=True).click()
    reached(shown, mode="depth")
    frame = serving.sharp(shown)
    low, high = frame.drawn.values
    page.get_by_text(f"{low:.4g}", exact=True).wait_for()  # the legend tells the ends
    page.get_by_text(f"{high:.4g}", exact=True).wait_for()
    page.get_by_text(MODES["depth"].purpose).wait_for()


def test_the_ramp_and_its_range(page, shown) -> None:
    tab(page, "View")
    choose(page, "Mode", "scale")
    reached(shown, mode="scale")
    values = serving.sharp(shown).drawn.values
    choose(page, "Ramp", "spectrum")
    reached(shown, ramp="spectrum")
    serving.resting(shown)  # the range is that of the last picture
    check(page, "Range from what is seen")
    serving.wait_for(lambda: shown.look.low is not None, why="a range of one's own")
    assert (shown.look.low, shown.look.high) == pytest.approx(values, rel=0.02)
    serving.wait_for(lambda: control(page, "High").input_value() not in ("", "1"), why="the range to be shown")
    fill(page, "High", "7.5")
    reached(shown, high=7.5)
    fill(page, "Low", "0.25")
    reached(shown, low=0.25)
    assert serving.sharp(shown).drawn.values == (0.25, 7.5)
    check(page, "Equal factors (log)")
    reached(shown, log_scale=True)
    check(page, "Turned round")
    reached(shown, invert=True)
    choose(page, "Mode", "opacity")  # a range of other units would say nothing
    reached(shown, mode="opacity", low=None, high=None)


def test_how_splats_are_drawn(page, shown) -> None:
    tab(page, "View")
    reached(shown, sh_degree=1)  # all that the model has
    serving.heard(shown, page)
    nudge(page, "SH degree")
    reached(shown, sh_degree=0)
    choose(page, "Filter", "mip")
    reached(shown, filter2d="mip")
    choose(page, "Filter", "as trained")
    reached(shown, filter2d=None)
    fill(page, "Background", "rgb(255, 0, 51)")
    reached(shown, background=(1.0, 0.0, 0.2))
    fill(page, "Near", "0.5")
    reached(shown, near=0.5)
    fill(page, "Far", "9")
    reached(shown, far=9.0)
    fill(page, "Far", "0")
    reached(shown, far=1e10)
    check(page, "Tint the selection")
    reached(shown, show_selection=False)
    check(page, "Show hidden splats")
    reached(shown, show_hidden=True)


def test_keys_step_through_the_modes(page, shown) -> None:
    page.mouse.click(200, 300)
    serving.wait_for(lambda: page.keyboard.press("m") or shown.look.mode != "color", why="M")


def test_the_crop_box_fits_is_typed_and_selects(page, shown, served) -> None:
    tab(page, "View")
    check(page, "Crop")
    serving.wait_for(lambda: shown.look.crop is not None, why="a box")
    means = served.desk.snapshot.model.rows["means"].numpy()
    low, high = np.percentile(means, (2, 98), axis=0)
    assert np.allclose(shown.look.crop.size, high - low, atol=1e-4)
    serving.wait_for(lambda: shown.wants_depth, why="the box in the picture")
    serving.wait_for(lambda: control(page, "Sides").input_value() not in ("", "1"), why="the sides to be shown")
    fill(page, "Sides", "1")
    serving.wait_for(lambda: shown.look.crop.size[0] == 1, why="another side")
    box = shown.look.crop
    local = means - np.array(box.world_from_box)[:3, 3]
    inside = (np.abs(local) <= np.array(box.size) / 2).all(1)
    press(page, "Select what is inside")
    serving.wait_for(lambda: served.desk.session.status.selected == int(inside.sum()), why="the selection")
    check(page, "Box in the picture")
    serving.wait_for(lambda: not shown.wants_depth, why="the box to go")
    assert shown.look.crop is not None
    check(page, "Crop")
    serving.wait_for(lambda: shown.look.crop is None, why="no box")

    def chosen() -> int:
        return int(served.desk.snapshot.labels.having(SELECTED).sum())

    serving.wait_for(lambda: chosen() == int(inside.sum()), why="a snapshot with the selection")


def test_the_gizmo_moves_the_crop_box(page, shown) -> None:
    tab(page, "View")
    check(page, "Crop")
    serving.wait_for(lambda: shown.look.crop is not None, why="a box")
    handle = serving.node(shown, "/splat/crop/gizmo")
    before = np.array(shown.look.crop.world_from_box)[:3, 3]
    serving.wait_for(lambda: dragged(page, shown, before), why="the gizmo to move the box")

    def together() -> bool:
        after = np.array(shown.look.crop.world_from_box)[:3, 3]
        return np.allclose(shown.desk.space.page(after), handle.position, atol=1e-6)

    serving.wait_for(together, why="the box to stand where the gizmo does")


def dragged(page, shown, before) -> bool:
    """Try the middle of an arrow: which way arrows point on the screen depends on the view. A miss turns the view."""
    for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False):
        serving.heard(shown, page)
        camera = shown.camera()
        x, y, z = camera.K @ (camera.camera_from_world @ np.append(before, 1))[:3]
        at = np.array([x, y]) / z
        start = at + 55 * np.array([np.cos(angle), np.sin(angle)])
        page.mouse.move(*start)
        page.mouse.down()
        page.mouse.move(*(start + (start - at)), steps=4)
        page.mouse.up()
        serving.heard(shown, page)
        if shown.look.crop is not None and not np.allclose(
            np.array(shown.look.crop.world_from_box)[:3, 3], before, atol=1e-3
        ):
            return True
    return False


def test_a_convex_model_offers_only_its_own_filter(browser) -> None:
    model = random_snapshot(20, kind="convex").model
    with serving.serve(model) as convex, serving.opened(browser, convex) as (page, shown):
        serving.wait_for(lambda: shown.look.sh_degree == 1, why="the model to be known")
        tab(page, "View")
        filters = serving.wait_for(lambda: narrowed(page), why="the filters of a convex model")
        assert filters == ["as trained", "classic"]


def narrowed(page) -> list[str] | None:
    """The filters on offer, if they are no longer those that any model might have."""
    found = offered(page, "Filter")
    page.keyboard.press("Escape")
    return found if len(found) == 2 else None


def test_legends_tell_their_ends_and_escape_names() -> None:
    text = ramp_html(replace(Look(), mode="scale"), (0.001, 1234.5))
    assert "0.001" in text and "1234" in text and "world units" in text
    assert "rgb(1,2,3)" in legend_html([("a<b", (1, 2, 3))]) and "a&lt;b" in legend_html([("a<b", (1, 2, 3))])
