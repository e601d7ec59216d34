"""A model says which edits it holds: a log is not done twice to it, and a session goes on where it was left."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from drag_models import block

from splat.edit import ops, shapes
from splat.edit.bench import Bench
from splat.edit.json_ops import op_line, read_log, write_log
from splat.edit.marks import EditMark, mark_of_header, mark_of_log
from splat.edit.session import EditSession
from splat.errors import UserError

LINES = ['{"a": 1}', '{"b": 2.5}', '{"c": [0]}']


def test_the_mark_of_the_first_operations_does_not_depend_on_later_ones():
    mark = EditMark().after(LINES[:2])
    assert mark == EditMark().after(LINES[:1]).after(LINES[1:2])
    assert mark.held_of(LINES) == 2 and mark.held_of(LINES[:2]) == 2
    assert mark.held_of(["[]", *LINES[1:]]) == 0 and mark.held_of(LINES[:1]) == 0
    assert EditMark().held_of(LINES) == 0


def test_a_header_keeps_the_mark_beside_what_it_holds():
    mark = EditMark().after(LINES)
    header = mark.in_header({"provenance": {"step": 7}, "up_axis": [0, 0, 1]})
    assert mark_of_header(header) == mark and header["provenance"]["step"] == 7
    assert EditMark().in_header({"up_axis": 1}) == {"up_axis": 1}
    for wrong in ({}, {"provenance": "x"}, {"provenance": {"edits": 3}}, {"provenance": {"edits": "-1 abc"}}):
        assert mark_of_header(wrong) == EditMark()


def right() -> ops.Select:
    return ops.Select(shapes.AttributeRange("x", 0.0, 99.0))


def shift(x: float) -> ops.Transform:
    return ops.Transform(((1.0, 0, 0, x), (0, 1.0, 0, 0), (0, 0, 1.0, 0), (0, 0, 0, 1.0)))


def test_a_session_goes_on_where_the_log_ends(tmp_path: Path):
    log, model = tmp_path / "edits.json", block(40, (2.0, 2.0, 2.0))
    start = {name: table.clone() for name, table in model.rows.items()}
    first = Bench(model)
    session = EditSession(log=log)
    for op in (right(), shift(3.0)):
        first.apply(session.do(first, op))
    told: list[str] = []
    again = Bench(block(40, (2.0, 2.0, 2.0)))
    opened = EditSession()
    opened.go_on(again, log, told.append)
    assert torch.equal(again.model.rows["means"], first.model.rows["means"])
    assert torch.equal(again.labels.flags, first.labels.flags) and opened.status == session.status
    assert opened.mark == session.mark and "0 of 2" in told[0]
    again.apply(opened.do(again, shift(1.0)))
    assert [op.kind for op in read_log(log)] == ["select", "transform", "transform"]
    for _ in range(2):
        again.apply(opened.undo(again))
    assert torch.equal(again.model.rows["means"], start["means"])


def test_what_the_model_holds_is_not_done_again(tmp_path: Path):
    log = write_log(tmp_path / "edits.json", [right(), shift(3.0), ops.Invert(), shift(1.0)])
    lines = [op_line(op) for op in read_log(log)]
    rows = Bench(block(40, (2.0, 2.0, 2.0)))
    session = EditSession(base=mark_of_log(log, 2))
    session.go_on(rows, log)
    assert session.ops == read_log(log)[2:] and session.status.ops == 4
    assert session.mark == EditMark().after(lines)


def test_what_does_nothing_to_this_model_stays_in_the_log(tmp_path: Path):
    log = write_log(tmp_path / "edits.json", [ops.Delete(), right()])
    rows, session = Bench(block(40, (2.0, 2.0, 2.0))), EditSession()
    session.go_on(rows, log)
    rows.apply(session.do(rows, shift(1.0)))
    assert [op.kind for op in read_log(log)] == ["delete", "select", "transform"]
    for _ in range(3):
        edit = session.undo(rows)
        if edit is not None:
            rows.apply(edit)
    assert read_log(log) == []


def test_an_operation_that_cannot_be_done_names_its_place(tmp_path: Path):
    click = ops.Select(shapes.Click(view_spec(), (1.0, 1.0)))
    log = write_log(tmp_path / "edits.json", [right(), click])
    with pytest.raises(UserError, match=r"edits.json: op 2 cannot be done.*rasterizer"):
        EditSession().go_on(Bench(block(40, (2.0, 2.0, 2.0))), log)


def view_spec() -> shapes.ViewSpec:
    eye = tuple(tuple(float(i == j) for j in range(4)) for i in range(4))
    return shapes.ViewSpec(eye, ((8.0, 0, 4), (0, 8.0, 4), (0, 0, 1.0)), 8, 8)
