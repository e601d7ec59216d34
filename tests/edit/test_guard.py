"""Edits of densifiers, made to leave held rows alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from splat.edit.guard import does_nothing, guarded, left_alone
from splat.model.row_edit import RowEdit


def held_of(count: int, *rows: int) -> torch.Tensor:
    held = torch.zeros(count, dtype=torch.bool)
    held[list(rows)] = True
    return held


def numbers(edit: RowEdit, count: int) -> list[float]:
    """Row numbers after the edit; values as they were set."""
    return edit.apply_to(torch.arange(float(count)), "x").tolist()


def test_without_held_rows_and_for_sorts_the_very_edit_comes_back():
    prune = RowEdit.keep(torch.tensor([True, False, True]))
    assert guarded(prune, held_of(3)) is prune
    sort = RowEdit.reorder(torch.tensor([2, 0, 1]))
    assert guarded(sort, held_of(3, 1)) is sort


def test_pruned_rows_that_are_held_stay_in_their_order():
    edit = guarded(RowEdit.keep(torch.tensor([True, False, False, True, False])), held_of(5, 1, 4))
    assert edit.source.tolist() == [0, 1, 3, 4]


def test_clones_of_held_rows_are_left_out_and_shared_opacity_with_them():
    rows = torch.tensor([0, 2, 3, 4])  # parents 0 and 2 with their copies 3 and 4
    edit = RowEdit.append(3, torch.tensor([0, 2]), {}, reason="clone")
    edit = RowEdit(edit.source, 3, {"x": (rows, torch.tensor([10.0, 12.0, 10.5, 12.5]))}, edit.fresh, reason="clone")
    left = guarded(edit, held_of(3, 2))
    assert left.source.tolist() == [0, 1, 2, 0]
    assert numbers(left, 3) == [10.0, 1.0, 2.0, 10.5]
    assert left.fresh.tolist() == [False, False, False, True]


def test_a_split_of_a_held_row_leaves_it_whole():
    removed = held_of(4, 1, 2)
    edit = RowEdit.replace(removed, torch.tensor([1, 2, 1, 2]), {"x": torch.tensor([1.1, 2.1, 1.2, 2.2])}, reason="s")
    left = guarded(edit, held_of(4, 2))
    after = numbers(left, 4)
    assert sorted(round(value, 2) for value in after) == [0.0, 1.1, 1.2, 2.0, 3.0]
    assert not left.fresh[after.index(2.0)]


def test_a_relocation_neither_takes_a_held_row_nor_copies_one():
    # Rows 0 and 3 are dead: 0 becomes a copy of 4, 3 one of 1.
    source = torch.tensor([4, 1, 2, 1, 4])
    values = {"x": (torch.tensor([0, 1, 3, 4]), torch.tensor([40.0, 11.0, 13.0, 44.0]))}
    edit = RowEdit(source, 5, values, torch.tensor([True, True, False, True, True]), reason="relocate")
    kept = guarded(edit, held_of(5, 3))
    assert kept.source.tolist() == [4, 1, 2, 3, 4]
    assert numbers(kept, 5) == [40.0, 11.0, 2.0, 3.0, 44.0]
    uncopied = guarded(edit, held_of(5, 4))
    assert numbers(uncopied, 5) == [11.0, 2.0, 13.0, 4.0]


def test_overwriting_everything_leaves_held_rows_and_their_moments():
    everyone = torch.arange(3)
    edit = RowEdit.overwrite(3, {"x": (everyone, everyone + 7.0)}, fresh=torch.ones(3, dtype=torch.bool),
                             fresh_fields=frozenset({"x"}), reason="reset")  # fmt: skip
    left = guarded(edit, held_of(3, 1))
    assert numbers(left, 3) == [7.0, 1.0, 9.0] and left.fresh.tolist() == [True, False, True]
    assert left.fresh_fields == frozenset({"x"})


def test_a_sort_with_values_keeps_its_order_and_spares_the_held():
    order = torch.tensor([2, 0, 1])
    edit = RowEdit(order, 3, {"x": (torch.arange(3), torch.tensor([5.0, 6.0, 7.0]))}, reason="sort")
    left = guarded(edit, held_of(3, 0))
    assert left.source.tolist() == [2, 0, 1] and numbers(left, 3) == [5.0, 0.0, 7.0]


def test_where_the_number_counts_the_least_worth_go_instead():
    keep = torch.tensor([True, False, True, True, False])
    left = guarded(RowEdit.keep(keep), held_of(5, 1), worth=torch.tensor([0.9, 0.1, 0.2, 0.8, 0.1]))
    assert left.source.tolist() == [0, 1, 3]


def test_edits_of_which_nothing_is_left_are_passed_over():
    everyone = torch.arange(2)
    edits = [
        RowEdit.overwrite(2, {"x": (everyone, everyone + 1.0)}, reason="reset"),
        RowEdit.keep(torch.tensor([True, False])),
        RowEdit.append(2, torch.tensor([1]), {}, reason="clone"),
    ]
    assert list(left_alone(edits, held=lambda: held_of(2, 0, 1))) == []
    assert list(left_alone(edits, held=lambda: None)) == edits
    assert does_nothing(RowEdit.reorder(everyone)) and not does_nothing(edits[0])


def test_a_wrong_number_of_rows_is_refused():
    with pytest.raises(ValueError, match="for 3 rows"):
        guarded(RowEdit.reorder(torch.arange(3)), held_of(4, 1))


@given(st.data())
def test_any_edit_leaves_held_rows_once_and_as_they_were(data):
    count = data.draw(st.integers(1, 8))
    held = torch.tensor(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    source = torch.tensor(data.draw(st.lists(st.integers(0, count - 1), max_size=12)), dtype=torch.int64)
    size = source.shape[0]
    rows = torch.tensor(data.draw(st.lists(st.integers(0, max(size - 1, 0)), unique=True, max_size=size)),
                        dtype=torch.int64)  # fmt: skip
    fresh = torch.tensor(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)), dtype=torch.bool)
    edit = RowEdit(source, count, {"x": (rows, -1.0 - rows.float())}, fresh, reason="any")
    left = guarded(edit, held)
    after = left.apply_to(torch.arange(float(count)), "x")
    for row in held.nonzero().flatten().tolist():
        assert (left.source == row).sum() == 1 and (after == row).sum() == 1
    assert not bool((left.fresh & held[left.source]).any())
    free = lambda made: sorted(made.apply_to(torch.arange(float(count)), "x")[~held[made.source]].tolist())  # noqa: E731
    if not bool((held[: min(size, count)]).any()):
        assert free(left) == free(edit)  # nothing else is lost or changed
    else:
        assert set(free(left)) <= set(free(edit))
