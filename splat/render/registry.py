"""The table of rasterizers by name; nothing heavy is imported before one is asked for."""

from __future__ import annotations

import difflib
import importlib

import torch

from splat.errors import UserError
from splat.model.render_inputs import RenderInputs
from splat.render.types import Rasterizer, RenderOptions

RASTERIZERS: dict[str, tuple[str, str]] = {
    "native": ("splat.render.native_rasterizer", "NativeRasterizer"),
    "gsplat": ("splat.render.gsplat_rasterizer", "GsplatRasterizer"),
    "reference": ("splat.render.reference", "ReferenceRasterizer"),
}
"""Name -> module and class. The class takes no required arguments."""

AUTOMATIC = ("native", "gsplat")
"""What ``auto`` tries, in this order. The reference is far too slow to be picked unasked."""


def rasterizer(name: str) -> Rasterizer:
    """The rasterizer called ``name``; UserError when there is none."""
    if name not in RASTERIZERS:
        near = difflib.get_close_matches(name, RASTERIZERS, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise UserError(f"unknown rasterizer '{name}'{hint}; use one of auto, {', '.join(sorted(RASTERIZERS))}")
    module, cls = RASTERIZERS[name]
    return getattr(importlib.import_module(module), cls)()


def choose(
    device: torch.device | str, wanted: str = "auto", *, options: RenderOptions | None = None
) -> Rasterizer:
    """The rasterizer ``wanted``, or with ``auto`` the first one able to draw on ``device`` with ``options``.

    UserError with every reason when nothing fits.
    """
    device = torch.device(device)
    options = options or RenderOptions()
    reasons = []
    for name in AUTOMATIC if wanted == "auto" else (wanted,):
        candidate = rasterizer(name)
        reason = candidate.supports(empty_inputs(device), options, device)
        if reason is None:
            return candidate
        reasons.append(f"{name}: {reason}")
    raise UserError(f"no rasterizer can draw on device '{device}': " + " ".join(reasons))


def empty_inputs(device: torch.device) -> RenderInputs:
    """Zero splats, to ask what a rasterizer supports before there are any. On the CPU where ``device`` is not there."""
    at = device if device.type == "cpu" or torch.cuda.is_available() else torch.device("cpu")
    shapes = {"means": (0, 3), "quats": (0, 4), "log_scales": (0, 3), "logit_opacities": (0,), "sh0": (0, 3)}
    rows = {name: torch.zeros(shape, device=at) for name, shape in shapes.items()}
    return RenderInputs(**rows, sh_rest=torch.zeros(0, 15, 3, device=at))
