"""Pixels of a training view at the size the step wants."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from splat.geometry.camera import Camera
from splat.scene.types import Frame

COARSE_CACHE_BYTES = 256 * 2**20  # reduced pictures are at most a quarter of the full ones: hundreds fit


@dataclass(frozen=True, eq=False)
class View:
    """One training target."""

    camera: Camera
    pixels: Tensor  # [1,H,W,3] uint8
    mask: Tensor | None  # [1,H,W] uint8


class FrameSource:
    """Full-size frames come from ``frame_of``; reduced ones are averaged here and kept while they fit."""

    def __init__(
        self,
        cameras: Sequence[Camera],
        frame_of: Callable[[int], Frame],
        *,
        prefetch: Callable[[Sequence[int]], None] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.cameras = tuple(cameras)
        self._frame_of, self._prefetch, self._device = frame_of, prefetch, device
        self._coarse: OrderedDict[tuple[int, int, int], View] = OrderedDict()
        self._coarse_bytes = 0

    def prefetch(self, indices: Sequence[int]) -> None:
        if self._prefetch is not None:
            self._prefetch(indices)

    def view(self, index: int, scale: float) -> View:
        """View ``index`` with its sides times ``scale`` (<= 1), intrinsics included."""
        camera = self.cameras[index]
        width, height = max(1, round(camera.width * scale)), max(1, round(camera.height * scale))
        if (width, height) == (camera.width, camera.height):
            return self._full(index)
        key = (index, width, height)
        if key not in self._coarse:
            self._remember(key, reduced(self._full(index), width, height))
        self._coarse.move_to_end(key)
        return self._coarse[key]

    def _full(self, index: int) -> View:
        frame = self._frame_of(index)
        mask = None if frame.mask is None else torch.from_numpy(frame.mask)[None].to(self._device)
        return View(self.cameras[index], torch.from_numpy(frame.pixels)[None].to(self._device), mask)

    def _remember(self, key: tuple[int, int, int], view: View) -> None:
        self._coarse[key] = view
        self._coarse_bytes += _bytes(view)
        while self._coarse_bytes > COARSE_CACHE_BYTES and len(self._coarse) > 1:
            self._coarse_bytes -= _bytes(self._coarse.popitem(last=False)[1])


def reduced(view: View, width: int, height: int) -> View:
    """Box average to a smaller size, rounded to 8 bits; masks become coverage."""

    def average(planes: Tensor) -> Tensor:  # [1,D,H,W] uint8
        return interpolate(planes.float(), size=(height, width), mode="area").round_().to(torch.uint8)

    pixels = average(view.pixels.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()
    mask = None if view.mask is None else average(view.mask[:, None])[:, 0].contiguous()
    return View(view.camera.resized(width, height), pixels, mask)


def _bytes(view: View) -> int:
    return view.pixels.numel() + (0 if view.mask is None else view.mask.numel())
