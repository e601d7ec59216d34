"""Operations as JSON: what comes back is what went in; what is wrong is told with place, value and choices."""

import json
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers_editing import IDENTITY, VIEW, any_op, moved, random_model

from splat.edit import json_ops, ops, shapes
from splat.edit.bench import Bench
from splat.edit.json_ops import op_from_json, op_to_json, read_log, write_log
from splat.edit.session import EditSession
from splat.errors import UserError

VIEW_JSON = op_to_json(ops.Select(shapes.Click(VIEW, (1.0, 2.0))))["shape"]["view"]


@settings(deadline=None)
@given(any_op)
def test_an_operation_survives_json(op):
    text = json.dumps(op_to_json(op), allow_nan=False)
    back = op_from_json(json.loads(text))
    assert back == op and json.dumps(op_to_json(back)) == text


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(
        ["kind", "select", "rect", "all", "drag", "view"]),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.text(max_size=4) | st.sampled_from(
        ["kind", "shape", "view", "handles", "points", "K", "at", "to"]), parts, max_size=5),
    max_leaves=12,
)  # fmt: skip


def spoiled(data, path: list[int], value):
    """``data`` with one part of it, however deep, replaced."""
    if not path or not isinstance(data, dict | list) or not data:
        return value
    keys = list(data) if isinstance(data, dict) else range(len(data))
    key = keys[path[0] % len(keys)]
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[key] = spoiled(data[key], path[1:], value)
    return copy


@settings(deadline=None)
@given(any_op, st.lists(st.integers(0, 20), min_size=1, max_size=5), anything)
def test_whatever_stands_there_is_an_operation_or_a_user_error(op, path, value):
    for data in (value, spoiled(op_to_json(op), path, value), {"kind": op.kind, "shape": value}):
        try:
            back = op_from_json(data)
        except UserError as error:
            assert len(str(error).splitlines()) == 1 or "\n" in repr(data)
        else:
            assert op_from_json(op_to_json(back)) == back


def test_numbers_that_are_not_finite_are_refused_and_numpy_ones_taken():
    endless = ops.Select(shapes.AttributeRange("x", 0.0, float("inf")))
    with pytest.raises(UserError, match="select: all its numbers must be finite"):
        json_ops.op_line(endless)
    with pytest.raises(UserError, match="must be finite"):
        EditSession().do(Bench(random_model(3)), endless)
    handle = ops.Handle(tuple(np.float32((0.5, 1, 2))), (0.0, np.float64(1.0), 0.0))
    assert json.loads(json_ops.op_line(ops.Drag((handle,))))["handles"][0]["at"] == [0.5, 1.0, 2.0]


def test_every_kind_is_in_the_tables():
    assert set(shapes.SHAPES) >= shapes.ON_SCREEN
    for table in (ops.OPS, shapes.SHAPES):
        assert all(cls.kind == kind for kind, cls in table.items())
    ruled = {cls.__name__ for cls in (*ops.OPS.values(), *shapes.SHAPES.values(), shapes.ViewSpec, ops.Handle)}
    assert set(json_ops._RULES) <= ruled
    for cls in (*ops.OPS.values(), *shapes.SHAPES.values(), shapes.ViewSpec, ops.Handle):
        assert set(json_ops._RULES.get(cls.__name__, {})) <= {field.name for field in fields(cls)}


def test_short_forms_take_the_defaults():
    assert op_from_json({"kind": "delete"}) == ops.Delete()
    assert op_from_json({"kind": "select", "shape": {"kind": "all"}}) == ops.Select(shapes.Everything())
    drag = {"kind": "drag", "handles": [{"at": [0, 0, 0], "to": [1, 0, 0]}]}
    assert op_from_json(drag) == ops.Drag((ops.Handle((0.0, 0.0, 0.0), (1.0, 0.0, 0.0)),))


def select(**shape):
    return {"kind": "select", "shape": shape}


