"""Scores of held-out views, with the protocol that makes two numbers comparable."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splat.geometry.camera import Camera
from splat.io.atomic import write_text
from splat.io.names import unique_stems
from splat.io.png import write_png
from splat.io.ramps import colored
from splat.metrics import LpipsMetric, lpips_metric, psnr, rounded_8bit, ssim
from splat.model.splat_model import SplatModel
from splat.render.types import CameraBatch, Rasterizer, RenderOptions
from splat.scene.types import Frame

ERROR_FULL_SCALE = 0.25
"""Mean absolute error that the error map shows in its brightest colour."""
SCORES = ("psnr", "ssim", "psnr_8bit", "ssim_8bit", "lpips")


@dataclass(frozen=True)
class ViewScore:
    """Scores of one view. NaN where the mask left nothing to compare; ``lpips`` None when absent."""

    name: str
    psnr: float
    ssim: float
    psnr_8bit: float
    ssim_8bit: float
    lpips: float | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores per view and their means over the views that have one (NaN with no view)."""

    per_view: list[ViewScore]
    psnr: float
    ssim: float
    psnr_8bit: float
    ssim_8bit: float
    lpips: float | None
    protocol: dict[str, str]

    def means(self) -> dict[str, float | None]:
        """The five numbers as JSON takes them: None where there is none."""
        return {name: _json_number(getattr(self, name)) for name in SCORES}

    def to_json(self) -> dict[str, Any]:
        """The content of ``per_view.json``."""
        views = [{key: _json_number(value) for key, value in asdict(view).items()} for view in self.per_view]
        return {"mean": self.means(), "views": views, "protocol": self.protocol}


@torch.no_grad()
def evaluate_views(
    model: SplatModel,
    rasterizer: Rasterizer,
    cameras: Sequence[Camera],
    frame_of: Callable[[int], Frame],
    *,
    background: Tensor | Sequence[float] | None = None,
    save_dir: Path | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
    protocol: dict[str, str] | None = None,
    lpips: LpipsMetric | None = None,
) -> Evaluation:
    """Render every camera and compare it with its photograph, one picture in memory at a time.

    ``frame_of(i)`` gives the pixels of ``cameras[i]``. ``save_dir`` receives ``<stem>_render.png``, ``_truth.png``
    and ``_error.png``. ``protocol`` says how the photographs were made (the scene's own); ours is added.
    """
    lpips = lpips or lpips_metric()
    stems = unique_stems([camera.name for camera in cameras])
    indices = range(len(cameras))
    scores, masked = [], 0
    for i in progress(indices) if progress else indices:
        frame = frame_of(i)
        image = render_color(model, rasterizer, cameras[i], background).clamp(0, 1).cpu()  # [H,W,3]
        scores.append(score_view(cameras[i].name, image, frame.pixels, frame.mask, lpips))
        masked += frame.mask is not None
        if save_dir is not None:
            save_views(Path(save_dir), stems[i], image, frame)
    return Evaluation(scores, **_means(scores), protocol=_protocol(protocol or {}, model, len(cameras), masked, lpips))


def score_view(
    name: str, image: Tensor, truth: np.ndarray, mask: np.ndarray | None, lpips: LpipsMetric
) -> ViewScore:  # image: [H,W,3] in [0,1]; truth: [H,W,3] uint8
    """All scores of one picture."""
    rounded = rounded_8bit(image)
    return ViewScore(
        name,
        psnr(image, truth, mask),
        ssim(image, truth, mask),
        psnr(rounded, truth, mask),
        ssim(rounded, truth, mask),
        lpips(*_masked_pair(image, rounded_8bit(truth), mask)) if lpips.absent is None else None,
    )


@torch.no_grad()
def render_color(
    model: SplatModel, rasterizer: Rasterizer, camera: Camera, background: Tensor | Sequence[float] | None
) -> Tensor:  # [H,W,3]
    """The colour picture of one camera, not clamped. A camera's own background goes first."""
    options = RenderOptions(
        sh_degree=model.sh_degree,
        filter2d=model.filter2d,
        background=background_for(camera, background, model.device),
    )
    return rasterizer.render(model.render_inputs(), CameraBatch.of(camera, device=model.device), options).color[0]


def background_for(
    camera: Camera, background: Tensor | Sequence[float] | None, device: torch.device
) -> Tensor | None:  # [3]
    """What lies behind the splats of a view: RGBA photographs were composited on their camera's own colour."""
    chosen = camera.background if camera.background is not None else background
    return None if chosen is None else torch.as_tensor(chosen, dtype=torch.float32, device=device)


def save_views(folder: Path, stem: str, image: Tensor, frame: Frame) -> None:
    """Render, photograph and error map of one view as PNG files."""
    render = to_8bit(image)
    error = np.abs(render.astype(np.int16) - frame.pixels).mean(axis=2) / 255
    if frame.mask is not None:
        error = error * (frame.mask / 255)
    write_png(folder / f"{stem}_render.png", render)
    write_png(folder / f"{stem}_truth.png", frame.pixels)
    write_png(folder / f"{stem}_error.png", colored(error, 0.0, ERROR_FULL_SCALE, "error"))


def to_8bit(image: Tensor) -> np.ndarray:  # [H,W,3] float -> uint8
    """The same rounding as the 8-bit scores."""
    return (rounded_8bit(image) * 255).round().to(torch.uint8).cpu().numpy()


def write_per_view(path: str | Path, evaluation: Evaluation, *, step: int | None = None) -> Path:
    """Write ``per_view.json``: means, one object per view, protocol, and the step when given."""
    content = evaluation.to_json() | ({} if step is None else {"step": step})
    return write_text(path, json.dumps(content, indent=1) + "\n")


def _means(scores: Sequence[ViewScore]) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for name in SCORES:
        values = [getattr(score, name) for score in scores]
        valid = [value for value in values if value is not None and math.isfinite(value)]
        means[name] = sum(valid) / len(valid) if valid else (None if name == "lpips" else math.nan)
    return means


def _masked_pair(image: Tensor, truth: Tensor, mask: np.ndarray | None) -> tuple[Tensor, Tensor]:
    """LPIPS has no weights of its own: ignored pixels are taken from the photograph, as for SSIM."""
    if mask is None:
        return image, truth
    weights = torch.from_numpy(mask.astype(np.float32))[..., None] / 255
    return weights * image + (1 - weights) * truth, truth


def _protocol(given: dict[str, str], model: SplatModel, views: int, masked: int, lpips: LpipsMetric) -> dict[str, str]:
    return {
        **{key: str(value) for key, value in given.items()},
        "primitive": model.primitive.kind,
        "filter2d": model.filter2d + ("" if model.filter3d is None else ", and the Mip 3D filter"),
        "views": str(views),
        "psnr": "mean over views of the PSNR over pixels; float render clamped to [0,1]; capped at 100 dB",
        "ssim": "11x11 Gaussian window, sigma 1.5 px, zero (same) padding, mean over channels",
        "8bit": "the same on round(clamp(x) * 255) / 255",
        "masked_views": f"{masked} of {views}",
        "lpips": lpips.protocol,
    }


def _json_number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
