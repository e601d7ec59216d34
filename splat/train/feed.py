"""What the next drawing of a training step is: which view, at which size, with which options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from splat.densify.protocol import Densifier, StepPlan
from splat.geometry.rng import keyed_generator
from splat.losses.frequency import DetailWeights
from splat.model.render_inputs import RenderInputs
from splat.render.types import Rasterizer, RenderOptions
from splat.train.frames import FrameSource, View
from splat.train.order import ViewOrder
from splat.train.pixel_maps import MapCache, weights
from splat.train.probe import ViewProbe
from splat.train.settings import LoopSettings
from splat.train.shield import ShieldedFrames
from splat.train.state import TrainState
from splat.train.strided import Offset, blur_scale, drawn_offset, every, strided_view, tan_limits

PREFETCH_VIEWS = 4
WEIGHTED_STATS = frozenset({"weighted_count", "weighted_blend", "texgrad"})
"""Statistics that need pixel maps; a view without any goes without them."""


@dataclass(frozen=True, eq=False)
class Shot:
    """One drawing, and what it is compared with."""

    view: View
    """As drawn: at the step's size, strided where the plan says so."""
    options: RenderOptions
    l1_weights: Tensor | None  # [1,H,W]
    full_size: bool
    """No pixels were averaged: the target is the photograph itself, or some of its pixels."""


class ViewFeed:
    """Deals out shots in camera order; everything random is keyed by seed and views taken."""

    def __init__(self, frames: FrameSource, settings: LoopSettings, densifier: Densifier, state: TrainState) -> None:
        self.frames = ShieldedFrames(frames, state)
        self._densifier, self._device = densifier, state.model.device
        self.settings = settings
        """Those in force."""
        self._order = ViewOrder(len(frames.cameras), settings.seed)
        self._maps = MapCache(densifier.maps, self._device)
        self._detail: DetailWeights | None = None
        if settings.detail_weight > 0:
            self._detail = DetailWeights(settings.detail_weight, settings.ssim_weight, settings.detail_levels)

    def next(self, state: TrainState, step: int, plan: StepPlan) -> Shot:
        """The shot that follows; counts it in ``state.views_taken``."""
        whole = self._next_view(state, self.scale(step, plan))
        view, offset = whole, (0, 0)
        if plan.stride > 1:
            offset = drawn_offset(self.settings.seed, state.views_taken, whole, plan.stride)
            view = strided_view(whole, plan.stride, offset)
        maps = self._weights(whole, plan.stride, offset) if plan.maps else None
        stats = self._densifier.needs(step)
        options = RenderOptions(
            sh_degree=self._sh_degree(state, step),
            filter2d=self.settings.filter2d,
            background=self._background(state, view),
            stats=stats - WEIGHTED_STATS if plan.maps and maps is None else stats,
            pixel_weights=maps,
            blur_scale=blur_scale(plan.stride),
            tan_limits=tan_limits(whole.camera) if plan.stride > 1 else None,
        )
        camera = self.frames.cameras[whole.index]
        full_size = (whole.camera.width, whole.camera.height) == (camera.width, camera.height)
        return Shot(view, options, self._l1_weights(step, whole, plan.stride, offset), full_size)

    def probe(
        self, state: TrainState, step: int, plan: StepPlan, rasterizer: Rasterizer,
        inputs: Callable[[], RenderInputs] | None = None,
    ) -> ViewProbe:  # fmt: skip
        """Looks at training views as this step would draw them, but for the stride; ``inputs`` gives what it draws."""
        options = RenderOptions(sh_degree=self._sh_degree(state, step), filter2d=self.settings.filter2d)
        return ViewProbe(
            state.model, self.frames, rasterizer, options, self.scale(step, plan),
            self.settings.background or (0.0, 0.0, 0.0), inputs,
        )  # fmt: skip

    def scale(self, step: int, plan: StepPlan) -> float:
        """Sides of the training picture over their full length, before any stride."""
        # Two schedules that coarsen do not add up: the coarser one counts.
        return min(plan.res_scale, 1 / self.settings.resolution.factor_at(step), 1.0)

    def release(self) -> None:
        """Memory ran out: keep nothing that can be made again."""
        self.frames.release()
        self._maps.release()
        if self._detail is not None:
            self._detail.release()

    def _next_view(self, state: TrainState, scale: float) -> View:
        taken = state.views_taken
        view = self.frames.view(self._order.view(taken), scale)
        state.views_taken = taken + 1  # only now: a picture that cannot be read leaves the state whole
        self.frames.prefetch(self._order.upcoming(taken + 1, PREFETCH_VIEWS))
        return view

    def _weights(self, whole: View, stride: int, offset: Offset) -> Tensor | None:  # [1,M,H,W]
        """The densifier's maps, zero where an edit by hand is contradicted."""
        maps = self._maps.of(whole)
        if maps is None:
            return None
        kept = self.frames.kept(whole)
        maps = maps if kept is None else maps * (kept[:, None] > 0)
        return weights(every(maps, stride, offset))

    def _sh_degree(self, state: TrainState, step: int) -> int:
        return min(self.settings.sh_degree_at(step), state.model.sh_degree)

    def _background(self, state: TrainState, view: View) -> Tensor:  # [3]
        colour = view.camera.background or self.settings.background
        if colour is not None:
            return torch.tensor(colour, dtype=torch.float32).to(self._device, non_blocking=True)
        generator = keyed_generator(self.settings.seed, "background", state.views_taken)
        return torch.rand(3, generator=generator).to(self._device, non_blocking=True)

    def _l1_weights(self, step: int, whole: View, stride: int, offset: Offset) -> Tensor | None:  # [1,H,W]
        """Factors on the L1 of this view, where the loss has some."""
        if self._detail is None:
            return None
        factors = self._detail.factors(whole.index, whole.pixels, step / self.settings.steps)
        return every(factors, stride, offset)
