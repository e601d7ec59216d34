"""How a page wants its picture drawn."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CropBox:
    """Only splats whose centre lies inside are drawn; nothing is deleted."""

    world_from_box: tuple[tuple[float, ...], ...]  # [4,4], rigid
    size: tuple[float, float, float]
    """Full side lengths, world units."""


@dataclass(frozen=True)
class Look:
    """Display settings of one page; a worker sees a new value, never a changed one."""

    mode: str = "color"
    """A name of ``modes.MODES``."""
    sh_degree: int | None = None
    """Highest band shown; None = all there are."""
    filter2d: str | None = None
    """None = the model's own."""
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    near: float = 0.01
    far: float = 1e10
    crop: CropBox | None = None
    ramp: str = "depth"
    """A name of ``ramps.RAMPS``: the colours of modes that show a number."""
    low: float | None = None
    high: float | None = None
    """Ends of the range that the ramp spans; None = chosen from what is seen."""
    log_scale: bool = False
    invert: bool = False
    show_selection: bool = True
    """Selected splats are tinted."""
    show_hidden: bool = False
    compare: str | None = None
    """Name of the training or held-out view whose photograph is laid beside the picture; None = no comparison."""
    compare_with: str = "photo"
    """``photo`` or ``error``: what stands right of the swipe."""
    swipe: float = 0.5
    """Where the swipe is, 0 left to 1 right."""
