"""Single steps, and what a viewer is told: snapshots and news."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from helpers_train import all_bits, make_trainer

from splat.live.commands import Change, CommandQueue, Edit, Pause, Resume, Step, Stop
from splat.live.mailbox import Mailbox
from splat.live.news import News
from splat.model.row_edit import RowEdit
from splat.train import news as news_module
from splat.train.events import Edited, Finished, Paused, Started, Stepped
from splat.train.news import NewsSink
from splat.train.sinks import MailboxSink
from splat.train.trainer import drive


def driven(script, **changes):
    """Run a training in which ``script(event, commands)`` may give orders; returns the trainer and the events."""
    commands = CommandQueue()
    trainer, events = make_trainer(commands=commands, **changes), []
    for event in trainer.run():
        events.append(event)
        script(event, commands)
    return trainer, events


def test_steps_during_a_pause_are_taken_and_counted():
    replies, at_pause = [], []

    def script(event, commands):
        if isinstance(event, Started):
            commands.put(Pause())
        if isinstance(event, Paused):
            at_pause.append(event.step)
            if len(at_pause) in (1, 2):
                replies.append(commands.put(Step(count=len(at_pause))))
            elif len(at_pause) == 3:
                commands.put(Resume())

    trainer, events = driven(script)
    assert at_pause == [0, 1, 3] and [reply.result(0) for reply in replies] == [1, 3]
    assert trainer.state.step == 12
    plain = make_trainer()
    drive(plain, [])
    assert all_bits(trainer.state) == all_bits(plain.state) and isinstance(events[-1], Finished)


def test_steps_while_running_end_in_a_pause_and_two_add_up():
    seen, replies = [], []

    def script(event, commands):
        if isinstance(event, Stepped) and event.step == 2:
            replies.extend(commands.put(Step(count=2)) for _ in range(2))
        if isinstance(event, Paused):
            seen.append(event.step)
            commands.put(Stop(how="interrupt"))

    driven(script)
    assert seen == [6] and [reply.result(0) for reply in replies] == [6, 6]


@pytest.mark.parametrize("order", [Pause, Resume])
def test_other_orders_end_the_steps_that_were_asked_for(order):
    replies, beats = [], []

    def script(event, commands):
        if isinstance(event, Started):
            replies.append(commands.put(Step(count=8)))
        if isinstance(event, Stepped) and event.step == 3:
            commands.put(order())
        if isinstance(event, Paused):
            beats.append(event.step)
            commands.put(Resume())

    trainer, _ = driven(script)
    assert replies[0].result(0) == 3 and trainer.state.step == 12
    assert beats == ([3] if order is Pause else [])


def test_steps_beyond_the_end_are_answered_with_the_last():
    replies = []

    def script(event, commands):
        if isinstance(event, Stepped) and event.step == 10:
            replies.append(commands.put(Step(count=50)))

    driven(script)
    assert replies[0].result(0) == 12


def test_no_steps_are_none():
    commands = CommandQueue()
    reply = commands.put(Step(count=0))
    drive(make_trainer(commands=commands), [])
    assert isinstance(reply.exception(0), ValueError)


# snapshots ---------------------------------------------------------------------------------------------------


def test_snapshots_come_at_edits_and_pauses_and_their_versions_rise():
    mailbox, commands = Mailbox(), CommandQueue()
    serve, taken = MailboxSink(mailbox), []

    def listener(event):
        mailbox.request()
        serve(event)
        taken.append((type(event), mailbox.take()))
        if isinstance(event, Stepped) and event.step == 4:
            commands.put(Edit(lambda rows: RowEdit.keep(torch.arange(rows.model.count) > 0, reason="delete")))
            commands.put(Pause())
        if isinstance(event, Paused) and sum(kind is Paused for kind, _ in taken) == 2:
            commands.put(Resume())

    drive(make_trainer(commands=commands), [listener])
    versions = [snapshot.version for _, snapshot in taken]
    assert versions == sorted(versions) and len(set(versions)) >= 13
    edit = next(place for place, (kind, shot) in enumerate(taken) if kind is Edited and shot.step == 4)
    assert taken[edit][1].version > taken[edit - 1][1].version
    assert all(shot.labels.count == shot.model.count for _, shot in taken)
    first, second = (shot for kind, shot in taken if kind is Paused)
    assert first is second  # nothing changed, and somebody still has it


def test_nobody_asks_and_nothing_is_copied():
    mailbox = Mailbox()
    sink = MailboxSink(mailbox, lambda state: pytest.fail("nobody asked"))
    drive(make_trainer(), [sink])
    assert mailbox.take() is None


# news --------------------------------------------------------------------------------------------------------


def test_news_tell_figures_and_curves_of_a_whole_run(monkeypatch):
    monkeypatch.setattr(news_module, "TICK_SECS", 0.0)
    news, commands = News(), CommandQueue()
    seen = []

    def listener(event):
        if isinstance(event, Stepped) and event.step == 5:
            commands.put(Pause())
            commands.put(Change("lr_scale", 0.5))
        if isinstance(event, Paused):
            seen.append(news.status)
            commands.put(Resume())
        if isinstance(event, Stepped) and event.step == 9:
            seen.append(news.status)

    evaluation = SimpleNamespace(psnr=21.5)
    drive(make_trainer(commands=commands, steps=24, evaluate=lambda state: evaluation), [NewsSink(news), listener])
    paused, running, ended = *seen, news.status
    assert paused.paused and paused.its_per_sec is None and paused.settings["lr_scale"] == 0.5
    assert not running.paused and running.its_per_sec > 0 and running.eta_secs > 0 and running.memory_bytes > 0
    assert 0 < running.loss < 1 and 0 < running.psnr < 60 and not running.psnr_is_held_out
    assert (ended.ended, ended.step, ended.total_steps, ended.psnr) == ("done", 24, 24, 21.5)
    assert ended.psnr_is_held_out and ended.splats == 20
    assert [step for step, _ in news.curve("loss")] == list(range(1, 25))
    assert news.curve("psnr") and news.curve("psnr_held_out") == [(24, 21.5)]
    assert news.curve("splats")[0] == (0, 12) and news.curve("splats")[-1] == (24, 20)


def test_news_of_a_quick_run_wait_for_their_tick():
    news = News()
    drive(make_trainer(), [NewsSink(news)])
    assert len(news.curve("loss")) == 1 and news.status.step == 12
