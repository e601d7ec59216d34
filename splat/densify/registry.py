"""The table of densifiers."""

from __future__ import annotations

from splat.densify.adaptive import AdaptiveDensity
from splat.densify.budget import BudgetDensity
from splat.densify.convex import ConvexDensity
from splat.densify.geotex import GeoTexDensity
from splat.densify.mcmc import Mcmc
from splat.densify.multiview import MultiView
from splat.densify.none import Frozen
from splat.densify.protocol import Densifier
from splat.densify.turbo import TurboDensity

DENSIFIERS: dict[str, type[Densifier]] = {
    cls.kind: cls
    for cls in (
        AdaptiveDensity, Mcmc, BudgetDensity, GeoTexDensity, TurboDensity, MultiView, ConvexDensity, Frozen,
    )
}  # fmt: skip
"""Kind -> frozen dataclass of its settings."""
