"""One frame of a page."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splat.errors import UserError
from splat.geometry.camera import Camera
from splat.live.snapshot import Snapshot
from splat.render.types import Rasterizer
from splat.viewer.picture.compare import beside
from splat.viewer.picture.look import Look
from splat.viewer.picture.modes import MODES, Mode
from splat.viewer.picture.modes.view import SELECTION_RGB, Preview, View

SELECTION_STRENGTH = 0.6
"""How much of the tint shows on a pixel that is all selected; the rest is the picture."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """Pixels of one frame."""

    rgb: np.ndarray  # [H,W,3] uint8
    depth: np.ndarray | None  # [H,W] float32, world units along the camera's z; 0 = nothing there
    camera: Camera
    values: tuple[float, float] | None
    """Ends of the ramp, where the mode has one."""


@torch.no_grad()
def draw(
    snapshot: Snapshot,
    camera: Camera,
    look: Look,
    *,
    rasterizer: Rasterizer,
    want_depth: bool = False,
    preview: Preview | None = None,
    desk: Any = None,
) -> Drawn:
    """``snapshot`` seen by ``camera`` as ``look`` wants it. Changes none of them, and copies no table of the model
    that ``preview`` does not change.

    ``depth`` is where half of the light of a pixel is gone (the median): it has no values between a thing and what is
    behind it. ``desk`` gives photographs to the modes and comparisons that need them. UserError for a mode that is
    unknown, or needs what is not there; ValueError for a filter the primitive cannot be drawn with.
    """
    view = View(snapshot, camera, look, rasterizer, preview, desk, want_depth)
    painted = mode_named(look.mode).draw(view)
    rgb = _tinted(painted.rgb, view)
    if want_depth and view.output is None:
        view.render()
    if look.compare is not None:
        rgb = beside(rgb, view)
    depth = view.output.depth_median[0].float().cpu().numpy() if want_depth else None
    return Drawn(rgb.cpu().numpy(), depth, camera, painted.values)


def mode_named(name: str) -> Mode:
    """A row of ``MODES``; UserError for an unknown name."""
    if name not in MODES:
        near = difflib.get_close_matches(name, MODES, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise UserError(f"there is no mode '{name}'{hint}; choices: {', '.join(MODES)}")
    return MODES[name]


def _tinted(rgb: Tensor, view: View) -> Tensor:  # [H,W,3] uint8
    """With what is selected marked."""
    if view.marked is None:
        return rgb
    share = (view.marked.clamp(0, 1) * SELECTION_STRENGTH)[..., None]
    tint = torch.tensor(SELECTION_RGB, dtype=torch.float32, device=rgb.device)
    return (rgb + (tint - rgb) * share).round().to(torch.uint8)
