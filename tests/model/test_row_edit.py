import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splat.model.row_edit import RowEdit


@st.composite
def edits(draw):
    """An edit of any kind over a table of 0..12 rows, and that count."""
    count = draw(st.integers(0, 12))
    after = draw(st.integers(0, 15)) if count else 0
    source = torch.tensor(draw(st.lists(st.integers(0, max(count - 1, 0)), min_size=after, max_size=after)),
                          dtype=torch.int64)  # fmt: skip
    touched = draw(st.lists(st.integers(0, after - 1), unique=True, max_size=after)) if after else []
    rows = torch.tensor(touched, dtype=torch.int64)
    new = torch.arange(len(touched)).float() + 1000
    fresh = torch.tensor(draw(st.lists(st.booleans(), min_size=after, max_size=after)), dtype=torch.bool)
    return RowEdit(source, count, {"x": (rows, new)}, fresh, reason="test")


@given(edits())
@settings(max_examples=150, deadline=None)
def test_every_row_is_its_source_or_its_own_value(edit):
    table = torch.arange(edit.count_before).float()
    before = table.clone()
    edited = edit.apply_to(table, "x").tolist()
    expected = [float(s) for s in edit.source.tolist()]
    for row, value in zip(edit.values["x"][0].tolist(), edit.values["x"][1].tolist(), strict=True):
        expected[row] = value
    assert edited == expected
    assert torch.equal(table, before), "the old table was written to"
    assert edit.apply_to(table, "other field").tolist() == [float(s) for s in edit.source.tolist()]


@given(edits())
@settings(max_examples=150, deadline=None)
def test_fresh_rows_restart_everywhere(edit):
    moments = torch.arange(edit.count_before).float() + 1
    before = moments.clone()
    for edited in (edit.apply_to_moments(moments, "x"), edit.apply_to_stats(moments)):
        for row, (source, fresh) in enumerate(zip(edit.source.tolist(), edit.fresh.tolist(), strict=True)):
            assert edited[row] == (0 if fresh else source + 1)
    assert torch.equal(moments, before)


@given(edits())
@settings(max_examples=100, deadline=None)
def test_counts_for_logs(edit):
    survivors = len(set(edit.source.tolist()))
    assert edit.added == edit.count_after - survivors
    assert edit.removed == edit.count_before - survivors
    assert edit.is_identity == (edit.source.tolist() == list(range(edit.count_before)))


@given(st.permutations(range(9)), st.lists(st.booleans(), min_size=9, max_size=9))
@settings(max_examples=60, deadline=None)
def test_permutation_keeps_sums_of_survivors(order, kept):
    table = torch.randint(0, 1000, (9, 4), generator=torch.Generator().manual_seed(1)).double()
    sorted_table = RowEdit.reorder(torch.tensor(order)).apply_to(table)
    assert torch.equal(sorted_table.sum(dim=0), table.sum(dim=0))
    assert torch.equal(sorted_table, table[torch.tensor(order)])
    mask = torch.tensor(kept)
    pruned = RowEdit.keep(mask).apply_to(table)
    assert torch.equal(pruned.sum(dim=0), table[mask].sum(dim=0))
    back = RowEdit.reorder(torch.tensor(order).argsort()).apply_to(sorted_table)
    assert torch.equal(back, table)


def test_edits_in_a_row_equal_their_composition():
    table = torch.arange(6).float()
    grown = RowEdit.append(6, torch.tensor([1, 1]), {"x": torch.tensor([7.0, 8.0])}, reason="grow")
    kept = RowEdit.keep(torch.tensor([0, 1, 1, 0, 0, 0, 1, 1], dtype=torch.bool))
    assert kept.apply_to(grown.apply_to(table, "x"), "x").tolist() == [1, 2, 7, 8]
    assert grown.source[kept.source].tolist() == [1, 2, 1, 1]


def test_append_marks_new_rows_fresh():
    edit = RowEdit.append(3, torch.tensor([2, 0]), {"x": torch.tensor([5.0, 6.0])}, reason="clone")
    assert edit.apply_to(torch.tensor([1.0, 2, 3]), "x").tolist() == [1, 2, 3, 5, 6]
    assert edit.apply_to_moments(torch.tensor([1.0, 2, 3]), "x").tolist() == [1, 2, 3, 0, 0]
    assert (edit.count_after, edit.added, edit.removed) == (5, 2, 0)


def test_replace_drops_parents_and_adds_children():
    removed = torch.tensor([False, True, False])
    edit = RowEdit.replace(removed, torch.tensor([1, 1]), {"x": torch.tensor([8.0, 9.0])}, reason="split")
    table = torch.tensor([1.0, 2, 3])
    assert edit.apply_to(table, "x").tolist() == [1, 3, 8, 9]
    assert edit.apply_to(table).tolist() == [1, 3, 2, 2]
    assert edit.apply_to_stats(table).tolist() == [1, 3, 0, 0]
    assert edit.added == 1


def test_fresh_fields_limit_moments_and_spare_statistics():
    rows = torch.arange(2)
    edit = RowEdit.overwrite(
        2, {"x": (rows, torch.zeros(2))}, fresh=torch.tensor([True, True]), fresh_fields=frozenset({"x"}),
        reason="reset",
    )  # fmt: skip
    table = torch.tensor([1.0, 2.0])
    assert edit.apply_to_moments(table, "x").tolist() == [0, 0]
    assert edit.apply_to_moments(table, "y").tolist() == [1, 2]
    assert edit.apply_to_stats(table).tolist() == [1, 2]


def test_identity_returns_untouched_tables_as_they_are():
    edit = RowEdit.overwrite(2, {"x": (torch.tensor([1]), torch.tensor([9.0]))}, reason="reset")
    table = torch.tensor([1.0, 2.0])
    assert edit.apply_to(table, "y") is table
    assert edit.apply_to_moments(table, "x") is table
    assert edit.apply_to(table, "x").tolist() == [1, 9]
    assert table.tolist() == [1, 2]


def test_wrong_table_is_refused():
    with pytest.raises(ValueError, match="'prune' is for 3 rows, the table has 4"):
        RowEdit.keep(torch.tensor([True, False, True])).apply_to(torch.zeros(4))
