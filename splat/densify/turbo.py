"""Turbo-GS: a third of the steps (arXiv 2412.13547, third version; specs: densifiers 3).

What it does. Splats grow as in ``adaptive`` (small ones are cloned, large ones split), but

* who grows: splats whose place pulls (screen gradient), and at one refinement in five also those whose colour pulls
  (``color_*``); always-on, growth by colour overfits the training views. Only splats seen from two views at least
  may grow, and with ``visit_quantile`` only those seen about as often as others.
* how many: a budget that follows the convergence of the loss (``splat.densify.powerlaw``), most of it early, steepest
  splats first. No opacity resets, which would break the power law: opacities decay a little instead, and what the
  pictures do not hold up is pruned.
* where it starts: with midpoints between neighbouring points of a sparse cloud.
* how it draws: with ``dilation`` 2, only one pixel of four per step, for pictures beyond 2K (the paper: half the time
  at 4K, at no loss). The loss of a view then compares pixels two apart, so its SSIM sees coarser structure.
* how it ends: gradients of several views add up to one optimizer step.

Its presets double the learning rates (``optim.lr_scale``), which is our addition: in short runs worth more than all of
the above, and ``adaptive`` gains as much by it.

When to use it. When steps are what you lack: preset ``turbo`` takes a third of those of ``default``; preset
``turbo-4k`` for 4K pictures. With steps to spare, it has no advantage over others at the same number of splats.

What it costs. As ``adaptive``, plus two sums per splat; while it grows, it reads each loss, for which a GPU waits.
Sensitivity pruning (off) draws all training views once, backwards too.

What is reconstruction. The paper names neither the choice under the budget (here the highest scores, each part over its
maximum), nor the fit's window (here weights that fade over ``fit_window`` steps), nor the most splats (``cap``, or
the run's limit), nor the visit threshold, neighbours and final batches of its first version. Sensitivity is that of
Speedy-Splat. Its 3DGS variant resets opacities, and calls that a weakness; the decay is Brush's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from torch import Tensor

from splat.densify import parts
from splat.densify.neighbours import with_midpoints
from splat.densify.none import Frozen
from splat.densify.powerlaw import next_budget, record_loss, refit_exponent
from splat.densify.protocol import (
    DensifyState,
    RefineContext,
    StepPlan,
    refine_is_due,
)
from splat.geometry.rng import keyed_generator
from splat.model.primitive import Ability, stretched
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel
from splat.render.types import SplatStats

_MIN_STEPS_BETWEEN_REFINES = 20
"""Shortened runs do not refine more often (the paper's interval)."""
_MIN_FIT_WINDOW = 100
"""Steps: a slope through fewer losses is noise."""
_SEVERAL = -1
"""In the table of views: seen in more than one."""


@dataclass(frozen=True)
class TurboDensity(Frozen):
    """Growth for few steps. The settings are written for 30,000 steps, of which the preset takes a third."""

    kind: ClassVar[str] = "turbo"
    purpose: ClassVar[str] = "a third of the steps: grows early, under a budget that follows the loss; dilated at 4K"
    needs_abilities: ClassVar[frozenset[Ability]] = frozenset({"split", "opacities", "scales"})
    start_settings: ClassVar[Mapping[str, float]] = MappingProxyType({"lr_opacities": 0.05})

    grow_grad: float = 2e-4
    """Splats whose screen gradient (per view, NDC units) reaches this grow."""
    color_ratio: float = 0.01
    """At some refinements also those whose colour gradient reaches this part of ``grow_grad``."""
    color_share: float = 0.2
    """Refinements at which colour gradients count, of all (drawn at random)."""
    visit_quantile: float = 0.0
    """Splats seen less often than this quantile of those seen at all since the last refinement do not grow (the median,
    0.5, holds growth back too much where few steps lie between refinements: 0.7 dB in 1,000 steps)."""
    grow_scale: float = 0.01
    """Growing splats up to this size (in scene extents) are cloned, larger ones split."""
    split: Literal["random", "halve"] = "random"
    """Large splats become two drawn from them as in the paper, or their two ends (where the primitive can)."""
    cap: int = 1_000_000
    """Splats the budget ends at, when the run names no limit of its own."""
    start_exponent: float = -1.0
    """Exponent of the budget before the loss has been followed: negative grows early, 1 evenly."""
    fit_from: int = 300
    """Step from which on losses count: the first steps follow no power law."""
    fit_window: int = 1500
    """Steps over which the recent slope of the loss forgets."""
    prune_opacity: float = 0.005
    """Fainter splats are removed."""
    prune_scale: float = 0.1
    """Larger splats (in scene extents) are removed, from ``prune_scale_from`` on."""
    prune_scale_from: int = 3000
    opacity_decay: float = 0.002
    """Subtracted from every opacity at a refinement; 0 = never. Shortened runs lose as much per step."""
    refine_start: int = 500
    refine_stop: int = 15_000
    refine_every: int = 100
    prune_sensitivity: float = 0.0
    """Part of the splats removed when growth ends, those that change the pictures least (the paper's variant: 0.6)."""
    dilation: int = 1
    """Draw only every so manieth pixel of every so manieth row (the paper: 2, for 4K pictures)."""
    dilation_from: int = 0
    """Last step that still draws every pixel."""
    batch_from: int = 22_500
    """Step after which gradients of ``batch_views`` steps add up to one optimizer step (once growth is over)."""
    batch_views: int = 4
    neighbour_rounds: int = 1
    """Rounds of midpoints added to the cloud of the start; 0 = none."""
    neighbours: int = 4
    """Nearest points that get a midpoint each."""
    neighbour_reach: float = 3.0
    """Gaps wider than this many median distances to the nearest point stay open."""
    start_most: int = 200_000
    """Midpoints end at this many points."""

    def needs(self, step: int) -> frozenset[str]:
        return frozenset() if step >= self.refine_stop else frozenset({"visible", "grad2d", "color_grad"})

    def plan(self, step: int) -> StepPlan:
        late = step - max(self.batch_from, self.refine_stop)
        return StepPlan(
            stride=self.dilation if step > self.dilation_from else 1,
            optimize=late <= 0 or late % self.batch_views == 0,
        )

    def rescaled(self, factor: float) -> TurboDensity:
        every = stretched(self.refine_every, factor, at_least=_MIN_STEPS_BETWEEN_REFINES)
        return replace(
            self,
            fit_from=stretched(self.fit_from, factor),
            fit_window=stretched(self.fit_window, factor, at_least=_MIN_FIT_WINDOW),
            prune_scale_from=stretched(self.prune_scale_from, factor),
            refine_start=stretched(self.refine_start, factor),
            refine_stop=stretched(self.refine_stop, factor),
            refine_every=every,
            opacity_decay=self.opacity_decay * min(every / self.refine_every, 1.0),
            dilation_from=round(self.dilation_from * factor),
            batch_from=stretched(self.batch_from, factor),
        )

    def start(self, model: SplatModel) -> DensifyState:
        def zeros(dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(model.count, dtype=dtype, device=model.device)

        return DensifyState(
            {"grad_sum": zeros(), "color_sum": zeros(), "views": zeros(), "seen_in": zeros(torch.int32)}
        )

    def observe(
        self, state: DensifyState, step: int, stats: SplatStats, *, width: int, height: int, view: int = 0,
        loss: float | Tensor = 0.0,
    ) -> None:  # fmt: skip
        """Add each view's own gradient norms (the loss is a mean over the C views of the batch), and its loss."""
        if step >= self.refine_stop:
            return
        if stats.grad2d is None or stats.color_grad is None or stats.visible is None:
            raise ValueError(f"densifier '{self.kind}' asked for {sorted(self.needs(step))} and did not get them")
        if step > self.fit_from:
            record_loss(state.scalars, step, float(loss), window=self.fit_window)
        views, tables = stats.visible.shape[0], state.tables
        for c in range(views):  # one at a time, in order: bit-equal to single-view steps
            seen = stats.visible[c]
            tables["grad_sum"] = tables["grad_sum"] + torch.where(seen, stats.grad2d[c].detach(), 0.0) * views
            tables["color_sum"] = tables["color_sum"] + torch.where(seen, stats.color_grad[c].detach(), 0.0) * views
            tables["views"] = tables["views"] + seen.to(tables["views"].dtype)
            tables["seen_in"] = _also_seen(tables["seen_in"], seen, view + c)

    def refine(self, state: DensifyState, step: int, model: SplatModel, ctx: RefineContext) -> Iterator[RowEdit]:
        if refine_is_due(step, start=self.refine_start, stop=self.refine_stop, every=self.refine_every):
            yield from self._prune(step, model, ctx)
            if model.count:
                yield from self._grow(state, step, model, ctx)
                decay = parts.opacity_decay_edit(model, loss=self.opacity_decay)
                if decay is not None:
                    yield decay
            state.restart()
        if step == self.refine_stop and self.prune_sensitivity > 0 and model.count:
            yield from self._prune_insensitive(model, ctx)

    def prepared(self, xyz: Tensor, rgb: Tensor) -> tuple[Tensor, Tensor]:
        return with_midpoints(
            xyz, rgb, neighbours=self.neighbours, reach=self.neighbour_reach, rounds=self.neighbour_rounds,
            most=self.start_most,
        )  # fmt: skip

    def budget(self, state: DensifyState, step: int, count: int, ctx: RefineContext) -> int:
        """Splats there may be after the refinement at ``step`` (remembers what it said: never less next time)."""
        percent = 1 + 99 * (step - self.refine_start) / (self.refine_stop - self.refine_start)
        exponent = refit_exponent(state.scalars, base=self.start_exponent)
        most = self.cap if ctx.max_splats is None else ctx.max_splats
        return next_budget(state.scalars, percent, exponent, count=count, most=most)

    def scores(self, state: DensifyState, *, by_color: bool) -> tuple[Tensor, Tensor]:  # [N] bool, [N]
        """Who wants to grow, and how much: the parts that count, each over its maximum, added up."""
        views = state.tables["views"]
        gradients = parts.mean_over_views(state.tables["grad_sum"], views)
        wanted = gradients >= self.grow_grad
        scores = gradients / gradients.max().clamp_min(1e-30)
        if by_color:
            colors = parts.mean_over_views(state.tables["color_sum"], views)
            wanted |= colors >= self.color_ratio * self.grow_grad
            scores = scores + colors / colors.max().clamp_min(1e-30)
        return wanted & well_visited(views, state.tables["seen_in"], self.visit_quantile), scores

    def _grow(self, state: DensifyState, step: int, model: SplatModel, ctx: RefineContext) -> Iterator[RowEdit]:
        """Clone the small, then split the large among the same candidates; clones are not split."""
        budget = self.budget(state, step, model.count, ctx)
        coin = torch.rand((), generator=keyed_generator(ctx.seed, "turbo.color", step))
        wanted, scores = self.scores(state, by_color=float(coin) < self.color_share)
        largest_axis = model.scales.detach().amax(dim=1)
        small = largest_axis <= self.grow_scale * ctx.extent_world
        large = largest_axis > self.grow_scale * ctx.extent_world  # not ~small: NaN sizes are neither
        chosen = parts.best_first(wanted & (small | large), scores, max(budget - model.count, 0))
        clone = parts.clone_edit(model, chosen & small, share_opacity=False)
        chosen_large = chosen & large
        if clone is not None:
            yield clone
            chosen_large = torch.cat([chosen_large, chosen_large.new_zeros(model.count - chosen_large.shape[0])])
        generator = keyed_generator(ctx.seed, "turbo.split", step, model.device)
        if self.split == "halve":
            split = parts.halve_edit(model, chosen_large, generator=generator)
        else:
            split = parts.split_edit(model, chosen_large, children=2, share_opacity=False, generator=generator)
        if split is not None:
            yield split

    def _prune(self, step: int, model: SplatModel, ctx: RefineContext) -> Iterator[RowEdit]:
        if not model.count:
            return
        keep = (model.opacities.detach() >= self.prune_opacity) & parts.finite_rows(model)
        if step > self.prune_scale_from:
            keep &= model.scales.detach().amax(dim=1) <= self.prune_scale * ctx.extent_world
        pruned = parts.prune_edit(keep)
        if pruned is not None:
            yield pruned
        over = parts.cap_edit(model, ctx.max_splats)
        if over is not None:
            yield over

    def _prune_insensitive(self, model: SplatModel, ctx: RefineContext) -> Iterator[RowEdit]:
        """Drop the part of the splats that changes the training pictures least; all stay where there is no probe."""
        if ctx.probe is None:
            return
        total = torch.zeros(model.count, dtype=torch.float64, device=model.device)
        for view in range(ctx.probe.count):
            stats = ctx.probe.look_gradient(view, stats=frozenset({"sensitivity"})).stats
            total += stats.sensitivity[0].nan_to_num(0.0).double()
        everyone = torch.ones(model.count, dtype=torch.bool, device=model.device)
        keep = parts.best_first(everyone, total, model.count - int(self.prune_sensitivity * model.count))
        pruned = parts.prune_edit(keep)
        if pruned is not None:
            yield pruned


def well_visited(views: Tensor, seen_in: Tensor, quantile: float) -> Tensor:  # [N], [N] -> [N] bool
    """Rows seen at least as often as the ``quantile`` of those seen at all (the lower of two), and in two views."""
    visited = torch.sort(views[views > 0]).values
    if not visited.numel():
        return torch.zeros_like(views, dtype=torch.bool)
    return (views >= visited[int(quantile * (visited.numel() - 1))]) & (seen_in == _SEVERAL)


def _also_seen(seen_in: Tensor, seen: Tensor, view: int) -> Tensor:  # [N] int32, [N] bool -> [N] int32
    """0 = in no view, v + 1 = in view v alone, ``_SEVERAL``; after another look, which sees the rows ``seen``."""
    once = torch.where(seen_in == 0, view + 1, seen_in)
    return torch.where(seen, torch.where(once == view + 1, once, _SEVERAL), seen_in)
