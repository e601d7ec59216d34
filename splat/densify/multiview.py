"""Multi-view training and densification, after MVGS (Du et al., arXiv 2410.02103; specs: densifiers 4).

What it does. On top of ``adaptive`` (its thresholds, clones, splits, prunes and resets stand as they are):

* Several views per optimizer step (``variant = "full"``). The trainer draws them one after the other and averages
  their gradients; memory stays that of one view. Statistics are taken per view, norms first and sums after, so they
  are those of single steps, bit for bit. The paper sums losses instead of averaging; Adam does not see the factor.
* Coarse to fine: pictures at 1/4, 1/2 and full size (paper: from 1/8), with more views the smaller they are, inside
  one run: no learning rate, reset or window starts over as in the paper's four runs. The preset's own ``resolution``
  divides on top of it; set its factor to 1.
* A lower threshold where views are far apart: what is seen from all around must hold in all of them. The angle is
  taken around the middle of the splats; around the world's origin, as published, it says where the origin is.
* Cross-ray densification: in a few views the window of largest error is found; what several windows have in common
  is cloned. Default: splats that are drawn into two windows or more. As published: the box between the windows'
  corner rays, with the gates the published code lacks. Parent and clone share the opacity (1 - sqrt(1 - o)).

``variant = "light"`` keeps one view per step and, once growth has ended, gathers ``batch`` views between two optimizer
steps: most of what batches are good for, at no extra picture, and cheaper where the optimizer is what costs. Views
gathered when the run ends before a batch is full are not used.

When to use it. Indoors, where the published gain is +1.1 to +2.2 dB at 8.5 times the pictures (outdoors -0.2 dB).
Cost. ``light``: that of ``adaptive``, plus ``2 probe_views`` drawings without gradients every ``crossray_every``
refinements. ``full``: a step costs ``views`` pictures of its stage; the default (4, 4, 2) two full ones at most,
the paper's (48, 24, 12, 8) eight. Give it fewer steps (a half or less), not more time.

Measured (the embedded room at 240 px, 15,000 splats, held-out views, one seed or two: a hint only, and taken with
learning rates up to four times the usual, which some runs do not survive; now two is the limit). About equal pictures,
no opacity resets in either: 1000 steps of ``full`` 25.9 dB, 2500 of ``adaptive`` 25.4. ``light`` with a batch of 2:
24.1 against 23.9 at 1000 steps. What carries this is the batch with learning rates in proportion: at unchanged ones a
batch of 4 loses 0.6 dB. The distance rule and the cross-ray clones stayed within the noise, 0.1 dB.

Reconstruction (the paper does not say, or its code differs): the median over pairs as "far apart", windows as a share
of the picture, the sum over the window's pixels as blend weight, all gates, and how often it happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from splat.densify import crossray, parts
from splat.densify.adaptive import AdaptiveDensity
from splat.densify.protocol import DensifyState, RefineContext, StepPlan, refine_is_due
from splat.geometry.rng import keyed_generator
from splat.model.primitive import stretched
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel
from splat.render.types import SplatStats

PUBLISHED_SCALES, PUBLISHED_VIEWS = (8, 4, 2, 1), (48, 24, 12, 8)
"""The paper's four stages (appendix C.2); outdoors its code takes 3 views and no coarse stage."""
_NEAR_SHARE = 0.01
"""Crossings nearer to a camera than this share of the extent are none: at the paper's extents, a few centimetres."""
_MOST_LR = 2.0
"""Measured: single runs at four and at eight times the rates ended 1.3 and 1.8 dB lower than others."""
_SEEN = "seen."
"""Prefix of the counts of views in the state."""


