"""Modes that give every splat a colour of its own or of its kind: the splat on top decides a pixel, so that colours
stay those of the legend."""

from __future__ import annotations

import torch
from torch import Tensor

from splat.model.labels import Labels
from splat.viewer.picture.modes.view import Painted, View, remembered

_GOLDEN = 0.618033988749895
"""Steps of this part of a circle never come close to where they were."""
_MIX = -7046029254386353131
"""2^64 divided by the golden ratio, as a signed number: multiplying by it spreads neighbours over all bits."""


def id_colors(ids: Tensor) -> Tensor:  # [N] int64 -> [N,3] uint8
    """A colour per number: the same one always, and neighbours look different."""
    mixed = ids * _MIX
    mixed = (mixed ^ (mixed >> 29)) * _MIX
    hue, saturation, value = (((mixed >> shift) & 0xFFFF).float() / 0xFFFF for shift in (8, 24, 40))
    return _from_hsv(hue, 0.45 + 0.5 * saturation, 0.55 + 0.45 * value)


def kind_colors(count: int) -> Tensor:  # [count,3] uint8
    """Colours of categories, in the order of the legend; the first is grey: it is where everything began."""
    index = torch.arange(count, dtype=torch.float32)
    value = 0.95 - 0.3 * (index % 3 == 2).float()
    colors = _from_hsv((index * _GOLDEN + 0.35) % 1.0, torch.full_like(index, 0.75), value)
    colors[:1] = 150
    return colors


def legend(labels: Labels) -> list[tuple[str, tuple[int, int, int]]]:
    """Reasons and their colours."""
    return [
        (name, tuple(color)) for name, color in zip(labels.names, kind_colors(len(labels.names)).tolist(), strict=True)
    ]


def draw_ids(view: View) -> Painted:
    snapshot = view.snapshot
    return _painted(view, remembered(snapshot, "id colors", lambda: id_colors(snapshot.labels.ids)))


def draw_reasons(view: View) -> Painted:
    labels = view.snapshot.labels
    colors = kind_colors(len(labels.names)).to(view.device)
    return _painted(view, remembered(view.snapshot, "reason colors", lambda: colors[labels.reasons.long()]))


def _painted(view: View, colors: Tensor) -> Painted:
    drawn = view.render(top_id=True)
    seen = torch.where(drawn.top_id[0] >= 0, drawn.alpha[0], 0.0)
    return Painted(view.over_background(view.named_rows(colors, drawn.top_id[0]), seen))


def _from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:  # [N] each, 0..1 -> [N,3] uint8
    steps = torch.tensor([5.0, 3.0, 1.0], device=hue.device)
    k = (steps + hue[:, None] * 6) % 6
    ramp = torch.minimum(k, 4 - k).clamp(0, 1)
    return ((value[:, None] * (1 - saturation[:, None] * ramp)) * 255).round().to(torch.uint8)
