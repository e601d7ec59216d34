"""Photographs made small, once for all pages."""

from __future__ import annotations

import threading
from weakref import WeakKeyDictionary

import numpy as np

from splat.geometry.camera import Camera
from splat.viewer.serving.desk import Desk

WIDTH_PX = 128
_made: WeakKeyDictionary[Desk, dict[str, np.ndarray | None]] = WeakKeyDictionary()
_lock = threading.Lock()


def thumbnail(desk: Desk, camera: Camera) -> np.ndarray | None:  # [h,w,3] uint8
    """The photograph of a view of the capture, at most ``WIDTH_PX`` wide; None where there is none."""
    with _lock:
        kept = _made.setdefault(desk, {})
    if camera.name not in kept:
        photo = desk.photo(camera)
        kept[camera.name] = None if photo is None else shrunk(photo, WIDTH_PX)
    return kept[camera.name]


def shrunk(pixels: np.ndarray, width: int) -> np.ndarray:  # [H,W,3] uint8 -> [h,w,3] uint8
    """Averaged over whole blocks of pixels until it is at most ``width`` wide: what is left over at two of the borders
    falls away."""
    step = -(-pixels.shape[1] // width)
    rows, columns = max(pixels.shape[0] // step, 1), max(pixels.shape[1] // step, 1)
    if step == 1 or pixels.shape[0] < step:
        return np.ascontiguousarray(pixels[:: max(step, 1), :: max(step, 1)])
    blocks = pixels[: rows * step, : columns * step].reshape(rows, step, columns, step, 3)
    return blocks.mean(axis=(1, 3), dtype=np.float32).round().astype(np.uint8)
