from __future__ import annotations

import pytest
import torch

from splat.model.row_edit import RowEdit
from splat.train.places import changed_places, place_of


def line(count):
    """Points on the x axis at 0, 1, 2 ..."""
    return torch.stack([torch.arange(count).float(), torch.zeros(count), torch.ones(count)], dim=1)


def test_a_place_is_the_box_without_strays_and_the_median():
    points = line(201)
    place = place_of(points[torch.randperm(201)])
    assert (place.low[0], place.high[0], place.median[0]) == (2.0, 198.0, 100.0)
    assert place.low[1:] == place.high[1:] == place.median[1:] == (0.0, 1.0)


def test_what_is_not_finite_has_no_place():
    points = line(3)
    points[1, 2] = torch.nan
    assert place_of(points).median[0] in (0.0, 2.0) and place_of(points[1:2]) is None


def moved(edit, before):
    return changed_places(edit, before, edit.apply_to(before))


def test_pruned_rows_lie_where_they_were():
    added, removed = moved(RowEdit.keep(torch.tensor([True, False, True, True])), line(4))
    assert added is None and removed.median == (1.0, 0.0, 1.0)


def test_new_rows_lie_where_they_are_now_and_the_first_copy_is_the_old_row():
    before, source = line(3), torch.tensor([2, 0, 2, 1, 2])
    after = before[source] + torch.arange(5.0)[:, None] * torch.tensor([10.0, 0, 0])
    added, removed = changed_places(RowEdit(source, 3, reason="clone"), before, after)
    assert removed is None and (added.low[0], added.high[0]) == (22.0, 42.0)


def test_a_relocation_adds_and_removes():
    added, removed = moved(RowEdit(torch.tensor([0, 3, 2, 3]), 4, reason="relocate"), line(4))
    assert (added.median[0], removed.median[0]) == (3.0, 1.0)


@pytest.mark.parametrize("edit", [
    RowEdit.reorder(torch.tensor([2, 0, 1])), RowEdit(torch.arange(3), 3, reason="reset"),
])  # fmt: skip
def test_edits_that_only_move_or_change_rows_have_no_place(edit):
    assert moved(edit, line(3)) == (None, None)
