from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers_train import Restless, all_bits, cameras, frame_of, fresh_state, make_trainer

from splat.live.commands import CommandQueue, Edit, Pause, Resume, Save, Stop
from splat.live.mailbox import Mailbox
from splat.model.row_edit import RowEdit
from splat.render.registry import rasterizer
from splat.train.errors import EvaluationAbandoned, TrainingError
from splat.train.events import Edited, Evaluated, Finished, Paused, SaveAsked, Started, Stepped
from splat.train.frames import FrameSource
from splat.train.sinks import MailboxSink
from splat.train.trainer import drive


class Watching:
    """The native rasterizer, remembering what it was asked for; ``alter`` may change what it draws."""

    name = "watching"

    def __init__(self, alter=lambda output: output) -> None:
        self.asked, self._inner, self._alter = [], rasterizer("native"), alter

    def supports(self, inputs, options, device):
        return None

    def can_update(self, inputs):
        return False

    def render(self, inputs, cameras, options, *, update=None):
        self.asked.append((cameras.width, options.sh_degree, options.background.tolist(), options.stats))
        return self._alter(self._inner.render(inputs, cameras, options))


def test_events_come_in_order_and_the_rows_match_what_they_say():
    trainer = make_trainer(eval_at=frozenset({6}), evaluate=lambda state: state.step)
    counts, kinds = [], []
    for event in trainer.run():
        kinds.append((type(event), event.step))
        if isinstance(event, Edited):
            counts.append(event.splats)
    assert kinds[0] == (Started, 0) and kinds[-1] == (Finished, 12)
    assert [step for kind, step in kinds if kind is Stepped] == list(range(1, 13))
    assert [step for kind, step in kinds if kind is Evaluated] == [6, 12]
    assert [step for kind, step in kinds if kind is Edited] == [3, 3, 6, 6, 9, 9, 12, 12]
    assert counts == [14, 13, 15, 14, 16, 15, 17, 16] and trainer.state.model.count == 16
    assert kinds.index((Stepped, 6)) < kinds.index((Evaluated, 6)) < kinds.index((Stepped, 7))


def test_loss_goes_down():
    losses = [e.loss for e in make_trainer(steps=60, densifier=Restless()).run() if isinstance(e, Stepped)]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def test_the_loop_follows_its_schedules():
    watching = Watching()
    drive(make_trainer(rasterizer=watching, background=(0.0, 0.5, 1.0)), [])
    assert [width for width, *_ in watching.asked] == [6] * 4 + [12] * 8
    assert [degree for _, degree, *_ in watching.asked] == [0] * 3 + [1] * 9
    assert all(background == [0.0, 0.5, 1.0] for _, _, background, _ in watching.asked)
    assert all(stats == frozenset({"visible"}) for *_, stats in watching.asked)


def test_random_background_changes_every_view_but_not_between_runs():
    runs = [Watching(), Watching()]
    for watching in runs:
        drive(make_trainer(rasterizer=watching, background=None), [])
    seen = [[tuple(background) for _, _, background, _ in watching.asked] for watching in runs]
    assert seen[0] == seen[1] and len(set(seen[0])) == 12


def test_a_camera_with_its_own_background_keeps_it():
    watching = Watching()
    white = tuple(replace(camera, background=(1.0, 1.0, 1.0)) for camera in cameras())
    drive(make_trainer(rasterizer=watching, background=None, frames=FrameSource(white, frame_of)), [])
    assert all(background == [1.0, 1.0, 1.0] for _, _, background, _ in watching.asked)


def test_accumulated_steps_equal_one_step_over_as_many_views():
    by_views, by_steps = Restless(views=2), Restless(accumulate=2)
    one = make_trainer(densifier=by_views, steps=1, resolution=replace(make_trainer().settings.resolution, factor=1))
    two = make_trainer(densifier=by_steps, steps=2, resolution=one.settings.resolution)
    for trainer in (one, two):
        drive(trainer, [])
    # Noise is keyed by step, so only what the optimizer left is compared.
    assert torch.equal(one.state.model.rows["sh0"], two.state.model.rows["sh0"])
    assert one.state.views_taken == two.state.views_taken == 2


def test_the_3d_filter_is_there_from_the_first_step_and_follows_edits():
    trainer = make_trainer(filter3d_every=5)
    sizes = [(e.state.model.filter3d.shape[0], e.state.model.count) for e in trainer.run() if isinstance(e, Stepped)]
    assert all(filters == rows for filters, rows in sizes)
    assert (trainer.state.model.filter3d > 0).all()


def test_a_loss_that_is_no_number_stops_with_one_line_naming_step_and_view():
    def poison(output):
        return replace(output, color=output.color * float("nan"))

    with pytest.raises(TrainingError, match=r"loss of step 1 \(\d\.png, 12 splats\) is nan"):
        drive(make_trainer(rasterizer=Watching(poison)), [])


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")])  # fmt: skip
def test_running_out_of_memory_says_what_to_lower(error):
    def exhaust(output):
        raise error

    with pytest.raises(TrainingError, match=r"out of memory at step 0 with \d+ splats.*--max-splats.*-r 2"):
        drive(make_trainer(rasterizer=Watching(exhaust)), [])


def test_other_errors_pass_unchanged():
    def fail(output):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match=r"^a bug$"):
        drive(make_trainer(rasterizer=Watching(fail)), [])


def test_time_budget_ends_cleanly_with_evaluation_and_counts_earlier_parts():
    state = fresh_state(Restless())
    state.elapsed_secs = 100.0
    trainer = make_trainer(state, max_secs=100.0, evaluate=lambda state: "measured")
    kinds = [type(event) for event in trainer.run()]
    assert kinds == [Started, SaveAsked, Evaluated, Finished]
    events = list(make_trainer(max_secs=1e-6, evaluate=lambda state: "measured").run())
    assert events[-1].reason == "time" and events[-1].step < 12


