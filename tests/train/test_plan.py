"""What a step plan says is what the trainer does, and what a densifier is told is what happened."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from helpers_train import Restless, all_bits, fresh_state, make_trainer

from splat.densify.adaptive import AdaptiveDensity
from splat.model.row_edit import RowEdit
from splat.train.events import Stepped
from splat.train.settings import ResolutionSchedule


@dataclass(frozen=True)
class Still(AdaptiveDensity):
    """The classic's statistics over several views per step, and never an edit."""

    per_step: int = 1

    def plan(self, step):
        return replace(super().plan(step), views=self.per_step, lr_scale=0.0)

    def refine(self, state, step, model, ctx):
        yield from ()


def statistics_after(densifier, steps):
    """At one size and SH degree, which go by steps and not by views."""
    always = {"resolution": ResolutionSchedule(), "sh_every": 0}
    trainer = make_trainer(fresh_state(densifier), densifier=densifier, steps=steps, **always)
    list(trainer.run())
    return trainer.state


@pytest.mark.parametrize("gradient", ["mean", "abs"])
def test_several_views_per_step_count_like_as_many_steps_bit_for_bit(gradient):
    """Each view has a norm of its own: sums of gradient vectors over views would cancel."""
    views = statistics_after(Still(per_step=4, gradient=gradient), 3)
    single = statistics_after(Still(gradient=gradient), 12)
    assert views.views_taken == single.views_taken == 12
    assert torch.equal(views.model.rows["means"], fresh_state(Restless()).model.rows["means"])  # nothing moved
    for name in ("grad_sum", "views"):
        assert torch.equal(views.densify.tables[name], single.densify.tables[name]), name
    assert (views.densify.tables["grad_sum"] > 0).any()
    assert not torch.equal(statistics_after(Still(per_step=3, gradient=gradient), 3).densify.tables["grad_sum"],
                           views.densify.tables["grad_sum"])  # fmt: skip


def test_the_learning_rate_is_scaled_by_the_plan_and_by_the_settings():
    full, half, doubled = (
        make_trainer(densifier=Slower(factor=factor), lr_scale=scale) for factor, scale in ((1, 1), (0.5, 1), (0.5, 2))
    )
    rates = [[e.lr_means for e in trainer.run() if isinstance(e, Stepped)] for trainer in (full, half, doubled)]
    assert np.allclose(np.array(rates[1]), 0.5 * np.array(rates[0])) and rates[0][0] > 0
    assert not torch.equal(full.state.model.rows["sh0"], half.state.model.rows["sh0"])
    assert rates[2] == rates[0] and rates[0] != rates[1]


@dataclass(frozen=True)
class Slower(Restless):
    factor: float = 1.0

    def plan(self, step):
        return replace(super().plan(step), lr_scale=self.factor)


def test_a_densifier_hears_of_every_view_and_its_loss():
    heard = []

    class Listening(Restless):
        def needs(self, step):
            return frozenset()

        def observe(self, state, step, stats, *, width, height, view, loss):
            heard.append((step, view, loss))

    trainer = make_trainer(densifier=Listening(views=2))
    losses = [event.loss for event in trainer.run() if isinstance(event, Stepped)]
    assert [step for step, *_ in heard] == [step for step in range(1, 13) for _ in range(2)]
    assert {view for _, view, _ in heard[:5]} == set(range(5))  # an epoch has each once
    sums = np.array([loss for *_, loss in heard]).reshape(12, 2).sum(1)
    assert np.allclose(sums / 2, losses)


def test_gradients_that_wait_follow_their_rows():
    state = fresh_state(Restless(), count=3)
    state.model.requires_grad_(True)
    state.model.rows["means"].grad = torch.arange(9.0).reshape(3, 3)
    fresh = torch.tensor([False, False, True])
    state.apply(RowEdit(torch.tensor([2, 0, 2]), 3, fresh=fresh, reason="clone"))
    assert state.model.rows["means"].grad.tolist() == [[6, 7, 8], [0, 1, 2], [0, 0, 0]]
    assert state.model.rows["sh0"].grad is None


def test_an_edit_between_two_optimizer_steps_keeps_the_average():
    """Rows that change places in the middle of an accumulation end where they would have."""

    class Swapping(Restless):
        swap: bool = True

        def plan(self, step):
            return replace(super().plan(step), optimize=step % 4 == 0)

        def refine(self, state, step, model, ctx):
            if step == 2 and self.swap:
                yield RowEdit.reorder(torch.arange(model.count).flip(0))

        def perturb(self, *arguments, **more):
            return None

    class Staying(Swapping):
        swap = False

    swapped, stayed = make_trainer(densifier=Swapping(), steps=4), make_trainer(densifier=Staying(), steps=4)
    for trainer in (swapped, stayed):
        list(trainer.run())
    for name, table in stayed.state.model.rows.items():
        assert torch.allclose(swapped.state.model.rows[name].flip(0), table, rtol=1e-4, atol=1e-5), name
    assert all_bits(swapped.state)["means"] != all_bits(stayed.state)["means"]