@dataclass(frozen=True)
class MultiView(AdaptiveDensity):
    """``adaptive``, asked in many views at once. All settings of ``adaptive`` are its own."""

    kind: ClassVar[str] = "multiview"
    purpose: ClassVar[str] = "adaptive over many views per step, densest where several views err: for rooms"

    variant: Literal["light", "full"] = "light"
    """light: one view per step, batches once growth has ended; full: ``views`` per step, throughout."""
    scales: tuple[int, ...] = (4, 2, 1)
    """Divisors of the picture's sides by stage, coarse to fine (paper: 8, 4, 2, 1)."""
    views: tuple[int, ...] = (4, 4, 2)
    """Views per step by stage, for the full variant (paper: 48, 24, 12, 8, with ``lr_power`` 0)."""
    coarse_until: int = 6000
    """First step of the last stage (paper: 9000 of 39 000); those before share the steps before it evenly."""
    batch: int = 2
    """Views between two optimizer steps of the light variant, once growth has ended."""
    lr_power: float = 1.0
    """Learning rates are those of one view times this power of the views per step, and twice them at most: 1 covers
    the same way in fewer, surer steps; 1/2 is Grendel-GS, 0 the paper."""
    far_degrees: float = 60.0
    """Views are far apart when half their pairs are seen under this angle from the middle of the splats, or more
    (paper: a chord of 1 on the unit sphere, which is 60 degrees)."""
    far_factor: float = 0.5
    """Factor on the growth threshold when the views of a refinement window are far apart; 1 = no such rule."""
    crossray: Literal["blend", "boxes", "off"] = "blend"
    """What two windows must share: splats drawn into both, or the box between their corner rays (as published)."""
    crossray_every: int = 3
    """Refinements between two cross-ray events."""
    probe_views: int = 8
    """Views looked at for their windows of largest error."""
    window_share: float = 0.05
    """Sides of a window over those of the picture (paper: 40 x 20 px at any size)."""
    window_blend: float = 0.1
    """Splats with a larger sum of blend weights over a window's pixels belong to it."""
    gap_px: float = 2.0
    """Corner rays that pass each other at a larger distance (pixels at that depth) do not meet."""
    box_diagonal: float = 0.1
    """Larger boxes (in scene extents) are dropped."""
    crossray_share: float = 0.005
    """Splats cloned in one event, at most, over all splats."""

    def __post_init__(self) -> None:
        if not self.scales or len(self.scales) != len(self.views):
            raise ValueError(f"scales has {len(self.scales)} stages, views has {len(self.views)}: both need one each")
        if min(*self.scales, *self.views, self.batch) < 1:
            raise ValueError("scales, views and batch must be 1 or more")

    def plan(self, step: int) -> StepPlan:
        stage = self.stage(step)
        scale = 1 / self.scales[stage]
        if self.variant == "full":
            views = self.views[stage]
            return StepPlan(views=views, res_scale=scale, lr_scale=self._lr_scale(views))
        if step < self.refine_stop:
            return StepPlan(res_scale=scale)
        ends_batch = (step - self.refine_stop + 1) % self.batch == 0
        return StepPlan(res_scale=scale, optimize=ends_batch, lr_scale=self._lr_scale(self.batch))

    def _lr_scale(self, views: int) -> float:
        return min(float(views**self.lr_power), _MOST_LR)

    def stage(self, step: int) -> int:
        """Place in ``scales`` and ``views`` at ``step`` (from 1)."""
        coarse = len(self.scales) - 1
        if step >= self.coarse_until:
            return coarse
        return min(coarse, (step - 1) * coarse // max(self.coarse_until - 1, 1))

    def rescaled(self, factor: float) -> MultiView:
        return replace(super().rescaled(factor), coarse_until=stretched(self.coarse_until, factor))

    def observe(
        self, state: DensifyState, step: int, stats: SplatStats, *, width: int, height: int, view: int = 0,
        loss: float | Tensor = 0.0,
    ) -> None:  # fmt: skip
        """As ``adaptive``, once per view; and remember which views the window saw."""
        super().observe(state, step, stats, width=width, height=height, view=view, loss=loss)
        if step < self.refine_stop:
            state.scalars[f"{_SEEN}{view}"] = state.scalars.get(f"{_SEEN}{view}", 0.0) + 1.0

    def refine(self, state: DensifyState, step: int, model: SplatModel, ctx: RefineContext) -> Iterator[RowEdit]:
        """The cross-ray clones first, on the rows the statistics are of; then growth, prune and reset of
        ``adaptive``, where what was just cloned does not grow again."""
        due = refine_is_due(step, start=self.refine_start, stop=self.refine_stop, every=self.refine_every)
        factor = 1.0
        if due and model.count and not self._paused(step, ctx):
            factor = self.threshold_factor(state, model, ctx)
            if self.crossray != "off" and step // self.refine_every % self.crossray_every == 0:
                yield from self._crossray(state, step, model, ctx)
        # The parent's refine, under the threshold of this window.
        yield from AdaptiveDensity.refine(replace(self, grow_grad=self.threshold() * factor), state, step, model, ctx)
        if due:
            state.scalars = {name: value for name, value in state.scalars.items() if not name.startswith(_SEEN)}

    def threshold_factor(self, state: DensifyState, model: SplatModel, ctx: RefineContext) -> float:
        """``far_factor`` when the views since the last refinement are far apart, else 1."""
        counts = {
            int(name.removeprefix(_SEEN)): count
            for name, count in sorted(state.scalars.items())
            if name.startswith(_SEEN)
        }
        places = sorted(place for place in counts if place < len(ctx.cameras))
        if self.far_factor == 1 or len(places) < 2:
            return 1.0
        angle = crossray.median_angle(
            [ctx.cameras[place] for place in places],
            crossray.middle_of(model.rows["means"]),
            weights=[counts[place] for place in places],
        )
        return self.far_factor if angle is not None and angle >= self.far_degrees else 1.0

    def _crossray(self, state: DensifyState, step: int, model: SplatModel, ctx: RefineContext) -> Iterator[RowEdit]:
        room = model.count if ctx.max_splats is None else ctx.max_splats - model.count
        budget = min(int(self.crossray_share * model.count), room)
        if ctx.probe is None or budget <= 0:
            return
        generator = keyed_generator(ctx.seed, "multiview.crossray", step)
        views = torch.randperm(ctx.probe.count, generator=generator)[: self.probe_views].tolist()
        looks = (crossray.sighting(ctx.probe, view, share=self.window_share) for view in views)
        sightings = [found for found in looks if found is not None]
        shared = crossray.seen_together(sightings, least_blend=self.window_blend)
        if shared is None:
            return
        candidates, scores = shared
        if self.crossray == "boxes":
            candidates, scores = self._in_boxes(sightings, model, ctx)
        chosen = parts.best_first(candidates & parts.finite_rows(model), scores, budget)
        clone = parts.clone_edit(model, chosen, share_opacity=True)
        if clone is None:
            return
        yield replace(clone, reason="crossray")
        grad_sum = state.tables["grad_sum"].clone()
        grad_sum[: chosen.shape[0]][chosen] = 0
        state.tables["grad_sum"] = grad_sum

    def _in_boxes(
        self, sightings: list[crossray.Sighting], model: SplatModel, ctx: RefineContext
    ) -> tuple[Tensor, Tensor]:
        """Splats inside any box [N] bool, and how many boxes each is in [N]."""
        gates = crossray.Gates(
            near=_NEAR_SHARE * ctx.extent_world, gap_px=self.gap_px, diagonal=self.box_diagonal * ctx.extent_world
        )
        means = model.rows["means"].detach()
        inside = torch.zeros(model.count, device=means.device)
        for box in crossray.boxes_of(sightings, ctx.cameras, gates):
            inside = inside + box.holds(means)
        return inside > 0, inside