@pytest.mark.parametrize(("data", "told"), [
    (3, "3 is no object"), ({}, "kind None is no operation; choices: select"),
    ({"kind": "selekt"}, "did you mean 'select'"), ({"kind": "select"}, "(select): shape is missing"),
    ({"kind": "delete", "outsid": True}, "there is no 'outsid' here (did you mean 'outside'?); choices: outside"),
    ({"kind": "delete", "outside": 1}, "outside: 1 is not true or false"),
    ({"kind": "invert", "x": 1}, "choices: none"), ({"kind": "mark", "what": "hid"}, "choices: hide, show, lock"),
    (select(kind="blob"), "shape: kind 'blob' is no shape; choices: rect"),
    (select(kind="sphere", center=[0, 0], radius=1), "shape (sphere): center: [0, 0] has 2 parts, not 3"),
    (select(kind="sphere", center=[0, 0, "a"], radius=1), "center[2]: 'a' is not a number"),
    (select(kind="sphere", center=[0, 0, float("nan")], radius=1), "center[2]: nan is not a number"),
    (select(kind="sphere", center=[0, 0, 10**400], radius=1), "is not a number"),
    (select(kind="sphere", center=[0, 0, 0], radius=-1), "radius -1 does not fit: it must be 0 or more"),
    (select(kind="sphere", center=[0, 0, 0], radius=True), "radius: True is not a number"),
    (select(kind="attribute", attribute="size", low=0, high=1), "'size' does not fit: it must be one of x, y, z"),
    (select(kind="lasso", view=VIEW_JSON, points=[[0, 0], [1, 1]]), "must be 3 points at least"),
    (select(kind="rect", view={**VIEW_JSON, "width": 0}, low=[0, 0], high=[1, 1]), "view: width 0 does not fit"),
    (select(kind="rect", view={**VIEW_JSON, "K": [[1]]}, low=[0, 0], high=[1, 1]), "3 x 3 with focal lengths"),
    (select(kind="box", world_from_box=moved(2.0, (0, 0, 0)), size=[1, 1, 1]), "a rotation and a translation"),
    ({"kind": "transform", "similarity": [[1, 0], [0, 1]]}, "one positive scale"),
    ({"kind": "transform", "similarity": [[1, 0, 0, 0], [0, 2, 0, 0], *IDENTITY[2:]]}, "one positive scale"),
    ({"kind": "recolor", "temperature": 2}, "temperature 2 does not fit: it must be -1 to 1"),
    ({"kind": "drag", "handles": []}, "must be 1 handle at least"),
    ({"kind": "drag", "handles": [{"at": [0, 0, 0], "to": [0, 0, 0], "turn": [0, 0, 0, 0]}]}, "other than zero"),
    ({"kind": "drag", "handles": {"at": 1}}, "is no list"),
])  # fmt: skip
def test_what_is_wrong_is_told(data, told):
    with pytest.raises(UserError) as error:
        op_from_json(data, "edits.json: op 3")
    assert told in str(error.value) and str(error.value).startswith("edits.json: op 3")


def test_a_log_is_read_as_it_was_written(tmp_path):
    done = [ops.Select(shapes.Rect(VIEW, (0.1, 0.2), (30.0, 40.0))), ops.Invert(), ops.Delete(outside=True)]
    path = write_log(tmp_path / "edits.json", done)
    data = json.loads(path.read_text())
    assert (data["format"], data["version"], len(data["ops"])) == ("splat-edits", 1, 3)
    assert read_log(path) == done and len(path.read_text().splitlines()) == 5
    assert read_log(write_log(path, [])) == []


@pytest.mark.parametrize(("text", "told"), [
    ("{", "no JSON"), ("[]", "not a log of edits"), ('{"format": "splat-edits"}', "version None"),
    ('{"format": "splat-edits", "version": 2, "ops": []}', "newer splat"),
    ('{"format": "splat-edits", "version": 1, "ops": {}}', "its ops are no list"),
    ('{"format": "splat-edits", "version": 1, "ops": [{"kind": "delete"}, {"kind": 1}]}', "log.json: op 2: kind 1"),
    ("[" * 100_000, "no JSON"),
])  # fmt: skip
def test_a_broken_log_is_one_line(tmp_path, text, told):
    path = tmp_path / "log.json"
    path.write_text(text)
    with pytest.raises(UserError, match=told) as error:
        read_log(path)
    assert "log.json" in str(error.value) and len(str(error.value).splitlines()) == 1
    with pytest.raises(UserError, match="no such file"):
        read_log(tmp_path / "other.json")
