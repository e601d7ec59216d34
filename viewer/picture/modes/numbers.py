"""Modes that show one number per splat (or pixel) by a ramp."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from splat.viewer.picture.lifted import photo_errors, photo_gradients
from splat.viewer.picture.modes.projected import projected
from splat.viewer.picture.modes.view import MIN_ALPHA, Painted, View, remembered
from splat.viewer.picture.ramps import as_colors, seen_range, shares

_FINE_PIXELS = 100_000
"""A larger picture has its density in blocks of 2x2 px: a span per splat and line is what takes the time."""


def painted_number(view: View, values: Tensor, alpha: Tensor, *, near_is_high: bool = False) -> Painted:
    """``values [H,W]`` by the look's ramp and range, fading to the background with ``alpha [H,W]``."""
    look = view.look
    low, high = seen_range(values, alpha >= MIN_ALPHA, log_scale=look.log_scale)
    low = low if look.low is None else look.low
    high = high if look.high is None else look.high
    share = shares(values, low, high, log_scale=look.log_scale, invert=look.invert != near_is_high)
    return Painted(view.over_background(as_colors(share, look.ramp), alpha), (low, high))


def blended(view: View, values: Tensor, known: Tensor | None = None) -> Painted:
    """A number per splat ``values [N]``: every pixel shows the mean of what blends there, weighted as colour is.
    Splats that have no number (``known [N]`` false) do not take part."""
    if known is None:
        drawn = view.render(values[:, None])
        weight = drawn.alpha[0]
    else:
        known = known.to(values.dtype)
        drawn = view.render(torch.stack([values.nan_to_num() * known, known], dim=1))
        weight = drawn.features[0, ..., 1]
    return painted_number(view, drawn.features[0, ..., 0] / weight.clamp_min(1e-6), weight)


def of_model(name: str, values: Callable[[View], Tensor]) -> Callable[[View], Painted]:
    """A mode that blends ``values(view)``: [N], made once per snapshot unless a preview changes the model."""

    def draw(view: View) -> Painted:
        if view.preview is not None:
            return blended(view, values(view))
        return blended(view, remembered(view.snapshot, ("number", name), lambda: values(view)))

    return draw


def opacities(view: View) -> Tensor:
    return view.model.opacities


def largest_scales(view: View) -> Tensor:
    return view.model.scales.amax(dim=1) if view.model.count else view.model.scales.new_zeros(0)


def draw_ages(view: View) -> Painted:
    snapshot = view.snapshot
    return blended(view, (snapshot.step - snapshot.labels.born).clamp_min(0).to(torch.float32))


def draw_errors(view: View) -> Painted:
    return blended(view, *photo_errors(view.snapshot, view.rasterizer, view.desk))


def draw_gradients(view: View) -> Painted:
    return blended(view, *photo_gradients(view.snapshot, view.rasterizer, view.desk))


def draw_density(view: View) -> Painted:
    """How many splats blend in a pixel before it is opaque. The rasterizer counts the pixels of every splat; they are
    spread evenly over its footprint, so that the total is exact, and only what hides a part of a splat is not known.
    """
    drawn = view.render(stats=frozenset({"fragments"}))
    counts = drawn.stats.fragments[0]
    rows = (counts > 0).nonzero().squeeze(1)
    height, width = drawn.alpha.shape[1:]
    block = 2 if height * width > _FINE_PIXELS else 1
    coarse = replace(view, camera=view.camera.resized(-(-width // block), -(-height // block)))
    density = spread_evenly(coarse, rows, counts[rows] / block**2)
    density = density.repeat_interleave(block, 0).repeat_interleave(block, 1)[:height, :width]
    return painted_number(view, density, drawn.alpha[0])


def spread_evenly(view: View, rows: Tensor, amounts: Tensor) -> Tensor:  # [R], [R] -> [H,W]
    """``amounts`` of some rows, each spread over the pixels of its footprint."""
    height, width = view.camera.height, view.camera.width
    marks = projected(view, rows)
    (a, b, d), (cx, cy) = marks.spread[:, (0, 0, 1), (0, 1, 1)].unbind(1), marks.centers.unbind(1)
    reach = 2 * (255 * marks.opacities).clamp_min(1).log()  # squared, in standard deviations: where alpha is 1/255
    half = (reach * d).sqrt()
    first, last = _cut(cy - half, cy + half, height)
    lines = (last - first).long()
    # One span of pixels per splat and line of the picture: its ends go into a table that is summed up along x.
    owner = torch.arange(len(rows), device=rows.device).repeat_interleave(lines)
    y = torch.arange(len(owner), device=rows.device) - (lines.cumsum(0) - lines)[owner] + first[owner]
    off = y + 0.5 - cy[owner]
    middle = cx[owner] + (b / d)[owner] * off
    room = ((reach[owner] - off * off / d[owner]) * (a - b * b / d)[owner]).clamp_min(0).sqrt()
    left, right = _cut(middle - room, middle + room, width)
    area = torch.bincount(owner, (right - left).double(), minlength=len(rows))
    share = (amounts.double() / area.clamp_min(1))[owner]
    at = (y * (width + 1)).long()
    ends = torch.bincount(at + left.long(), share, minlength=height * (width + 1))
    ends -= torch.bincount(at + right.long(), share, minlength=height * (width + 1))
    return ends.reshape(height, width + 1).cumsum(1)[:, :width].clamp_min(0).float()


def _cut(low: Tensor, high: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """First pixel and the one after the last of spans, at least one pixel long, and then cut at the picture's border:
    what lies outside is empty."""
    first = low.nan_to_num().floor()
    last = torch.maximum(high.nan_to_num().ceil(), first + 1)
    return first.clamp(0, size), last.clamp(0, size)
