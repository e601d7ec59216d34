"""Pictures inside the page: small JPEGs as data, so that the page stays one file of bounded size."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splat.errors import UserError
from splat.io.png import png_bytes, read_png

MAX_WIDTH = 440
MAX_RAW_BYTES = 600_000


@dataclass(frozen=True)
class Thumbnail:
    """A small picture as a ``data:`` address."""

    address: str
    upright: bool
    """Higher than wide."""


def thumbnail(path: Path) -> Thumbnail | None:
    """A small copy of the PNG at ``path``; None when it cannot be read."""
    try:
        pixels = read_png(path)
    except UserError:
        address = _as_it_is(path)
        return Thumbnail(address, False) if address else None
    return Thumbnail(_small(pixels), pixels.shape[0] > pixels.shape[1])


def _small(pixels: np.ndarray) -> str:  # [H,W] or [H,W,3] uint8
    if pixels.ndim == 2:
        pixels = pixels[..., None].repeat(3, axis=2)
    try:
        from splat.scene.video_writer import encode_jpeg, shrunk

        return _address("jpeg", encode_jpeg(shrunk(pixels, MAX_WIDTH), quality=85))
    except ImportError:  # no OpenCV: every n-th pixel is good enough for a thumbnail
        stride = -(-pixels.shape[1] // MAX_WIDTH)
        return _address("png", png_bytes(pixels[::stride, ::stride]))


def _as_it_is(path: Path) -> str | None:
    """Somebody else's PNG, when it is small enough."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    whole = data.startswith(b"\x89PNG") and len(data) <= MAX_RAW_BYTES
    return _address("png", data) if whole else None


def _address(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
