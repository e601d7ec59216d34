"""A densifier's pixel maps of the training views: made once per view and size, kept with 8 bits while they fit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

from splat.train.frames import View

CACHE_BYTES = 256 * 2**20
"""On the CPU: one map of 600 pictures of 800 x 540."""
DEVICE_SHARE = 16
"""On a GPU: one part in so many of its memory."""
MOST_MAPS = 4
"""What the rasterizers weigh at once."""


class MapCache:
    """``maps`` is ``Densifier.maps``. Nothing here belongs into a checkpoint: maps are made again, to the same bits."""

    def __init__(self, maps: Callable[[Tensor], Tensor | None], device: torch.device) -> None:
        self._maps = maps
        self.limit_bytes = _room(device)
        self._kept: OrderedDict[tuple[int, int, int], Tensor | None] = OrderedDict()
        self._bytes = 0

    def of(self, view: View) -> Tensor | None:  # [1,M,H,W] uint8
        """The maps of a view at the size it has here; None where the densifier has none. 255 is 1."""
        height, width = view.pixels.shape[1:3]
        key = (view.index, height, width)
        if key not in self._kept:
            self._remember(key, self._made(view.pixels[0]))
        self._kept.move_to_end(key)
        return self._kept[key]

    def release(self) -> None:
        """Forget all maps, and keep no more than the newest."""
        self._kept.clear()
        self._bytes = self.limit_bytes = 0

    def _made(self, pixels: Tensor) -> Tensor | None:  # [H,W,3] uint8 -> [1,M,H,W] uint8
        maps = self._maps(pixels)
        if maps is None:
            return None
        if maps.ndim != 3 or maps.shape[1:] != pixels.shape[:2] or not 1 <= maps.shape[0] <= MOST_MAPS:
            wanted = f"[1..{MOST_MAPS},{pixels.shape[0]},{pixels.shape[1]}]"
            raise ValueError(f"pixel maps must be {wanted}, got {list(maps.shape)}")
        return (maps.clamp(0, 1) * 255).round().to(device=pixels.device, dtype=torch.uint8)[None]

    def _remember(self, key: tuple[int, int, int], maps: Tensor | None) -> None:
        self._kept[key] = maps
        self._bytes += _bytes(maps)
        while self._bytes > self.limit_bytes and len(self._kept) > 1:
            self._bytes -= _bytes(self._kept.popitem(last=False)[1])


def weights(maps: Tensor) -> Tensor:  # [1,M,H,W] uint8 -> float32 in 0..1
    """As ``RenderOptions.pixel_weights`` wants them."""
    return maps.to(torch.float32).div_(255).contiguous()


def _bytes(maps: Tensor | None) -> int:
    return 0 if maps is None else maps.numel()


def _room(device: torch.device) -> int:
    if device.type != "cuda":
        return CACHE_BYTES
    return torch.cuda.get_device_properties(device).total_memory // DEVICE_SHARE
