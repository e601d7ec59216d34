"""The training loop: a generator of events. It knows protocols, never a concrete plug-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from splat.compress.none import NoCompression
from splat.compress.protocol import Compressor
from splat.densify.protocol import Densifier, RefineContext, StepPlan
from splat.edit.guard import left_alone
from splat.geometry.rng import keyed_generator
from splat.live.commands import Change, CommandQueue, Edit
from splat.losses.photometric import photometric_loss
from splat.model.filter3d import sampling_filter
from splat.model.render_inputs import RenderInputs
from splat.model.row_edit import RowEdit
from splat.native.ops import morton_order
from splat.optim.schedule import learning_rates
from splat.render.types import CameraBatch, Rasterizer, RowUpdate
from splat.train.changes import bands_cleared, changed_context, changed_settings, checked, in_force
from splat.train.errors import EvaluationAbandoned, TrainingError
from splat.train.events import Changed, Edited, Evaluated, Event, Finished, SaveAsked, Sink, Started, Stepped, Warned
from splat.train.feed import ViewFeed
from splat.train.frames import FrameSource
from splat.train.goal import SAMPLE_EVERY, TargetWatch, sampled_mse
from splat.train.memory import MOST_TRIES, LossWatch, faintest_dropped, free_caches, over_limit, ran_out, relief
from splat.train.orders import Answer, Orders
from splat.train.places import changed_places
from splat.train.settings import LoopSettings
from splat.train.shield import BURY_EVERY, EditShield
from splat.train.stages import RunClock, Stopwatch
from splat.train.state import TrainState, check_edit


@dataclass(eq=False)
class _Losses:
    """Sums over the views of a step; on a GPU they stay there."""

    total: float | Tensor = 0.0
    l1: float | Tensor = 0.0
    ssim: float | Tensor = 0.0
    mse: float | Tensor | None = None


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
        compressor: Compressor | None = None,
        evaluate: Callable[[TrainState], Any] | None = None,
        commands: CommandQueue | None = None,
    ) -> None:
        self.state = state
        self.settings = changed_settings(settings, state.changes)
        """Those in force."""
        self._densifier, self._rasterizer = densifier, rasterizer
        self._context = changed_context(context, state.changes)
        self._compressor = compressor or NoCompression()
        self._evaluate = evaluate
        self._feed = ViewFeed(frames, self.settings, densifier, state)
        self._target = TargetWatch(state, settings.target_psnr, len(frames.cameras))
        self._clock = RunClock(state.elapsed_secs)
        self._specs = state.model.primitive.fields(state.model.sh_degree)
        self._shield = EditShield(state, frames.cameras, rasterizer, lambda: self._drawn(max(state.step, 1)))
        self._orders = Orders(
            state, commands or CommandQueue(), self._clock,
            edit=self._edit, change=self._change, after=self._shield.looks,
        )  # fmt: skip
        self._loss_watch = LossWatch(_complain)
        self._regularized = False
        """A plug-in adds to the loss, as was seen: then gradients are needed."""

    def run(self) -> Iterator[Event]:
        """Started, then Stepped (with Edited and Evaluated where due), then Finished."""
        state, steps = self.state, self.settings.steps
        self._clock.start()
        state.model.requires_grad_(True)
        yield Started(state, steps, in_force(self.settings, self._context))
        orders, evaluated_at, reached = self._orders, None, None
        while state.step < steps:
            yield from orders.obey()
            reached = self._reached()
            if orders.ending is not None or reached is not None:
                break
            yield from self._step()
            if state.step in self.settings.eval_at:
                yield from self._evaluated()
                evaluated_at = state.step
        if orders.ending != "interrupted" and evaluated_at != state.step:
            yield SaveAsked(state)  # measuring may take minutes; a kill during it must not cost the steps
            yield from self._evaluated()
        yield from orders.obey()  # what was asked for while pictures were measured
        orders.end()
        state.elapsed_secs = self._clock.elapsed_secs
        yield Finished(state, orders.ending or ("done" if state.step >= steps else reached))

    # one step ---------------------------------------------------------------------------------------------

    def _step(self) -> Iterator[Event]:
        state, watch = self.state, Stopwatch()
        step = state.step + 1
        plan = self._densifier.plan(step)
        self._refresh_filter3d(step)
        losses = _Losses()
        rates = self._rates(step, plan)
        for done in range(plan.views):
            yield from self._view(step, plan, rates, losses, watch, done=done)
        with watch.stage("optimizer"):
            self._update(step, plan, rates)
        with watch.stage("refine"):
            edits = self._refine(step, plan)
        state.step = step
        state.version += 1
        state.elapsed_secs = self._clock.elapsed_secs
        yield from edits
        yield Stepped(
            state, losses.total / plan.views, losses.l1 / plan.views, losses.ssim / plan.views,
            rates.get("means", 0.0), watch.secs, losses.mse,
        )  # fmt: skip

    def _view(
        self, step: int, plan: StepPlan, rates: dict[str, float], losses: _Losses, watch: Stopwatch, *, done: int
    ) -> Iterator[Event]:
        """One view; when memory runs out, again with less, after ``done`` views of this step."""
        state, taken = self.state, self.state.views_taken
        for attempt in range(MOST_TRIES + 1):
            without = [table for table in state.learnables() if table.grad is None]
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
        self._feed.release()
        free_caches(state.model.device)
        yield Warned(state, eased.text)
        if attempt > 0 and 0 < eased.limit < count:
            for table in state.learnables():
                table.grad = None
            yield self._apply(faintest_dropped(state.model, eased.limit, held=state.held))
            state.views_pending = -done  # gradients of earlier views went, for the room they take
            free_caches(state.model.device)

    def _refine(self, step: int, plan: StepPlan) -> list[Event]:
        """Apply the edits due now; out of memory ends them, and growth with them."""
        state, events = self.state, []
        try:
            for edit in self._edits_due(step, plan):
                events.append(self._apply(edit, during=step))
            # Rows drift in between refinements and after the last one, too.
            due = bool(events) or step % BURY_EVERY == 0 or step == self.settings.steps
            if due and (burial := self._shield.burial()) is not None:
                events.append(self._apply(burial, during=step))
            if events and state.model.device.type == "cuda" and not self._compressor.sorts:
                self._sort_rows()
            return events
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
        eased = relief(0, state.step, state.model.count, self._context.max_splats)
        self._context = replace(self._context, max_splats=eased.limit)
        free_caches(state.model.device)
        return [*events, Warned(state, eased.text)]

    def _edits_due(self, step: int, plan: StepPlan) -> Iterator[RowEdit]:
        """The primitive's, then the densifier's on the rows as those left them, then the compressor's; none of them
        touches what is held."""
        state = self.state
        left = partial(left_alone, held=lambda: state.held)
        yield from left(state.model.primitive.upkeep(state.model.rows, step))
        if self.settings.densify:
            probe = self._feed.probe(state, step, plan, self._rasterizer, lambda: self._drawn(step))
            context = replace(self._context, probe=probe, cameras=self._feed.frames.cameras)
            yield from left(self._densifier.refine(state.densify, step, state.model, context))
        # Held rows come back beyond the limit a densifier kept, and a limit set by hand may be below what there is.
        if state.held is not None or "max_splats" in state.changes:
            yield from over_limit(state.model, self._context.max_splats, held=state.held)
        compressing = self._compressor.edits(state.compress, step, state.model, seed=self.settings.seed)
        # What sorts rows counts on the number it left.
        yield from left(compressing, keeps_count=state.model if self._compressor.sorts else None)

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
            shot = self._feed.next(state, step, plan)
            view = shot.view
        with watch.stage("render"):
            inputs = self._drawn(step)
            update = self._update_in_place(inputs, step, plan, rates)
            camera = CameraBatch.of(view.camera, device=state.model.device)
            output = self._rasterizer.render(inputs, camera, shot.options, update=update)
        with watch.stage("loss"):
            loss = photometric_loss(
                output.color, view.pixels, view.mask, l1_weights=shot.l1_weights,
                ssim_weight=self.settings.ssim_weight,
            )  # fmt: skip
            total = loss.total.detach()
            self._loss_watch.look(total, f"step {step} ({view.camera.name}, {state.model.count} splats)")
            total = float(total) if total.device.type == "cpu" else total
            self._target.note(state, shot, output.color)
            if step % SAMPLE_EVERY == 0:
                losses.mse = sampled_mse(output.color.detach()[0], view.pixels[0], view.mask)
        with watch.stage("backward"):
            if loss.total.requires_grad:  # nothing drawn (an empty model) has no gradient
                loss.total.backward()
            if update is not None:
                state.adam.committed(update)
        losses.total += total
        losses.l1 += loss.l1
        losses.ssim += loss.ssim
        with watch.stage("refine"):
            self._densifier.observe(
                state.densify, step, output.stats, width=view.camera.width, height=view.camera.height,
                view=view.index, loss=total,
            )  # fmt: skip

    def _drawn(self, step: int) -> RenderInputs:
        """What stands for the rows at ``step``: the rows themselves, or what the compressor makes of them."""
        model = self.state.model
        rows = self._compressor.drawn(self.state.compress, step, model.rows)
        return model.primitive.render_inputs(rows, filter3d=model.filter3d)

    def _update_in_place(
        self, inputs: RenderInputs, step: int, plan: StepPlan, rates: dict[str, float]
    ) -> RowUpdate | None:
        """The optimizer step for the backward pass to take, where it comes to the same: the rasterizer can, the rows
        are drawn as they are, and nothing but this one view adds to their gradients."""
        state, rows = self.state, self.state.model.rows
        if self._regularized or plan.views != 1 or not plan.optimize or state.views_pending or state.held is not None:
            return None
        if any(table.grad is not None or getattr(inputs, name, None) is not table for name, table in rows.items()):
            return None
        if not self._rasterizer.can_update(inputs):
            return None
        self._regularized = self._regularizer(step) is not None
        return None if self._regularized else state.adam.planned(rates)

    def _update(self, step: int, plan: StepPlan, rates: dict[str, float]) -> None:
        """Average over views, add what the plug-ins ask for, one Adam step, the compressor's own, the densifier's
        noise."""
        state, model = self.state, self.state.model
        state.views_pending += plan.views
        if not plan.optimize:
            return
        if state.views_pending > 1:
            for table in state.learnables():
                if table.grad is not None:
                    table.grad /= state.views_pending
        state.views_pending = 0
        regularizer = self._regularizer(step)
        if regularizer is not None:
            regularizer.backward()
        state.still()
        with state.rest():
            state.adam.step(model, rates)
            self._compressor.update(state.compress, step)
        generator = keyed_generator(self.settings.seed, "perturb", step, model.device)
        noise = self._densifier.perturb(
            state.densify, step, model, lr_means=rates.get("means", 0.0), generator=generator
        )
        if noise is not None:
            with torch.no_grad():
                moving = noise if state.held is None else noise.masked_fill(state.held[:, None], 0.0)
                model.rows["means"].add_(moving)

    def _rates(self, step: int, plan: StepPlan) -> dict[str, float]:
        """Learning rates of this step, by row field."""
        rates = learning_rates(
            self._specs, self.settings.rate_step(step), self.settings.steps, self._context.extent_world,
            self.settings.lr_scale,
        )  # fmt: skip
        factor = plan.lr_scale * self.settings.rates_factor
        return rates if factor == 1 else {name: rate * factor for name, rate in rates.items()}

    def _regularizer(self, step: int) -> Tensor | None:
        """What the plug-ins add to the loss."""
        model, own = self.state.model, self._compressor.regularizer(self.state.compress, step, self.state.model)
        asked = self._densifier.regularizer(model), model.primitive.regularizer(model.rows), own
        terms = [term for term in asked if term is not None]
        return torch.stack(terms).sum() if len(terms) > 1 else terms[0] if terms else None

    def _refresh_filter3d(self, step: int) -> None:
        every = self.settings.filter3d_every
        if every and ((step - 1) % every == 0 or self.state.model.filter3d is None):
            self.state.model.filter3d = sampling_filter(self.state.model.rows["means"], self._feed.frames.cameras)

    # between steps ----------------------------------------------------------------------------------------

    def _apply(self, edit: RowEdit, *, during: int | None = None) -> Edited:
        state, before = self.state, self.state.model.rows["means"].detach()
        state.apply(edit, during=during)
        places = changed_places(edit, before, state.model.rows["means"].detach())
        return Edited(state, edit.reason, edit.added, edit.removed, edit.count_after, *places)

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

    def _reached(self) -> Literal["time", "target"] | None:
        """What ends the run before its last step."""
        if self.settings.max_secs is not None and self._clock.elapsed_secs >= self.settings.max_secs:
            return "time"
        return "target" if self._target.reached(self.state) else None

    def _edit(self, command: Edit) -> Answer:
        """Rows changed by hand; what the change asks of training is found out once the reply is given."""
        state = self.state
        edit = command.make(state)
        mark, unmark = command.marks()
        if edit is not None:
            with command.applying(state):
                check_edit(edit, state)
                noted = None if mark is None else self._shield.before(mark, edit)
                edited = self._apply(edit)
            self._shield.applied(noted)
            yield edited
        if unmark is not None:
            self._shield.end(unmark)
        state.version += 1  # also where no row changes: the count of edits may, and what is protected
        return None if command.result is None else command.result()

    def _change(self, command: Change) -> Answer:
        """A setting that is in force from the next step on."""
        state = self.state
        change = {command.name: checked(command.name, command.value, state.model)}
        value = change[command.name]
        state.changes = state.changes | change
        state.version += 1
        self.settings = self._feed.settings = changed_settings(self.settings, change)
        self._context = changed_context(self._context, change)
        if command.name == "sh_degree" and (cleared := bands_cleared(state.model, value)) is not None:
            yield self._apply(cleared)
        yield Changed(state, command.name, value, in_force(self.settings, self._context))


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
