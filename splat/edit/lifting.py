"""From pixels to splats: how much each one shows where a picture is marked.

A splat's weight at a pixel is alpha * T, what the rasterizer blends it with; summed over marked pixels it says what of
the splat is seen there (the lifting of GaussianEditor, Chen et al. 2024; specs: viewer_editing 2). No gradient is
needed: rasterizers sum maps of pixels as statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from splat.errors import UserError
from splat.geometry.camera import Camera
from splat.model.filter3d import filtered
from splat.model.render_inputs import RenderInputs
from splat.model.splat_model import SplatModel
from splat.render.types import CameraBatch, Rasterizer, RenderOptions, RenderOutput

HIDDEN_LOGIT = -30.0
"""Of splats that are not drawn: far below anything that shows."""
SEEN = 0.005
"""Least weight of a splat that counts as seen, per pixel it covers and opacity. A Gaussian nothing stands before has
(1 - 1/m) / ln m with m = 255 * opacity: 0.18 at opacity 0.9, 0.3 at 0.1; so about 3 % of it must come through. Surfaces
are many splats deep: in a rectangle on scenes/nook (20,000 splats, 5,600 behind it) the 3,900 taken make up 98 % of
the picture; with ten times as much, less than 70 %."""
AMIDST = 0.5
"""Least weight per pixel inside a shape over that in the whole picture: a splat reaches into the shape by about its
middle, not by its rim alone."""
_MARGIN = 0.3
"""Of tan(fov/2): how far beyond the picture projection is linearised, as rasterizers do of their own accord."""


def seen_weight(
    model: SplatModel, view: Camera, mask: Tensor, rasterizer: Rasterizer, *, drawn: Tensor | None = None
) -> Tensor:  # [N]
    """Per splat the sum over pixels of ``mask [H,W]`` * alpha * T; splats outside ``drawn`` [N] bool are left out of
    the picture. UserError where ``rasterizer`` cannot draw this model."""
    return _weighed(model, view, [mask], rasterizer, drawn)[1][0]


def is_seen(
    model: SplatModel, view: Camera, mask: Tensor, rasterizer: Rasterizer, *, drawn: Tensor | None = None
) -> Tensor:  # [N] bool
    """Splats that show inside ``mask [H,W]``: by their weight per pixel they cover there, over their opacity (``SEEN``:
    the same for small and large, strong and faint ones) and over what they weigh elsewhere (``AMIDST``). Drawn with a
    screen filter that leaves opacities as they are: by how much others lower one depends on the view."""
    plain = replace(model, filter2d="classic")
    count, weight = _weighed(plain, view, [mask, torch.ones_like(mask)], rasterizer, drawn)
    opacities = model.opacities.detach()
    if model.filter3d is not None:
        opacities = filtered(model.scales.detach(), opacities, model.filter3d)[1]
    comes_through = weight[0] >= SEEN * count[0] * opacities.to(count)
    return (count[0] > 0) & comes_through & (weight[0] * count[1] >= AMIDST * weight[1] * count[0])


def lifted(
    model: SplatModel,
    views: Sequence[Camera],
    masks: Sequence[Tensor],
    rasterizer: Rasterizer,
    *,
    drawn: Tensor | None = None,
) -> Tensor:  # [N]
    """The share of what each splat shows in ``views`` that lies inside ``masks`` (one [H,W] per view); 0 for splats
    that show nowhere."""
    inside = total = torch.zeros(model.count, dtype=torch.float64, device=model.device)
    for view, mask in zip(views, masks, strict=True):
        _, weights = _weighed(model, view, [mask, torch.ones_like(mask)], rasterizer, drawn)
        inside, total = inside + weights[0], total + weights[1]
    return torch.where(total > 0, inside / total.clamp_min(1e-12), torch.zeros_like(total))


def splat_at(
    model: SplatModel, camera: Camera, x: float, y: float, rasterizer: Rasterizer, *, drawn: Tensor | None = None
) -> int | None:
    """The row that shows most at pixel (x, y); None where nothing is seen or the point is beside the picture."""
    column, row = int(x // 1), int(y // 1)
    if not (0 <= column < camera.width and 0 <= row < camera.height):
        return None
    K = camera.K.copy()
    K[:2, 2] -= (column, row)
    one = replace(camera, K=K, width=1, height=1)
    output = rendered(model, one, rasterizer, drawn=drawn, top_id=True, tan_limits=_tan_limits(camera))
    found = int(output.top_id[0, 0, 0])
    return None if found < 0 else found


@torch.no_grad()
def rendered(
    model: SplatModel, camera: Camera, rasterizer: Rasterizer, *, drawn: Tensor | None = None, **wanted: object
) -> RenderOutput:
    """A picture of the model without the splats outside ``drawn`` [N] bool; ``wanted`` are ``RenderOptions``."""
    inputs = _shown(model.render_inputs(), drawn)
    options = RenderOptions(sh_degree=model.sh_degree, filter2d=model.filter2d, **wanted)
    reason = rasterizer.supports(inputs, options, model.device)
    if reason is not None:
        raise UserError(f"what is seen cannot be told: {reason}")
    cameras = CameraBatch.of(camera, dtype=inputs.means.dtype, device=model.device)
    return rasterizer.render(inputs, cameras, options)


def _weighed(
    model: SplatModel, view: Camera, masks: Sequence[Tensor], rasterizer: Rasterizer, drawn: Tensor | None
) -> tuple[Tensor, Tensor]:  # [M,N] twice
    """Pixels of each mask that a splat covers, and its weight in them."""
    for mask in masks:
        if tuple(mask.shape) != (view.height, view.width):
            raise ValueError(f"a mask of {list(mask.shape)} does not fit a picture of {view.height} x {view.width}")
    if model.count == 0:
        return (torch.zeros(len(masks), 0, device=model.device),) * 2
    maps = torch.stack([mask.to(model.rows["means"]) for mask in masks])[None]
    wanted = frozenset({"weighted_count", "weighted_blend"})
    stats = rendered(model, view, rasterizer, drawn=drawn, stats=wanted, pixel_weights=maps).stats
    return stats.weighted_count[0], stats.weighted_blend[0]


def _shown(inputs: RenderInputs, drawn: Tensor | None) -> RenderInputs:
    if drawn is None or bool(drawn.all()):
        return inputs
    logits = torch.where(drawn, inputs.logit_opacities, torch.full_like(inputs.logit_opacities, HIDDEN_LOGIT))
    return replace(inputs, logit_opacities=logits)


def _tan_limits(camera: Camera) -> tuple[float, float, float, float]:
    """``RenderOptions.tan_limits`` of the whole picture, for a camera that draws a part of it."""
    (fx, _, cx), (_, fy, cy) = camera.K[:2]
    beside_x, beside_y = _MARGIN * camera.width / (2 * fx), _MARGIN * camera.height / (2 * fy)
    left, right = -cx / fx - beside_x, (camera.width - cx) / fx + beside_x
    top, bottom = -cy / fy - beside_y, (camera.height - cy) / fy + beside_y
    return float(left), float(right), float(top), float(bottom)
