"""What the panels set and the tools read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from splat.edit.ops import Combine, DragMode, Reach

LEAST_BRUSH_PX, MOST_BRUSH_PX, BRUSH_STEP = 1.0, 500.0, 1.05
"""The range of the brush's radius, and the factor of one press of [ or ]."""


@dataclass
class Options:
    """One per page, changed only through ``Toolbox.set``."""

    combine: Combine = "set"
    """Where no modifier is held."""
    reach: Reach = "centers"
    brush_px: float = 40.0
    """Radius, pixels."""
    tolerance: float = 0.2
    """Of flood and colour, largest difference of a channel, 0..1."""
    radius: float = 0.0
    """Of the sphere, world units; 0 = not yet chosen."""
    size: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of the box, world units; 0 = not yet chosen."""
    axes: Literal["world", "own"] = "world"
    """Along which gizmos move and turn: the world's, or those the selection is long along, which turn with it."""
    pick_pivot: bool = False
    """The next click places the gizmo's pivot."""
    place: Literal["handle", "anchor"] = "handle"
    """What a click of the drag tool puts down."""
    mode: DragMode = "arap"
    band: float = 3.0
    nodes: int = 1500
    smooth_rotations: float = 0.0
    handle_share: float = 0.25
    """Radius of new handles and anchors against that of the selection; 0 = one point, around which the part may
    turn."""
    turn_handles: bool = False
    """Show a gizmo at the handle chosen last, so that it can be turned."""
    live: bool = True
    """Show drags and gizmos while the mouse moves."""
