"""Every operation on every primitive, through a session on a bench: done, undone and redone to the bit, and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from prior_worlds import cameras, slab
from torch import Tensor

from splat.edit import ops, shapes
from splat.edit.bench import Bench
from splat.edit.json_ops import op_from_json, op_to_json, read_log
from splat.edit.session import EditSession, replay
from splat.model.labels import HELD, SELECTED
from splat.model.primitives import PRIMITIVES
from splat.render.native_rasterizer import NativeRasterizer

TURNED = ((0.0, -1.0, 0.0, 0.5), (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.2), (0.0, 0.0, 0.0, 1.0))
SPHERE = shapes.Sphere((0.5, 0.0, 0.0), 0.4)
HANDLE = ops.Handle((0.5, 0.0, 0.0), (0.5, 0.3, 0.0), 0.1)
EXAMPLES: dict[str, tuple[ops.Op, ...]] = {
    "select": (
        ops.Select(SPHERE), ops.Select(shapes.Sphere((-0.6, 0.0, 0.0), 0.3), "add"),
        ops.Select(shapes.Everything(), "subtract"),
        ops.Select(shapes.AttributeRange("x", -1.0, 0.6), "intersect"),
        ops.Select(shapes.Rect(shapes.ViewSpec.of(cameras(1)[0]), (5.0, 5.0), (40.0, 50.0)), reach="visible"),
    ),
    "invert": (ops.Invert(),),
    "mark": tuple(ops.Mark(what) for what in ("hide", "lock")),
    "delete": (ops.Delete(), ops.Delete(outside=True)),
    "duplicate": (ops.Duplicate((1.0, 0.0, -2.0)),),
    "transform": (ops.Transform(TURNED),),
    "recolor": (ops.Recolor(tint=(1.0, 0.5, 0.2), saturation=0.5, opacity=0.7),),
    "drag": tuple(ops.Drag((HANDLE,), mode=mode) for mode in ("arap", "rigid", "smooth", "lattice")),
}  # fmt: skip
CASES = [
    pytest.param(op, id=f"{kind}{number}") for kind, listed in EXAMPLES.items() for number, op in enumerate(listed)
]


def bench(kind: str) -> Bench:
    """A slab with a part of it selected."""
    rows = Bench(slab(400, primitive=PRIMITIVES[kind]()))
    rows.apply(EditSession().do(rows, ops.Select(shapes.Box(
        ((1.0, 0, 0, 0.5), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)), (0.8, 2.0, 2.0)))))  # fmt: skip
    assert 0 < int(rows.labels.having(SELECTED).sum()) < 400
    return rows


def bits(rows: Bench) -> dict[str, Tensor]:
    labels = {f"labels.{name}": table.clone() for name, table in rows.labels.tensors().items()}
    return {name: table.clone() for name, table in rows.model.rows.items()} | labels


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Names of the tables that differ."""
    return [name for name in one if not torch.equal(one[name], other[name])]


def test_every_operation_has_an_example() -> None:
    assert EXAMPLES.keys() == ops.OPS.keys()


@pytest.mark.parametrize("op", CASES)
def test_operations_are_the_same_after_json(op: ops.Op) -> None:
    assert op_from_json(json.loads(json.dumps(op_to_json(op)))) == op


@pytest.mark.parametrize("kind", sorted(PRIMITIVES))
@pytest.mark.parametrize("op", CASES)
def test_done_undone_and_redone_to_the_bit(op: ops.Op, kind: str) -> None:
    rows, session = bench(kind), EditSession(rasterizer=NativeRasterizer())
    before = bits(rows)
    edit = session.do(rows, op)
    assert edit is not None, "the example changes nothing"
    rows.apply(edit)
    done = bits(rows)
    assert done["means"].shape != before["means"].shape or same(before, done)
    assert all(bool(torch.isfinite(table).all()) for table in rows.model.rows.values())
    for _ in range(2):
        rows.apply(session.undo(rows))
        assert same(before, bits(rows)) == []
        rows.apply(session.redo(rows))
        assert same(done, bits(rows)) == []
    if op.kind in ("transform", "recolor", "drag"):  # what was changed by hand is held, and nothing else is
        changed = torch.zeros(400, dtype=torch.bool)
        for name in rows.model.rows:
            changed |= (done[name] != before[name]).reshape(400, -1).any(1)
        held = rows.labels.having(HELD)
        selected = (before["labels.flags"] & SELECTED).bool()
        assert bool(held[changed].all()) and not bool(held[~changed & ~selected].any())


@pytest.mark.parametrize("kind", sorted(PRIMITIVES))
def test_a_log_of_everything_replays_to_the_bit(kind: str, tmp_path: Path) -> None:
    chain = [
        ops.Select(SPHERE), ops.Transform(TURNED), ops.Select(shapes.Everything()), *EXAMPLES["recolor"],
        ops.Select(SPHERE), ops.Duplicate((0.2, 0.0, 0.0)), EXAMPLES["drag"][0], ops.Mark("lock"), ops.Invert(),
        ops.Delete(),
    ]  # fmt: skip
    first, session = bench(kind), EditSession(rasterizer=NativeRasterizer(), log=tmp_path / "edits.json")
    replay(first, chain, session, lambda line: None)
    assert read_log(tmp_path / "edits.json") == session.ops
    second = bench(kind)
    replay(second, read_log(tmp_path / "edits.json"), EditSession(rasterizer=NativeRasterizer()), lambda line: None)
    assert same(bits(first), bits(second)) == []
