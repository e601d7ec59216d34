"""The training loop: a generator of events. It knows protocols, never a concrete plug-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from splat.densify.protocol import Densifier, RefineContext, StepPlan
from splat.geometry.rng import keyed_generator
from splat.live.commands import Command, CommandQueue, Edit, Pause, Resume, Save, Stop
from splat.losses.frequency import DetailWeights
from splat.losses.photometric import photometric_loss
from splat.model.filter3d import sampling_filter
from splat.model.render_inputs import RenderInputs
from splat.model.row_edit import RowEdit
from splat.native.ops import morton_order
from splat.optim.schedule import learning_rates
from splat.render.types import CameraBatch, Rasterizer, RenderOptions, RowUpdate
from splat.train.errors import EvaluationAbandoned, TrainingError
from splat.train.events import Edited, Evaluated, Event, Finished, Paused, SaveAsked, Sink, Started, Stepped, Warned
from splat.train.frames import FrameSource, View
from splat.train.memory import MOST_TRIES, LossWatch, faintest_dropped, free_caches, ran_out, relief
from splat.train.order import ViewOrder
from splat.train.settings import LoopSettings
from splat.train.stages import RunClock, Stopwatch
from splat.train.state import TrainState, check_edit

PREFETCH_VIEWS = 4
PAUSE_BEAT_SECS = 0.05
"""How often the mailbox is served during a pause."""


@dataclass(eq=False)
class _Losses:
    """Sums over the views of a step; on a GPU they stay there."""

    total: float | Tensor = 0.0
    l1: float | Tensor = 0.0
    ssim: float | Tensor = 0.0


class Trainer:
    """One run. ``state`` is changed in place; ``run`` may be asked for events once."""

    def __init__(
        self,
        state: TrainState,
        *,
        settings: LoopSettings,
        densifier: Densifier,
        context: RefineContext,
        rasterizer: Rasterizer,
        frames: FrameSource,
        evaluate: Callable[[TrainState], Any] | None = None,
        commands: CommandQueue | None = None,
    ) -> None:
        self.state, self.settings = state, settings
        self._densifier, self._context, self._rasterizer = densifier, context, rasterizer
        self._frames, self._evaluate = frames, evaluate
        self._commands = commands or CommandQueue()
        self._order = ViewOrder(len(frames.cameras), settings.seed)
        self._clock = RunClock(state.elapsed_secs)
        self._specs = state.model.primitive.fields(state.model.sh_degree)
        self._ending: str | None = None
        self._loss_watch = LossWatch(_complain)
        self._detail: DetailWeights | None = None
        if settings.detail_weight > 0:
            self._detail = DetailWeights(settings.detail_weight, settings.ssim_weight, settings.detail_levels)
        self._regularized = False
        """A plug-in adds to the loss, as was seen: then gradients are needed."""

    def run(self) -> Iterator[Event]:
        """Started, then Stepped (with Edited and Evaluated where due), then Finished."""
        state, steps = self.state, self.settings.steps
        self._clock.start()
        state.model.requires_grad_(True)
        yield Started(state, steps)
        evaluated_at = None
        while state.step < steps:
            yield from self._obey()
            if self._ending is not None or self._out_of_time():
                break
            yield from self._step()
            if state.step in self.settings.eval_at:
                yield from self._evaluated()
                evaluated_at = state.step
        if self._ending != "interrupted" and evaluated_at != state.step:
            yield SaveAsked(state)  # measuring may take minutes; a kill during it must not cost the steps
            yield from self._evaluated()
            yield from self._obey()
        state.elapsed_secs = self._clock.elapsed_secs
        yield Finished(state, self._ending or ("done" if state.step >= steps else "time"))

    # one step ---------------------------------------------------------------------------------------------

    def _step(self) -> Iterator[Event]:
        state, watch = self.state, Stopwatch()
        step = state.step + 1
        plan = self._densifier.plan(step)
        self._refresh_filter3d(step)
        losses = _Losses()
        rates = learning_rates(self._specs, step, self.settings.steps, self._context.extent_world)
        for done in range(plan.views):
            yield from self._view(step, plan, rates, losses, watch, done=done)
        with watch.stage("optimizer"):
            self._update(step, plan, rates)
        with watch.stage("refine"):
            edits = self._refine(step)
        state.step = step
        state.elapsed_secs = self._clock.elapsed_secs
        yield from edits
        yield Stepped(
            state, losses.total / plan.views, losses.l1 / plan.views, losses.ssim / plan.views,
            rates.get("means", 0.0), watch.secs,
        )  # fmt: skip

    def _view(
        self, step: int, plan: StepPlan, rates: dict[str, float], losses: _Losses, watch: Stopwatch, *, done: int
    ) -> Iterator[Event]:
        """One view; when memory runs out, again with less, after ``done`` views of this step."""
        state, taken = self.state, self.state.views_taken
        for attempt in range(MOST_TRIES + 1):
            without = [table for table in state.model.rows.values() if table.grad is None]
            try:
                return self._view_backward(step, plan, rates, losses, watch)
            except (MemoryError, RuntimeError) as error:  # the traceback holds tensors: let it go before the next try
                if not ran_out(error) or attempt == MOST_TRIES:
                    raise
            for table in without:
                table.grad = None
            state.views_taken = taken
            yield from self._make_room(attempt, done)
        return None

    def _make_room(self, attempt: int, done: int) -> Iterator[Event]:
        state = self.state
        count = state.model.count
        eased = relief(attempt, state.step, count, self._context.max_splats)
        self._context = replace(self._context, max_splats=eased.limit)
        self._frames.release()
        if self._detail is not None:
            self._detail.release()
        free_caches(state.model.device)
        yield Warned(state, eased.text)
        if attempt > 0 and 0 < eased.limit < count:
            yield self._apply(faintest_dropped(state.model, eased.limit))
            state.views_pending = -done  # gradients of earlier views went with the old rows
            free_caches(state.model.device)

    def _refine(self, step: int) -> list[Event]:
        """Apply the edits due now; out of memory ends them, and growth with them."""
        state, events = self.state, []
        try:
            for edit in self._edits_due(step):
                events.append(self._apply(edit))
            if events and state.model.device.type == "cuda":
                self._sort_rows()
            return events
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
        eased = relief(0, state.step, state.model.count, self._context.max_splats)
        self._context = replace(self._context, max_splats=eased.limit)
        free_caches(state.model.device)
        return [*events, Warned(state, eased.text)]

    def _edits_due(self, step: int) -> Iterator[RowEdit]:
        """The primitive's, then the densifier's on the rows as those left them."""
        state = self.state
        yield from state.model.primitive.upkeep(state.model.rows, step)
        yield from self._densifier.refine(state.densify, step, state.model, self._context)

    def _sort_rows(self) -> None:
        """Neighbours in space become neighbours in memory: a GPU then reads less for the same picture."""
        order = morton_order(self.state.model.rows["means"].detach())
        self.state.apply(RowEdit.reorder(order))

    def _view_backward(
        self, step: int, plan: StepPlan, rates: dict[str, float], losses: _Losses, watch: Stopwatch
    ) -> None:
        """Draw one view, compare, and leave its gradient in the rows and its statistics with the densifier."""
        state = self.state
        with watch.stage("load"):
            view = self._next_view(plan.res_scale / self.settings.resolution.factor_at(step))
        with watch.stage("render"):
            wanted = self._densifier.needs(step)
            inputs = state.model.render_inputs()
            update = self._update_in_place(inputs, plan, rates)
            output = self._rasterizer.render(
                inputs,
                CameraBatch.of(view.camera, device=state.model.device),
                self._options(step, view, wanted),
                update=update,
            )
        with watch.stage("loss"):
            loss = photometric_loss(
                output.color, view.pixels, view.mask, l1_weights=self._l1_weights(step, view),
                ssim_weight=self.settings.ssim_weight,
            )  # fmt: skip
            total = loss.total.detach()
            self._loss_watch.look(total, f"step {step} ({view.camera.name}, {state.model.count} splats)")
            total = float(total) if total.device.type == "cpu" else total
        with watch.stage("backward"):
            if loss.total.requires_grad:  # nothing drawn (an empty model) has no gradient
                loss.total.backward()
            if update is not None:
                state.adam.committed(update)
        losses.total += total
        losses.l1 += loss.l1
        losses.ssim += loss.ssim
        if wanted:
            with watch.stage("refine"):
                self._densifier.observe(
                    state.densify, step, output.stats, width=view.camera.width, height=view.camera.height
                )

    def _update_in_place(self, inputs: RenderInputs, plan: StepPlan, rates: dict[str, float]) -> RowUpdate | None:
        """The optimizer step for the backward pass to take, where it comes to the same: the rasterizer can, the rows
        are drawn as they are, and nothing but this one view adds to their gradients."""
        state, rows = self.state, self.state.model.rows
        if self._regularized or plan.views != 1 or not plan.optimize or state.views_pending:
            return None
        if any(table.grad is not None or getattr(inputs, name, None) is not table for name, table in rows.items()):
            return None
        if not self._rasterizer.can_update(inputs):
            return None
        self._regularized = self._regularizer() is not None
        return None if self._regularized else state.adam.planned(rates)

    def _update(self, step: int, plan: StepPlan, rates: dict[str, float]) -> None:
        """Average over views, add what the plug-ins ask for, one Adam step, then the densifier's noise."""
        state, model = self.state, self.state.model
        state.views_pending += plan.views
        if not plan.optimize:
            return
        if state.views_pending > 1:
            for table in model.rows.values():
                if table.grad is not None:
                    table.grad /= state.views_pending
        state.views_pending = 0
        regularizer = self._regularizer()
        if regularizer is not None:
            regularizer.backward()
        state.adam.step(model, rates)
        generator = keyed_generator(self.settings.seed, "perturb", step, model.device)
        noise = self._densifier.perturb(
            state.densify, step, model, lr_means=rates.get("means", 0.0), generator=generator
        )
        if noise is not None:
            with torch.no_grad():
                model.rows["means"].add_(noise)

    def _regularizer(self) -> Tensor | None:
        """What the densifier and the primitive add to the loss."""
        model = self.state.model
        asked = self._densifier.regularizer(model), model.primitive.regularizer(model.rows)
        terms = [term for term in asked if term is not None]
        return torch.stack(terms).sum() if len(terms) > 1 else terms[0] if terms else None

    def _l1_weights(self, step: int, view: View) -> Tensor | None:  # [1,H,W]
        """Factors on the L1 of this view, where the loss has some."""
        if self._detail is None:
            return None
        return self._detail.factors(view.index, view.pixels, step / self.settings.steps)

    def _next_view(self, scale: float) -> View:
        taken = self.state.views_taken
        view = self._frames.view(self._order.view(taken), min(scale, 1.0))
        self.state.views_taken = taken + 1  # only now: a picture that cannot be read leaves the state whole
        self._frames.prefetch(self._order.upcoming(taken + 1, PREFETCH_VIEWS))
        return view

    def _options(self, step: int, view: View, stats: frozenset[str]) -> RenderOptions:
        return RenderOptions(
            sh_degree=min(self.settings.sh_degree_at(step), self.state.model.sh_degree),
            filter2d=self.settings.filter2d,
            background=self._background(view),
            stats=stats,
        )

    def _background(self, view: View) -> Tensor:  # [3]
        device = self.state.model.device
        colour = view.camera.background or self.settings.background
        if colour is not None:
            return torch.tensor(colour, dtype=torch.float32).to(device, non_blocking=True)
        generator = keyed_generator(self.settings.seed, "background", self.state.views_taken)
        return torch.rand(3, generator=generator).to(device, non_blocking=True)

    def _refresh_filter3d(self, step: int) -> None:
        every = self.settings.filter3d_every
        if every and ((step - 1) % every == 0 or self.state.model.filter3d is None):
            self.state.model.filter3d = sampling_filter(self.state.model.rows["means"], self._frames.cameras)

    # between steps ----------------------------------------------------------------------------------------

    def _apply(self, edit: RowEdit) -> Edited:
        survives = torch.zeros(edit.count_before, dtype=torch.bool, device=edit.source.device)
        survives[edit.source] = True
        kept = int(survives.sum())
        self.state.apply(edit)
        return Edited(self.state, edit.reason, edit.count_after - kept, edit.count_before - kept, edit.count_after)

    def _evaluated(self) -> Iterator[Event]:
        self._loss_watch.settle()
        self.state.elapsed_secs = self._clock.elapsed_secs
        if self._evaluate is not None:
            try:
                evaluation = self._evaluate(self.state)
            except EvaluationAbandoned:
                return
            if evaluation is not None:
                yield Evaluated(self.state, evaluation)

    def _out_of_time(self) -> bool:
        return self.settings.max_secs is not None and self._clock.elapsed_secs >= self.settings.max_secs

    def _obey(self) -> Iterator[Event]:
        """Carry out waiting commands; during a pause stay here, serving the mailbox."""
        paused = False
        while self._ending is None:
            command = self._commands.pop()
            if command is None and not paused:
                return
            if command is None:
                yield Paused(self.state)
                self._commands.wait(PAUSE_BEAT_SECS)
                continue
            paused = {Pause: True, Resume: False}.get(type(command), paused)
            self._clock.stop() if paused else self._clock.start()
            yield from self._carry_out(command)

    def _carry_out(self, command: Command) -> Iterator[Event]:
        """A refused command answers with its exception; nothing it does reaches the training."""
        if not command.reply.set_running_or_notify_cancel():
            return
        try:
            if isinstance(command, Stop):
                self._ending = "interrupted" if command.how == "interrupt" else "stopped"
            elif isinstance(command, Save):
                yield SaveAsked(self.state)
            elif isinstance(command, Edit):
                edit = command.make(self.state.model)
                check_edit(edit, self.state.model)
                yield self._apply(edit)
        except Exception as error:
            command.reply.set_exception(error)
        else:
            command.reply.set_result(self.state.step)


def drive(trainer: Trainer, sinks: Sequence[Sink]) -> Finished:
    """Hand every event to every sink, in order; returns the last event. Running out of memory becomes one line."""
    last: Event | None = None
    try:
        for event in trainer.run():
            last = event
            for sink in sinks:
                sink(event)
    except (MemoryError, RuntimeError) as error:
        if ran_out(error):
            raise _out_of_memory(trainer) from error
        raise
    assert isinstance(last, Finished)
    return last


def _complain(value: float, which: str) -> None:
    raise TrainingError(f"the loss of {which} is {value}; training stopped")


def _out_of_memory(trainer: Trainer) -> TrainingError:
    state = trainer.state
    return TrainingError(
        f"out of memory at step {state.step} with {state.model.count} splats; "
        "train smaller: --max-splats, or -r 2 for half-size pictures"
    )
