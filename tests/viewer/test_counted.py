"""What masks of the capture and edits by hand take out of photographs does not count in scores, errors and pulls."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from viewer_scene import FakeDesk, camera, snapshot_of

from splat.edit.protection import Protection, Shield, packed_mask
from splat.render.registry import rasterizer
from splat.viewer.figures.scores import BEST_PSNR, ViewScore, measured, psnr, remarks
from splat.viewer.panels.cameras import CamerasPanel
from splat.viewer.picture.compare import UNCOUNTED_GREYS, shows_grey
from splat.viewer.picture.counted import counted
from splat.viewer.picture.draw import draw
from splat.viewer.picture.lifted import photo_errors, photo_gradients
from splat.viewer.picture.look import Look

PAINTER = rasterizer("native")
SPOTS = {"means": [[-0.5, 0, 2], [0.5, 0, 2]], "scales": 0.15}
MODEL = snapshot_of(**SPOTS, rgb=[[0.8] * 3, [0.2] * 3])
TRUTH = snapshot_of(**SPOTS, rgb=[[0.8] * 3, [0.6] * 3])
"""Differs in the right splat."""


def right_half(value_left: int = 255) -> np.ndarray:
    mask = np.zeros((36, 48), np.uint8)
    mask[:, :24] = value_left
    return mask


def edited(*views: int):
    """``MODEL`` whose right half contradicts an edit in some training views."""
    contradicts = packed_mask(torch.from_numpy(right_half()) == 0)
    return replace(MODEL, protection=Protection({3: Shield(dict.fromkeys(views, contradicts))}))


def desk_of(truth=TRUTH, **masks: np.ndarray) -> FakeDesk:
    desk = FakeDesk(truth, PAINTER)
    desk.masks = {f"{name}.png": mask for name, mask in masks.items()}
    return desk


def of_view(desk: FakeDesk, snapshot, view: int = 0, size: tuple[int, int] = (48, 36)):
    return counted(desk, snapshot, desk.scene.cameras[view], *size)


def test_without_masks_and_edits_everything_counts():
    assert of_view(desk_of(), MODEL) is None and of_view(desk_of(right=right_half()), MODEL) is None
    assert of_view(desk_of(), edited(1)) is None  # another view's


def test_masks_and_edits_both_take_pixels_out_at_any_size():
    desk = desk_of(left=right_half(128))
    assert torch.equal(of_view(desk, MODEL), torch.from_numpy(right_half(128)))
    small = of_view(desk, MODEL, size=(16, 12))
    assert small.shape == (12, 16) and small.dtype == torch.uint8
    assert (small[:, :8] == 128).all() and not small[:, 8:].any()
    assert torch.equal(of_view(desk_of(), edited(0)), torch.from_numpy(right_half()))
    upper = np.zeros((36, 48), np.uint8)
    upper[:18] = 200
    both = of_view(desk_of(left=upper), edited(0))
    assert (both[:18, :24] == 200).all() and not both[18:].any() and not both[:, 24:].any()


def test_edits_count_by_the_place_among_the_training_views():
    desk = desk_of()
    desk.scene = replace(desk.scene, train_indices=(1,), test_indices=(0,))
    assert of_view(desk, edited(0), view=0) is None  # held out: whole
    assert of_view(desk, edited(0), view=1) is not None


def test_scores_leave_out_what_does_not_count():
    desk = desk_of(left=right_half())
    desk.scene = replace(desk.scene, train_indices=(0,), test_indices=(1,))
    left, right = measured(desk, MODEL)
    assert left.psnr > 60 and left.counted == 0.5 and not left.held_out
    assert right.psnr < 30 and right.counted == 1 and right.held_out
    left, right = measured(desk_of(), edited(1))
    assert left.psnr < 30 and left.counted == 1
    assert right.psnr > left.psnr + 10 and right.counted == 0.5
    nothing = np.zeros((36, 48), np.uint8)
    assert [score is None for score in measured(desk_of(left=nothing), MODEL)] == [True, False]


def test_the_mean_is_that_of_the_evaluation():
    from splat.metrics.pixels import psnr as evaluated

    desk, mask = desk_of(), np.random.default_rng(0).integers(0, 256, (36, 48), dtype=np.uint8)
    view = desk.scene.cameras[0]
    drawn = draw(MODEL, view, Look(), rasterizer=PAINTER).rgb
    got = psnr(MODEL, view, desk.photo(view), PAINTER, torch.from_numpy(mask))
    assert got == pytest.approx(evaluated(drawn, desk.photo(view), mask), abs=0.1)  # ours is not rounded to 8 bits
    assert np.isnan(psnr(MODEL, view, desk.photo(view), PAINTER, torch.zeros(36, 48, dtype=torch.uint8)))
    assert psnr(TRUTH, view, desk.photo(view), PAINTER, torch.from_numpy(mask)) > 55 and BEST_PSNR > 55


def test_what_is_said_about_it():
    scores = [ViewScore("a", 20.0, False, 0.5), ViewScore("b", 22.0, False), ViewScore("c", 30.5, True)]
    assert remarks(scores[1:], is_protected=False, is_edited_standing=False) == ""
    assert remarks(scores, is_protected=False, is_edited_standing=False) == (
        "*1 of 3 without the pixels that masks take out.*"
    )
    told = remarks(scores, is_protected=True, is_edited_standing=True)
    assert "1 of 3 without the pixels that masks and edits take out" in told
    assert "Held-out photographs count also where an edit" in told and "while nothing trains" in told
    assert "Held-out" not in remarks(scores[:2], is_protected=True, is_edited_standing=False)


def test_the_modes_error_and_gradient_see_only_what_counts():
    moved = snapshot_of([[-0.5, 0, 2], [0.6, 0.1, 2]], rgb=[[0.8] * 3, [0.6] * 3], scales=0.15)
    errors, known = photo_errors(MODEL, PAINTER, desk_of(moved))
    pulls, _ = photo_gradients(MODEL, PAINTER, desk_of(moved))
    assert known.all() and errors[1] > 0.1
    masks = {"left": right_half(), "right": right_half()}
    for desk, snapshot in ((desk_of(moved, **masks), MODEL), (desk_of(moved), edited(0, 1))):
        errors, known = photo_errors(snapshot, PAINTER, desk)
        assert known[0] and errors[0] < 0.01 and errors[1] < 0.05
        assert (photo_gradients(snapshot, PAINTER, desk)[0] < pulls[1] / 10).all(), pulls


def test_views_of_which_nothing_counts_are_passed_over():
    nothing = np.zeros((36, 48), np.uint8)
    desk = desk_of(left=nothing, right=nothing)
    assert not photo_errors(MODEL, PAINTER, desk)[1].any()
    assert not photo_gradients(MODEL, PAINTER, desk)[1].any()


def test_an_edit_makes_the_numbers_anew_at_once():
    desk = desk_of()
    assert photo_errors(MODEL, PAINTER, desk)[0][1] > 0.15
    assert photo_errors(edited(0, 1), PAINTER, desk)[0][1] < 0.05


def test_the_comparison_shows_grey_where_no_error_counts():
    desk, view = desk_of(left=right_half()), camera()
    look = Look(compare="left.png", compare_with="error", swipe=0.0)
    plain = draw(MODEL, view, look, rasterizer=PAINTER, desk=desk_of()).rgb.astype(int)
    for shown_on, snapshot in ((desk, MODEL), (desk_of(), edited(0))):
        shown = draw(snapshot, view, look, rasterizer=PAINTER, desk=shown_on).rgb.astype(int)
        assert np.abs(shown[:, :23] - plain[:, :23]).max() <= 1
        grey = shown[:, 25:]
        assert (grey.max(-1) == grey.min(-1)).all()
        assert grey.min() >= UNCOUNTED_GREYS[0] and grey.max() <= UNCOUNTED_GREYS[1]
        assert grey.max() > grey.min() + 15  # what it is can be seen
    photo = replace(look, compare_with="photo")
    assert np.array_equal(draw(MODEL, view, photo, rasterizer=PAINTER, desk=desk).rgb,
                          draw(MODEL, view, photo, rasterizer=PAINTER, desk=desk_of()).rgb)  # fmt: skip


def test_the_grey_goes_with_the_edits():
    """From the same place: what was fitted for the edits of before is not kept."""
    desk, view, look = desk_of(), camera(), Look(compare="left.png", compare_with="error", swipe=0.0)

    def shown(snapshot):
        return draw(snapshot, view, look, rasterizer=PAINTER, desk=desk).rgb

    before = shown(MODEL)
    assert not shows_grey(desk, "left.png")
    assert not np.array_equal(shown(edited(0)), before)
    assert shows_grey(desk, "left.png") and not shows_grey(desk, "right.png")
    assert np.array_equal(shown(MODEL), before)
    assert not shows_grey(desk, "left.png")


def test_the_page_says_what_is_grey_and_what_was_left_out():
    desk, view = desk_of(), camera()
    desk.standing, desk.session = True, SimpleNamespace(status=SimpleNamespace(undo=("delete",)))
    page = SimpleNamespace(desk=desk, look=Look(compare="left.png", compare_with="error", swipe=0.0))
    panel = SimpleNamespace(
        page=page, scene=desk.scene, frusta=SimpleNamespace(tick=lambda: False), _follow_compare=lambda: None,
        uncounted=SimpleNamespace(visible=False), progress=SimpleNamespace(visible=True), worst=SimpleNamespace(),
        summary=SimpleNamespace(content=""), scores=list(measured(desk, edited(0))), _is_protected=True,
    )  # fmt: skip
    for snapshot, grey in ((edited(0), True), (MODEL, False)):
        draw(snapshot, view, page.look, rasterizer=PAINTER, desk=desk)
        CamerasPanel._tick(panel)
        assert panel.uncounted.visible == grey
    CamerasPanel._show_scores(panel)
    figures, _, told = panel.summary.content.partition("  \n")
    assert figures.startswith("2 training") and "1 of 2 without" in told and "while nothing trains" in told
