"""The table of densifiers."""

from __future__ import annotations

from splat.densify.adaptive import AdaptiveDensity
from splat.densify.convex import ConvexDensity
from splat.densify.mcmc import Mcmc
from splat.densify.none import Frozen
from splat.densify.protocol import Densifier

DENSIFIERS: dict[str, type[Densifier]] = {cls.kind: cls for cls in (AdaptiveDensity, Mcmc, ConvexDensity, Frozen)}
"""Kind -> frozen dataclass of its settings."""
