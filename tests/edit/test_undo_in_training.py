"""Undo between the steps of a real training: everything comes back, so that it goes on as if nothing had been."""

import sys
from pathlib import Path

import pytest
import torch
from helpers_train import Restless, all_bits, fresh_state, make_trainer
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers_editing import any_op, shifted

from splat.edit import ops, shapes
from splat.edit.session import EditSession
from splat.errors import UserError
from splat.model.labels import HELD
from splat.render.registry import rasterizer
from splat.train.events import Stepped

NATIVE = rasterizer("native")
EVERYTHING = ops.Select(shapes.AttributeRange("x", -0.1, 9.0))


def trained(between=lambda state: None, *, at: int = 7, accumulate: int = 2):
    """The bits a run of 12 steps ends with; after step ``at``, where gradients wait, ``between`` may edit."""
    densifier = Restless(accumulate=accumulate)
    trainer = make_trainer(fresh_state(densifier), densifier)
    for event in trainer.run():
        if isinstance(event, Stepped) and trainer.state.step == at:
            between(trainer.state)
    return all_bits(trainer.state)


def everything(state) -> dict[str, torch.Tensor]:
    rows = {name: table.detach().clone() for name, table in state.model.rows.items()}
    return rows | state.taken(torch.arange(state.model.count))


@pytest.mark.parametrize("accumulate", [1, 2])
@settings(max_examples=6, deadline=None)
@given(operations=st.lists(any_op, min_size=1, max_size=5))
def test_a_run_goes_on_as_if_nothing_had_been(accumulate, operations):
    def between(state):
        session, before = EditSession(rasterizer=NATIVE, drag=shifted), everything(state)
        for op in [EVERYTHING, *operations]:
            try:
                edit = session.do(state, op)
            except UserError:
                continue
            if edit is not None:
                state.apply(edit)
        assert state.edits_done == session.status.ops
        while session.status.undo:
            state.apply(session.undo(state))
        after = everything(state)
        assert before.keys() == after.keys() and all(torch.equal(after[name], table) for name, table in before.items())
        assert state.edits_done == 0

    assert trained(between, accumulate=accumulate) == trained(accumulate=accumulate)


def test_redo_after_steps_makes_the_same_of_the_rows():
    done = {}

    def between(state):
        session = EditSession()
        for op in (EVERYTHING, ops.Transform(((1.0, 0, 0, 1), (0, 1.0, 0, 0), (0, 0, 1.0, 0), (0, 0, 0, 1.0)))):
            state.apply(session.do(state, op))
        moved = state.labels.having(HELD)
        done.update(ids=state.labels.ids[moved], means=state.model.rows["means"].detach()[moved].clone())
        state.apply(session.undo(state))
        done["session"] = session

    densifier = Restless()
    trainer = make_trainer(fresh_state(densifier), densifier)
    for event in trainer.run():
        if isinstance(event, Stepped) and trainer.state.step == 5:
            between(trainer.state)
        elif isinstance(event, Stepped) and trainer.state.step == 10:
            state = trainer.state
            state.apply(done["session"].redo(state))
            rows = state.labels.rows_of(done["ids"])
            there = rows >= 0
            assert torch.equal(state.model.rows["means"].detach()[rows[there]], done["means"][there]) and there.any()
            assert torch.equal(state.labels.having(HELD).nonzero().squeeze(1), rows[there].sort().values)
