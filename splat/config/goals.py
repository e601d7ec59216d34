"""Goals that are not steps: how large the model may become, in splats and in the bytes of its own file."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from splat.compress.protocol import Compressor, Goal
from splat.config.schema import TrainConfig
from splat.errors import UserError

FILE_HEAD_BYTES = 16_384
"""Room for what ``model.safetensors`` holds beside its rows (measured: 1 to 2 kB)."""
BYTES_PER_MB = 1_000_000


def row_bytes(config: TrainConfig) -> int:
    """What one splat takes in ``model.safetensors``: its fields, and its Mip 3D filter, in float32."""
    floats = sum(prod(field.shape) for field in config.primitive.fields(config.optim.sh_degree))
    return 4 * (floats + int(config.render.filter3d))


def splats_within(config: TrainConfig) -> int | None:
    """How many splats ``target_mb`` has room for; None without it, and where the compressor makes the file fit.
    UserError when not even one fits."""
    if config.target_mb is None or "size" in config.compressor.aims:
        return None
    count = int(config.target_mb * BYTES_PER_MB - FILE_HEAD_BYTES) // row_bytes(config)
    if count < 1:
        least = (FILE_HEAD_BYTES + row_bytes(config)) / BYTES_PER_MB
        raise UserError(f"target_mb = {config.target_mb:g} does not fit: one splat and the header take {least:.3g}")
    return count


def aimed_compressor(config: TrainConfig) -> Compressor:
    """The compressor, with ``target_mb`` as its goal where it can search for a size."""
    if config.target_mb is None or "size" not in config.compressor.aims:
        return config.compressor
    return config.compressor.aimed(Goal(size_bytes=int(config.target_mb * BYTES_PER_MB)))


def most_splats(config: TrainConfig) -> int | None:
    """The tighter of ``max_splats`` and ``target_mb``."""
    limits = [limit for limit in (config.max_splats, splats_within(config)) if limit is not None]
    return min(limits, default=None)


def within_views(config: TrainConfig, views: int) -> TrainConfig:
    """The configuration for a capture with so many training views: ``steps_per_view`` becomes a number of steps, so
    that a run that is extended or repeated keeps what it was given."""
    if config.steps_per_view is None:
        return config
    most = max(1, round(config.steps_per_view * views))
    return replace(config, steps=min(config.steps, most), steps_per_view=None)


def limiting_flag(config: TrainConfig) -> str:
    """Which of the two flags sets the limit."""
    within = splats_within(config)
    return "--target-mb" if within is not None and within == most_splats(config) else "--max-splats"


def size_text(config: TrainConfig) -> str | None:
    """One line on what ``target_mb`` means for this run; None without it."""
    within = splats_within(config)
    if within is None:
        aims = config.target_mb is not None
        return f"size: compressor {config.compressor.kind} aims at {config.target_mb:g} MB" if aims else None
    return (
        f"size: at most {most_splats(config):,} splats; model.safetensors stays below {config.target_mb:g} MB "
        f"with {within:,} of {row_bytes(config)} bytes each"
    )
