"""Which splats a shape takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from splat.edit.attributes import ATTRIBUTES, base_colors
from splat.edit.flat import flooded, in_pixels, in_polygon, in_rect, in_stroke, mask_of_runs, pixel_centers
from splat.edit.lifting import is_seen, lifted, rendered, splat_at
from splat.edit.ops import Reach
from splat.edit.shapes import (
    ON_SCREEN,
    AttributeRange,
    Box,
    Brush,
    Click,
    ColorRange,
    Everything,
    Flood,
    Lasso,
    Mask,
    Nothing,
    Rect,
    Shape,
    Sphere,
    ViewSpec,
)
from splat.errors import UserError
from splat.model.labels import HIDDEN, LOCKED, Labels
from splat.model.splat_model import SplatModel
from splat.render.types import Rasterizer, RenderOptions

NEAR = RenderOptions.near
"""World units: what is nearer is not drawn, so it is not on the screen either."""


def selected(
    shape: Shape, model: SplatModel, labels: Labels, *, reach: Reach = "centers", rasterizer: Rasterizer | None = None
) -> Tensor:  # [N] bool
    """The splats ``shape`` takes, never locked or hidden ones.

    ``reach`` matters for shapes on the screen: ``centers`` takes every splat whose centre lies behind the shape,
    ``visible`` those that show in it (``lifting.is_seen``, hidden splats away). UserError when a picture has to be
    drawn and there is no ``rasterizer``, and for what does not fit together.
    """
    free = takeable(labels)
    if shape.kind in ON_SCREEN:
        return _SCREEN[shape.kind](shape, _Seen(model, (labels.flags & HIDDEN) == 0, reach, rasterizer)) & free
    return _SPACE[shape.kind](shape, model, labels) & free


def takeable(labels: Labels) -> Tensor:  # [N] bool
    """Splats that can be selected and edited: neither locked nor hidden."""
    return (labels.flags & (LOCKED | HIDDEN)) == 0


def projected(model: SplatModel, view: ViewSpec) -> tuple[Tensor, Tensor, Tensor]:  # [N] float64 each
    """Pixel coordinates u and v of the centres, and whether they are before the camera [N] bool. Written out, so that
    the same splats are taken on any machine."""
    x, y, z = model.rows["means"].detach().double().unbind(1)
    pose, K = view.camera_from_world, view.K
    right, down, depth = (row[0] * x + row[1] * y + row[2] * z + row[3] for row in pose[:3])
    ahead = depth > NEAR
    depth = torch.where(ahead, depth, torch.ones_like(depth))
    right, down = right / depth, down / depth
    return K[0][0] * right + K[0][1] * down + K[0][2], K[1][1] * down + K[1][2], ahead


class _Seen:
    """A model as shapes on the screen look at it."""

    def __init__(self, model: SplatModel, drawn: Tensor, reach: Reach, rasterizer: Rasterizer | None) -> None:
        self.model, self.drawn, self.reach, self._rasterizer = model, drawn, reach, rasterizer

    @property
    def rasterizer(self) -> Rasterizer:
        if self._rasterizer is None:
            raise UserError("what is seen cannot be told without a rasterizer; select by centers")
        return self._rasterizer

    def within(self, view: ViewSpec, holds: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Splats of the part of the screen where ``holds(u, v)`` is true."""
        if self.reach == "centers":
            u, v, ahead = projected(self.model, view)
            return holds(u, v) & ahead
        return self.showing(view, holds(*pixel_centers(view.width, view.height, self.model.device)))

    def showing(self, view: ViewSpec, mask: Tensor) -> Tensor:
        """Splats that show where ``mask`` [H*W] or [H,W] is set."""
        picture = mask.reshape(view.height, view.width).float()
        return is_seen(self.model, view.camera(), picture, self.rasterizer, drawn=self.drawn)

    def in_region(self, view: ViewSpec, region: Tensor) -> Tensor:
        """As ``within``, for pixels [H,W] bool."""
        if self.reach == "visible":
            return self.showing(view, region)
        u, v, ahead = projected(self.model, view)
        return in_pixels(u, v, region) & ahead


def _in_rect(shape: Rect, seen: _Seen) -> Tensor:
    return seen.within(shape.view, lambda u, v: in_rect(u, v, shape.low, shape.high))


def _in_lasso(shape: Lasso, seen: _Seen) -> Tensor:
    return seen.within(shape.view, lambda u, v: in_polygon(u, v, shape.points))


def _under_brush(shape: Brush, seen: _Seen) -> Tensor:
    return seen.within(shape.view, lambda u, v: in_stroke(u, v, shape.points, shape.radius_px))


