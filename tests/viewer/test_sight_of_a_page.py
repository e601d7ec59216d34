"""When a view that a browser tells is another than the one that was drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest

from splat.geometry.camera import Camera
from splat.viewer.picture.space import Space
from splat.viewer.serving.sight import Sight


@dataclass(frozen=True)
class State:
    """What viser keeps of a page's camera, as far as it is read."""

    position: np.ndarray
    wxyz: np.ndarray
    look_at: np.ndarray
    fov: float = 0.9
    image_width: int = 640
    image_height: int = 480


FIRST = State(np.array([1.0, 2.0, -50.0]), np.array([1.0, 0.0, 0.0, 0.0]), np.array([1.0, 2.0, 0.0]))


@pytest.fixture
def page() -> SimpleNamespace:
    return SimpleNamespace(camera=SimpleNamespace(_state=FIRST))


@pytest.fixture
def sight(page: SimpleNamespace) -> Sight:
    return Sight(page, Space())


def test_the_first_view_is_news_until_it_is_drawn(sight: Sight) -> None:
    assert sight.is_news()
    assert isinstance(sight.to_draw(), Camera)
    assert not sight.is_news()


@pytest.mark.parametrize(
    ("change", "news"),
    [
        ({"position": FIRST.position + 3e-6}, False), ({"wxyz": FIRST.wxyz + 3e-7}, False),
        ({"position": FIRST.position + 1e-3}, True), ({"wxyz": np.array([1.0, 2e-4, 0.0, 0.0])}, True),
        ({"fov": 0.91}, True), ({"image_width": 641}, True), ({"image_height": 481}, True),
        ({"position": np.array([math.nan, 2.0, -50.0])}, True), ({"wxyz": np.ones(3)}, True),
    ],
)  # fmt: skip
def test_only_what_another_picture_would_show_is_news(sight: Sight, page, change: dict, news: bool) -> None:
    sight.to_draw()
    page.camera._state = replace(FIRST, **change)
    assert sight.is_news() is news


def test_nearby_a_smaller_step_is_news(sight: Sight, page) -> None:
    page.camera._state = near = replace(FIRST, position=FIRST.look_at - np.array([0.0, 0.0, 0.01]))
    sight.to_draw()
    page.camera._state = replace(near, position=near.position + 3e-6)
    assert sight.is_news()


def test_a_view_that_creeps_is_news_after_a_while(sight: Sight, page) -> None:
    sight.to_draw()
    told = []
    for step in range(1, 5):
        page.camera._state = replace(FIRST, position=FIRST.position + 2e-4 * step)
        told.append(sight.is_news())
    assert told == [False, False, True, True]