def test_elapsed_time_does_not_count_pauses():
    commands = CommandQueue()
    trainer = make_trainer(commands=commands)
    beats = 0
    for event in trainer.run():
        if isinstance(event, Stepped) and event.step == 2:
            before = event.state.elapsed_secs
            commands.put(Pause())
        if isinstance(event, Paused):
            beats += 1
            if beats == 6:
                commands.put(Resume())
        if isinstance(event, Stepped) and event.step == 3:
            assert event.state.elapsed_secs - before < 0.2  # six beats of 0.05 s went by
    assert beats == 6 and trainer.state.step == 12


def test_a_pause_serves_the_mailbox_and_changes_no_bits():
    plain = make_trainer()
    drive(plain, [])
    commands, mailbox = CommandQueue(), Mailbox()
    paused = make_trainer(commands=commands)
    serve = MailboxSink(mailbox)
    copies = []

    def listener(event):
        if isinstance(event, Stepped) and event.step == 4:
            commands.put(Pause())
        if isinstance(event, Paused):
            mailbox.request()
            serve(event)
            copies.append(mailbox.take())
            commands.put(Resume())

    drive(paused, [listener])
    copy = copies[0]
    assert copy.model.count == copy.labels.count == 13 and copy.step == 4
    assert not any(table.requires_grad for table in copy.model.rows.values())
    assert all_bits(paused.state) == all_bits(plain.state)


@pytest.mark.parametrize(("how", "reason", "evaluated"), [("finish", "stopped", 1), ("interrupt", "interrupted", 0)])
def test_stop_ends_after_the_step_at_hand(how, reason, evaluated):
    commands = CommandQueue()
    seen = []
    for event in make_trainer(commands=commands, evaluate=lambda state: "measured").run():
        seen.append(event)
        if isinstance(event, Stepped) and event.step == 5:
            commands.put(Stop(how=how))
    assert isinstance(seen[-1], Finished) and (seen[-1].reason, seen[-1].step) == (reason, 5)
    assert sum(isinstance(event, Evaluated) for event in seen) == evaluated


@pytest.mark.parametrize(("at", "last"), [(6, 6), (12, 12)])
def test_an_interrupt_during_an_evaluation_abandons_it(at, last):
    commands = CommandQueue()

    def evaluate(state):
        if state.step == at:
            commands.put(Stop(how="interrupt"))
        if commands.interrupted:
            raise EvaluationAbandoned
        return "measured"

    trainer = make_trainer(commands=commands, evaluate=evaluate, eval_at=frozenset({3, 6}))
    measured = []
    finished = drive(trainer, [lambda event: measured.append(event.step) if isinstance(event, Evaluated) else None])
    assert (finished.reason, finished.step) == ("interrupted", last)
    assert measured == [step for step in (3, 6) if step < at]


def test_the_last_step_is_saved_before_it_is_measured():
    kinds = [type(event) for event in make_trainer(evaluate=lambda state: "measured").run()]
    assert kinds[-3:] == [SaveAsked, Evaluated, Finished]


def test_save_and_edit_between_steps_answer_with_the_step():
    commands = CommandQueue()
    saved = commands.put(Save())
    removed = commands.put(Edit(lambda rows: RowEdit.keep(torch.arange(rows.model.count) != 0, reason="delete")))
    events = list(make_trainer(commands=commands).run())
    assert [type(event) for event in events[:3]] == [Started, SaveAsked, Edited]
    assert saved.result(0) == removed.result(0) == 0
    assert (events[2].removed, events[2].splats) == (1, 11)


@pytest.mark.parametrize("make", [
    lambda rows: RowEdit.keep(torch.ones(13, dtype=torch.bool)),
    lambda rows: RowEdit(torch.tensor([99]), 12),
    lambda rows: RowEdit.overwrite(12, {"colour": (torch.tensor([0]), torch.zeros(1, 3))}, reason="paint"),
    lambda rows: RowEdit.overwrite(12, {"means": (torch.tensor([0]), torch.zeros(1, 2))}, reason="move"),
    lambda rows: RowEdit.overwrite(12, {"means": (torch.tensor([50]), torch.zeros(1, 3))}, reason="move"),
    lambda rows: RowEdit(torch.arange(12), 12, tables={"labels.flags": (torch.tensor([12]), torch.tensor([1]))}),
    lambda rows: RowEdit(torch.arange(12), 12, tables={"adam.first.sh0": (torch.tensor([1]), torch.zeros(1, 2))}),
    lambda rows: 1 / 0,
])  # fmt: skip
def test_a_bad_edit_is_refused_whole_and_training_goes_on_to_the_same_bits(make):
    plain = make_trainer()
    drive(plain, [])
    commands = CommandQueue()
    reply = commands.put(Edit(make))
    trainer = make_trainer(commands=commands)
    drive(trainer, [])
    assert isinstance(reply.exception(0), ValueError | ZeroDivisionError)
    assert all_bits(trainer.state) == all_bits(plain.state)


def test_an_empty_model_trains_without_falling_over():
    state = fresh_state(Restless())
    state.apply(RowEdit.keep(torch.zeros(12, dtype=torch.bool)))
    frozen = SimpleNamespace(
        needs=lambda step: frozenset(), plan=Restless().plan, regularizer=lambda model: None,
        refine=lambda *_: iter(()), perturb=lambda *_, **__: None, observe=lambda *_, **__: None,
        maps=lambda pixels: None,
    )  # fmt: skip
    finished = drive(make_trainer(state, densifier=frozen, steps=2), [])
    assert finished.reason == "done" and state.model.count == 0
