"""RowEdit.tables: rows of tables that are no raw fields, put back as they were."""

from __future__ import annotations

import torch

from splat.model.row_edit import RowEdit


def test_rows_are_overwritten_after_the_move():
    edit = RowEdit(torch.tensor([1, 0]), 2, tables={"adam.first.means": (torch.tensor([0]), torch.tensor([9.0]))})
    moved = edit.apply_to(torch.tensor([1.0, 2.0]))
    assert edit.restored(moved, "adam.first.means").tolist() == [9.0, 1.0]
    assert moved.tolist() == [2.0, 1.0]


def test_a_table_nobody_named_is_the_same_object():
    edit = RowEdit(torch.arange(2), 2)
    table = torch.ones(2)
    assert edit.restored(table, "labels.flags") is table


def test_the_kind_of_number_stays():
    flags = torch.zeros(2, dtype=torch.uint8)
    edit = RowEdit(torch.arange(2), 2, tables={"labels.flags": (torch.tensor([1]), torch.tensor([3]))})
    assert edit.restored(flags, "labels.flags").dtype == torch.uint8
