"""A rasterizer on another device than the model: rows go over, pictures, gradients and statistics come back."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from splat.model.render_inputs import RenderInputs
from splat.render.types import CameraBatch, Rasterizer, RenderOptions, RenderOutput


class OnDevice:
    """Lets a GPU-only rasterizer draw for a model, a loss and an optimizer that live on the CPU.

    Every step copies the rows both ways, which a rasterizer of our own would not need.
    """

    def __init__(self, inner: Rasterizer, device: torch.device) -> None:
        self._inner, self._device = inner, torch.device(device)
        self.name = f"{inner.name} on {self._device.type}"

    def supports(self, inputs: RenderInputs, options: RenderOptions, device: torch.device) -> str | None:
        """Whatever ``device`` the model is on, what counts is the one drawn on."""
        return self._inner.supports(_moved(inputs, self._device), _moved(options, self._device), self._device)

    def can_update(self, inputs: RenderInputs) -> bool:
        return False

    def render(
        self, inputs: RenderInputs, cameras: CameraBatch, options: RenderOptions, *, update: None = None
    ) -> RenderOutput:
        home = inputs.means.device
        output = self._inner.render(*(_moved(part, self._device) for part in (inputs, cameras, options)))
        return replace(_moved(output, home), stats=_StatsAt(home, output.stats))


class _StatsAt:
    """Statistics as they are when read: those of the backward pass are filled in after the render."""

    def __init__(self, home: torch.device, stats: Any) -> None:
        self._home, self._stats = home, stats

    def __getattr__(self, name: str) -> Tensor | None:
        value = getattr(self._stats, name)
        return None if value is None else value.to(self._home)


def _moved(part: Any, device: torch.device) -> Any:
    """A dataclass with its tensors on ``device``; differentiable."""
    values = {item.name: getattr(part, item.name) for item in fields(part)}
    return replace(part, **{name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)})
