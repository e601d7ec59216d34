"""Pixels of a training view at the size the step wants."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from splat.geometry.camera import Camera
from splat.scene.types import Frame

DEVICE_SHARE = 8  # one part in eight of a GPU's memory may hold pictures
COARSE_CACHE_BYTES = 256 * 2**20  # reduced pictures are at most a quarter of the full ones: hundreds fit


@dataclass(frozen=True, eq=False)
class View:
    """One training target."""

    camera: Camera
    pixels: Tensor  # [1,H,W,3] uint8
    mask: Tensor | None  # [1,H,W] uint8
    index: int
    """Place among the training views."""


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
        self._frame_of, self._prefetch, self._device = frame_of, prefetch, torch.device(device)
        self._coarse: OrderedDict[tuple[int, int, int], View] = OrderedDict()
        self._coarse_bytes = 0
        self._resident: dict[int, View] = {}
        self._room_bytes = _device_room(self._device)

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

    def release(self) -> None:
        """Free what is kept on the device, and keep no more there."""
        self._resident.clear()
        self._coarse.clear()
        self._coarse_bytes = self._room_bytes = 0

    def _full(self, index: int) -> View:
        if index in self._resident:
            return self._resident[index]
        frame = self._frame_of(index)
        mask = None if frame.mask is None else self._moved(frame.mask)
        view = View(self.cameras[index], self._moved(frame.pixels), mask, index)
        if _bytes(view) <= self._room_bytes:  # a GPU has room for most captures: each picture goes over once
            self._room_bytes -= _bytes(view)
            self._resident[index] = view
        return view

    def _moved(self, pixels: np.ndarray) -> Tensor:  # [H,W,...] -> [1,H,W,...]
        """On the device; from pinned memory, so that nothing waits for the copy."""
        tensor = torch.from_numpy(pixels)[None]
        if self._device.type != "cuda":
            return tensor.to(self._device)
        return tensor.pin_memory().to(self._device, non_blocking=True)

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
    return View(view.camera.resized(width, height), pixels, mask, view.index)


def _bytes(view: View) -> int:
    return view.pixels.numel() + (0 if view.mask is None else view.mask.numel())


def _device_room(device: torch.device) -> int:
    """Bytes of full pictures to keep on a GPU; none elsewhere, where the image store is as near."""
    if device.type != "cuda":
        return 0
    return torch.cuda.get_device_properties(device).total_memory // DEVICE_SHARE
