"""Labels: lasting numbers and marks that follow every row edit."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from splat.model.labels import HIDDEN, LOCKED, SELECTED, Labels
from splat.model.row_edit import RowEdit


def started(count: int) -> Labels:
    return Labels.start(count)


def test_a_new_model_has_numbers_in_order_and_no_marks():
    labels = started(4)
    assert labels.ids.tolist() == [0, 1, 2, 3]
    assert labels.next_id == 4
    assert not labels.having(SELECTED | HIDDEN | LOCKED).any()
    assert labels.names == ("start",)


def test_a_sort_moves_numbers_and_makes_none():
    labels = started(4).edited(RowEdit.reorder(torch.tensor([2, 0, 3, 1])), step=5)
    assert labels.ids.tolist() == [2, 0, 3, 1]
    assert labels.next_id == 4
    assert labels.born.tolist() == [0, 0, 0, 0]


def test_clones_get_numbers_of_their_own_and_keep_the_marks():
    before = started(3)
    before.flags[1] = SELECTED
    edit = RowEdit.append(3, torch.tensor([1, 1]), {}, reason="clone")
    after = before.edited(edit, step=7)
    assert after.ids.tolist() == [0, 1, 2, 3, 4]
    assert after.having(SELECTED).tolist() == [False, True, False, True, True]
    assert after.born.tolist() == [0, 0, 0, 7, 7]
    assert [after.names[code] for code in after.reasons.tolist()] == ["start"] * 3 + ["clone"] * 2


def test_halves_are_both_new():
    removed = torch.tensor([False, True, False])
    edit = RowEdit.replace(removed, torch.tensor([1, 1]), {}, reason="split")
    after = started(3).edited(edit, step=2)
    assert after.ids.tolist() == [0, 2, 3, 4]
    assert after.names == ("start", "split")


def test_a_dead_row_that_becomes_a_copy_is_new_and_its_source_is_not():
    # Row 0 is moved onto row 2, in place: only its moments restart in full.
    fresh = torch.tensor([True, False, False])
    edit = RowEdit(torch.tensor([2, 1, 2]), 3, fresh=fresh, reason="relocate")
    after = started(3).edited(edit, step=9)
    assert after.ids.tolist() == [3, 1, 2]
    assert after.born.tolist() == [9, 0, 0]


def test_a_reset_of_one_field_makes_nobody_new():
    values = {"logit_opacities": (torch.arange(3), torch.zeros(3))}
    edit = RowEdit.overwrite(3, values, fresh=torch.ones(3, dtype=torch.bool), reason="reset")
    assert started(3).edited(edit, step=3).ids.tolist() == [0, 1, 2]


def test_rows_come_back_under_their_old_numbers():
    before = started(4)
    gone = before.edited(RowEdit.keep(torch.tensor([True, False, True, True])), step=1)
    source = torch.tensor([0, 0, 1, 2])
    back = {"labels.ids": (torch.tensor([1]), torch.tensor([1]))}
    again = gone.edited(RowEdit(source, 3, tables=back, reason="undo"), step=2)
    assert again.ids.tolist() == [0, 1, 2, 3]
    assert again.rows_of(torch.tensor([3, 1, 77])).tolist() == [3, 1, -1]


def test_labels_survive_a_checkpoint():
    labels = started(2).edited(RowEdit.append(2, torch.tensor([0]), {}, reason="grow"), step=4)
    again = Labels.of(labels.tensors(), labels.scalars())
    assert again.next_id == 3
    assert again.names == ("start", "grow")
    assert all(torch.equal(table, again.tensors()[name]) for name, table in labels.tensors().items())


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=9), max_size=6), st.data())
def test_numbers_are_unique_whatever_happens(sources, data):
    labels, ever = started(6), set(range(6))
    for step, wanted in enumerate(sources, start=1):
        source = torch.tensor([number % labels.count for number in wanted])
        fresh = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(wanted), max_size=len(wanted))))
        before = set(labels.ids.tolist())
        labels = labels.edited(RowEdit(source, labels.count, fresh=fresh, reason="any"), step)
        ids = labels.ids.tolist()
        assert len(set(ids)) == len(ids)
        assert all(number in before or number not in ever for number in ids)
        ever |= set(ids)
        assert labels.next_id > max(ids)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=12))
def test_an_old_row_goes_on_as_the_first_copy_that_is_not_fresh(rows):
    """Against the sentence itself, one row after the other."""
    source, fresh = (torch.tensor(column) for column in zip(*rows, strict=True))
    edit = RowEdit(source, 6, fresh=fresh, reason="mixed")
    labels = Labels.start(6).edited(edit, 3)
    seen, expected = set(), []
    for old, is_fresh in rows:
        goes_on = edit.is_identity or (not is_fresh and old not in seen)
        expected.append(goes_on)
        seen |= {old} if goes_on else set()
    assert [bool(number == old) for number, (old, _) in zip(labels.ids, rows, strict=True)] == expected
    assert len(set(labels.ids.tolist())) == len(rows) or edit.is_identity
