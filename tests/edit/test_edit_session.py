"""What operations do to rows, and undo: the very bits where nothing else happened, something sensible where it did."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers_editing import MomentBench, any_op, model_of, moved, random_model, same, shifted

from splat.edit import ops, shapes
from splat.edit.json_ops import read_log, write_log
from splat.edit.session import EditSession, edit_command, redo_command, replay, undo_command
from splat.errors import UserError
from splat.model.labels import HELD, HIDDEN, LOCKED, SELECTED
from splat.model.primitives import PRIMITIVES
from splat.model.row_edit import RowEdit
from splat.render.registry import rasterizer

NATIVE = rasterizer("native")
ALL, RIGHT = ops.Select(shapes.Everything()), ops.Select(shapes.AttributeRange("x", 0.0, 99.0))
SOME = ops.Select(shapes.Sphere((0.0, 0.0, 0.0), 0.5))


def bench(count: int = 30, **settings) -> MomentBench:
    return MomentBench(random_model(count, sh_degree=1, **settings))


def session(**settings) -> EditSession:
    return EditSession(rasterizer=NATIVE, drag=shifted, **settings)


def do(rows, edits: EditSession, op) -> RowEdit | None:
    """As a trainer does; what is refused is None."""
    try:
        edit = edits.do(rows, op)
    except UserError:
        return None
    if edit is not None:
        rows.apply(edit)
    return edit


def back(rows, edits: EditSession, way: str = "undo") -> RowEdit | None:
    edit = getattr(edits, way)(rows)
    if edit is not None:
        rows.apply(edit)
    return edit


def chosen(rows, bit: int = SELECTED) -> torch.Tensor:
    return rows.labels.having(bit)


# --- each operation ----------------------------------------------------------------------------------------------


def test_selections_combine():
    rows, edits = bench(), session()
    do(rows, edits, RIGHT)
    right = chosen(rows)
    assert right.tolist() == (rows.model.rows["means"][:, 0] >= 0).tolist() and edits.status.selected == right.sum()
    top = rows.model.rows["means"][:, 1] >= 0
    above = shapes.AttributeRange("y", 0.0, 99.0)
    expected = {"add": right | top, "subtract": right & ~top, "intersect": right & top, "set": top}
    for how, wanted in expected.items():
        do(rows, edits, ops.Select(above, how))
        assert torch.equal(chosen(rows), wanted)
        back(rows, edits)
        assert torch.equal(chosen(rows), right)
    do(rows, edits, ops.Invert())
    assert torch.equal(chosen(rows), ~right)
    assert do(rows, edits, ops.Select(shapes.Nothing(), "add")) is None and len(edits.status.undo) == 2


def test_marks():
    rows, edits = bench(), session()
    do(rows, edits, RIGHT)
    right = chosen(rows)
    do(rows, edits, ops.Mark("hide"))
    assert torch.equal(chosen(rows, HIDDEN), right) and not chosen(rows).any()
    do(rows, edits, ALL)
    assert torch.equal(chosen(rows), ~right)
    do(rows, edits, ops.Mark("lock"))
    assert (edits.status.selected, edits.status.hidden, edits.status.locked) == (0, right.sum(), (~right).sum())
    assert do(rows, edits, ops.Invert()) is None and do(rows, edits, ALL) is None
    do(rows, edits, ops.Mark("show"))
    do(rows, edits, ops.Delete(outside=True))
    assert torch.equal(rows.labels.ids, torch.arange(30)[~right]) and chosen(rows, LOCKED).all()
    do(rows, edits, ops.Mark("unlock"))
    assert not rows.labels.flags.any()


def test_delete_inside_and_outside():
    for outside in (False, True):
        rows, edits = bench(), session()
        do(rows, edits, RIGHT)
        right, before = chosen(rows), rows.model.rows["means"].clone()
        edit = do(rows, edits, ops.Delete(outside))
        assert torch.equal(rows.model.rows["means"], before[right if outside else ~right])
        assert edit.reason == "delete" and edits.last_number == 2 and not chosen(rows, HELD).any()
        assert edits.status.splats == rows.model.count


def test_the_last_splat_stays():
    rows, edits = bench(), session()
    do(rows, edits, ALL)
    status, before = edits.status, rows.state()
    with pytest.raises(UserError, match="no splat would be left"):
        edits.do(rows, ops.Delete())
    assert edits.status is status and same(before, rows.state())


def test_copies_are_selected_and_held():
    rows, edits = bench(), session()
    do(rows, edits, RIGHT)
    right, before = chosen(rows), rows.state()
    do(rows, edits, ops.Duplicate((1.0, 0.0, -2.0)))
    count = int(right.sum())
    assert rows.model.count == 30 + count and rows.labels.ids[30:].tolist() == list(range(30, 30 + count))
    assert torch.allclose(rows.model.rows["means"][30:], before["means"][right] + torch.tensor([1.0, 0, -2]))
    assert torch.equal(rows.model.rows["sh0"][30:], before["sh0"][right])
    assert chosen(rows)[30:].all() and not chosen(rows)[:30].any()
    assert torch.equal(chosen(rows, HELD), torch.arange(30 + count) >= 30)
    assert rows.moments[30:].tolist() == [0.0] * count


@pytest.mark.parametrize("kind", sorted(PRIMITIVES))
def test_moving_and_recolouring_change_the_selection_alone(kind):
    rows, edits = MomentBench(model_of(kind)), session()
    do(rows, edits, RIGHT)
    right, before = chosen(rows), rows.state()
    do(rows, edits, ops.Transform(moved(2.0, (0.5, 0.0, 0.0))))
    shift = torch.tensor([0.5, 0, 0])
    assert torch.allclose(rows.model.rows["means"][right], before["means"][right] * 2 + shift, atol=1e-6)
    do(rows, edits, ops.Recolor(tint=(0.0, 1.0, 1.0), opacity=0.5))
    assert torch.allclose(rows.model.rows["sh0"][right, 0], torch.tensor(-0.5 / 0.28209479), atol=1e-5)
    assert not rows.model.rows["sh_rest"][right, :, 0].any()
    assert torch.allclose(rows.model.opacities[right], model_of(kind).opacities[right] / 2, atol=1e-6)
    for name, table in rows.model.rows.items():
        assert torch.equal(table[~right], before[name][~right])
    assert torch.equal(chosen(rows, HELD), right) and not rows.moments[right].any()
    back(rows, edits), back(rows, edits)
    assert same(before, rows.state())


def test_what_changes_nothing_is_not_recorded():
    rows, edits = bench(), session()
    identity = ops.Transform(moved(1.0, (0.0, 0.0, 0.0)))
    nothing_selected = [ops.Delete(), ops.Duplicate(), ops.Recolor(opacity=0.5), ops.Mark("hide"), identity]
    assert all(do(rows, edits, op) is None for op in nothing_selected)
    do(rows, edits, RIGHT)
    assert [do(rows, edits, op) for op in (ops.Recolor(), identity, RIGHT, ops.Mark("show"))] == [None] * 4
    assert edits.status.undo == (f"select attribute: +{int(chosen(rows).sum())}",) and edits.undo(rows) is not None
    assert edits.undo(rows) is None


def test_a_drag_moves_what_it_says_and_leaves_locked_rows():
    def everything(model, mask, drag):
        return torch.arange(model.count), {"means": model.rows["means"] + 1, "sh0": model.rows["sh0"].clone()}

    rows, edits = bench(), EditSession(drag=everything)
    do(rows, edits, RIGHT)
    do(rows, edits, ops.Mark("lock"))
    right, before = chosen(rows, LOCKED), rows.state()
    do(rows, edits, ALL)
    do(rows, edits, ops.Drag((ops.Handle((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),)))
    assert torch.equal(rows.model.rows["means"], before["means"] + ~right[:, None])
    assert torch.equal(chosen(rows, HELD), ~right) and edits.words.startswith("drag (arap) ")


# --- undo and redo -----------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.lists(any_op, min_size=1, max_size=6), st.integers(0, 3))
def test_undo_brings_back_the_bits_and_redo_too(operations, seed):
    rows, edits = bench(seed=seed), session()
    do(rows, edits, RIGHT)
    states = [rows.state()]
    for op in operations:
        if do(rows, edits, op) is not None:
            states.append(rows.state())
    words = edits.status.undo
    for _ in range(2):
        for state in states[-2::-1]:
            back(rows, edits)
            assert same(rows.state(), state)
        assert edits.status.redo == words[:0:-1] and edits.status.ops == 1
        for state in states[1:]:
            back(rows, edits, "redo")
            assert same(rows.state(), state)
        assert edits.status.undo == words and not edits.status.redo


def foreign(kind: str, rows: MomentBench, seed: int) -> RowEdit:
    """What a training does between two edits."""
    rng, count = torch.Generator().manual_seed(seed), rows.model.count
    some = torch.rand(count, generator=rng) < 0.3
    parents = some.nonzero().squeeze(1)
    if kind == "sort":
        return RowEdit.reorder(torch.randperm(count, generator=rng))
    if kind == "prune":
        return RowEdit.keep(~some if not some.all() else some)
    if kind == "split":
        return RowEdit.replace(some, parents.repeat(2), {"means": torch.randn(2 * len(parents), 3, generator=rng)},
                               reason="split")  # fmt: skip
    if kind == "clone":
        return RowEdit.append(count, parents, {}, reason="clone")
    return RowEdit.overwrite(count, {"sh0": (parents, torch.randn(len(parents), 3, generator=rng))}, reason="train")


steps = st.one_of(
    any_op, any_op, st.sampled_from(["undo", "redo"]), st.sampled_from(["sort", "prune", "split", "clone", "train"])
)


@settings(max_examples=30, deadline=None)
@given(st.lists(steps, min_size=2, max_size=14), st.integers(0, 99))
def test_edits_of_a_training_may_come_between(moves, seed):
    rows, edits = bench(), session()
    for number, step in enumerate([RIGHT, *moves]):
        if not isinstance(step, str):
            do(rows, edits, step)
        elif step in ("undo", "redo"):
            try:
                back(rows, edits, step)
            except UserError as error:
                assert "no splat would be left" in str(error)
        else:
            rows.apply(foreign(step, rows, seed + number))
        tables = rows.state()
        assert {len(table) for table in tables.values()} == {rows.model.count}
        ids = rows.labels.ids
        assert len(ids.unique()) == rows.model.count and bool((ids < rows.labels.next_id).all())
        assert len(edits.status.undo) == edits.status.ops


def test_undo_after_training_went_on():
    rows, edits = bench(), session()
    do(rows, edits, RIGHT)
    right, before = chosen(rows), rows.state()
    do(rows, edits, ops.Delete())
    rows.apply(RowEdit.reorder(torch.arange(rows.model.count).flip(0)))
    rows.apply(foreign("clone", rows, 1))
    rows.step += 5
    there = rows.state()
    back(rows, edits)
    lost = int(right.sum())
    for name, table in rows.state().items():
        assert torch.equal(table[:-lost], there[name])  # what was there stays where it is
        assert torch.equal(table[-lost:], before[name][right])  # what was lost comes back with all it had
    back(rows, edits, "redo")
    assert same(rows.state(), there)


def test_undo_of_a_copy_takes_the_copies_out_again():
    rows, edits = bench(), session()
    do(rows, edits, RIGHT)
    before = rows.state()
    do(rows, edits, ops.Duplicate((1.0, 1.0, 1.0)))
    rows.apply(RowEdit.reorder(torch.arange(rows.model.count).flip(0)))
    back(rows, edits)
    state = rows.state()
    assert same({name: table.flip(0) for name, table in state.items()}, before)
    back(rows, edits, "redo")
    assert rows.model.count == 30 + int(chosen(rows).sum()) and edits.last_number == 2


def test_waiting_gradients_come_back_at_the_same_step_only():
    class WithGrads(MomentBench):
        def taken(self, rows):
            return super().taken(rows) | {"grads.means": torch.ones(len(rows), 3)}

    for later in (0, 1):
        rows, edits = WithGrads(random_model(20)), session()
        do(rows, edits, RIGHT)
        do(rows, edits, ops.Delete())
        rows.step += later
        edit = edits.undo(rows)
        assert ("grads.means" in edit.tables) == (not later) and "adam.first.means" in edit.tables


def test_a_new_operation_ends_what_can_be_redone():
    rows, edits = bench(), session()
    do(rows, edits, RIGHT), do(rows, edits, ops.Delete())
    back(rows, edits)
    assert edits.undone_number == 2 and edits.status.redo
    do(rows, edits, ops.Invert())
    assert not edits.status.redo and back(rows, edits, "redo") is None and edits.last_number is None
    do(rows, edits, ops.Delete())
    assert edits.last_number == 3


# --- log ---------------------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(st.lists(any_op, min_size=1, max_size=6), st.integers(0, 2))
def test_a_replayed_log_gives_the_same_bits(tmp_path_factory, operations, undone):
    log = tmp_path_factory.mktemp("log") / "edits.json"
    rows, edits = bench(), session(log=log)
    for op in [RIGHT, *operations]:
        do(rows, edits, op)
    for _ in range(undone):
        back(rows, edits)
    again = bench()
    replay(again, read_log(log), session())
    assert read_log(log) == edits.ops
    labels = {"labels.ids", "labels.born", "labels.reasons"}  # numbers differ where something was undone
    first, second = ({name: table for name, table in each.state().items() if name not in labels or not undone}
                     for each in (rows, again))  # fmt: skip
    assert same(first, second)


def test_a_log_that_is_there_is_continued(tmp_path):
    log = write_log(tmp_path / "edits.json", [SOME, ops.Delete()])
    rows, edits = bench(), session(log=log)
    assert edits.status.ops == 2 and not edits.status.undo and back(rows, edits) is None
    do(rows, edits, RIGHT), do(rows, edits, ops.Recolor(opacity=0.5))
    assert edits.last_number == rows.edits_done == 4 and read_log(log) == [
        SOME,
        ops.Delete(),
        RIGHT,
        ops.Recolor(opacity=0.5),
    ]
    back(rows, edits), back(rows, edits)
    assert read_log(log) == [SOME, ops.Delete()] and rows.edits_done == 2
    log.write_text("{")
    with pytest.raises(UserError, match="no JSON"):
        session(log=log)


def test_a_log_that_cannot_be_written_refuses_the_edit(tmp_path):
    (tmp_path / "file").write_text("")
    rows, edits = bench(), session(log=tmp_path / "file" / "edits.json")
    status, before = edits.status, rows.state()
    with pytest.raises(UserError, match="cannot be written"):
        edits.do(rows, RIGHT)
    assert edits.status is status and same(before, rows.state())


# --- commands ----------------------------------------------------------------------------------------------------


def test_commands_know_their_number_once_they_ran():
    rows, edits = bench(), session()

    def carried_out(command):
        edit = command.make(rows)
        if edit is not None:
            rows.apply(edit)
        return command.marks(), command.result()

    assert carried_out(edit_command(edits, RIGHT)) == ((None, None), edits.status)
    assert carried_out(edit_command(edits, ops.Delete()))[0] == (2, None)
    assert carried_out(undo_command(edits))[0] == (None, 2)
    assert carried_out(undo_command(edits))[0] == (None, None)
    assert carried_out(undo_command(edits)) == ((None, None), edits.status)
    carried_out(redo_command(edits))
    marks, status = carried_out(redo_command(edits))
    assert marks == (2, None) and status.undo[-1].startswith("delete ") and status.ops == 2
