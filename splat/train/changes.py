"""Settings that change while a run goes on (``live.commands.SETTINGS``): which values fit, and what they do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from splat.densify.protocol import RefineContext
from splat.live.commands import SETTINGS
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel
from splat.train.settings import LoopSettings


def checked(name: str, value: Any, model: SplatModel) -> Any:
    """The value as a checkpoint keeps it; ValueError names the setting, the value and what would fit."""
    if name not in SETTINGS:
        raise ValueError(f"no setting '{name}' can change during a run; these can: {', '.join(SETTINGS)}")
    if name == "densify":
        if isinstance(value, bool):
            return value
        raise ValueError(f"densify = {value!r} does not fit: use true or false")
    if name == "lr_scale":
        if _is_number(value) and value > 0:
            return float(value)
        raise ValueError(f"lr_scale = {value!r} does not fit: use a number above 0")
    if name == "max_splats":
        if value is None or (_is_whole(value) and value >= 1):
            return value
        raise ValueError(f"max_splats = {value!r} does not fit: use a whole number from 1 on, or none")
    if name == "sh_degree":
        if _is_whole(value) and 0 <= value <= model.sh_degree:
            return value
        raise ValueError(f"sh_degree = {value!r} does not fit: this model has 0 to {model.sh_degree}")
    if isinstance(value, list | tuple) and len(value) == 3 and all(_is_number(x) and 0 <= x <= 1 for x in value):
        return [float(x) for x in value]
    raise ValueError(f"background = {value!r} does not fit: use three numbers in 0..1")


def changed_settings(settings: LoopSettings, changes: Mapping[str, Any]) -> LoopSettings:
    """What the loop follows once ``changes`` are in force."""
    own: dict[str, Any] = {}
    if "lr_scale" in changes:
        own["rates_factor"] = changes["lr_scale"]
    if "sh_degree" in changes:
        own |= {"sh_degree": changes["sh_degree"], "sh_every": 0}
    if "background" in changes:
        own["background"] = tuple(changes["background"])
    if "densify" in changes:
        own["densify"] = changes["densify"]
    return replace(settings, **own)


def changed_context(context: RefineContext, changes: Mapping[str, Any]) -> RefineContext:
    """The same for refinements."""
    own: dict[str, Any] = {}
    if "max_splats" in changes:
        own["max_splats"] = changes["max_splats"]
    if "background" in changes:
        own["background_is_white"] = tuple(changes["background"]) == (1.0, 1.0, 1.0)
    return replace(context, **own)


def in_force(settings: LoopSettings, context: RefineContext) -> dict[str, Any]:
    """All of ``SETTINGS`` with their values."""
    return {
        "lr_scale": settings.rates_factor, "densify": settings.densify, "max_splats": context.max_splats,
        "sh_degree": settings.sh_degree, "background": settings.background,
    }  # fmt: skip


def bands_cleared(model: SplatModel, degree: int) -> RowEdit | None:
    """The edit that sets what lies above ``degree`` to zero: what training does not draw is not measured or exported
    either. None where nothing does."""
    rest = model.rows.get("sh_rest")
    kept = (degree + 1) ** 2 - 1
    if rest is None or rest.shape[1] <= kept or not bool(rest.detach()[:, kept:].any()):
        return None
    cleared = rest.detach().clone()
    cleared[:, kept:] = 0
    everyone = torch.arange(model.count, device=model.device)
    return RowEdit.overwrite(
        model.count, {"sh_rest": (everyone, cleared)}, fresh=torch.ones_like(everyone, dtype=torch.bool),
        fresh_fields=frozenset({"sh_rest"}), reason="bands",
    )  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
