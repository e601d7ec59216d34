"""What is on disk after an edit by hand: nothing that was done may be missing from it."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from helpers_train import Restless, all_bits, fresh_state, make_trainer

from splat.edit.json_ops import read_log
from splat.edit.ops import Delete, Duplicate, Select, Transform
from splat.edit.session import EditSession, edit_command, undo_command
from splat.edit.shapes import Sphere
from splat.errors import UserError
from splat.live.commands import Change, CommandQueue, Pause, Resume, Save, Stop
from splat.model.labels import HELD
from splat.train.checkpoint import CheckpointSink, read_checkpoint, restore, write_checkpoint
from splat.train.events import Evaluated, Paused, Stepped
from splat.train.sinks import ExportSink
from splat.train.state import TrainState
from splat.train.trainer import drive

MOVE = Transform(((1.0, 0, 0, 0.6), (0, 1.0, 0, 0), (0, 0, 1.0, 0.2), (0, 0, 0, 1.0)))
PICK = Select(Sphere((0.0, 0.0, 0.0), 0.5))


def paused_at(step, orders, *, then):
    """A listener that pauses after ``step``, gives ``orders`` in the pause, and ends with ``then``."""
    commands, seen = CommandQueue(), []

    def listener(event):
        if isinstance(event, Stepped) and event.step == step:
            commands.put(Pause())
        if isinstance(event, Paused):
            seen.append(event.step)
            if len(seen) == 1:
                for order in orders:
                    commands.put(order)
            if len(seen) == 2:
                commands.put(then)

    return commands, listener


@pytest.mark.parametrize("how", ["save", "interrupt"])
@pytest.mark.parametrize("kind", ["edit", "change", "undo"])
def test_what_is_done_after_the_checkpoint_of_a_step_is_saved_all_the_same(tmp_path, kind, how):
    session = EditSession()
    orders = {
        "edit": [edit_command(session, PICK), edit_command(session, MOVE)],
        "change": [Change("lr_scale", 0.25)],
        "undo": [edit_command(session, PICK), edit_command(session, MOVE), Save(), undo_command(session)],
    }[kind]
    orders = [*orders, *([Save()] if how == "save" else [])]
    commands, listener = paused_at(4, orders, then=Stop(how="interrupt"))
    trainer = make_trainer(commands=commands)
    sink = CheckpointSink(tmp_path, "", every=4)
    drive(trainer, [sink, listener])
    again = fresh_state(Restless())
    restore(again, read_checkpoint(sink.last))
    assert all_bits(again) == all_bits(trainer.state) and again.changes == trainer.state.changes
    assert again.edits_done == session.status.ops == trainer.state.edits_done
    assert torch.equal(again.labels.flags, trainer.state.labels.flags)
    assert again.protection.shields.keys() == trainer.state.protection.shields.keys()


def test_a_checkpoint_is_not_written_twice_for_nothing(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr("splat.train.checkpoint.write_checkpoint", lambda folder, state, _: written.append(state.step))
    commands, listener = paused_at(4, [Save(), Save()], then=Stop(how="interrupt"))
    drive(make_trainer(commands=commands), [CheckpointSink(tmp_path, "", every=4), listener])
    assert written == [4]


def test_an_edit_after_the_export_of_the_last_step_is_exported():
    session, commands, exported = EditSession(), CommandQueue(), []

    def listener(event):
        if isinstance(event, Evaluated):
            for op in (PICK, MOVE):
                commands.put(edit_command(session, op))

    trainer = make_trainer(commands=commands, steps=5, evaluate=lambda state: "measured")
    export = ExportSink(lambda state: exported.append(int(state.labels.having(HELD).sum())), frozenset({5}))
    drive(trainer, [export, listener])
    assert exported[0] == 0 and exported[-1] > 0 and len(exported) == 2


def test_orders_given_while_the_last_step_is_measured_are_carried_out():
    """Also where that step is one of those that are measured in any case."""
    session, commands, replies = EditSession(), CommandQueue(), []

    def listener(event):
        if isinstance(event, Evaluated) and event.step == 5:
            replies.append(commands.put(edit_command(session, PICK)))

    drive(make_trainer(commands=commands, steps=5, eval_at=frozenset({5}), evaluate=lambda state: "measured"),
          [listener])  # fmt: skip
    assert replies[0].result(0).ops == 1


def first_format(path):
    """The checkpoint as it was written before there were edits: version 1, none of their tables and numbers."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    head = json.loads(content[8 : 8 + length])
    (key,) = head["__metadata__"]
    told = json.loads(head["__metadata__"][key])
    for name in ("labels", "changes", "edits_done"):
        told.pop(name)
    head["__metadata__"][key] = json.dumps(told | {"version": 1})
    gone = [name for name in head if name.partition(".")[0] in ("labels", "protection", "resting")]
    tables, at = {}, 0
    kept = b""
    for name, entry in head.items():
        if name == "__metadata__" or name in gone:
            continue
        begin, end = entry["data_offsets"]
        kept += content[8 + length + begin : 8 + length + end]
        tables[name] = entry | {"data_offsets": [at, at := at + end - begin]}
    text = json.dumps({"__metadata__": head["__metadata__"], **tables}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + kept)


