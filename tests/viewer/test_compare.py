"""A photograph beside the picture."""

from __future__ import annotations

import numpy as np
import pytest
from viewer_scene import FakeDesk, camera, snapshot_of

from splat.errors import UserError
from splat.render.registry import rasterizer
from splat.viewer.picture.draw import draw
from splat.viewer.picture.look import Look

PAINTER = rasterizer("native")
MODEL = snapshot_of([[-0.3, 0, 2], [0.5, 0.2, 3]], rgb=[[0.2, 0.4, 0.6], [0.9, 0.1, 0.1]], scales=[0.3, 0.6])
TRUTH = snapshot_of([[-0.3, 0, 2], [0.5, 0.2, 3]], rgb=[[0.4, 0.4, 0.6], [0.9, 0.1, 0.1]], scales=[0.3, 0.6])


def drawn(view, desk, **look):
    return draw(MODEL, view, Look(**look), rasterizer=PAINTER, desk=desk).rgb


def test_the_photograph_stands_right_of_the_swipe():
    desk, view = FakeDesk(TRUTH, PAINTER), camera()
    plain, photo = drawn(view, desk), desk.photo(view)
    mixed = drawn(view, desk, compare="left.png", swipe=0.5)
    assert np.array_equal(mixed[:, :23], plain[:, :23])
    assert (mixed[:, 23:25] == 255).all()
    assert np.abs(mixed[:, 25:].astype(int) - photo[:, 25:]).max() <= 1
    assert np.abs(drawn(view, desk, compare="left.png", swipe=0.0).astype(int) - photo).max() <= 1
    assert np.array_equal(drawn(view, desk, compare="left.png", swipe=1.0), plain)


def test_the_photograph_follows_a_turn_and_another_lens():
    """From the same place, a picture that the photograph holds all of: a turned and zoomed render of the truth."""
    desk = FakeDesk(TRUTH, PAINTER)
    view = camera(width=40, height=30)
    cos, sin = np.cos(0.05), np.sin(0.05)
    view = view.posed(np.array([[cos, 0, sin, 0], [0, 1, 0, 0], [-sin, 0, cos, 0], [0, 0, 0, 1]]))
    view.K[0, 0] = view.K[1, 1] = 60.0
    shown = drawn(view, desk, compare="left.png", swipe=0.0)
    expected = draw(TRUTH, view, Look(), rasterizer=PAINTER).rgb
    assert np.abs(shown.astype(int) - expected).mean() < 2.5


def test_what_lies_beside_the_photograph_stays_the_picture():
    desk, view = FakeDesk(TRUTH, PAINTER), camera(width=96, height=36)
    shown, plain = drawn(view, desk, compare="left.png", swipe=0.0), drawn(view, desk)
    assert np.array_equal(shown[:, :24], plain[:, :24]) and np.array_equal(shown[:, 72:], plain[:, 72:])
    assert not np.array_equal(shown[:, 24:72], plain[:, 24:72])


def test_the_error_is_black_where_both_agree():
    desk, view = FakeDesk(TRUTH, PAINTER), camera()
    shown = drawn(view, desk, compare="left.png", compare_with="error", swipe=0.0).astype(int).sum(-1)
    difference = np.abs(drawn(view, desk).astype(int) - desk.photo(view)).mean(-1)
    assert shown[difference == 0].max() <= 30 and shown[difference > 12].min() > 100
    assert np.array_equal(drawn(view, desk, compare="left.png", compare_with="error", mode="depth", swipe=0.0), drawn(
        view, desk, compare="left.png", compare_with="error", swipe=0.0))  # fmt: skip


def test_from_another_place_the_picture_stays_whole():
    desk = FakeDesk(TRUTH, PAINTER)
    away = camera().posed(np.array([[1, 0, 0, 0.1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    assert np.array_equal(drawn(away, desk, compare="left.png"), drawn(away, desk))


def test_what_cannot_be_compared_says_so():
    desk, view = FakeDesk(TRUTH, PAINTER), camera()
    with pytest.raises(UserError, match=r"no view 'middle.png'"):
        drawn(view, desk, compare="middle.png")
    with pytest.raises(UserError, match=r"no capture is open"):
        draw(MODEL, view, Look(compare="left.png"), rasterizer=PAINTER)
    with pytest.raises(UserError, match=r"compare_with = 'sum'.*photo, error"):
        drawn(view, desk, compare="left.png", compare_with="sum")
    desk.photo = lambda _: None
    with pytest.raises(UserError, match=r"'right.png' cannot be read"):
        drawn(desk.scene.cameras[1], desk, compare="right.png")
