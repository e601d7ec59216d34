"""What the photographs say of single splats: their part in the error, and how they are pulled.

Some training views are drawn small and compared with their photographs. That takes longer than a frame, so what came
out is kept for a snapshot, and carried over to newer ones by the splats' numbers until it has grown old.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from torch import Tensor

from splat.errors import UserError
from splat.geometry.camera import Camera
from splat.live.snapshot import KeptPixels, Snapshot
from splat.model.labels import Labels
from splat.model.splat_model import SplatModel
from splat.render.types import CameraBatch, Rasterizer, RenderOptions
from splat.viewer.picture.counted import counted
from splat.viewer.picture.modes.view import remembered

VIEWS = 6
"""Spread evenly over the training views."""
LONGEST_SIDE_PX = 320
FRESH_SECS = 5.0
"""For how long an older snapshot's numbers do, at least..."""
FRESH_SHARE = 20.0
"""...and in units of the time they took: at most a twentieth of the time goes there."""

Compared = tuple[Camera, Tensor, Tensor | None]
"""A view made small, its photograph [h,w,3] in 0..1, and how much its pixels count, [h,w] in 0..1 (None = wholly)."""


@dataclass(frozen=True, eq=False)
class Lifted:
    """A number per splat."""

    snapshot: ReferenceType[Snapshot]
    """Which one they were made of; it need not be kept for that."""
    labels: Labels
    protection: KeptPixels | None
    values: Tensor  # [N]
    known: Tensor  # [N] bool: seen by one of the views
    made_at: float  # time.monotonic()
    took_secs: float


_newest: WeakKeyDictionary[Any, dict[str, Lifted]] = WeakKeyDictionary()
_photos: WeakKeyDictionary[Any, dict[str, Tensor]] = WeakKeyDictionary()
_lock = threading.Lock()


def photo_errors(snapshot: Snapshot, rasterizer: Rasterizer, desk: Any) -> tuple[Tensor, Tensor]:  # [N], [N] bool
    """Mean absolute difference from the photographs (0..1) where a splat shows, weighted by how much it shows, and
    which splats show at all, where photographs count. UserError without photographs."""
    return _kept("error", _errors, snapshot, rasterizer, desk)


def photo_gradients(snapshot: Snapshot, rasterizer: Rasterizer, desk: Any) -> tuple[Tensor, Tensor]:
    """Norm of the gradient of the mean absolute difference, where photographs count, with respect to a splat's place in
    the picture (NDC), mean over the views it is in: what densification looks at. UserError without photographs."""
    return _kept("gradient", _gradients, snapshot, rasterizer, desk)


def some_views(desk: Any) -> list[tuple[Camera, Tensor]]:
    """Training views, and their photographs made small, [h,w,3] in 0..1. UserError where there are none."""
    scene = getattr(desk, "scene", None)
    if scene is None or not scene.train_cameras:
        raise UserError("this mode compares with photographs, and the model was opened without its capture")
    cameras = scene.train_cameras
    step = max(1.0, len(cameras) / VIEWS)
    chosen = [cameras[int(i * step)] for i in range(min(VIEWS, len(cameras)))]
    views = [(camera, _small_photo(desk, camera)) for camera in chosen]
    there = [(camera, photo) for camera, photo in views if photo is not None]
    if not there:
        raise UserError("this mode compares with photographs, and none of those of the capture can be read")
    return there


def _kept(name: str, make: Callable, snapshot: Snapshot, rasterizer: Rasterizer, desk: Any) -> tuple[Tensor, Tensor]:
    views = some_views(desk)
    with _lock:  # a second page waits rather than doing the same work
        table = _newest.setdefault(desk, {})
        last = table.get(name)
        now = time.monotonic()
        if last is None or _is_stale(last, snapshot, now):
            values, known = make(snapshot.model, rasterizer, _with_counts(desk, snapshot, views))
            done = time.monotonic()
            last = table[name] = Lifted(
                ref(snapshot), snapshot.labels, snapshot.protection, values, known, done, done - now
            )  # fmt: skip
    if last.snapshot() is snapshot:
        return last.values, last.known
    return remembered(snapshot, ("carried", name, last), lambda: _carried(last, snapshot))