def test_a_checkpoint_from_before_there_were_edits_goes_on_to_the_same_bits(tmp_path):
    whole = make_trainer()
    for event in whole.run():
        if isinstance(event, Stepped) and event.step == 7:
            path = write_checkpoint(tmp_path, event.state, "")
    first_format(path)
    again = fresh_state(Restless())
    restore(again, read_checkpoint(path))
    assert again.labels.count == again.model.count == again.labels.next_id and again.held is None
    commands, session = CommandQueue(), EditSession()
    for op in (PICK, MOVE, PICK, Delete()):
        commands.put(edit_command(session, op))
    for _ in range(4):
        commands.put(undo_command(session))
    drive(make_trainer(again, commands=commands), [])
    assert all_bits(again) == all_bits(whole.state)


def test_resume_goes_on_from_a_pause(tmp_path):
    commands, listener = paused_at(4, [Save()], then=Resume())
    trainer = make_trainer(commands=commands)
    drive(trainer, [CheckpointSink(tmp_path, "", every=0), listener])
    assert trainer.state.step == 12


def test_an_edit_that_cannot_be_applied_was_never_done(tmp_path, monkeypatch):
    log, state = tmp_path / "edits.json", fresh_state(Restless())
    session, commands, apply = EditSession(log=log), CommandQueue(), TrainState.apply

    def no_room(self, edit, **during):
        if edit.reason in ("delete", "undo"):
            raise MemoryError("no room")
        apply(self, edit, **during)

    monkeypatch.setattr(TrainState, "apply", no_room)
    orders = [edit_command(session, PICK), edit_command(session, Delete()), undo_command(session)]
    replies = [commands.put(order) for order in orders]
    drive(make_trainer(state, steps=2, commands=commands), [])
    assert replies[0].result(0).selected > 0
    assert all(isinstance(reply.exception(0), MemoryError) for reply in replies[1:])
    assert len(session.status.undo) == 1 and not session.status.redo and session.status.ops == state.edits_done == 1
    assert session.status.selected == replies[0].result(0).selected and len(read_log(log)) == 1
    assert not state.protection


def test_what_leaves_all_numbers_is_refused_and_training_goes_on():
    session, commands = EditSession(), CommandQueue()
    far = Transform(((1.0, 0, 0, 1e300), (0, 1.0, 0, 0), (0, 0, 1.0, 0), (0, 0, 0, 1.0)))
    replies = [commands.put(edit_command(session, op)) for op in (PICK, far, Duplicate((0.0, 1e300, 0.0)))]
    trainer = make_trainer(steps=2, commands=commands)
    drive(trainer, [])
    for reply in replies[1:]:
        assert isinstance(reply.exception(0), UserError) and "beyond all numbers" in str(reply.exception(0))
    assert session.status.ops == 1 and bool(trainer.state.model.rows["means"].isfinite().all())
