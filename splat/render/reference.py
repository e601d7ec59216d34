"""The readable definition of what our rasterizers draw, in plain torch.

It is slow and keeps a [pixels x splats] table, so it is for tests and small experiments. Where another
rasterizer of this package disagrees with it, the other one is wrong. Works in float32 and float64 and is
differentiable with respect to every field of ``RenderInputs`` (but ``filter3d``), the background and the poses,
whose 3x4 entries count as independent numbers (the optical centre is -R^T t).

Where we leave 3DGS (Kerbl et al. 2023): the picture has its own principal point, pixel centres sit at +0.5,
alpha is exactly 0 below 1/255, and no gradient leaks through the clamp at 0.99 (as in gsplat).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from splat.errors import UserError
from splat.model.render_inputs import RenderInputs
from splat.render.footprints import check_tables, misfit
from splat.render.reference_footprints import ReferenceFootprint, footprint_of
from splat.render.reference_projection import ALPHA_MIN, ScreenSplats, View, drawable, meets_image, take_rows
from splat.render.reference_stats import Fragments, ViewStats
from splat.render.types import (
    BACKWARD_STATS,
    FORWARD_STATS,
    CameraBatch,
    RenderOptions,
    RenderOutput,
    SplatStats,
)

ALPHA_MAX = 0.99  # so that 1 - alpha can be divided by, and two opaque splats end a ray
TRANSMITTANCE_MIN = 1e-4  # what lies behind changes no 8-bit picture
CHUNK_ELEMENTS = 1 << 19  # pixels x splats handled at once


@dataclass(frozen=True)
class ReferenceRasterizer:
    """Draws one pixel chunk at a time, all splats of a view sorted by depth."""

    name: str = field(default="reference", init=False)
    smooth: bool = False
    """For tests only: without the cuts at 1/255, 0.99 and 1e-4 the picture is smooth, so finite differences hold."""

    def supports(self, inputs: RenderInputs, options: RenderOptions, device: torch.device) -> str | None:
        reason = misfit(inputs, options.filter2d)
        if reason:
            return reason
        if any(inputs.constants[1:]):
            return "the reference rasterizer gives the gradients of the formulas, not the published ones."
        unknown = sorted(options.stats - FORWARD_STATS - BACKWARD_STATS)
        if unknown:
            return f"unknown statistics {unknown}; use some of {', '.join(sorted(FORWARD_STATS | BACKWARD_STATS))}."
        if "shape_grad" in options.stats and not inputs.shape:
            return f"the statistic shape_grad is the gradient of a shape, which '{inputs.kind}' splats do not have."
        if options.pixel_weights is None and options.stats & {"weighted_count", "weighted_blend", "texgrad"}:
            return "weighted_count, weighted_blend and texgrad need RenderOptions.pixel_weights."
        return None

    def can_update(self, inputs: RenderInputs) -> bool:
        return False

    def render(
        self, inputs: RenderInputs, cameras: CameraBatch, options: RenderOptions, *, update: None = None
    ) -> RenderOutput:
        reason = self.supports(inputs, options, inputs.means.device)
        if reason:
            raise UserError(reason)
        check_tables(inputs)
        stats = SplatStats()
        pictures = [self._render_view(inputs, cameras, options, stats, view) for view in range(len(cameras))]
        stacked = {key: torch.stack([p[key] for p in pictures]) for key in pictures[0]}
        return RenderOutput(**stacked, stats=stats)

    def screen_splats(
        self, inputs: RenderInputs, view: View, options: RenderOptions
    ) -> tuple[Tensor, Tensor, ScreenSplats]:
        """Rows that are drawn, front to back [n]; the box-meets-picture flag of all [N]; and the drawn ones projected.

        Rows are chosen first and projected with gradients afterwards, so that a bad row cannot poison a good one.
        """
        rows, visible = self.drawn_rows(inputs, view, options)
        return rows, visible, footprint_of(inputs, options).project(take_rows(inputs, rows), view, options)

    @torch.no_grad()
    def drawn_rows(self, inputs: RenderInputs, view: View, options: RenderOptions) -> tuple[Tensor, Tensor]:
        """The first two of ``screen_splats``."""
        everything = footprint_of(inputs, options).project(inputs, view, options)
        good = drawable(everything, inputs, options, min_opacity=0.0 if self.smooth else ALPHA_MIN)
        visible = good & meets_image(everything, view)
        rows = (good if self.smooth else visible).nonzero().squeeze(1)
        order = everything.depths[rows].float().sort(stable=True).indices  # float32 as in every backend
        return rows[order], visible

    def fragments(self, footprint: ReferenceFootprint, splats: ScreenSplats, pixels: Tensor) -> Fragments:
        """Composite ``splats [n]`` front to back over the pixel centres ``pixels [P,2]``."""
        dx = pixels[:, None, 0] - splats.means2d[None, :, 0]  # [P,n]
        dy = pixels[:, None, 1] - splats.means2d[None, :, 1]
        response = footprint.response(splats, dx, dy)
        opacities = splats.opacities.expand(dx.shape)
        raw = opacities * response
        if self.smooth:
            live, alphas = torch.ones_like(raw, dtype=torch.bool), raw
        else:
            alphas = raw.clamp(max=ALPHA_MAX)
            with torch.no_grad():
                bright = alphas >= ALPHA_MIN
                # Transmittance only falls, so "stop at the first" equals "skip all below".
                live = bright & ((1 - alphas * bright).cumprod(1) >= TRANSMITTANCE_MIN)
            alphas = torch.where(live, alphas, torch.zeros_like(alphas))
        after = (1 - alphas).cumprod(1)  # [P,n]
        before = torch.cat([after.new_ones(len(pixels), 1), after], 1)  # [P,n+1]
        clamped = raw.detach() > ALPHA_MAX if not self.smooth else ~live
        return Fragments((dx, dy), opacities, response, live, clamped, alphas, before[:, :-1], before[:, -1])

    def _render_view(
        self, inputs: RenderInputs, cameras: CameraBatch, options: RenderOptions, stats: SplatStats, index: int
    ) -> dict[str, Tensor]:
        view = View(
            cameras.camera_from_world[index], cameras.K[index], cameras.width, cameras.height, options.tan_limits
        )
        footprint = footprint_of(inputs, options)
        rows, visible = self.drawn_rows(inputs, view, options)
        maps = 0 if options.pixel_weights is None else options.pixel_weights.shape[1]
        watcher = ViewStats(stats, options.stats, index, rows, (len(cameras), inputs.count, maps))
        watching = watcher.wants_backward and torch.is_grad_enabled()
        chosen = take_rows(inputs, rows)
        if watching and "shape_grad" in options.stats:
            chosen = replace(chosen, shape=(*chosen.shape[:-1], _tap(chosen.shape[-1])))
            watcher.finish_shape_on(chosen.shape[-1])
        splats = footprint.project(chosen, view, options)
        if watching:
            splats = replace(
                splats, **{name: _tap(getattr(splats, name)) for name in ("means2d", "colors", "opacities")}
            )
            watcher.finish_on(splats.means2d, splats.colors, splats.opacities, view.width, view.height)
        background = _background_of(options, index, like=splats.colors)
        _write_projection_stats(watcher, splats, visible)
        pixels = _pixel_centers(view, like=splats.colors)  # [H*W,2]
        weights = None if maps == 0 else options.pixel_weights[index].flatten(1).to(splats.colors.dtype)  # [M,H*W]
        pieces = []
        for part in torch.arange(len(pixels)).split(max(1, CHUNK_ELEMENTS // max(1, len(rows)))):
            chunk = self.fragments(footprint, splats, pixels[part])
            part_weights = None if weights is None else weights[:, part]
            watcher.observe_forward(chunk, part_weights)
            if "sensitivity" in options.stats:
                watcher.observe_sensitivity(chunk, splats.colors, background)
            if watching:
                watcher.watch(chunk, part_weights, view.width, view.height)
            pieces.append(
                _blend(chunk, splats, features=chosen.features, background=background, rows=rows, options=options)
            )
        shape = (view.height, view.width)
        return {key: torch.cat([p[key] for p in pieces]).unflatten(0, shape) for key in pieces[0]}


def _blend(
    chunk: Fragments, splats: ScreenSplats, *, features: Tensor | None, background: Tensor, rows: Tensor,
    options: RenderOptions,
) -> dict[str, Tensor]:  # fmt: skip
    """What was asked for, per pixel of the chunk [P,...]."""
    weights = chunk.alphas * chunk.transmittance  # [P,n]
    picture = {
        "color": weights @ splats.colors + chunk.final_transmittance[:, None] * background,
        "alpha": 1 - chunk.final_transmittance,
    }
    if features is not None:
        picture["features"] = weights @ features
    if "expected" in options.depth:
        picture["depth_expected"] = weights @ splats.depths
    if "median" in options.depth:
        behind = chunk.transmittance * (1 - chunk.alphas)
        crossing = (chunk.transmittance > 0.5) & (behind <= 0.5)  # at most one per pixel
        picture["depth_median"] = crossing.to(splats.depths.dtype) @ splats.depths
    if options.top_id:
        best = torch.full(weights.shape[:1], -1, dtype=torch.int32, device=weights.device)
        if len(rows):
            top = weights.detach().max(1)  # the first of equals, that is the nearest
            best = torch.where(top.values > 0, rows[top.indices].int(), best)
        picture["top_id"] = best
    return picture


def _tap(value: Tensor) -> Tensor:
    """The same values in a tensor of its own that always carries a gradient, so that a hook sees all of it."""
    return value + torch.zeros_like(value).requires_grad_()


@torch.no_grad()
def _write_projection_stats(watcher: ViewStats, splats: ScreenSplats, visible: Tensor) -> None:
    """The statistics that need no pixels; all of them are 0 for rows that are not visible."""
    for name in watcher.names & FORWARD_STATS | watcher.names & {"sensitivity"}:
        watcher.prepare(name, splats.depths)
    if not len(watcher.rows):
        for name in watcher.names & BACKWARD_STATS:
            watcher.prepare(name, splats.depths)
    shown = visible[watcher.rows]
    stats, rows = watcher.stats, watcher.rows[shown]
    if "visible" in watcher.names:
        stats.visible[watcher.view] = visible
    if "radii_px" in watcher.names:
        stats.radii_px[watcher.view, rows] = splats.radii_px[shown]
    if "depths" in watcher.names:
        stats.depths[watcher.view, rows] = splats.depths[shown]


def _background_of(options: RenderOptions, view: int, like: Tensor) -> Tensor:  # [3]
    if options.background is None:
        return like.new_zeros(3)
    return options.background if options.background.ndim == 1 else options.background[view]


def _pixel_centers(view: View, like: Tensor) -> Tensor:  # [H*W,2]
    x = torch.arange(view.width, dtype=like.dtype, device=like.device) + 0.5
    y = torch.arange(view.height, dtype=like.dtype, device=like.device) + 0.5
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
