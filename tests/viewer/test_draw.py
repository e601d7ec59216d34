"""One frame: what is left out, what is tinted, and that the model is only read."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from viewer_scene import camera, labels_of, random_snapshot, snapshot_of

from splat.errors import UserError
from splat.model.labels import HIDDEN, SELECTED
from splat.render.registry import rasterizer
from splat.render.types import CameraBatch, RenderOptions
from splat.viewer.picture.draw import SELECTION_RGB, SELECTION_STRENGTH, draw
from splat.viewer.picture.look import CropBox, Look
from splat.viewer.picture.modes.view import View, outside

PAINTER = rasterizer("native")
VIEW = camera()
CENTER = (18, 24)
"""Row and column of the pixel right below the optical centre."""


PLAIN = Look()


def drawn(snapshot, look=PLAIN, **more):
    return draw(snapshot, VIEW, look, rasterizer=PAINTER, **more)


def test_color_is_what_the_rasterizer_draws_rounded():
    snapshot = random_snapshot()
    look = Look(background=(0.2, 0.4, 0.6))
    options = RenderOptions(sh_degree=1, background=torch.tensor(look.background))
    bare = PAINTER.render(snapshot.model.render_inputs(), CameraBatch.of(VIEW), options).color[0]
    expected = (bare.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    assert np.array_equal(drawn(snapshot, look).rgb, expected)


def test_the_model_is_only_read():
    snapshot = random_snapshot()
    before = {name: table.clone() for name, table in snapshot.model.rows.items()}
    versions = {name: table._version for name, table in snapshot.model.rows.items()}
    drawn(snapshot, Look(crop=CropBox(tuple(map(tuple, np.eye(4))), (1.0, 1.0, 6.0))), want_depth=True)
    for name, table in snapshot.model.rows.items():
        assert torch.equal(table, before[name]) and table._version == versions[name]


def test_hidden_splats_are_left_out_unless_asked_for():
    snapshot = snapshot_of([[0, 0, 2], [0, 0, 4]], rgb=[[1, 0, 0], [0, 1, 0]], flags=[HIDDEN, 0], scales=0.5)
    assert drawn(snapshot).rgb[CENTER].argmax() == 1
    assert drawn(snapshot, Look(show_hidden=True)).rgb[CENTER].argmax() == 0


def test_the_crop_box_turns_with_its_pose():
    snapshot = snapshot_of([[-0.5, 0, 2], [0.5, 0, 2]], rgb=[[1, 0, 0], [0, 1, 0]], scales=0.05)
    pose = np.eye(4)
    pose[:3, 3] = (0.5, 0, 2)
    pose[:2, :2] = [[0, -1], [1, 0]]  # long along the world's y now
    look = Look(crop=CropBox(tuple(map(tuple, pose)), (3.0, 0.2, 0.2)))
    picture = drawn(snapshot, look).rgb
    assert picture[..., 0].max() < 20 and picture[..., 1].max() > 200
    other = drawn(snapshot, Look(crop=CropBox(tuple(map(tuple, pose)), (0.2, 3.0, 0.2)))).rgb
    assert other[..., 0].max() > 200


def test_selected_splats_are_tinted_by_their_share_of_the_light():
    snapshot = snapshot_of([[0, 0, 2]], rgb=[[0, 0, 1]], flags=[SELECTED], scales=1.0)
    plain = drawn(snapshot, Look(show_selection=False)).rgb[CENTER].astype(float)
    tinted = drawn(snapshot).rgb[CENTER]
    share = 0.99 * SELECTION_STRENGTH
    assert np.allclose(tinted, plain + (np.array(SELECTION_RGB) - plain) * share, atol=2)


def test_the_tint_does_not_depend_on_whether_depth_is_wanted():
    snapshot = replace(random_snapshot(), labels=labels_of(200, flags=[SELECTED] * 100 + [0] * 100))
    for mode in ("color", "centers", "outlines", "id"):
        look = Look(mode=mode)
        assert np.array_equal(drawn(snapshot, look).rgb, drawn(snapshot, look, want_depth=True).rgb), mode


def test_depth_is_that_of_the_front_surface_and_only_on_request():
    snapshot = snapshot_of([[0, 0, 2], [0, 0, 5]], scales=[0.3, 3.0])
    assert drawn(snapshot).depth is None
    depth = drawn(snapshot, want_depth=True).depth
    assert depth.dtype == np.float32 and depth.shape == (36, 48)
    assert depth[CENTER] == pytest.approx(2) and depth[2, 2] == pytest.approx(5)
    alone = drawn(snapshot_of([[0, 0, 2]], scales=0.1), want_depth=True).depth
    assert alone[0, 0] == 0


def test_near_and_far_cut():
    snapshot = snapshot_of([[0, 0, 2], [0, 0, 4]], rgb=[[1, 0, 0], [0, 1, 0]], scales=0.5)
    assert drawn(snapshot, Look(near=3.0)).rgb[CENTER].argmax() == 1
    assert drawn(snapshot, Look(far=3.0)).rgb[CENTER][1] == pytest.approx(0, abs=1)


def test_the_band_of_view_dependence_can_be_lowered_but_not_raised():
    snapshot = snapshot_of([[0, 0, 2]], rgb=[[0.5] * 3], sh_degree=1, scales=1.0)
    snapshot.model.rows["sh_rest"][:, 1] = 0.5  # along z
    shaded, flat = (drawn(snapshot, Look(sh_degree=degree)).rgb[CENTER] for degree in (3, 0))
    assert (shaded > flat + 20).all() and np.array_equal(shaded, drawn(snapshot).rgb[CENTER])


def test_a_filter_of_ones_own():
    snapshot = snapshot_of([[0, 0, 2]], scales=0.001)
    assert drawn(snapshot, Look(filter2d="aa")).rgb.max() < drawn(snapshot).rgb.max()
    with pytest.raises(ValueError, match="filter2d 'aa'"):
        drawn(random_snapshot(3, kind="convex"), Look(filter2d="aa"))


def test_a_preview_moves_splats_by_their_ids():
    snapshot = snapshot_of([[-0.5, 0, 2], [0.5, 0, 2]], rgb=[[1, 0, 0], [0, 1, 0]], ids=[7, 3], scales=0.1)
    preview = (torch.tensor([3, 99]), {"means": torch.tensor([[0.0, 0, 2], [0.0, 0, 1]])})
    moved = drawn(snapshot, preview=preview).rgb
    assert moved[CENTER].argmax() == 1 and moved[CENTER][1] > 200  # 3 is there, 99 is gone
    assert np.array_equal(snapshot.model.rows["means"][1].numpy(), np.float32([0.5, 0, 2]))
    expected = snapshot_of([[-0.5, 0, 2], [0, 0, 2]], rgb=[[1, 0, 0], [0, 1, 0]], scales=0.1)
    assert np.array_equal(moved, drawn(expected).rgb)
    with pytest.raises(ValueError, match="sets \\['places'\\]"):
        drawn(snapshot, preview=(torch.tensor([3]), {"places": torch.zeros(1, 3)}))


def test_a_preview_moves_splats_out_of_the_crop_box():
    snapshot = snapshot_of([[0, 0, 2]], scales=0.1)
    look = Look(crop=CropBox(tuple(map(tuple, np.eye(4))), (1.0, 1.0, 6.0)))
    assert drawn(snapshot, look).rgb.max() > 200
    assert drawn(snapshot, look, preview=(torch.tensor([0]), {"means": torch.tensor([[0.6, 0, 2.0]])})).rgb.max() == 0


def test_an_unknown_mode_names_the_choices():
    with pytest.raises(UserError, match=r"'colour' .*did you mean 'color'.*depth"):
        drawn(random_snapshot(3), Look(mode="colour"))


def test_another_snapshot_is_another_selection():
    snapshot = snapshot_of([[0, 0, 2]], scales=1.0)
    before = drawn(snapshot).rgb
    after = drawn(replace(snapshot, labels=labels_of(1, flags=[SELECTED]), version=2)).rgb
    assert not np.array_equal(before, after)


def test_two_pages_with_different_boxes_do_not_get_each_others_rows() -> None:
    """Both draw the same snapshot, each on its own thread; what is remembered of it is one box at a time."""
    snapshot, pose = random_snapshot(40), tuple(map(tuple, np.eye(4).tolist()))
    sides = 2 * snapshot.model.rows["means"].abs().amax(dim=1).quantile(torch.tensor([0.3, 0.7]))
    boxes = [CropBox(pose, (side, side, side)) for side in sides.tolist()]
    wanted = [outside(snapshot.model.rows["means"], box) for box in boxes]
    wrong: list[int] = []

    def look(which: int) -> None:
        for _ in range(400):
            out = View(snapshot, None, Look(crop=boxes[which], show_hidden=True), None).left_out
            if not torch.equal(out, wanted[which]):
                wrong.append(which)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=look, args=(which,)) for which in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not torch.equal(*wanted) and wrong == []
