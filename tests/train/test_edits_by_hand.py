"""What training does with rows that were edited by hand, and with photographs that contradict the edits."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from helpers_compress import compress_bits
from helpers_train import Restless, all_bits, cameras, frame_of, fresh_state, make_trainer

from splat.compress.registry import COMPRESSORS
from splat.densify.registry import DENSIFIERS
from splat.edit.ops import Delete, Select, Transform
from splat.edit.protection import Protection, Shield, Tombstones
from splat.edit.session import EditSession, edit_command, undo_command
from splat.edit.shapes import Sphere
from splat.geometry.rng import keyed_generator
from splat.live.commands import CommandQueue, Edit
from splat.live.mailbox import Mailbox
from splat.model.labels import HELD
from splat.model.primitives import PRIMITIVES
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel
from splat.optim.adam import SplatAdam
from splat.render.registry import rasterizer
from splat.train.checkpoint import read_checkpoint, restore, write_checkpoint
from splat.train.events import Edited, Shielding, Stepped
from splat.train.frames import FrameSource
from splat.train.sinks import MailboxSink
from splat.train.state import TrainState
from splat.train.trainer import drive

SPLATS = 30
MOVE = Transform(((1.0, 0, 0, 0.6), (0, 1.0, 0, 0), (0, 0, 1.0, 0.2), (0, 0, 0, 1.0)))
PICK = Select(Sphere((0.0, 0.0, 0.0), 0.5))
COMBINATIONS = [
    *product(("none",), ("gaussian", "convex", "ges"), ("none",)),
    *((compressor, "gaussian", "adaptive") for compressor in COMPRESSORS if compressor != "none"),
    *(("none", "convex" if densifier == "convex" else "gaussian", densifier) for densifier in DENSIFIERS),
    ("none", "convex", "mcmc"),
    ("grid", "gaussian", "mcmc"),
]


@pytest.fixture(autouse=True)
def narrow_masks(monkeypatch):
    """Pictures here have 120 pixels, and every splat is in all of them."""
    monkeypatch.setattr("splat.edit.sight.MARGIN_PX", 0)
    monkeypatch.setattr("splat.edit.sight.LEAST_WEIGHT", 0.1)


def state_of(compressor, primitive, densifier) -> TrainState:
    generator = keyed_generator(0, "by hand", 0)
    xyz = torch.randn(SPLATS, 3, generator=generator) * 0.4
    rows = primitive.start(xyz, torch.rand(SPLATS, 3, generator=generator), sh_degree=1, generator=generator)
    model = SplatModel(primitive, rows, 1)
    adam = SplatAdam(primitive.fields(1))
    adam.start(model)
    return TrainState(model, adam, densifier.start(model), compress=compressor.start(model, seed=1))


def with_ops(*ops, session=None) -> CommandQueue:
    commands, session = CommandQueue(), session or EditSession()
    for op in ops:
        commands.put(edit_command(session, op))
    return commands


def held_rows(state) -> dict[str, torch.Tensor]:
    """By number, so that orders do not matter."""
    rows = state.labels.having(HELD).nonzero().squeeze(1)
    rows = rows[state.labels.ids[rows].argsort()]
    own = {"ids": state.labels.ids, **state.model.rows, **state.compress.rows}
    own.pop("cell", None)  # a place in an order, which others share
    return {name: table.detach()[rows].clone() for name, table in own.items()}


@pytest.mark.parametrize(("compressor", "primitive", "densifier"), COMBINATIONS,
                         ids=["-".join(parts) for parts in COMBINATIONS])  # fmt: skip
def test_what_was_moved_keeps_every_bit_through_all_that_trains(compressor, primitive, densifier):
    compressor = COMPRESSORS[compressor]().rescaled(8 / 30_000)
    primitive = PRIMITIVES[primitive]().fitted(12.0).rescaled(8 / 30_000)
    densifier = DENSIFIERS[densifier]().rescaled(8 / 30_000)
    state = state_of(compressor, primitive, densifier)
    trainer = make_trainer(state, densifier, compressor=compressor, steps=10, commands=with_ops(PICK, MOVE))
    for event in trainer.run():
        if isinstance(event, Edited) and event.reason == "transform":
            put = held_rows(state)
    assert len(put["ids"]) > 5
    after = held_rows(state)
    for name, table in put.items():
        assert torch.equal(table, after[name]), name
    if state.compress.rows:
        shown = compressor.finished(state.compress, 10, state.model.requires_grad_(False))
        assert shown.count >= len(put["ids"])


def test_held_rows_have_no_moments_and_step_nowhere_in_place():
    trainer = make_trainer(steps=3, commands=with_ops(PICK, MOVE))
    drive(trainer, [])
    state = trainer.state
    for name in state.adam.names:
        assert not any(moment[state.labels.having(HELD)].any() for moment in state.adam.moments(name))
        assert any(moment.any() for moment in state.adam.moments(name)) or name == "sh_rest"


def test_neither_noise_nor_penalties_move_held_rows_while_others_go():
    state = fresh_state(Restless())
    trainer = make_trainer(state, steps=2, commands=with_ops(PICK, MOVE))
    before = {}
    for event in trainer.run():
        if isinstance(event, Edited) and event.reason == "transform":
            before = {name: table.detach().clone() for name, table in state.model.rows.items()}
    held = state.labels.having(HELD)
    for name in ("means", "logit_opacities"):
        same = (state.model.rows[name].detach() == before[name]).reshape(len(held), -1).all(1)
        assert bool(same[held].all()) and not bool(same[~held].any())


def test_the_limit_holds_though_held_rows_stay():
    state = fresh_state(Restless(), count=40)
    state.changes = {"max_splats": 35}
    drive(make_trainer(state, steps=6, commands=with_ops(PICK, MOVE)), [])
    stays = int(state.held.sum())
    assert state.model.count <= max(35, stays) and int(state.labels.having(HELD).sum()) > 5


def shielded_state():
    """After an edit, with everything it left behind."""
    trainer = make_trainer(steps=1, commands=with_ops(PICK, MOVE, PICK, Delete()))
    drive(trainer, [])
    return trainer


def test_contradicted_pixels_leave_the_loss_and_no_others():
    trainer = shielded_state()
    frames = trainer._feed.frames
    found = [view for view in range(5) if trainer.state.protection.kept(view, cameras()[view], 12, 10) is not None]
    assert found and trainer.state.protection.shields.keys() == {2, 4}
    for index in range(5):
        view, plain = frames.view(index, 1.0), FrameSource(cameras(), frame_of).view(index, 1.0)
        if index not in found:
            assert (view.mask is None) == (plain.mask is None)
            continue
        share = float((view.mask == 0).float().mean())
        assert 0 < share < 1 and frames.view(index, 0.5).mask.shape == (1, 5, 6)
        assert frames.kept(plain) is frames.kept(plain)  # made once


def test_snapshots_tell_what_does_not_count():
    mailbox, trainer = Mailbox(), shielded_state()
    mailbox.request()
    MailboxSink(mailbox).serve(trainer.state)
    assert mailbox.take().protection is trainer.state.protection
    mailbox.request()
    MailboxSink(mailbox).serve(make_trainer().state)
    assert mailbox.take().protection is None


def test_undoing_an_edit_gives_the_pixels_back():
    session = EditSession()
    commands = with_ops(PICK, MOVE, session=session)
    trainer = make_trainer(steps=3, commands=commands)
    for event in trainer.run():
        if isinstance(event, Stepped) and event.step == 1:
            assert trainer.state.protection
            commands.put(undo_command(session))
    assert not trainer.state.protection and trainer.state.held is None and trainer.state.resting is None
    assert trainer._feed.frames.view(0, 1.0).mask is None


def test_an_edit_that_is_undone_at_once_leaves_no_trace():
    plain, session = make_trainer(), EditSession()
    drive(plain, [])
    commands = with_ops(PICK, MOVE, PICK, Delete(), session=session)
    for _ in range(4):
        commands.put(undo_command(session))
    trainer = make_trainer(commands=commands)
    drive(trainer, [])
    assert all_bits(trainer.state) == all_bits(plain.state)


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_run_resumed_after_edits_equals_one_that_never_stopped(tmp_path, stop):
    whole = make_trainer(commands=with_ops(PICK, MOVE, PICK, Delete()))
    for event in whole.run():
        if isinstance(event, Stepped) and event.step == stop:
            path = write_checkpoint(tmp_path, event.state, "")
    again = fresh_state(Restless())
    restore(again, read_checkpoint(path))
    assert again.protection.shields.keys() == {2, 4}
    drive(make_trainer(again), [])
    assert all_bits(again) == all_bits(whole.state)
    assert compress_bits(again.compress) == compress_bits(whole.state.compress)
    for name, table in whole.state.labels.tensors().items():
        assert torch.equal(table, again.labels.tensors()[name]), name
    assert again.labels.names == whole.state.labels.names and again.labels.next_id == whole.state.labels.next_id
    assert (again.resting is None) == (whole.state.resting is None)
    assert again.resting is None or torch.equal(again.resting, whole.state.resting)


def test_what_is_deleted_stays_away():
    state = fresh_state(Restless(), count=40)
    trainer = make_trainer(state, steps=12, commands=with_ops(PICK, Delete()))
    stones, buried, born = None, 0, 0
    for event in trainer.run():
        if isinstance(event, Edited):
            buried += event.removed if event.reason == "tombstone" else 0
            if event.reason == "delete":
                continue
        if state.protection:
            stones = state.protection.shields[2].tombstones
        if isinstance(event, Stepped):
            inside = stones.holds(state.model.rows["means"].detach())
            late = (state.labels.ids >= stones.since) & (state.labels.born == event.step)
            born += int(late.sum())
            assert not bool((inside & late).any())
    assert stones is not None and born > 0


def test_new_rows_in_a_tombstone_go_at_the_next_refinement():
    state = fresh_state(Restless(), count=40)
    trainer = make_trainer(state, steps=3, commands=with_ops(PICK, Delete()))
    for event in trainer.run():
        if isinstance(event, Stepped) and event.step == 2:  # an intruder that training made
            edit = RowEdit.append(state.model.count, torch.tensor([0]), {"means": torch.zeros(1, 3)}, reason="grow")
            state.apply(edit)
            intruder = int(state.labels.ids[-1])
        if isinstance(event, Edited) and event.reason == "tombstone":
            assert event.removed >= 1
    assert state.labels.rows_of(torch.tensor([intruder])).tolist() == [-1]


@pytest.mark.parametrize("old", ["drifts at the last step", "drifts before"])
def test_old_rows_that_drift_where_something_was_deleted_go_without_any_refinement(monkeypatch, old):
    monkeypatch.setattr("splat.train.trainer.BURY_EVERY", 3 if old == "drifts before" else 100)
    state = fresh_state(Restless(), count=40)
    state.changes = {"densify": False}
    trainer, drifter, gone_at = make_trainer(state, steps=6), int(state.labels.ids[7]), None
    gone = torch.cartesian_prod(*[torch.linspace(2.0, 3.0, 6)] * 3)
    for event in trainer.run():
        if isinstance(event, Stepped) and event.step == 2:
            stones = Tombstones.of(gone, state.model.rows["means"].detach(), since=state.labels.next_id)
            state.protection = Protection({1: Shield({}, stones)})
            state.model.rows["means"].data[7] = 2.5
        if isinstance(event, Edited) and event.reason == "tombstone":
            gone_at = event.state.step
    assert state.labels.rows_of(torch.tensor([drifter])).tolist() == [-1]
    assert gone_at == (3 if old == "drifts before" else 6)


def test_splats_that_only_contradicted_pixels_show_rest_with_their_moments():
    state = fresh_state(Restless(), count=40)
    trainer = make_trainer(state, steps=6, commands=with_ops(Select(Sphere((0.0, 0.0, 0.0), 0.2)), MOVE))
    seen = {}
    for event in trainer.run():
        if isinstance(event, Stepped) and event.step == 1:
            state.resting = torch.arange(state.model.count) % 5 == 1
            rows = state.resting.nonzero().squeeze(1)
            seen = {"ids": state.labels.ids[rows].clone(), **state.taken(rows),
                    **{name: table.detach()[rows].clone() for name, table in state.model.rows.items()}}  # fmt: skip
    rows = state.labels.rows_of(seen["ids"])
    assert bool((rows >= 0).all())
    now = state.taken(rows) | {name: table.detach()[rows] for name, table in state.model.rows.items()}
    for name, table in seen.items():
        if name.startswith(("adam.", "means", "logit", "sh0")):
            assert torch.equal(table, now[name]), name


def test_where_everything_is_contradicted_all_that_shows_rests(monkeypatch):
    monkeypatch.setattr("splat.edit.sight.MARGIN_PX", 12)
    state = fresh_state(Restless(), count=40)
    drive(make_trainer(state, steps=1, commands=with_ops(PICK, MOVE)), [])
    assert state.resting is not None and int(state.held.sum()) > 30


def test_an_edit_answers_before_the_views_are_looked_at(monkeypatch):
    monkeypatch.setattr("splat.train.shield.BEAT_SECS", 0.0)
    commands, session = CommandQueue(), EditSession()
    replies = [commands.put(edit_command(session, op)) for op in (PICK, MOVE)]
    done = []
    for event in make_trainer(steps=1, commands=commands).run():
        if isinstance(event, Shielding):
            done.append(replies[1].done())
    assert done and all(done)
    assert replies[1].result(0).ops == 2


def test_an_edit_that_changes_nothing_is_no_event():
    commands = CommandQueue()
    reply = commands.put(Edit(lambda rows: None, result=lambda: "nothing"))
    events = list(make_trainer(steps=1, commands=commands).run())
    assert reply.result(0) == "nothing" and not any(isinstance(event, Edited) for event in events)


def test_looks_of_refinements_see_no_error_where_an_edit_is_contradicted():
    trainer = shielded_state()
    state = trainer.state
    probe = trainer._feed.probe(state, 6, trainer._densifier.plan(6), rasterizer("native"))
    number = next(view for view in range(5) if state.protection.kept(view, cameras()[view], 12, 10) is not None)
    shown = trainer._feed.frames.kept(trainer._feed.frames.view(number, 1.0))[0] > 0
    errors = []

    def error_of(color, target):
        errors.append((color.clamp(0, 1) - target).abs().sum(2))
        return torch.ones(1, *target.shape[:2])

    look = probe.look(number, stats=frozenset({"weighted_count"}), maps=error_of)
    assert not errors[0][~shown].any() and errors[0][shown].any() and torch.equal(look.mask > 0, shown)
