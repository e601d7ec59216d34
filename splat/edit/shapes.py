"""What can be selected by: shapes on the screen, in space, in colour, in any attribute. Values, as JSON stores them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, get_args

import numpy as np

from splat.geometry.camera import Camera

Point2 = tuple[float, float]
"""Pixels: x to the right, y down, the first pixel's centre at (0.5, 0.5)."""
Point3 = tuple[float, float, float]
"""World units, in the frame of the model."""


@dataclass(frozen=True)
class ViewSpec:
    """A pinhole camera as plain numbers."""

    camera_from_world: tuple[tuple[float, ...], ...]  # [4,4]
    K: tuple[tuple[float, ...], ...]  # [3,3] px
    width: int
    height: int

    @staticmethod
    def of(camera: Camera) -> ViewSpec:
        pose, matrix = (
            tuple(tuple(map(float, row)) for row in table) for table in (camera.camera_from_world, camera.K)
        )
        return ViewSpec(pose, matrix, camera.width, camera.height)

    def camera(self, name: str = "edit") -> Camera:
        return Camera(name, np.array(self.camera_from_world), np.array(self.K), self.width, self.height)


@dataclass(frozen=True)
class Rect:
    """A rectangle on the screen."""

    kind: ClassVar[str] = "rect"
    view: ViewSpec
    low: Point2
    high: Point2


@dataclass(frozen=True)
class Lasso:
    """The inside of a closed polygon on the screen (even-odd)."""

    kind: ClassVar[str] = "lasso"
    view: ViewSpec
    points: tuple[Point2, ...]


@dataclass(frozen=True)
class Brush:
    """What a round brush passes over: discs along ``points``, joined."""

    kind: ClassVar[str] = "brush"
    view: ViewSpec
    points: tuple[Point2, ...]
    radius_px: float


@dataclass(frozen=True)
class Click:
    """The splat that shows most at a pixel."""

    kind: ClassVar[str] = "click"
    view: ViewSpec
    at: Point2


@dataclass(frozen=True)
class Flood:
    """Splats seen in the connected region of similar colour around a pixel."""

    kind: ClassVar[str] = "flood"
    view: ViewSpec
    at: Point2
    tolerance: float = 0.2
    """Largest difference of a rendered channel, 0..1, from the colour at ``at``."""


@dataclass(frozen=True)
class Mask:
    """Splats that show, for more than ``share`` of what they show at all, inside masks over pictures of some views."""

    kind: ClassVar[str] = "mask"
    views: tuple[ViewSpec, ...]
    runs: tuple[tuple[int, ...], ...]
    """Per view, lengths of runs of pixels, row after row: outside, inside, outside..."""
    share: float = 0.5


@dataclass(frozen=True)
class Sphere:
    kind: ClassVar[str] = "sphere"
    center: Point3
    radius: float


@dataclass(frozen=True)
class Box:
    """A box of full side lengths ``size`` about its own origin; ``world_from_box`` is rigid."""

    kind: ClassVar[str] = "box"
    world_from_box: tuple[tuple[float, ...], ...]  # [4,4]
    size: Point3


@dataclass(frozen=True)
class ColorRange:
    """Base colours near ``rgb`` (0..1), by the largest difference of a channel."""

    kind: ClassVar[str] = "color"
    rgb: Point3
    tolerance: float = 0.2


@dataclass(frozen=True)
class AttributeRange:
    """``low <= value <= high`` of a named attribute (``attributes.ATTRIBUTES``)."""

    kind: ClassVar[str] = "attribute"
    attribute: str
    low: float
    high: float


@dataclass(frozen=True)
class Everything:
    kind: ClassVar[str] = "all"


@dataclass(frozen=True)
class Nothing:
    kind: ClassVar[str] = "none"


Shape = Rect | Lasso | Brush | Click | Flood | Mask | Sphere | Box | ColorRange | AttributeRange | Everything | Nothing
SHAPES: Mapping[str, type] = {shape.kind: shape for shape in get_args(Shape)}
ON_SCREEN = frozenset({"rect", "lasso", "brush", "click", "flood", "mask"})
"""Shapes that belong to a view: for them "centers" and "visible" differ."""
