"""The table of primitives."""

from __future__ import annotations

from splat.model.convex import ConvexPrimitive
from splat.model.gaussian import GaussianPrimitive
from splat.model.gef import GefPrimitive
from splat.model.ges import GesPrimitive
from splat.model.primitive import Primitive

PRIMITIVES: dict[str, type[Primitive]] = {
    cls.kind: cls for cls in (GaussianPrimitive, GesPrimitive, GefPrimitive, ConvexPrimitive)
}
"""Kind -> frozen dataclass of its settings."""
