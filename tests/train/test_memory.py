"""Out of memory during a training: growth ends, then splats go, and the state stays whole."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from helpers_train import Restless, all_bits, make_trainer

from splat.model.row_edit import RowEdit
from splat.render.registry import rasterizer
from splat.train import memory
from splat.train.errors import TrainingError
from splat.train.events import Edited, Event, Stepped, Warned
from splat.train.progress import ProgressSink
from splat.train.sinks import MetricsSink

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


class Small:
    """The native rasterizer on a machine where only ``limit`` splats fit, or which fails at the calls in ``at``."""

    name = "small"

    def __init__(self, limit: int = 10**9, at: frozenset[int] = frozenset()) -> None:
        self._inner, self._limit, self._at, self._calls = rasterizer("native"), limit, at, 0

    def supports(self, inputs, options, device):
        return None

    def can_update(self, inputs):
        return False

    def render(self, inputs, cameras, options, *, update=None):
        self._calls += 1
        if inputs.count > self._limit or self._calls in self._at:
            raise FULL
        return self._inner.render(inputs, cameras, options)


def events_of(trainer) -> list[Event]:
    return list(trainer.run())


def test_one_shortage_ends_growth_and_changes_nothing_else_of_its_step():
    plain, short = make_trainer(steps=2), make_trainer(steps=2, rasterizer=Small(at=frozenset({2})))
    events_of(plain)
    told = [event.text for event in events_of(short) if isinstance(event, Warned)]
    assert told == ["out of memory at step 1 with 12 splats: growth stops here, training goes on"]
    assert all_bits(plain.state) == all_bits(short.state)
    assert short._context.max_splats == 12


def test_a_model_that_does_not_fit_loses_its_faintest_until_it_does():
    trainer = make_trainer(steps=2, rasterizer=Small(limit=10))
    opacities = trainer.state.model.opacities.detach().clone()
    events = events_of(trainer)
    dropped = [event for event in events if isinstance(event, Edited)]
    assert [event.reason for event in dropped] == ["memory"] * len(dropped) and dropped[-1].splats <= 10
    assert sum(isinstance(event, Stepped) for event in events) == 2 == trainer.state.step
    kept = opacities.sort(descending=True).values[: dropped[0].splats]
    assert torch.equal(memory.faintest_dropped(make_trainer().state.model, len(kept)).source.sort().values,
                       opacities.argsort(descending=True, stable=True)[: len(kept)].sort().values)  # fmt: skip
    for moments in (trainer.state.adam.moments("means")[0], trainer.state.densify.tables["seen"]):
        assert moments.shape[0] == trainer.state.model.count


def test_several_views_of_a_step_are_averaged_over_those_that_count():
    """The second view runs out for good: the gradients of the first go with the old rows."""
    trainer = make_trainer(steps=1, densifier=Restless(views=2), rasterizer=Small(at=frozenset({2, 3})))
    events = events_of(trainer)
    assert [type(event) for event in events if isinstance(event, Warned | Edited)] == [Warned, Warned, Edited]
    assert trainer.state.views_taken == 2 and trainer.state.views_pending == 0
    assert all(torch.isfinite(table).all() for table in trainer.state.model.rows.values())


class Greedy(Restless):
    """Its second edit does not fit."""

    def refine(self, state, step, model, ctx) -> Iterator[RowEdit]:
        if step != 2:
            return
        yield RowEdit.keep(torch.arange(model.count) != 0)
        yield RowEdit.append(model.count, torch.arange(model.count), {}, reason="grow")


@pytest.mark.parametrize("table", ["model", "adam", "densify"])
def test_a_refinement_that_does_not_fit_leaves_every_table_as_it_was(monkeypatch, table):
    trainer = make_trainer(steps=4, densifier=Greedy())
    original = {"model": RowEdit.apply_to, "adam": RowEdit.apply_to_moments, "densify": RowEdit.apply_to_stats}[table]

    def short(self, *args):
        if self.reason == "grow" and (table != "model" or (len(args) > 1 and args[1] == "sh0")):
            raise FULL
        return original(self, *args)

    monkeypatch.setattr(RowEdit, original.__name__, short)
    events = events_of(trainer)
    assert [event.text for event in events if isinstance(event, Warned)] == [
        "out of memory at step 1 with 11 splats: growth stops here, training goes on"
    ]
    assert sum(isinstance(event, Stepped) for event in events) == 4 == trainer.state.step
    state = trainer.state
    assert state.model.count == 11 == state.densify.tables["seen"].shape[0]
    assert all(table.shape[0] == 11 for name in state.adam.names for table in state.adam.moments(name))


def test_warnings_reach_the_screen_and_the_metrics(tmp_path, capsys):
    import sys

    trainer = make_trainer(steps=1)
    event = Warned(trainer.state, "memory is short")
    for sink in (ProgressSink(sys.stdout), MetricsSink(tmp_path, {})):
        sink(event)
    assert "warning: memory is short" in capsys.readouterr().out
    assert '"kind": "warning"' in (tmp_path / "metrics.jsonl").read_text()


@pytest.mark.parametrize(("error", "expected"), [
    (FULL, True), (MemoryError(), True), (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
    (RuntimeError("CUDA error: an illegal memory access was encountered"), False), (ValueError("out of memory"), False),
])  # fmt: skip
def test_what_counts_as_running_out(error, expected):
    assert memory.ran_out(error) is expected


def test_a_loss_that_is_no_number_is_noticed_at_once_on_the_cpu():
    def complain(value, note):
        raise TrainingError(f"{note}: {value}")

    watch = memory.LossWatch(complain)
    watch.look(torch.tensor(1.0), "step 1")
    with pytest.raises(TrainingError, match="step 2: inf"):
        watch.look(torch.tensor(math.inf), "step 2")
