"""Settings that change while a run goes on."""

from __future__ import annotations

import json

import pytest
import torch
from helpers_train import Restless, all_bits, fresh_state, make_trainer

from splat.live.commands import SETTINGS, Change, CommandQueue
from splat.train.changes import checked
from splat.train.checkpoint import read_checkpoint, restore, write_checkpoint
from splat.train.events import Changed, Edited, Started, Stepped
from splat.train.sinks import MetricsSink
from splat.train.trainer import drive

CHANGES = {"lr_scale": 0.25, "densify": False, "max_splats": 9, "sh_degree": 0, "background": (0.2, 0.4, 0.6)}


def changed_at(step, *changes, **arguments):
    """A run that gets changes after a step; returns its trainer, events, replies."""
    commands = CommandQueue()
    trainer, events, replies = make_trainer(commands=commands, **arguments), [], []
    for event in trainer.run():
        events.append(event)
        if isinstance(event, Stepped) and event.step == step:
            replies = [commands.put(Change(name, value)) for name, value in changes]
    return trainer, events, replies


def test_every_setting_can_change():
    assert CHANGES.keys() == SETTINGS.keys()


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_counts_from_the_next_step_on_and_survives_a_resume(tmp_path, name):
    commands = CommandQueue()
    whole, paths = make_trainer(commands=commands), []
    for event in whole.run():
        if isinstance(event, Stepped) and event.step == 4:
            commands.put(Change(name, CHANGES[name]))
        if isinstance(event, Stepped) and event.step == 7:
            paths.append(write_checkpoint(tmp_path, event.state, ""))
    plain = make_trainer()
    drive(plain, [])
    assert all_bits(whole.state) != all_bits(plain.state)
    again = fresh_state(Restless())
    restore(again, read_checkpoint(paths[0]))
    assert again.changes.keys() == {name}
    drive(make_trainer(again), [])
    assert all_bits(again) == all_bits(whole.state)


@pytest.mark.parametrize(("name", "value"), [
    ("lr_scale", 0), ("lr_scale", "fast"), ("lr_scale", float("nan")), ("lr_scale", True), ("densify", 1),
    ("max_splats", 0), ("max_splats", 3.5), ("sh_degree", 2), ("sh_degree", -1), ("background", (0, 0)),
    ("background", (0, 0, 2)), ("background", "white"),
])  # fmt: skip
def test_a_value_that_does_not_fit_is_named_and_changes_nothing(name, value):
    plain = make_trainer()
    drive(plain, [])
    trainer, _, (reply,) = changed_at(3, (name, value))
    assert isinstance(reply.exception(0), ValueError) and f"{name} = " in str(reply.exception(0))
    assert all_bits(trainer.state) == all_bits(plain.state) and trainer.state.changes == {}


def test_an_unknown_setting_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match=r"'speed'.*lr_scale, densify, max_splats"):
        checked("speed", 1, fresh_state(Restless()).model)


def test_learning_rates_scale_all_alike():
    def rates(factor):
        trainer = make_trainer()
        trainer.settings = type(trainer.settings)(**{**vars(trainer.settings), "rates_factor": factor})
        return trainer._rates(3, Restless().plan(3))

    whole, half = rates(1.0), rates(0.5)
    assert all(half[name] == pytest.approx(rate / 2) for name, rate in whole.items()) and "logit_opacities" in whole


def test_without_densification_nothing_comes_or_goes_until_it_is_on_again():
    commands = CommandQueue()
    counts = []
    for event in make_trainer(commands=commands).run():
        if isinstance(event, Stepped):
            counts.append(event.state.model.count)
            if event.step in (2, 8):
                commands.put(Change("densify", event.step == 8))
    assert len(set(counts[:8])) == 1 and len(set(counts)) > 1


def test_a_limit_below_what_there_is_takes_the_faintest():
    trainer, events, _ = changed_at(4, ("max_splats", 9))
    place = next(i for i, event in enumerate(events) if isinstance(event, Edited) and event.reason == "limit")
    assert sum(isinstance(event, Stepped) for event in events[:place]) == 4  # it belongs to the fifth
    assert events[place].splats == 9 and trainer.state.model.count <= 9
    free, _, _ = changed_at(4, ("max_splats", 9), ("max_splats", None))
    plain = make_trainer()
    drive(plain, [])
    assert all_bits(free.state) == all_bits(plain.state)


def test_bands_that_are_not_drawn_are_cleared():
    trainer, events, _ = changed_at(8, ("sh_degree", 0), sh_every=0)
    assert any(isinstance(event, Edited) and event.reason == "bands" for event in events)
    assert not bool(trainer.state.model.rows["sh_rest"].any())


def test_events_tell_what_is_in_force_and_metrics_keep_it(tmp_path):
    commands = CommandQueue()
    told, sink = [], MetricsSink(tmp_path, {})

    def listener(event):
        if isinstance(event, Stepped) and event.step == 2:
            commands.put(Change("background", [0, 0.5, 1]))
        if isinstance(event, Started | Changed):
            told.append(dict(event.settings))

    drive(make_trainer(commands=commands), [listener, sink])
    assert told[0] == {"lr_scale": 1.0, "densify": True, "max_splats": None, "sh_degree": 1,
                       "background": (0.0, 0.0, 0.0)}  # fmt: skip
    assert told[1] == told[0] | {"background": (0.0, 0.5, 1.0)}
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    change = next(line for line in lines if line["kind"] == "change")
    assert change == {"kind": "change", "step": 2, "name": "background", "value": [0.0, 0.5, 1.0]}


def test_a_random_background_becomes_one_colour():
    trainer, _, _ = changed_at(1, ("background", (1, 1, 1)), background=None)
    assert trainer.settings.background == (1.0, 1.0, 1.0) and trainer._context.background_is_white
    assert torch.isfinite(trainer.state.model.rows["means"]).all()
