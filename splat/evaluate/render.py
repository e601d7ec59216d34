"""The library part of ``splat render``: pictures of a model along a list of cameras, as PNGs or videos."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from splat.errors import UserError
from splat.evaluate.views import background_for, to_8bit
from splat.geometry.camera import Camera
from splat.geometry.paths import interpolated_path, orbit_path
from splat.io.atomic import atomic_path, write_text
from splat.io.names import unique_stems
from splat.io.png import write_png
from splat.io.ramps import colored
from splat.model.splat_model import SplatModel
from splat.render.types import CameraBatch, Rasterizer, RenderOptions
from splat.scene.types import Scene

CHANNELS = ("color", "depth", "alpha")
VIDEO_SUFFIXES = (".mp4",)
_MIN_DEPTH_ALPHA = 0.05  # thinner pixels have no depth worth a number
_MIN_RANGE_LOGIT = -2.2  # opacity 0.1; fainter splats say little about where surfaces are
_DEPTH_STEPS = 65535  # 16-bit PNG; 0 means "nothing there"


@dataclass(frozen=True, eq=False)
class RenderedView:
    """Pixels of one camera."""

    color: np.ndarray  # [H,W,3] uint8
    alpha: np.ndarray  # [H,W] uint8
    depth: np.ndarray | None  # [H,W] float32, world units along the camera's z; 0 = nothing there


def select_cameras(scene: Scene, which: str, *, frames: int = 120) -> tuple[Camera, ...]:
    """Cameras by word: ``test``, ``train``, ``all``, ``path``, ``orbit``, or one view by name or index.

    ``path`` and ``orbit`` make ``frames`` new views from the training cameras.
    """
    train = scene.train_cameras or scene.cameras
    words: dict[str, Callable[[], tuple[Camera, ...]]] = {
        "test": lambda: scene.test_cameras,
        "train": lambda: scene.train_cameras,
        "all": lambda: scene.cameras,
        "path": lambda: interpolated_path(train, frames),
        "orbit": lambda: orbit_path(train, frames),
    }
    if which in words:
        cameras = words[which]()
        if not cameras:
            choices = f"{', '.join(words)}, a name or an index"
            raise UserError(f"{scene.root}: no {which} views in this capture; choices: {choices}")
        return cameras
    names = {camera.name: camera for camera in scene.cameras}
    stems = {Path(name).stem: camera for name, camera in names.items()}
    found = names.get(which) or stems.get(which)
    if found is None and which.isdecimal() and int(which) < len(scene.cameras):
        found = scene.cameras[int(which)]
    if found is None:
        near = difflib.get_close_matches(which, [*names, *words], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        choices = f"{', '.join(words)}, an image name or an index below {len(scene.cameras)}"
        raise UserError(f"view {which!r} is not known; choices: {choices}{hint}")
    return (found,)


def render_views(
    model: SplatModel,
    rasterizer: Rasterizer,
    cameras: Sequence[Camera],
    out: str | Path,
    *,
    channels: Sequence[str] = ("color",),
    depth: Literal["expected", "median"] = "expected",
    raw_depth: Literal["none", "png16", "npy"] = "none",
    background: Sequence[float] | None = None,
    fps: float = 30.0,
    progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
) -> list[Path]:
    """Render ``cameras`` to ``out``: a folder (PNGs) or a path ending in .mp4 (one video per channel).

    Returns the files written. In a folder: ``<stem>.png``, ``<stem>_depth.png`` (coloured), ``<stem>_alpha.png``, and
    raw depth as ``<stem>_depth.npy`` (float32) or ``<stem>_depth16.png`` with its unit in ``depth.json``.
    """
    out = Path(out)
    unknown = [name for name in channels if name not in CHANNELS]
    if unknown or not channels:
        raise UserError(f"channel {', '.join(unknown) or '(none)'} is not known; choices: {', '.join(CHANNELS)}")
    if raw_depth not in ("none", "png16", "npy"):
        raise UserError(f"raw depth {raw_depth!r} is not known; choices: none, png16, npy")
    if not cameras:
        raise UserError("nothing to render: the list of cameras is empty")
    depth_kind = depth if "depth" in channels or raw_depth != "none" else None
    indices = range(len(cameras))
    views = (
        render_view(model, rasterizer, cameras[i], depth=depth_kind, background=background)
        for i in (progress(indices) if progress else indices)
    )
    limits = depth_range(model, cameras) if depth_kind else (0.0, 1.0)
    if out.suffix.lower() in VIDEO_SUFFIXES:
        if raw_depth != "none":
            raise UserError(f"{out}: raw depth needs single files; give a folder as output")
        return _write_videos(views, cameras, out, channels=channels, limits=limits, fps=fps)
    return _write_pictures(views, cameras, out, channels=channels, limits=limits, raw_depth=raw_depth)


@torch.no_grad()
def render_view(
    model: SplatModel,
    rasterizer: Rasterizer,
    camera: Camera,
    *,
    depth: Literal["expected", "median"] | None = None,
    background: Sequence[float] | None = None,
) -> RenderedView:
    """Colour, alpha and, when asked for, depth of one camera."""
    options = RenderOptions(
        sh_degree=model.sh_degree,
        filter2d=model.filter2d,
        background=background_for(camera, background, model.device),
        depth=frozenset() if depth is None else frozenset({depth}),
    )
    drawn = rasterizer.render(model.render_inputs(), CameraBatch.of(camera, device=model.device), options)
    alpha = drawn.alpha[0].clamp(0, 1)
    z = None
    if depth == "median":
        z = drawn.depth_median[0]
    elif depth == "expected":
        z = drawn.depth_expected[0] / alpha.clamp_min(_MIN_DEPTH_ALPHA)
    if z is not None:
        z = torch.where(alpha >= _MIN_DEPTH_ALPHA, z, torch.zeros_like(z)).float().cpu().numpy()
    return RenderedView(to_8bit(drawn.color[0]), (alpha * 255).round().to(torch.uint8).cpu().numpy(), z)


def depth_range(model: SplatModel, cameras: Sequence[Camera], *, max_cameras: int = 16) -> tuple[float, float]:
    """Depths (5th and 95th percentile) of the centres of visible splats inside some of the pictures.

    One range for all frames: a range per frame would flicker.
    """
    inputs = model.render_inputs()
    seen = inputs.logit_opacities.detach() > _MIN_RANGE_LOGIT
    means = inputs.means.detach()[seen if seen.any() else slice(None)].cpu().double().numpy()
    means = means[:: max(1, len(means) // 20_000)]
    samples = []
    for camera in cameras[:: max(1, len(cameras) // max_cameras)]:
        points = means @ camera.camera_from_world[:3, :3].T + camera.camera_from_world[:3, 3]
        pixels = points @ camera.K.T
        z = points[:, 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            across = pixels[:, :2] / z[:, None] / (camera.width, camera.height)  # 0..1 inside the picture
            inside = (z > 0.01) & (np.abs(across - 0.5) < 0.5).all(1)
        samples.append(z[inside])
    depths = np.concatenate(samples)
    depths = depths[np.isfinite(depths)]
    if not len(depths):
        return 0.0, 1.0
    low, high = np.percentile(depths, (5, 95))
    return float(low), float(max(high, low * 1.001 + 1e-9))


def _write_pictures(
    views: Iterable[RenderedView], cameras: Sequence[Camera], folder: Path, *,
    channels: Sequence[str], limits: tuple[float, float], raw_depth: str,
) -> list[Path]:  # fmt: skip
    written = []
    unit = 4 * limits[1] / _DEPTH_STEPS  # four times the far end: little is cut off, and steps stay fine
    for stem, view in zip(unique_stems([camera.name for camera in cameras]), views, strict=True):
        if "color" in channels:
            written.append(write_png(folder / f"{stem}.png", view.color))
        if "alpha" in channels:
            written.append(write_png(folder / f"{stem}_alpha.png", view.alpha))
        if "depth" in channels:
            written.append(write_png(folder / f"{stem}_depth.png", depth_picture(view, limits)))
        if raw_depth == "npy":
            with atomic_path(folder / f"{stem}_depth.npy") as temporary:
                np.save(temporary, view.depth)
            written.append(folder / f"{stem}_depth.npy")
        elif raw_depth == "png16":
            steps = np.clip(np.round(view.depth / unit), 0, _DEPTH_STEPS).astype(np.uint16)
            written.append(write_png(folder / f"{stem}_depth16.png", steps))
    if raw_depth == "png16":
        note = {"world_units_per_step": unit, "zero_means": "nothing there", "largest": _DEPTH_STEPS * unit}
        written.append(write_text(folder / "depth.json", json.dumps(note, indent=1) + "\n"))
    return written


def _write_videos(
    views: Iterable[RenderedView], cameras: Sequence[Camera], out: Path, *,
    channels: Sequence[str], limits: tuple[float, float], fps: float,
) -> list[Path]:  # fmt: skip
    from splat.scene.video_writer import VideoWriter

    sizes = {(camera.width, camera.height) for camera in cameras}
    if len(sizes) != 1:
        raise UserError(f"{out}: a video needs views of one size, these have {sorted(sizes)}; give a folder as output")
    ((width, height),) = sizes
    if min(width, height) < 2:
        raise UserError(f"{out}: {width}x{height} is too small for a video; give a folder as output")
    paths = {name: out if name == "color" else out.with_stem(f"{out.stem}_{name}") for name in channels}
    with ExitStack() as stack:
        writers = {}
        for name, path in paths.items():
            temporary = stack.enter_context(atomic_path(path))
            writers[name] = stack.enter_context(VideoWriter(temporary, fps=fps, width=width, height=height))
        for view in views:
            for name, writer in writers.items():
                writer.add(_picture(view, name, limits))
    return list(paths.values())


def _picture(view: RenderedView, channel: str, limits: tuple[float, float]) -> np.ndarray:  # [H,W,3] uint8
    if channel == "alpha":
        return np.repeat(view.alpha[..., None], 3, axis=2)
    return view.color if channel == "color" else depth_picture(view, limits)


def depth_picture(view: RenderedView, limits: tuple[float, float]) -> np.ndarray:  # [H,W,3] uint8
    """Depth as colours, near bright; fading to black where nothing is."""
    low, high = limits
    # Inverse depth spends the colours where the eye sees differences: close by.
    inverse = 1 / np.maximum(view.depth, 1e-9)
    colors = colored(inverse, 1 / max(high, 1e-9), 1 / max(low, 1e-6, high * 1e-3), "depth")
    return (colors * (view.alpha[..., None] / 255.0) * (view.depth > 0)[..., None]).round().astype(np.uint8)
