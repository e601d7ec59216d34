"""What ``bench_primitives.py`` measures on trained models: frames per second side by side, edges, scales, the PLY."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splat.cli.opening import moved_to, open_model, run_config, run_scene
from splat.config.assemble import fixed_background, image_store
from splat.config.devices import choose_device, prepare_process
from splat.evaluate.views import background_for, evaluate_views
from splat.geometry.camera import Camera
from splat.io.png import read_png
from splat.metrics import psnr
from splat.model.splat_model import SplatModel
from splat.render.types import CameraBatch, Rasterizer, RenderOptions
from splat.report.run_folder import read_run, view_pictures
from splat.scene.types import Frame, Scene
from splat.train.frames import FrameSource

SCALES = (1, 2, 4, 8)
"""Sides of the evaluated pictures are divided by these."""
ROUNDS = 7
MAX_TIMED_VIEWS = 12
EDGE_SHARE, FLAT_SHARE = 0.1, 0.5
"""Parts of a photograph's pixels that count as edges (steepest) and as flat (gentlest)."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The held-out views of a capture as the runs saw them, and what draws there."""

    scene: Scene
    cameras: tuple[Camera, ...]
    frames: tuple[Frame, ...]
    background: tuple[float, float, float]
    device: torch.device
    rasterizer: Rasterizer

    def model(self, path: Path) -> SplatModel:
        """The model of a run folder or of a file, in this scene's frame and on its device."""
        return moved_to(open_model(path, _silent, scene=self.scene).model, self.device)

    def scores(self, model: SplatModel, factor: int = 1, save_dir: Path | None = None) -> dict[str, float]:
        """PSNR and SSIM with sides divided by ``factor``: cameras resized, photographs averaged over boxes."""
        views = [smaller(camera, frame, factor) for camera, frame in zip(self.cameras, self.frames, strict=True)]
        found = evaluate_views(
            model, self.rasterizer, [camera for camera, _ in views], lambda i: views[i][1],
            background=self.background, save_dir=save_dir,
        )  # fmt: skip
        return {"psnr": found.psnr, "ssim": found.ssim}


def open_held_out(run: Path) -> HeldOut:
    """From any finished run of the benchmark: all of them saw the same pictures."""
    config = run_config(run)
    prepare_process(config.render.threads)
    device, rasterizer = choose_device(config.render, _silent)
    scene = run_scene(config, _silent)
    with image_store(config, scene) as store:
        frames = tuple(store.frame(index) for index in scene.test_indices)
    return HeldOut(scene, scene.test_cameras, frames, fixed_background(config), device, rasterizer)


def smaller(camera: Camera, frame: Frame, factor: int) -> tuple[Camera, Frame]:
    """One view with its sides divided by ``factor``, as training sees it at that size."""
    if factor == 1:
        return camera, frame
    writable = Frame(frame.pixels.copy(), None if frame.mask is None else frame.mask.copy())
    view = FrameSource([camera], lambda _: writable).view(0, 1 / factor)
    return view.camera, Frame(view.pixels[0].numpy(), None if view.mask is None else view.mask[0].numpy())


class Drawing:
    """A model ready to be drawn: what a viewer would keep from frame to frame."""

    def __init__(self, model: SplatModel, held_out: HeldOut) -> None:
        self._held_out, self._filter2d, self._degree = held_out, model.filter2d, model.sh_degree
        self._inputs = model.render_inputs()

    def __call__(self, camera: Camera) -> Tensor:
        device = self._held_out.device
        options = RenderOptions(
            sh_degree=self._degree, filter2d=self._filter2d,
            background=background_for(camera, self._held_out.background, device),
        )  # fmt: skip
        return self._held_out.rasterizer.render(self._inputs, CameraBatch.of(camera, device=device), options).color

    def seconds(self, camera: Camera) -> float:
        _settle(self._held_out.device)
        began = time.perf_counter()
        self(camera)
        _settle(self._held_out.device)
        return time.perf_counter() - began


