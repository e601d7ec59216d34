"""Pictures along a camera path, drawn as a page draws them, in one MP4 file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from splat.errors import UserError
from splat.geometry.camera import Camera
from splat.geometry.keyframes import CameraPath, Keyframe, LookValue
from splat.io.atomic import atomic_path
from splat.live.snapshot import Snapshot
from splat.render.types import Rasterizer
from splat.scene.video_writer import VideoWriter
from splat.viewer.picture.draw import draw
from splat.viewer.picture.look import Look

KEPT = ("mode", "background", "sh_degree", "filter2d", "ramp", "low", "high", "log_scale", "invert")
"""Fields of ``Look`` that a key can hold."""
_KINDS: Mapping[str, tuple[type, ...]] = {
    "mode": (str,), "ramp": (str,), "filter2d": (str, type(None)), "background": (tuple,), "log_scale": (bool,),
    "invert": (bool,), "sh_degree": (float, int, type(None)), "low": (float, int, type(None)),
    "high": (float, int, type(None)),
}  # fmt: skip


def kept_look(look: Look) -> dict[str, LookValue]:
    """What a key remembers of how a page draws."""
    values = {name: getattr(look, name) for name in KEPT}
    return {name: float(value) if type(value) is int else value for name, value in values.items()}


def look_with(look: Look, kept: Mapping[str, LookValue]) -> Look:
    """``look`` with what a key remembers; names that are no display settings are passed over. UserError for a value of
    another kind."""
    own: dict[str, Any] = {}
    for name in {item.name for item in fields(Look)} & set(KEPT) & set(kept):
        value = kept[name]
        if not isinstance(value, _KINDS[name]) or (isinstance(value, tuple) and len(value) != 3):
            raise UserError(f"a key's display setting {name} = {value!r} does not fit")
        own[name] = None if value is None else int(value) if name == "sh_degree" else value
    return replace(look, **own)


def shots(path: CameraPath, look: Look, *, size: tuple[int, int]) -> list[tuple[Camera, Look]]:
    """One camera (world's frame, as ``path`` is) and display setting per picture."""
    plain = replace(look, show_selection=False, compare=None)
    return [(key.camera(*size, name=f"path_{i:05d}"), look_with(plain, key.look))
            for i, key in enumerate(path.at(path.frame_times()))]  # fmt: skip


def write_movie(
    file: Path,
    pictures: Sequence[tuple[Camera, Look]],
    snapshot: Snapshot,
    rasterizer: Rasterizer,
    *,
    fps: float,
    desk: Any = None,
    drew: Callable[[int, float], None] = lambda count, secs: None,
) -> Path:
    """Draw ``pictures`` of one size into ``file``, which appears when it is whole. ``drew(count, secs)`` is called
    after each picture; its exception ends all without a file."""
    width, height = pictures[0][0].width, pictures[0][0].height
    with atomic_path(file) as temporary, VideoWriter(temporary, fps=fps, width=width, height=height) as writer:
        for count, (camera, look) in enumerate(pictures, start=1):
            start = time.perf_counter()
            writer.add(draw(snapshot, camera, look, rasterizer=rasterizer, desk=desk).rgb)
            drew(count, time.perf_counter() - start)
    return file


def key_at(camera: Camera, look: Look | None = None, **rest: Any) -> Keyframe:
    """The key of a page's view; with ``look`` it holds how that is drawn."""
    return Keyframe.of(camera, look={} if look is None else kept_look(look), **rest)
