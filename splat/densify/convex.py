"""The published strategy for smooth convexes: split what would rather be softer (Held et al. 2025; specs: primitives
3.8)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from splat.densify import parts
from splat.densify.none import Frozen
from splat.densify.protocol import DensifyState, RefineContext, refine_is_due
from splat.geometry.rng import keyed_generator
from splat.model.primitive import Ability, stretched
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel
from splat.render.types import SplatStats

SPLIT_GRAD = {"light": 2.5e-5, "indoor": 6e-6, "outdoor": 1e-6}
"""Published thresholds by kind of capture (of the code; the paper's text names 4e-6 for the light models)."""
_PUBLISHED_EXTENT = 5.0
"""World units: about that of the captures they were found on. Sharpness is per world unit, and so is its gradient."""
_MIN_STEPS_BETWEEN_REFINES = 50
"""Shortened runs do not refine more often: the mean gradient needs a few views per splat."""
_MIN_STEPS_BETWEEN_RESETS = 500
"""Opacities have to climb back in between."""


@dataclass(frozen=True)
class ConvexDensity(Frozen):
    """For smooth convexes: splits those whose border wants to be softer into one per vertex.

    A border that spans two things in the picture wants to be softer than both: a positive gradient. It is the signed
    mean over views that counts, so splats that are too soft in one view and too hard in another stay.
    """

    kind: ClassVar[str] = "convex"
    purpose: ClassVar[str] = "the published rule for convexes: splits what would rather be softer"
    needs_abilities: ClassVar[frozenset[Ability]] = frozenset({"split", "opacities", "scales", "sharpness"})

    capture: Literal["light", "indoor", "outdoor"] = "light"
    """Which published threshold: light keeps models small, outdoor splits most."""
    split_grad: float | None = None
    """Splats whose mean sharpness gradient (of a scene of 5 units) reaches this split; None = by ``capture``."""
    growth: float = 3.0
    """Splats after a refinement over the number before, at most (the paper sets no limit)."""
    prune_opacity: float = 0.03
    """Fainter splats, and those switched off by their masks, are removed."""
    prune_scale: float = 0.3
    """Splats of a larger standard deviation (in scene extents) are removed, from ``prune_scale_after`` on."""
    prune_scale_after: int = 3000
    refine_start: int = 500
    refine_stop: int = 9000
    refine_every: int = 200
    prune_every: int = 1000
    """Steps between two removals once refinement is over."""
    reset_every: int = 3000
    """Steps between opacity resets; 0 = never."""
    reset_opacity: float = 0.2
    """Opacity every splat is lowered to at a reset."""

    def needs(self, step: int) -> frozenset[str]:
        return frozenset() if step >= self.refine_stop else frozenset({"visible", "shape_grad"})

    def rescaled(self, factor: float) -> ConvexDensity:
        return replace(
            self,
            prune_scale_after=stretched(self.prune_scale_after, factor),
            refine_start=stretched(self.refine_start, factor),
            refine_stop=stretched(self.refine_stop, factor),
            refine_every=stretched(self.refine_every, factor, at_least=_MIN_STEPS_BETWEEN_REFINES),
            prune_every=stretched(self.prune_every, factor, at_least=_MIN_STEPS_BETWEEN_REFINES),
            reset_every=stretched(self.reset_every, factor, at_least=_MIN_STEPS_BETWEEN_RESETS),
        )

    def start(self, model: SplatModel) -> DensifyState:
        def zeros() -> Tensor:
            return torch.zeros(model.count, device=model.device)

        return DensifyState({"grad_sum": zeros(), "views": zeros()})

    def observe(
        self, state: DensifyState, step: int, stats: SplatStats, *, width: int, height: int, view: int = 0,
        loss: float | Tensor = 0.0,
    ) -> None:  # fmt: skip
        """Add each view's gradient of the log sharpness, with its sign; a view's own is C times what the loss, a mean
        over the C views of the batch, delivered."""
        if step >= self.refine_stop:
            return
        gradients = stats.shape_grad  # [C,N]
        if gradients is None or stats.visible is None:
            raise ValueError(f"densifier '{self.kind}' asked for {sorted(self.needs(step))} and did not get them")
        views = gradients.shape[0]
        seen = torch.where(stats.visible, gradients.detach(), 0.0) * views
        visible = stats.visible.to(gradients.dtype)
        for c in range(views):  # one at a time, in order: bit-equal to single-view steps
            state.tables["grad_sum"] = state.tables["grad_sum"] + seen[c]
            state.tables["views"] = state.tables["views"] + visible[c]

    def refine(self, state: DensifyState, step: int, model: SplatModel, ctx: RefineContext) -> Iterator[RowEdit]:
        if refine_is_due(step, start=self.refine_start, stop=self.refine_stop, every=self.refine_every):
            if model.count:
                yield from self._grow(state, step, model, ctx)
                yield from self._prune(step, model, ctx)
            state.restart()
        elif step >= self.refine_stop and self.prune_every and step % self.prune_every == 0 and model.count:
            yield from self._prune(step, model, ctx)
        if self.reset_every and step < self.refine_stop and step % self.reset_every == 0 and model.count:
            yield parts.opacity_reset_edit(model, self.reset_opacity)

    def threshold(self) -> float:
        """The gradient from which splats split."""
        return SPLIT_GRAD[self.capture] if self.split_grad is None else self.split_grad

    def _grow(self, state: DensifyState, step: int, model: SplatModel, ctx: RefineContext) -> Iterator[RowEdit]:
        # dL/dsigma = dL/dlog(sigma) / sigma: the sum is of the latter, and sigma moves little between refinements.
        sharpness = model.primitive.sharpness(model.rows).detach()
        scores = parts.mean_over_views(state.tables["grad_sum"] / sharpness, state.tables["views"])
        scores = scores * (_PUBLISHED_EXTENT / ctx.extent_world)
        children = model.primitive.pieces
        limit = int(self.growth * model.count) + children
        limit = limit if ctx.max_splats is None else min(limit, ctx.max_splats)
        budget = max(limit - model.count, 0) // max(children - 1, 1)
        wanted = (scores >= self.threshold()) & parts.finite_rows(model)
        split = parts.split_edit(
            model, parts.best_first(wanted, scores, budget), children=children, share_opacity=False,
            generator=keyed_generator(ctx.seed, "convex.split", step, model.device),
        )  # fmt: skip
        if split is not None:
            yield split

    def _prune(self, step: int, model: SplatModel, ctx: RefineContext) -> Iterator[RowEdit]:
        keep = (model.opacities.detach() >= self.prune_opacity) & parts.finite_rows(model)
        if step > self.prune_scale_after:
            keep &= model.scales.detach().amax(dim=1) <= self.prune_scale * ctx.extent_world
        pruned = parts.prune_edit(keep)
        if pruned is not None:
            yield pruned
        over = parts.cap_edit(model, ctx.max_splats)
        if over is not None:
            yield over
