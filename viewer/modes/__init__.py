"""The table of modes: what a frame can show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from splat.viewer.modes import plain
from splat.viewer.modes.view import Painted, View


@dataclass(frozen=True)
class Mode:
    """One row of the table."""

    purpose: str
    draw: Callable[[View], Painted]
    unit: str = ""
    """Of the ramp."""
    has_ramp: bool = False
    needs: str = ""
    """``photos``: training views with photographs; "" = the model is enough."""


MODES: Mapping[str, Mode] = {
    "color": Mode("what the splats look like", plain.draw_color),
    "depth": Mode("distance along the view", plain.draw_depth, "world units", has_ramp=True),
}
"""Name -> mode."""
