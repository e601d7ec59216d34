"""What a user may decide about reading a capture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from splat.scene.types import SceneError

AUTO_LONGEST_PX = 1600  # the size above which every peer shrinks photographs unasked
LARGEST_DOWNSCALE = 64  # beyond it a phone photo is a thumbnail: a size was meant


def _stay_silent(_: str) -> None:
    return None


@dataclass(frozen=True)
class SceneOptions:
    """How a capture becomes a scene. The defaults suit a COLMAP folder as it comes."""

    images: str | None = None
    """Folder of the images, inside the scene or absolute; None looks for images, input, images_N, then the scene."""
    model: str | None = None
    """Folder of the COLMAP model, inside the scene or absolute; None takes the one with most images."""
    downscale: float | Literal["auto"] = "auto"
    """Divide width and height by this; a whole N uses a folder images_N. ``auto`` shrinks what exceeds 1600 px."""
    max_size: int | None = None
    """No side longer than this many pixels, after ``downscale``."""
    test_every: int = 8
    """Every n-th image by name, the first included, is kept for evaluation; 0 trains on all."""
    train_list: Path | None = None
    """Text file of names to train on, one per line; train_list.txt in the scene is found by itself."""
    test_list: Path | None = None
    """Text file of names to evaluate on; test_list.txt in the scene is found by itself."""
    masks: str | None = None
    """Folder of the masks (black is ignored); None looks for ``masks``; ``none`` uses no mask at all."""
    invert_masks: bool = False
    """White is ignored instead of black (mask files only, never an alpha channel)."""
    background: tuple[float, float, float] | None = None
    """Colour (0 to 1) put behind transparent images; None: white for Blender scenes, elsewhere alpha is a mask."""
    max_points: int | None = None
    """Start from at most this many points, drawn at random."""
    random_points: int = 50_000
    """Points of the random start when the capture has none."""
    seed: int = 0
    """Seed of everything drawn at random while reading."""
    allow_sfm: bool = False
    """Run structure from motion when the folder holds photos or a video without poses."""
    cache_gib: float | None = None
    """Memory for decoded images; None is a quarter of the machine's, at most 6 GiB."""
    on_message: Callable[[str], None] = _stay_silent
    """Told, in a sentence, before anything slow starts."""

    @property
    def cache_bytes(self) -> int | None:
        """What to give ``ImageStore`` as its budget."""
        return None if self.cache_gib is None else int(self.cache_gib * 2**30)

    def __post_init__(self) -> None:
        if self.downscale != "auto" and not (isinstance(self.downscale, (int, float)) and 0 < self.downscale < 1e6):
            raise SceneError(f"downscale {self.downscale!r} is not usable; give a number above 0 or 'auto'")
        if self.downscale != "auto" and self.downscale > LARGEST_DOWNSCALE:
            raise SceneError(f"downscale {self.downscale:g} divides every side; use max_size to state a size in pixels")
        if self.max_size is not None and self.max_size < 1:
            raise SceneError(f"max_size {self.max_size} is not usable; give a number of pixels above 0")
        if self.test_every < 0:
            raise SceneError(f"test_every {self.test_every} is not usable; give 0 (train on all) or a positive number")
        for name in ("max_points", "random_points", "cache_gib"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise SceneError(f"{name} {value} is not usable; give a number above 0")
        if self.background is not None and not all(0.0 <= part <= 1.0 for part in self.background):
            raise SceneError(f"background {self.background} is not usable; give three numbers from 0 to 1")
