"""What a loader hands over before images are looked up: poses and lenses as the files state them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from splat.geometry.lens import Lens
from splat.scene.types import PointCloud


@dataclass(frozen=True, eq=False)
class View:
    """One posed image by name."""

    name: str
    """Relative to the image folder, with forward slashes."""
    camera_from_world: np.ndarray  # [4,4] float64, OpenCV axes
    lens: Lens | None
    """None when the capture states no size: ``lens_of_size`` makes it from the image's width and height."""
    lens_of_size: Callable[[int, int], Lens] | None = None
    mask_path: Path | None = None
    time: float | None = None
    split: str | None = None
    """``train`` or ``test`` when the capture itself says so."""


@dataclass(frozen=True, eq=False)
class Capture:
    """A capture as one of the formats describes it."""

    format: str
    root: Path
    source: Path
    """The file or folder the poses came from."""
    views: tuple[View, ...]
    points: PointCloud | None
    default_images: tuple[str, ...] = ("images", "input")
    """Image folders to try, inside ``root``, when the user names none."""
    background: tuple[float, float, float] | None = None
    warnings: tuple[str, ...] = field(default=())


def counted(names: list[str], limit: int = 3) -> str:
    """The first few names of a list, and how many more there are."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
