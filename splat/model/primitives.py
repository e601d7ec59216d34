"""The table of primitives."""

from __future__ import annotations

from splat.model.gaussian import GaussianPrimitive
from splat.model.primitive import Primitive

PRIMITIVES: dict[str, type[Primitive]] = {cls.kind: cls for cls in (GaussianPrimitive,)}
"""Kind -> frozen dataclass of its settings."""
