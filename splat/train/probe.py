"""A refinement's looks at training views: drawn without gradients, at the size of the step, as the rows are now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from splat.densify.protocol import Look, Objective
from splat.losses.photometric import photometric_loss
from splat.model.render_inputs import RenderInputs
from splat.model.splat_model import SplatModel
from splat.render.types import BACKWARD_STATS, CameraBatch, Rasterizer, RenderOptions, RenderOutput
from splat.train.frames import View
from splat.train.shield import ShieldedFrames

EXPECTED_DEPTH = frozenset({"expected"})


@dataclass(frozen=True, eq=False)
class ViewProbe:
    """See ``splat.densify.protocol.Probe``. Takes nothing from any generator and counts no view as taken."""

    model: SplatModel
    frames: ShieldedFrames
    rasterizer: Rasterizer
    options: RenderOptions
    """Filter and SH degree of the step."""
    scale: float
    """Sides of the pictures over their full length."""
    background: tuple[float, float, float]
    """Behind views that name no colour themselves."""
    inputs: Callable[[], RenderInputs] | None = None
    """What training draws of the model as it is now; None = its rows themselves."""

    @property
    def count(self) -> int:
        return len(self.frames.cameras)

    @torch.no_grad()
    def look(
        self, view: int, *, stats: frozenset[str], maps: Callable[[Tensor, Tensor], Tensor] | None = None,
        background: Tensor | None = None,
    ) -> Look:  # fmt: skip
        """Raises ValueError for statistics of the backward pass."""
        if stats & BACKWARD_STATS:
            raise ValueError(f"{sorted(stats & BACKWARD_STATS)} come from a backward pass: use look_gradient")
        shown = self.frames.view(view, self.scale)
        inputs = self._inputs()
        options = self._options(shown, background)
        if maps is None:
            return self._seen(shown, self._drawn(inputs, shown, replace(options, stats=stats)))
        first = self._drawn(inputs, shown, replace(options, depth=frozenset()))
        target, kept = _target(shown), self.frames.kept(shown)
        if kept is not None:  # no error where an edit by hand is contradicted
            target = torch.where(kept[0, ..., None] > 0, target, first.color[0].clamp(0, 1))
        pixel_weights = maps(first.color[0], target)[None].to(first.color.dtype)
        weighed = replace(options, stats=stats, pixel_weights=pixel_weights.contiguous())
        return self._seen(shown, self._drawn(inputs, shown, weighed))

    def look_gradient(self, view: int, *, stats: frozenset[str], loss: Objective = "sum") -> Look:
        shown = self.frames.view(view, self.scale)
        with torch.no_grad():
            inputs, leaves = _detached(self._inputs())
        with torch.enable_grad():
            output = self._drawn(inputs, shown, replace(self._options(shown, None), stats=stats))
            if output.color.requires_grad:  # nothing drawn (an empty model) has no gradient
                torch.autograd.grad(_objective(loss, output.color, shown), leaves, allow_unused=True)
        return self._seen(shown, output)

    def _inputs(self) -> RenderInputs:
        return self.model.render_inputs() if self.inputs is None else self.inputs()

    def _options(self, view: View, background: Tensor | None) -> RenderOptions:
        if background is None:
            background = torch.tensor(view.camera.background or self.background, dtype=torch.float32)
        behind = background.to(self.model.device, non_blocking=True)
        return replace(self.options, background=behind, depth=EXPECTED_DEPTH)

    def _drawn(self, inputs: RenderInputs, view: View, options: RenderOptions) -> RenderOutput:
        return self.rasterizer.render(inputs, CameraBatch.of(view.camera, device=self.model.device), options)

    def _seen(self, view: View, output: RenderOutput) -> Look:
        alpha, summed = output.alpha[0].detach(), output.depth_expected[0].detach()
        return Look(
            stats=output.stats,
            color=output.color[0].detach(),
            target=_target(view),
            alpha=alpha,
            depth=torch.where(alpha > 0, summed / alpha.clamp(min=1e-12), 0.0),
            width=view.camera.width,
            height=view.camera.height,
            mask=None if view.mask is None else view.mask[0].float() / 255,
        )


def _objective(loss: Objective, color: Tensor, view: View) -> Tensor:
    if loss == "sum":
        return color.sum()
    return photometric_loss(color, view.pixels, view.mask, ssim_weight=1.0).total


def _target(view: View) -> Tensor:  # [H,W,3] in 0..1
    return view.pixels[0].float() / 255


def _detached(inputs: RenderInputs) -> tuple[RenderInputs, list[Tensor]]:
    """The same rows as leaves of their own, so that a backward pass leaves nothing in the model's."""
    plain = {item.name: getattr(inputs, item.name) for item in fields(inputs) if item.name != "filter3d"}
    own = {name: value.detach().requires_grad_(True) for name, value in plain.items() if isinstance(value, Tensor)}
    shape = tuple(table.detach().requires_grad_(True) for table in inputs.shape)
    return replace(inputs, **own, shape=shape), [*own.values(), *shape]
