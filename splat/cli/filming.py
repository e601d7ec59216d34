"""Pictures along a camera path whose keys hold display settings: drawn as the viewer draws them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from splat.geometry.camera import Camera
from splat.geometry.keyframes import CameraPath
from splat.live.snapshot import Snapshot
from splat.model.labels import Labels
from splat.model.splat_model import SplatModel
from splat.render.types import Rasterizer

if TYPE_CHECKING:
    from splat.viewer.picture.look import Look

    Shots = list[tuple[Camera, Look]]

BY_CAMERAS = ("background",)
"""Settings that a camera carries by itself: such keys need nothing from here."""


def styled_shots(path: CameraPath, size: tuple[int, int], background: Sequence[float]) -> Shots | None:
    """A camera and a display setting per picture; None where no key says more than what is behind the splats.

    UserError for a setting that does not fit or a mode that is unknown.
    """
    from splat.viewer.output.movie import KEPT, shots
    from splat.viewer.picture.draw import mode_named
    from splat.viewer.picture.look import Look

    own = set(KEPT) - set(BY_CAMERAS)
    if not any(own & set(key.look) for key in path.keys):
        return None
    pictures = shots(path, Look(background=tuple(background)), size=size)
    for name in {look.mode for _, look in pictures}:
        mode_named(name)
    return pictures


def write_shots(
    model: SplatModel, step: int | None, pictures: Shots, out: Path, rasterizer: Rasterizer, *, fps: float
) -> list[Path]:
    """A video, or a folder of PNGs. UserError for a mode that needs photographs: a file of keys has none."""
    from splat.evaluate.render import VIDEO_SUFFIXES
    from splat.io.png import write_png
    from splat.viewer.output.movie import write_movie
    from splat.viewer.picture.draw import draw

    snapshot = Snapshot(model, Labels.start(model.count, model.device), step or 0, 0)
    if out.suffix.lower() in VIDEO_SUFFIXES:
        return [write_movie(out, pictures, snapshot, rasterizer, fps=fps)]
    return [
        write_png(out / f"{camera.name}.png", draw(snapshot, camera, look, rasterizer=rasterizer).rgb)
        for camera, look in pictures
    ]
