"""3DGS as Markov chain Monte Carlo: dead splats move onto live ones, noise explores (specs: densifiers 1.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from splat.densify import parts
from splat.densify.none import Frozen
from splat.densify.protocol import (
    DensifyState,
    RefineContext,
    refine_is_due,
)
from splat.geometry.rng import keyed_generator
from splat.model.activations import sigmoid
from splat.model.primitive import Ability, stretched
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel

_MIN_STEPS_BETWEEN_REFINES = 25
"""Shortened runs refine at most this often: a moved splat needs some views before it is judged again."""
_NOISE_STEEPNESS = 100.0
"""Of the sigmoid that switches noise off for visible splats (Kheradmand et al. 2024, eq. 8)."""


@dataclass(frozen=True)
class Mcmc(Frozen):
    """Kheradmand et al. 2024. Needs no screen statistics, and grows steadily to a fixed number of splats."""

    kind: ClassVar[str] = "mcmc"
    purpose: ClassVar[str] = "moves dead splats onto live ones and explores by noise: a fixed number"
    needs_abilities: ClassVar[frozenset[Ability]] = frozenset({"opacities", "scales", "covariance"})
    start_settings: ClassVar[Mapping[str, float]] = MappingProxyType(
        {"init_opacity": 0.5, "init_scale": 0.1, "lr_opacities": 0.05}
    )

    cap: int = 1_000_000
    """Splats to grow to, when the run names no limit of its own."""
    min_opacity: float = 0.005
    """Splats at or below this are dead and move."""
    growth: float = 1.05
    """Number of splats after a refinement over the number before, until the cap."""
    noise: float = 5e5
    """Size of the positional noise, in learning rates of the positions."""
    opacity_reg: float = 0.01
    """Weight of the mean opacity in the loss."""
    scale_reg: float = 0.01
    """Weight of the mean size (world units) in the loss."""
    refine_start: int = 500
    refine_stop: int = 25_000
    refine_every: int = 100

    def rescaled(self, factor: float) -> Mcmc:
        """Fewer refinements grow by more each, so that a shortened run can still reach the same multiple."""
        every = stretched(self.refine_every, factor, at_least=_MIN_STEPS_BETWEEN_REFINES)
        start, stop = stretched(self.refine_start, factor), stretched(self.refine_stop, factor)
        rounds_before = (self.refine_stop - self.refine_start) / self.refine_every
        rounds_after = max((stop - start) / every, 1.0)
        growth = self.growth ** max(rounds_before / rounds_after, 1.0)
        return replace(self, refine_start=start, refine_stop=stop, refine_every=every, growth=growth)

    def regularizer(self, model: SplatModel) -> Tensor | None:
        return parts.size_penalty(model, opacity=self.opacity_reg, scale=self.scale_reg)

    def refine(self, state: DensifyState, step: int, model: SplatModel, ctx: RefineContext) -> Iterator[RowEdit]:
        if not refine_is_due(step, start=self.refine_start, stop=self.refine_stop, every=self.refine_every):
            return
        cap = self.cap if ctx.max_splats is None else ctx.max_splats
        over = parts.cap_edit(model, cap)
        if over is not None:
            yield over
        relocation = self._relocate(model, keyed_generator(ctx.seed, "mcmc.relocate", step, model.device))
        if relocation is not None:
            yield relocation
        growth = self._grow(model, cap, keyed_generator(ctx.seed, "mcmc.grow", step, model.device))
        if growth is not None:
            yield growth

    def perturb(
        self, state: DensifyState, step: int, model: SplatModel, *, lr_means: float, generator: torch.Generator
    ) -> Tensor | None:
        """Noise shaped like each splat, on those that are all but invisible. ``lr_means`` includes the extent."""
        if model.count == 0 or self.noise == 0:
            return None
        with torch.no_grad():
            rows = {name: table.detach() for name, table in model.rows.items()}
            opacities = model.primitive.opacities(rows)
            strength = sigmoid(-_NOISE_STEEPNESS * (opacities - self.min_opacity)) * (self.noise * lr_means)
            noise = torch.randn(model.count, 3, generator=generator, device=model.device)
            return model.primitive.covariance_product(rows, noise * strength[:, None])

    def _relocate(self, model: SplatModel, generator: torch.Generator) -> RowEdit | None:
        """Every dead row becomes one of the copies of a live row."""
        opacities = model.opacities.detach()
        alive = (opacities > self.min_opacity) & parts.finite_rows(model)
        dead_rows = (~alive).nonzero().squeeze(1)
        parents = parts.draw_rows(torch.where(alive, opacities, 0.0), dead_rows.shape[0], generator)
        if parents.numel() == 0:
            return None
        source = torch.arange(model.count, device=model.device)
        source[dead_rows] = parents
        return self._share(model, source, parents, reason="relocate")

    def _grow(self, model: SplatModel, cap: int, generator: torch.Generator) -> RowEdit | None:
        """Up to ``growth`` times as many rows, and one more at least."""
        target = min(cap, max(int(self.growth * model.count), model.count + 1))
        opacities = torch.where(parts.finite_rows(model), model.opacities.detach(), 0.0)
        parents = parts.draw_rows(opacities, target - model.count, generator)
        if parents.numel() == 0:
            return None
        source = torch.cat([torch.arange(model.count, device=model.device), parents])
        return self._share(model, source, parents, reason="grow")

    def _share(self, model: SplatModel, source: Tensor, parents: Tensor, *, reason: str) -> RowEdit:
        """The edit with rows ``source [M]`` where all copies of each parent share its opacity and size."""
        drawn = torch.bincount(parents, minlength=model.count)  # [N] copies besides the parent itself
        touched = (drawn[source] > 0).nonzero().squeeze(1)  # [R] rows of the new table
        origin = source[touched]
        opacities, factors = parts.relocated_shape(
            model.opacities.detach()[origin], drawn[origin] + 1, min_opacity=self.min_opacity
        )
        raw = model.primitive.with_opacities(opacities) | model.primitive.resized(model.rows, origin, factors)
        fresh = torch.zeros(source.shape[0], dtype=torch.bool, device=source.device)
        fresh[touched] = True
        return RowEdit(source, model.count, {name: (touched, new) for name, new in raw.items()}, fresh, reason=reason)
