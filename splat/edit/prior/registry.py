"""The table of priors. Other packages add theirs as entry points of the group ``splat.edit_priors``."""

from __future__ import annotations

import difflib
from importlib import metadata

from splat.edit.prior.inpaint import SdsInpaint
from splat.edit.prior.lightning import LightningDrag
from splat.edit.prior.none import NoPrior
from splat.edit.prior.protocol import EditPrior
from splat.errors import UserError

PRIORS: dict[str, type[EditPrior]] = {cls.kind: cls for cls in (NoPrior, SdsInpaint, LightningDrag)}
"""Kind -> frozen dataclass of its settings."""
GROUP = "splat.edit_priors"


def prior_named(name: str) -> EditPrior:
    """With its default settings; UserError with the choices when there is none of that name."""
    if name in PRIORS:
        return PRIORS[name]()
    others = {point.name: point for point in metadata.entry_points(group=GROUP)}
    if name in others:
        return others[name].load()()
    choices = [*PRIORS, *sorted(others)]
    near = difflib.get_close_matches(name, choices, n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    raise UserError(f"unknown edit prior '{name}'{hint}; choices: {', '.join(choices)}")
