"""News: figures of the moment and curves that stay short."""

from __future__ import annotations

import itertools

from splat.live.news import MOST_POINTS, News


def test_figures_are_replaced_one_by_one():
    news = News()
    news.update(step=3, splats=10)
    news.update(step=4)
    assert (news.status.step, news.status.splats, news.status.psnr) == (4, 10, None)


def test_a_reader_keeps_the_figures_it_took():
    news = News()
    taken = news.status
    news.update(step=9)
    assert taken.step == 0


def test_a_long_curve_is_thinned_evenly():
    news = News()
    for step in range(10 * MOST_POINTS):
        news.add("loss", step, 1.0 / (step + 1))
    points = news.curve("loss")
    assert MOST_POINTS / 4 < len(points) <= MOST_POINTS
    steps = [step for step, _ in points]
    gaps = {later - earlier for earlier, later in itertools.pairwise(steps)}
    assert len(gaps) == 1
    assert all(value == 1.0 / (step + 1) for step, value in points)


def test_an_unknown_curve_is_empty():
    assert News().curve("psnr") == []
