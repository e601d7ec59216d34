"""What can be done to a model by hand. Each is a value: the log of a session is a list of them, and replays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from splat.edit.shapes import Point3, Shape

Combine = Literal["set", "add", "subtract", "intersect"]
Reach = Literal["centers", "visible"]
"""Of a shape on the screen: every splat whose centre lies in it, or only those that can be seen there."""
DragMode = Literal["arap", "rigid", "smooth", "lattice"]


@dataclass(frozen=True)
class Select:
    """Locked and hidden splats are never taken."""

    kind: ClassVar[str] = "select"
    shape: Shape
    combine: Combine = "set"
    reach: Reach = "centers"


@dataclass(frozen=True)
class Invert:
    """Selected becomes unselected and the other way round (locked and hidden ones stay unselected)."""

    kind: ClassVar[str] = "invert"


@dataclass(frozen=True)
class Mark:
    """Set or clear a mark: hide the selection, show everything, lock the selection, unlock everything."""

    kind: ClassVar[str] = "mark"
    what: Literal["hide", "show", "lock", "unlock"]


@dataclass(frozen=True)
class Delete:
    """The selection, or with ``outside`` everything but the selection."""

    kind: ClassVar[str] = "delete"
    outside: bool = False


@dataclass(frozen=True)
class Duplicate:
    """Copies of the selection, moved by ``offset`` (world units); they become the selection."""

    kind: ClassVar[str] = "duplicate"
    offset: Point3 = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Transform:
    """Move the selection by a similarity (rotation, positive scale, translation)."""

    kind: ClassVar[str] = "transform"
    similarity: tuple[tuple[float, ...], ...]  # [4,4] world from world


@dataclass(frozen=True)
class Recolor:
    """Change the colours of the selection; the defaults change nothing."""

    kind: ClassVar[str] = "recolor"
    tint: Point3 = (1.0, 1.0, 1.0)
    """Factors on red, green, blue."""
    temperature: float = 0.0
    """-1 (cold) to 1 (warm)."""
    saturation: float = 1.0
    brightness: float = 0.0
    """Added to every channel."""
    black: float = 0.0
    white: float = 1.0
    """Values that become 0 and 1."""
    opacity: float = 1.0
    """Factor."""


@dataclass(frozen=True)
class Handle:
    """A place that is taken along. Splats within ``radius`` follow; with radius 0 only the nearest node does, and the
    part around it may turn (where ``turn`` says nothing: then what is around follows it)."""

    at: Point3
    to: Point3
    radius: float = 0.0
    turn: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    """Rotation about ``at``, quaternion wxyz."""


@dataclass(frozen=True)
class Drag:
    """Deform the selection so that handles reach their targets; ``anchors`` (handles that go nowhere) stay, as does
    everything beyond a soft band around the selection."""

    kind: ClassVar[str] = "drag"
    handles: tuple[Handle, ...]
    anchors: tuple[Handle, ...] = ()
    mode: DragMode = "arap"
    band: float = 3.0
    """Width of the soft band around the selection, in node spacings; 0 = none."""
    nodes: int = 1500
    """Most nodes of the graph."""
    smooth_rotations: float = 0.0
    """Weight of neighbouring nodes turning alike."""


Op = Select | Invert | Mark | Delete | Duplicate | Transform | Recolor | Drag
OPS: Mapping[str, type] = {op.kind: op for op in (Select, Invert, Mark, Delete, Duplicate, Transform, Recolor, Drag)}