def _clicked(shape: Click, seen: _Seen) -> Tensor:
    row = splat_at(seen.model, shape.view.camera(), *shape.at, seen.rasterizer, drawn=seen.drawn)
    found = torch.zeros(seen.model.count, dtype=torch.bool, device=seen.model.device)
    if row is not None:
        found[row] = True
    return found


def _flooded(shape: Flood, seen: _Seen) -> Tensor:
    """The region is that of the drawn picture over black."""
    x, y = int(shape.at[0] // 1), int(shape.at[1] // 1)
    if not (0 <= x < shape.view.width and 0 <= y < shape.view.height):
        return torch.zeros(seen.model.count, dtype=torch.bool, device=seen.model.device)
    color = rendered(seen.model, shape.view.camera(), seen.rasterizer, drawn=seen.drawn).color[0].clamp(0, 1)
    alike = (color - color[y, x]).abs().amax(2) <= shape.tolerance
    return seen.in_region(shape.view, flooded(alike, x, y))


def _masked(shape: Mask, seen: _Seen) -> Tensor:
    """By centres: those inside the mask in more than ``share`` of the views that have them in the picture."""
    if len(shape.views) != len(shape.runs):
        raise UserError(f"a mask for every view is needed: {len(shape.views)} views, {len(shape.runs)} masks")
    model, masks = seen.model, []
    for number, (view, runs) in enumerate(zip(shape.views, shape.runs, strict=True), start=1):
        try:
            masks.append(mask_of_runs(runs, view.width, view.height, model.device))
        except ValueError as error:
            raise UserError(f"mask {number}: {error}") from error
    if seen.reach == "visible":
        cameras = [view.camera() for view in shape.views]
        return lifted(model, cameras, [mask.float() for mask in masks], seen.rasterizer, drawn=seen.drawn) > shape.share
    inside = total = torch.zeros(model.count, dtype=torch.int32, device=model.device)
    for view, mask in zip(shape.views, masks, strict=True):
        u, v, ahead = projected(model, view)
        inside = inside + (in_pixels(u, v, mask) & ahead)
        total = total + (in_pixels(u, v, torch.ones_like(mask)) & ahead)
    return inside > shape.share * total


def _in_sphere(shape: Sphere, model: SplatModel, _: Labels) -> Tensor:
    x, y, z = (model.rows["means"].detach().double() - _row(shape.center, model)).unbind(1)
    return x * x + y * y + z * z <= shape.radius**2


def _in_box(shape: Box, model: SplatModel, _: Labels) -> Tensor:
    """The border belongs to it."""
    turn = [row[:3] for row in shape.world_from_box[:3]]
    x, y, z = (
        model.rows["means"].detach().double() - _row([row[3] for row in shape.world_from_box[:3]], model)
    ).unbind(1)
    inside = torch.ones(model.count, dtype=torch.bool, device=model.device)
    for axis, side in enumerate(shape.size):  # the inverse of a rotation has its columns as rows
        along = turn[0][axis] * x + turn[1][axis] * y + turn[2][axis] * z
        inside &= along.abs() <= side / 2
    return inside


def _by_color(shape: ColorRange, model: SplatModel, _: Labels) -> Tensor:
    colors = base_colors(model)
    return (colors - _row(shape.rgb, model).to(colors)).abs().amax(1) <= shape.tolerance


def _by_attribute(shape: AttributeRange, model: SplatModel, labels: Labels) -> Tensor:
    values = ATTRIBUTES[shape.attribute].values(model, labels).double()
    return (values >= shape.low) & (values <= shape.high)


def _row(numbers: object, model: SplatModel) -> Tensor:  # [1,3]
    return torch.tensor([list(numbers)], dtype=torch.float64, device=model.device)


def _all(_: Everything, model: SplatModel, __: Labels) -> Tensor:
    return torch.ones(model.count, dtype=torch.bool, device=model.device)


def _none(_: Nothing, model: SplatModel, __: Labels) -> Tensor:
    return torch.zeros(model.count, dtype=torch.bool, device=model.device)


_SCREEN: Mapping[str, Callable[..., Tensor]] = {
    Rect.kind: _in_rect, Lasso.kind: _in_lasso, Brush.kind: _under_brush, Click.kind: _clicked, Flood.kind: _flooded,
    Mask.kind: _masked,
}  # fmt: skip
_SPACE: Mapping[str, Callable[..., Tensor]] = {
    Sphere.kind: _in_sphere, Box.kind: _in_box, ColorRange.kind: _by_color, AttributeRange.kind: _by_attribute,
    Everything.kind: _all, Nothing.kind: _none,
}  # fmt: skip