def _is_stale(last: Lifted, snapshot: Snapshot, now: float) -> bool:
    if last.snapshot() is snapshot:
        return False
    if last.protection is not snapshot.protection:  # an edit by hand or its undoing: other pixels count
        return True
    return now - last.made_at > max(FRESH_SECS, FRESH_SHARE * last.took_secs)


def _with_counts(desk: Any, snapshot: Snapshot, views: list[tuple[Camera, Tensor]]) -> list[Compared]:
    """Without views of which nothing counts."""
    found = []
    for camera, photo in views:
        height, width = photo.shape[:2]
        counts = counted(desk, snapshot, camera, width, height)
        if counts is None or bool(counts.any()):
            found.append((camera.resized(width, height), photo, None if counts is None else counts.float() / 255))
    return found


def _carried(last: Lifted, snapshot: Snapshot) -> tuple[Tensor, Tensor]:
    """An older snapshot's numbers for the splats of a newer one; what was born since has none."""
    rows = last.labels.rows_of(snapshot.labels.ids)
    if not last.values.shape[0]:
        return torch.zeros(rows.shape, device=rows.device), rows >= 0
    known = (rows >= 0) & last.known[rows.clamp_min(0)]
    return torch.where(known, last.values[rows.clamp_min(0)], 0.0), known


def _small_photo(desk: Any, camera: Camera) -> Tensor | None:  # [h,w,3] float
    with _lock:
        photos = _photos.setdefault(desk, {})
    if camera.name not in photos:
        pixels = desk.photo(camera)
        if pixels is None:
            return None
        longest = max(pixels.shape[:2])
        scale = min(1.0, LONGEST_SIDE_PX / longest)
        size = [max(1, round(side * scale)) for side in pixels.shape[:2]]
        planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        photos[camera.name] = torch.nn.functional.interpolate(planes, size, mode="area")[0].permute(1, 2, 0)
    return photos[camera.name]


def _drawn(
    model: SplatModel, views: list[Compared]
) -> Iterator[tuple[CameraBatch, Tensor, Tensor, RenderOptions]]:  # photograph [h,w,3], weights [h,w] in 0..1
    device, dtype = model.device, next(iter(model.rows.values())).dtype
    for camera, photo, counts in views:
        behind = None if camera.background is None else torch.tensor(camera.background, dtype=dtype, device=device)
        options = RenderOptions(sh_degree=model.sh_degree, filter2d=model.filter2d, background=behind)
        truth = photo.to(device, dtype)
        weights = torch.ones_like(truth[..., 0]) if counts is None else counts.to(truth)
        yield CameraBatch.of(camera, dtype=dtype, device=device), truth, weights, options


@torch.no_grad()
def _errors(model: SplatModel, rasterizer: Rasterizer, views: list[Compared]) -> tuple[Tensor, Tensor]:
    inputs = model.render_inputs()
    sums = inputs.means.new_zeros(2, model.count)
    for cameras, photo, weights, options in _drawn(model, views):
        color = rasterizer.render(inputs, cameras, options).color[0].clamp(0, 1)
        error = (color - photo).abs().mean(dim=-1)
        maps = torch.stack([error * weights, weights])[None]
        asked = replace(options, pixel_weights=maps, stats=frozenset({"weighted_blend"}))
        sums += rasterizer.render(inputs, cameras, asked).stats.weighted_blend[0]
    return sums[0] / sums[1].clamp_min(1e-6), sums[1] > 1e-3


def _gradients(model: SplatModel, rasterizer: Rasterizer, views: list[Compared]) -> tuple[Tensor, Tensor]:
    inputs = model.render_inputs()
    total = inputs.means.new_zeros(model.count)
    seen = torch.zeros_like(total)
    for cameras, photo, weights, options in _drawn(model, views):
        asked = replace(options, stats=frozenset({"grad2d", "visible"}))
        with torch.enable_grad():
            moving = replace(inputs, means=inputs.means.detach().requires_grad_())
            drawn = rasterizer.render(moving, cameras, asked)
            differences = (drawn.color[0] - photo).abs().mean(dim=-1)
            ((differences * weights).sum() / weights.sum()).backward()
        total += drawn.stats.grad2d[0]
        seen += drawn.stats.visible[0]
    return total / seen.clamp_min(1), seen > 0
