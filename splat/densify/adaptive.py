"""Adaptive density control: grow where the picture pulls at splats, prune what is faint (specs: densifiers 1.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from splat.densify import parts
from splat.densify.none import Frozen
from splat.densify.protocol import (
    DensifyState,
    RefineContext,
    missing_abilities,
    refine_is_due,
)
from splat.geometry.rng import keyed_generator
from splat.model.primitive import Ability, Primitive, stretched
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel
from splat.render.types import SplatStats

GROW_GRAD = {"mean": 2e-4, "abs": 6e-4}
"""Default thresholds: Kerbl et al. 2023; for absolute sums the value of gsplat's published ablation, which beats
the mean gradient with a quarter fewer splats (its documentation also names 8e-4)."""
_MIN_STEPS_BETWEEN_REFINES = 25
"""Shortened runs do not refine more often: the mean gradient needs a few views per splat."""
_MIN_STEPS_BETWEEN_RESETS = 500
"""At the opacity's learning rate, climbing back from 0.01 to one half takes about 200 steps, and shortened runs
need as many again to use it."""


@dataclass(frozen=True)
class AdaptiveDensity(Frozen):
    """The classic strategy. The screen-size prune of the reference is left out: there it never fires."""

    kind: ClassVar[str] = "adaptive"
    purpose: ClassVar[str] = "the classic: clones and splits where the picture pulls, prunes what is faint"
    needs_abilities: ClassVar[frozenset[Ability]] = frozenset({"split", "opacities", "scales"})

    gradient: Literal["mean", "abs"] = "mean"
    """Norm of the summed screen gradient, or of the sums of its absolute values (AbsGS)."""
    grow_grad: float | None = None
    """Splats whose gradient (per view, NDC units) reaches this grow; None = 2e-4 for mean, 6e-4 for abs."""
    grow_scale: float = 0.01
    """Growing splats up to this size (in scene extents) are cloned, larger ones split."""
    children: int = 2
    """Splats that replace a split one."""
    revised_opacity: Literal["off", "split", "split-and-clone"] = "off"
    """Give the pieces the opacity that together covers what the parent did."""
    prune_opacity: float = 0.005
    """Fainter splats are removed."""
    prune_scale: float = 0.1
    """Larger splats (in scene extents) are removed once the first opacity reset is past."""
    refine_start: int = 500
    refine_stop: int = 15_000
    refine_every: int = 100
    reset_every: int = 3000
    """Steps between opacity resets; 0 = never."""
    reset_opacity: float = 0.01
    """Opacity every splat is lowered to at a reset."""
    pause_after_reset: int = 0
    """Steps after a reset without refinement (about the number of photographs, if any)."""

    def needs(self, step: int) -> frozenset[str]:
        if step >= self.refine_stop:
            return frozenset()
        return frozenset({"visible", "grad2d" if self.gradient == "mean" else "abs_grad2d"})

    def rescaled(self, factor: float) -> AdaptiveDensity:
        return replace(
            self,
            refine_start=stretched(self.refine_start, factor),
            refine_stop=stretched(self.refine_stop, factor),
            refine_every=stretched(self.refine_every, factor, at_least=_MIN_STEPS_BETWEEN_REFINES),
            reset_every=stretched(self.reset_every, factor, at_least=_MIN_STEPS_BETWEEN_RESETS),
        )

    def blocked(self, primitive: Primitive) -> str | None:
        missing = missing_abilities(self.kind, self.needs_abilities, primitive)
        if missing is None and primitive.most_pieces is not None and self.children > primitive.most_pieces:
            return (
                f"densifier '{self.kind}' splits into {self.children} children, "
                f"'{primitive.kind}' splats make {primitive.most_pieces} at most"
            )
        return missing

    def start(self, model: SplatModel) -> DensifyState:
        def zeros() -> Tensor:
            return torch.zeros(model.count, device=model.device)

        return DensifyState({"grad_sum": zeros(), "views": zeros()})

    def observe(
        self, state: DensifyState, step: int, stats: SplatStats, *, width: int, height: int, view: int = 0,
        loss: float | Tensor = 0.0,
    ) -> None:  # fmt: skip
        """Add each view's own gradient norm. The loss is a mean over the C views of the batch, so each view's
        gradient is C times what backward delivered."""
        if step >= self.refine_stop:
            return
        norms = stats.grad2d if self.gradient == "mean" else stats.abs_grad2d  # [C,N]
        if norms is None or stats.visible is None:
            raise ValueError(f"densifier '{self.kind}' asked for {sorted(self.needs(step))} and did not get them")
        visible = stats.visible.to(norms.dtype)
        views = norms.shape[0]
        seen_norms = torch.where(stats.visible, norms.detach(), 0.0) * views
        for c in range(views):  # one at a time, in order: bit-equal to single-view steps
            state.tables["grad_sum"] = state.tables["grad_sum"] + seen_norms[c]
            state.tables["views"] = state.tables["views"] + visible[c]

    def refine(self, state: DensifyState, step: int, model: SplatModel, ctx: RefineContext) -> Iterator[RowEdit]:
        if refine_is_due(step, start=self.refine_start, stop=self.refine_stop, every=self.refine_every):
            if not self._paused(step, ctx) and model.count:
                yield from self._grow(state, step, model, ctx)
                yield from self._prune(step, model, ctx)
            state.restart()
        if self._reset_due(step, ctx) and model.count:
            yield parts.opacity_reset_edit(model, self.reset_opacity)

    def threshold(self) -> float:
        """The gradient from which splats grow."""
        return GROW_GRAD[self.gradient] if self.grow_grad is None else self.grow_grad

    def _grow(self, state: DensifyState, step: int, model: SplatModel, ctx: RefineContext) -> Iterator[RowEdit]:
        """Clone the small, then split the large among the same candidates; clones are not split."""
        gradients = parts.mean_over_views(state.tables["grad_sum"], state.tables["views"])
        largest_axis = model.scales.detach().amax(dim=1)
        small = largest_axis <= self.grow_scale * ctx.extent_world
        large = largest_axis > self.grow_scale * ctx.extent_world  # not ~small: NaN sizes are neither
        wanted = (gradients >= self.threshold()) & (small | large)
        chosen = self._within_cap(wanted, small, gradients, model.count, ctx.max_splats)
        clone = parts.clone_edit(model, chosen & small, share_opacity=self.revised_opacity == "split-and-clone")
        chosen_large = chosen & large
        if clone is not None:
            yield clone
            chosen_large = torch.cat([chosen_large, chosen_large.new_zeros(model.count - chosen_large.shape[0])])
        split = parts.split_edit(
            model, chosen_large, children=self.children, share_opacity=self.revised_opacity != "off",
            generator=keyed_generator(ctx.seed, "adaptive.split", step, model.device),
        )  # fmt: skip
        if split is not None:
            yield split

    def _within_cap(
        self, wanted: Tensor, small: Tensor, gradients: Tensor, count: int, max_splats: int | None
    ) -> Tensor:  # [N] bool
        """Those that fit under the cap, steepest first: a clone adds one row, a split ``children - 1``."""
        if max_splats is None:
            return wanted
        rows = wanted.nonzero().squeeze(1)
        order = rows[torch.sort(gradients[rows], descending=True, stable=True).indices]
        added = torch.where(small[order], 1, self.children - 1).cumsum(0)
        chosen = torch.zeros_like(wanted)
        chosen[order[added <= max_splats - count]] = True
        return chosen

    def _prune(self, step: int, model: SplatModel, ctx: RefineContext) -> Iterator[RowEdit]:
        keep = (model.opacities.detach() >= self.prune_opacity) & parts.finite_rows(model)
        if self.reset_every and step > self.reset_every:
            keep &= model.scales.detach().amax(dim=1) <= self.prune_scale * ctx.extent_world
        pruned = parts.prune_edit(keep)
        if pruned is not None:
            yield pruned
        over = parts.cap_edit(model, ctx.max_splats)
        if over is not None:
            yield over

    def _reset_due(self, step: int, ctx: RefineContext) -> bool:
        """Every ``reset_every`` steps while refining, and once at the start before white: there, opaque white
        splats in front of everything are the first thing training finds."""
        if not self.reset_every or step >= self.refine_stop:
            return False
        return step % self.reset_every == 0 or (ctx.background_is_white and step == self.refine_start)

    def _paused(self, step: int, ctx: RefineContext) -> bool:
        resets = [step // self.reset_every * self.reset_every] if self.reset_every else []
        if ctx.background_is_white and self.reset_every:
            resets.append(self.refine_start)
        # At a reset's own step the statistics are still those from before it.
        return any(0 < step - reset < self.pause_after_reset for reset in resets if reset > 0)
