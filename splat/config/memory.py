"""How much memory a training will take, counted from what it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from splat.config.goals import most_splats
from splat.config.schema import TrainConfig
from splat.losses.frequency import CACHE_BYTES
from splat.scene.types import Scene
from splat.train.frames import COARSE_CACHE_BYTES
from splat.train.state import TrainState

COPIES = 4  # value, gradient, two Adam moments
BYTES_PER_PIXEL = 3 * 4 * 12
"""Working planes of a step: picture, its gradient, and the maps of SSIM (float RGB each)."""
BYTES_PER_SPLAT_DRAWN = 600
"""Projected rows, their gradients, and on average some ten tile instances with sort keys and sums."""
PROCESS_BYTES = 290 * 2**20
"""Python, torch and the native core before the first picture, as measured on Linux."""
LIKELY_GROWTH = 10
"""Splats per start point where nothing limits them: what the reference reaches on its usual scenes."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes."""

    splats: int
    """Rows the estimate is for."""
    rows: int
    step: int
    images: int

    @property
    def total(self) -> int:
        return PROCESS_BYTES + self.rows + self.step + self.images

    def text(self) -> str:
        return (
            f"about {_gib(self.total)} for {self.splats:,} splats: rows with gradients and moments {_gib(self.rows)}, "
            f"one step {_gib(self.step)}, pictures up to {_gib(self.images)}, the program itself {_gib(PROCESS_BYTES)}"
        )


def estimate_memory(
    config: TrainConfig, scene: Scene, *, cache_bytes: int, state: TrainState | None = None
) -> MemoryEstimate:
    """For the splats the run may reach: its budget, or a guess from the points; ``cache_bytes`` limits pictures.
    ``state`` tells what the run starts from, and what its compressor learns."""
    started = bool(config.start_from) and state is not None
    start = state.model.count if started else len(scene.points)
    most = most_splats(config)
    limit = most or getattr(config.densifier, "cap", None) or start * (1 if started else LIKELY_GROWTH)
    splats = max(limit, start) if most is None else limit
    floats = sum(prod(spec.shape) for spec in config.primitive.fields(config.optim.sh_degree))
    shared = 0
    if state is not None:
        floats += sum(prod(table.shape[1:]) for table in state.compress.rows.values())
        shared = sum(table.numel() for table in state.compress.parameters.values())
    pixels = max(camera.width * camera.height for camera in scene.cameras)
    pictures = sum(camera.width * camera.height for camera in scene.cameras) * 3
    masks = min(pictures // 3, CACHE_BYTES) if config.optim.detail_weight > 0 else 0
    reduced = sum(pictures // side**2 for side in (2, 4, 8) if side <= config.resolution.factor)
    return MemoryEstimate(
        splats=splats,
        rows=(splats * floats + shared) * 4 * COPIES,
        step=pixels * BYTES_PER_PIXEL + splats * BYTES_PER_SPLAT_DRAWN,
        images=min(pictures, cache_bytes) + min(reduced, COARSE_CACHE_BYTES) + masks,
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.0f} MiB"
