"""Modes that draw marks over the picture: centres as dots, footprints as ellipses."""

from __future__ import annotations

import torch
from torch import Tensor

from splat.geometry.sh import rgb_from_sh0
from splat.viewer.picture.modes.plain import to_8bit
from splat.viewer.picture.modes.projected import projected
from splat.viewer.picture.modes.view import SELECTION_RGB, Painted, View

OUTLINE_SIGMAS = 1.5
"""Where an opaque splat has a third of its opacity left: about where the eye sees its border."""
PROBES = 1500
"""Places spread evenly over the picture; whatever is on top there is outlined. All that is seen would be a carpet, and
those that show most would be the large ones, where little is to be seen."""
_MOST_SAMPLES = 3000
"""Points of one ellipse; beyond, its line has gaps, and it is larger than the picture anyway."""
_DIMMED = 0.35
_FAINTEST = 1 / 255
"""Opacity from where a splat is drawn at all."""


def draw_centers(view: View) -> Painted:
    """A dot of 2x2 px per splat, in its base colour (as seen from everywhere); nearer ones in front."""
    model, height, width = view.model, view.camera.height, view.camera.width
    at, z = view.pixels(model.rows["means"])
    shown = (z > max(view.look.near, 1e-6)) & (z < view.look.far) & (model.opacities >= _FAINTEST)
    if view.left_out is not None:
        shown = shown & ~view.left_out
    rows = shown.nonzero().squeeze(1)
    at, z = at[rows], z[rows]
    colors = (rgb_from_sh0(view.model.rows["sh0"][rows]).clamp(0, 1) * 255).round().to(torch.uint8)
    if view.selected is not None:
        colors[view.selected[rows]] = torch.tensor(SELECTION_RGB, dtype=torch.uint8, device=view.device)
    corner = (at - 1).round()
    steps = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=corner.dtype, device=view.device)
    places = (corner[:, None] + steps).reshape(-1, 2)
    owners = torch.arange(rows.shape[0], device=view.device).repeat_interleave(4)
    canvas = to_8bit(view.background.expand(height, width, 3))
    return Painted(_dotted(canvas, places, owners, z, colors))


def draw_outlines(view: View) -> Painted:
    """Borders of some splats that are seen, each in its own colour made bright, over the dimmed picture."""
    drawn = view.render(top_id=True)
    canvas = to_8bit(drawn.color[0] * _DIMMED)
    step = max(1, round((view.camera.width * view.camera.height / PROBES) ** 0.5))
    probed = drawn.top_id[0, step // 2 :: step, step // 2 :: step]
    rows = probed[probed >= 0].unique().to(torch.int64)
    if not len(rows):
        return Painted(canvas)
    splats = projected(view, rows)
    places, owners = _ellipses(splats.centers, splats.spread)
    colors = rgb_from_sh0(view.model.rows["sh0"][rows]).clamp(0.02, 1)
    colors = colors / colors.amax(dim=1, keepdim=True)
    return Painted(_dotted(canvas, places, owners, splats.z, (colors * 255).round().to(torch.uint8)))


def _ellipses(centers: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:  # [R,2], [R,2,2] -> [S,2], [S]
    """Points at most a pixel apart along the borders, and whose they are."""
    variances, axes = torch.linalg.eigh(spread)
    radii = variances.clamp_min(0).sqrt() * OUTLINE_SIGMAS  # [R,2], ascending
    # Where a thin ellipse is flattest, a point runs as fast as on the circle around it.
    counts = (2 * torch.pi * radii[:, 1]).nan_to_num().ceil().clamp(8, _MOST_SAMPLES).long()
    owners = torch.arange(len(counts), device=centers.device).repeat_interleave(counts)
    first = counts.cumsum(0) - counts
    turn = (torch.arange(len(owners), device=centers.device) - first[owners]) / counts[owners] * (2 * torch.pi)
    around = torch.stack([turn.cos(), turn.sin()], dim=1) * radii[owners]
    return centers[owners] + (axes[owners] @ around[..., None])[..., 0] - 0.5, owners


def _dotted(canvas: Tensor, places: Tensor, owners: Tensor, z: Tensor, colors: Tensor) -> Tensor:
    """``canvas [H,W,3]`` with pixels ``places [S,2]`` (x, y; rounded) in ``colors [R,3]`` of their ``owners [S]``,
    nearest ``z [R]`` first."""
    height, width = canvas.shape[:2]
    x, y = places.round().unbind(1)
    inside = ((x >= 0) & (x < width) & (y >= 0) & (y < height)).nonzero().squeeze(1)
    pixels = y[inside].long() * width + x[inside].long()
    owners = owners[inside]
    # Depth in the high bits, the owner in the low ones: the least key is the nearest splat, the same in every run.
    # Bits of positive floats rise with them.
    keys = (z.float().contiguous().view(torch.int32)[owners].long() << 32) | owners
    empty = torch.iinfo(torch.int64).max
    nearest = torch.full((height * width,), empty, dtype=torch.int64, device=canvas.device)
    nearest.scatter_reduce_(0, pixels, keys, "amin")
    hit = (nearest != empty).nonzero().squeeze(1)
    flat = canvas.reshape(-1, 3)
    flat[hit] = colors[nearest[hit] & 0xFFFFFFFF]
    return flat.reshape(height, width, 3)
