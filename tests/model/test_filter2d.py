"""The table of screen-space filters is the one list of them."""

from __future__ import annotations

from typing import get_args

from splat.config.schema import RenderConfig
from splat.config.values import annotations_of
from splat.model.filter2d import FILTERS_2D, Filter2d, names
from splat.render.types import FILTER2D_COMPENSATES, FILTER2D_VARIANCE_PX, RenderOptions


def test_annotations_settings_and_rasterizers_know_the_rows_of_the_table():
    assert get_args(Filter2d) == tuple(FILTERS_2D)
    assert get_args(annotations_of(RenderConfig)["filter2d"]) == tuple(FILTERS_2D)
    assert get_args(annotations_of(RenderOptions)["filter2d"]) == tuple(FILTERS_2D)
    assert FILTER2D_VARIANCE_PX == {name: row.variance_px for name, row in FILTERS_2D.items()}
    assert set(FILTER2D_COMPENSATES) == {name for name, row in FILTERS_2D.items() if row.compensates}


def test_what_other_viewers_draw_is_what_the_header_comment_can_say():
    for row in FILTERS_2D.values():
        assert FILTERS_2D[row.elsewhere].elsewhere == row.elsewhere
        assert FILTERS_2D[row.elsewhere].compensates == (row.render_mode == "mip")
        assert row.compensates or row.variance_px == 0 or row.render_mode == "default"


def test_a_sentence_names_every_choice():
    assert names() == "classic, aa, mip or analytic"
