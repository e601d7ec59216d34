"""Every control of the tab "View" reaches the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import serving
from controls import check, choose, control, fill, nudge, press, tab
from viewer_scene import random_snapshot

from splat.model.labels import SELECTED
from splat.viewer.panels.display import legend_html, ramp_html
from splat.viewer.picture.look import Look
from splat.viewer.picture.modes import MODES


def reached(shown, **fields) -> None:
    serving.wait_for(lambda: all(getattr(shown.look, name) == value for name, value in fields.items()), why=f"{fields}")


def test_modes_of_a_model_without_photographs(page, shown) -> None:
    tab(page, "View")
    control(page, "Mode").click()
    offered = [option.inner_text() for option in page.get_by_role("option").all()]
    assert offered == [name for name, mode in MODES.items() if not mode.needs]
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
    assert shown.wants_depth
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
    snapshot = served.desk.snapshot
    assert int(snapshot.labels.having(SELECTED).sum()) == int(inside.sum())


def test_the_gizmo_moves_the_crop_box(page, shown) -> None:
    tab(page, "View")
    check(page, "Crop")
    serving.wait_for(lambda: shown.look.crop is not None, why="a box")
    nodes = shown.client.scene._handle_from_node_name
    serving.wait_for(lambda: "/splat/crop/gizmo" in nodes, why="a gizmo")
    handle = nodes["/splat/crop/gizmo"]
    before = np.array(shown.look.crop.world_from_box)[:3, 3]
    serving.sharp(shown)
    camera = shown.camera()
    z = camera.camera_from_world @ np.append(before, 1)
    at = camera.K @ z[:3] / z[2]
    serving.wait_for(lambda: dragged(page, shown, at[:2], before), 12.0, why="the gizmo to move the box")
    after = np.array(shown.look.crop.world_from_box)[:3, 3]
    assert np.allclose(shown.desk.space.page(after), handle.position, atol=1e-6)


def dragged(page, shown, at, before) -> bool:
    """Try the middle of an arrow: which way arrows point on the screen depends on the view."""
    for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False):
        start = at + 55 * np.array([np.cos(angle), np.sin(angle)])
        page.mouse.move(*start)
        page.mouse.down()
        page.mouse.move(*(start + (start - at)), steps=4)
        page.mouse.up()
        page.wait_for_timeout(60)
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
        control(page, "Filter").click()
        assert [option.inner_text() for option in page.get_by_role("option").all()] == ["as trained", "classic"]


def test_legends_tell_their_ends_and_escape_names() -> None:
    text = ramp_html(replace(Look(), mode="scale"), (0.001, 1234.5))
    assert "0.001" in text and "1234" in text and "world units" in text
    assert "rgb(1,2,3)" in legend_html([("a<b", (1, 2, 3))]) and "a&lt;b" in legend_html([("a<b", (1, 2, 3))])