@torch.no_grad()
def frames_per_second(models: Mapping[str, SplatModel], held_out: HeldOut, *, rounds: int = ROUNDS) -> dict[str, float]:
    """Name -> frames per second over the held-out views: the median of ``rounds``.

    View by view every model draws once, and who begins changes from round to round: a slow moment of the machine hits
    all of them, so that ratios mean something where absolute numbers wander.
    """
    stride = -(-len(held_out.cameras) // MAX_TIMED_VIEWS)
    cameras = held_out.cameras[::stride]
    drawings = {name: Drawing(model, held_out) for name, model in models.items()}
    for drawing in drawings.values():
        drawing.seconds(cameras[0])  # fills caches
    names, taken = list(drawings), {name: [] for name in drawings}
    for turn in range(rounds):
        sums = dict.fromkeys(names, 0.0)
        for camera in cameras:
            for i in range(len(names)):
                name = names[(i + turn) % len(names)]
                sums[name] += drawings[name].seconds(camera)
        for name in names:
            taken[name].append(sums[name])
    return {name: len(cameras) / statistics.median(values) for name, values in taken.items()}


def edge_scores(run: Path, held_out: HeldOut) -> dict[str, float]:
    """PSNR on the steepest and on the gentlest pixels of the photographs, means over views of the 8-bit renders."""
    sums: dict[str, list[float]] = {"edge_psnr": [], "flat_psnr": []}
    pictures = view_pictures(read_run(run))
    for camera, frame in zip(held_out.cameras, held_out.frames, strict=True):
        if "render" not in pictures.get(camera.name, {}):
            continue
        render = read_png(pictures[camera.name]["render"])
        edges, flat = edge_masks(frame.pixels)
        for name, mask in (("edge_psnr", edges), ("flat_psnr", flat)):
            weights = mask if frame.mask is None else mask * (frame.mask / 255)
            sums[name].append(psnr(render, frame.pixels, weights.astype(np.float32)))
    return {name: float(np.nanmean(values)) for name, values in sums.items() if np.isfinite(values).any()}


def edge_masks(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [H,W,3] uint8 -> [H,W] x2 float
    """Where the photograph is steepest and where it is gentlest."""
    steep = steepness(photo)
    edges = steep > np.quantile(steep, 1 - EDGE_SHARE)
    return edges.astype(np.float32), (steep <= np.quantile(steep, FLAT_SHARE)).astype(np.float32)


def steepness(photo: np.ndarray) -> np.ndarray:  # [H,W,3] uint8 -> [H,W]
    """Squared gradient of the brightness by Sobel's filters."""
    grey = np.pad(photo.astype(np.float32).mean(axis=2) / 255, 1, mode="edge")
    across = grey[:, 2:] - grey[:, :-2]  # [H+2,W]
    down = grey[2:] - grey[:-2]  # [H,W+2]
    across = (across[:-2] + 2 * across[1:-1] + across[2:]) / 8
    down = (down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]) / 8
    return across**2 + down**2


def scale_scores(run: Path, held_out: HeldOut) -> list[dict[str, Any]]:
    """Scores of a run's model at every scale; the pictures of the smallest stay in the run's folder."""
    model = held_out.model(run)
    return [
        {"scale": factor, **held_out.scores(model, factor, small_pictures(run) if factor == SCALES[-1] else None)}
        for factor in SCALES
    ]


def small_pictures(run: Path) -> Path:
    """Where ``scale_scores`` leaves its smallest pictures."""
    return run / "renders" / f"scale_{SCALES[-1]}"


def pictures_of(run: Path) -> dict[str, dict[str, Path]]:
    """Stem -> {render, truth} of a run's last evaluation."""
    return {Path(name).stem: files for name, files in view_pictures(read_run(run)).items()}


def small_pictures_of(run: Path) -> dict[str, dict[str, Path]]:
    """Stem -> {render, truth} at the smallest scale."""
    found = {}
    for render in sorted(small_pictures(run).glob("*_render.png")):
        stem = render.name.removesuffix("_render.png")
        found[stem] = {"render": render, "truth": render.with_name(f"{stem}_truth.png")}
    return found


def read_pictures(
    sources: Mapping[str, Mapping[str, Mapping[str, Path]]], views: Sequence[str]
) -> dict[str, dict[str, np.ndarray]]:
    """View -> {"photo": pixels, label: pixels ...} of the views that every source has."""
    found = {}
    for view in views:
        if not all({"render", "truth"} <= set(files.get(view, {})) for files in sources.values()):
            continue
        shots = {label: read_png(files[view]["render"]) for label, files in sources.items()}
        truth = next(iter(sources.values()))[view]["truth"]
        found[view] = {"photo": read_png(truth), **shots}
    return found


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _silent(_: str) -> None:
    pass
