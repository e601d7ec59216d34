"""A run that is killed at any moment, while edits come, and resumed with what it had not heard of goes on to the bits
of one that never was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from helpers_train import Restless, all_bits, fresh_state, make_trainer
from hypothesis import given, settings
from hypothesis import strategies as st

from splat.cli.viewing import cut_log
from splat.edit.json_ops import log_lines
from splat.edit.ops import Delete, Duplicate, Invert, Recolor, Select, Transform
from splat.edit.session import EditSession, edit_command, undo_command
from splat.edit.shapes import Sphere
from splat.errors import UserError
from splat.live.commands import Change, CommandQueue, Save
from splat.train.checkpoint import CheckpointSink, checkpoint_paths, latest, restore
from splat.train.events import Started, Stepped

STEPS = 6
MOVE = Transform(((1.0, 0, 0, 0.6), (0, 1.0, 0, 0), (0, 0, 1.0, 0.2), (0, 0, 0, 1.0)))
spheres = st.builds(lambda x, radius: Select(Sphere((x, 0.0, 0.0), radius)), st.floats(-0.5, 0.5), st.floats(0.1, 0.6))
edits = st.sampled_from([MOVE, Delete(), Duplicate((0.3, 0.0, 0.1)), Recolor((1.0, 0.5, 0.5))])
"""What stands in one group is given without a save between, so that a resumed run can undo what it did; an inversion
always does something that can be undone."""
groups = st.one_of(
    st.tuples(spheres, edits),
    st.tuples(st.just(Invert()), edits, st.just("undo")),
    st.tuples(st.just(Invert()), st.just(Invert()), edits, st.just("undo"), st.just("undo"), spheres, edits),
    st.sampled_from([("lr_scale", 0.5), ("background", [0.2, 0.4, 1.0]), ("densify", False)]).map(lambda own: (own,)),
    st.just(("save",)),
)
plans = st.lists(st.tuples(st.integers(0, STEPS - 1), groups), min_size=1, max_size=4)


BUSY = [
    (2, (Select(Sphere((0.0, 0.0, 0.0), 0.4)), MOVE)),
    (2, ("save",)),
    (2, (Select(Sphere((0.3, 0.0, 0.0), 0.5)), Delete())),
]


@pytest.fixture(autouse=True)
def busy(monkeypatch):
    """Kills meet looks at training views, too."""
    monkeypatch.setattr("splat.train.shield.BEAT_SECS", 0.0)
    monkeypatch.setattr("splat.edit.sight.MARGIN_PX", 0)
    monkeypatch.setattr("os.fsync", lambda _: None)  # the process dies, not the machine


class Killed(Exception):
    pass


class Run:
    """A run folder and the orders it gets, across the lives of its process."""

    def __init__(self, folder: Path, plan) -> None:
        self.folder, self.log = folder, folder / "edits.json"
        self.orders = [(step, order) for step, group in sorted(plan, key=lambda own: own[0]) for order in group]
        self.kept: dict[tuple[Path, int], int] = {}
        """Checkpoint -> how many orders had been carried out."""

    def live(self, *, dies_at: int | None = None, save: bool = True):
        """One process: from the newest checkpoint to the end, or to the event number ``dies_at``."""
        state, done = fresh_state(Restless(), count=30), 0
        if checkpoint_paths(self.folder):
            found = latest(self.folder, print)
            restore(state, found)
            done = self.kept[found.path]
            cut_log(self.log, state.edits_done, lambda _: None, found.edit_log)
        else:
            cut_log(self.log, 0, lambda _: None)
        assert log_lines(self.log, state.edits_done) is not None, "the log tells what the rows show"
        commands, session = CommandQueue(), EditSession(log=self.log)
        sink = CheckpointSink(self.folder, "", every=1 if save else 0)
        replies, waiting = [], self.orders[done:]
        trainer = make_trainer(state, steps=STEPS, commands=commands)
        for number, event in enumerate(trainer.run()):
            before = sink._written
            sink(event)
            if sink._written != before:
                self.kept[sink.last] = done + sum(reply.done() for reply in replies)
            if isinstance(event, Started | Stepped):
                while waiting and waiting[0][0] <= event.step:
                    replies.append(commands.put(self._command(session, waiting.pop(0)[1])))
            if number == dies_at:
                raise Killed
        for reply in replies:
            assert reply.exception(0) is None or isinstance(reply.exception(0), UserError)
        return state

    @staticmethod
    def _command(session, order):
        if order == "save":
            return Save()
        if order == "undo":
            return undo_command(session)
        return Change(*order) if isinstance(order, tuple) else edit_command(session, order)


def everything_of(state) -> dict[str, object]:
    own = {f"labels.{name}": table for name, table in state.labels.tensors().items()}
    own |= {f"protection.{name}": table for name, table in state.protection.tensors().items()}
    own |= {} if state.resting is None else {"resting": state.resting}
    bits = {name: table.numpy().tobytes() for name, table in own.items()}
    facts = {"scalars": state.labels.scalars(), "changes": state.changes, "edits": state.edits_done,
             "views": state.views_taken}  # fmt: skip
    return all_bits(state) | bits | facts


def lives_of(folder: Path, plan, deaths) -> tuple[dict, dict]:
    """A run that never died and one that did; both with what their logs say in the end."""
    found = []
    for name, times in (("whole", []), ("killed", deaths)):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
        run = Run(folder / name, plan)
        for death in times:
            try:
                state = run.live(dies_at=death)
                break
            except Killed:
                continue
        else:
            state = run.live(save=bool(times))
        found.append(everything_of(state) | {"log": log_lines(run.log, state.edits_done)})
    return found[0], found[1]


def assert_same(first, second) -> None:
    assert first.keys() == second.keys()
    assert not [name for name, value in first.items() if second[name] != value]


@given(plan=plans, deaths=st.lists(st.integers(0, 50), min_size=1, max_size=3))
@settings(max_examples=2, deadline=None)
def test_a_run_killed_anywhere_and_resumed_equals_one_that_never_was(tmp_path_factory, plan, deaths):
    assert_same(*lives_of(tmp_path_factory.mktemp("lives"), plan, deaths))


@pytest.mark.slow
@given(plan=plans, deaths=st.lists(st.integers(0, 60), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_many_runs_killed_anywhere(tmp_path_factory, plan, deaths):
    assert_same(*lives_of(tmp_path_factory.mktemp("lives"), plan, deaths))


@pytest.mark.parametrize("deaths", [[3], [4, 12], [20], [21, 30], [38, 8]], ids=str)
def test_moments_about_two_edits_with_a_save_between(tmp_path, deaths):
    assert_same(*lives_of(tmp_path, BUSY, deaths))


@pytest.mark.slow
def test_every_moment_about_two_edits_with_a_save_between(tmp_path):
    for death in range(48):
        assert_same(*lives_of(tmp_path, BUSY, [death]))


def test_a_log_that_went_back_after_the_checkpoint_tells_what_the_rows_show_again(tmp_path):
    run, told = Run(tmp_path, [(2, (Select(Sphere((0.0, 0.0, 0.0), 0.4)), MOVE))]), []
    run.live()
    found = latest(tmp_path, print)
    assert found.edits_done == 2 and len(found.edit_log) == 2
    as_done = log_lines(run.log, 2)
    state = fresh_state(Restless(), count=30)
    restore(state, found)
    session = EditSession(log=run.log)
    session._earlier = session._earlier[:1]  # as after an undo in the process that made them
    session.do(state, Delete())  # and another edit: as many as the checkpoint holds, but others
    assert len(session.status.undo) == 1 and log_lines(run.log, 2) != as_done
    cut_log(run.log, found.edits_done, told.append, found.edit_log)
    assert log_lines(run.log, 2) == as_done and "did not tell the 2 edits" in told[0]
    run.log.unlink()
    cut_log(run.log, found.edits_done, told.append, found.edit_log)
    assert log_lines(run.log, 2) == as_done and len(told) == 2
    cut_log(run.log, found.edits_done, told.append, found.edit_log)
    assert len(told) == 2 and torch.equal(state.labels.ids, found.labels["ids"])
