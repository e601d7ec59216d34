"""Modes that show one number per splat (or pixel) by a ramp."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from splat.viewer.modes.view import MIN_ALPHA, Painted, View, remembered
from splat.viewer.ramps import as_colors, seen_range, shares


def painted_number(view: View, values: Tensor, alpha: Tensor, *, near_is_high: bool = False) -> Painted:
    """``values [H,W]`` by the look's ramp and range, fading to the background with ``alpha [H,W]``."""
    look = view.look
    low, high = seen_range(values, alpha >= MIN_ALPHA, log_scale=look.log_scale)
    low = low if look.low is None else look.low
    high = high if look.high is None else look.high
    share = shares(values, low, high, log_scale=look.log_scale, invert=look.invert != near_is_high)
    seen = torch.where(alpha >= MIN_ALPHA, alpha, 0.0)
    return Painted(view.over_background(as_colors(share, look.ramp), seen), (low, high))


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


def ages(view: View) -> Tensor:
    return (view.snapshot.step - view.snapshot.labels.born).clamp_min(0).to(torch.float32)


def draw_density(view: View) -> Painted:
    """How many splats blend in a pixel, before it is opaque. The rasterizer counts the pixels of each splat; each
    spreads them evenly over the box of its footprint. So the total is exact, and a splat's own corners are a little
    too high for its middle to be a little too low."""
    drawn = view.render(stats=frozenset({"fragments", "radii_px", "visible"}))
    return painted_number(view, _spread(view, drawn.stats), drawn.alpha[0])


def _spread(view: View, stats) -> Tensor:  # [H,W]
    height, width = view.camera.height, view.camera.width
    counts, radii = stats.fragments[0].double(), stats.radii_px[0].double()
    rows = (counts > 0).nonzero().squeeze(1)
    counts, radii = counts[rows], radii[rows]
    centers = view.pixels(view.model.rows["means"][rows])[0].double()
    size = torch.tensor([width, height], dtype=torch.float64, device=view.device)
    low = torch.minimum((centers - radii).floor().clamp_min(0), size - 1)
    high = torch.maximum(torch.minimum((centers + radii).ceil(), size), low + 1)
    (left, top), (right, bottom) = low.long().unbind(1), high.long().unbind(1)
    share = counts / ((right - left) * (bottom - top))
    # Corners of boxes, summed up along both axes: the time does not depend on how large the boxes are.
    places = torch.cat([top * (width + 1) + left, bottom * (width + 1) + right, top * (width + 1) + right,
                        bottom * (width + 1) + left])  # fmt: skip
    corners = torch.bincount(
        places, torch.cat([share, share, -share, -share]), minlength=(height + 1) * (width + 1)
    ).reshape(height + 1, width + 1)
    return corners.cumsum(0).cumsum(1)[:height, :width].clamp_min(0).float()
