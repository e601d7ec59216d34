"""Lossless WebP pictures as tables of bytes. Sizes are read from the header and judged before anything is decoded."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np

from splat.io.bounded import need

MAX_SIDE = 16_383
"""Of the format."""
_HEAD = 30


def webp_bytes(pixels: np.ndarray) -> bytes:  # [H,W,4] uint8
    """``pixels`` as lossless WebP; colours under alpha 0 are kept.

    Method 4: method 6 takes minutes for the same size.
    """
    from PIL import Image

    stream = BytesIO()
    Image.fromarray(pixels, "RGBA").save(stream, "WEBP", lossless=True, exact=True, method=4, quality=80)
    return stream.getvalue()


def webp_size(path: Path, name: str, data: bytes) -> tuple[int, int]:
    """Width and height as its first bytes say (RFC 9649); UserError for anything but a still WebP picture."""
    need(path, len(data) >= _HEAD and data[:4] == b"RIFF" and data[8:12] == b"WEBP", f"{name!r} is not a WebP picture")
    kind = data[12:16]
    if kind == b"VP8L":
        packed = int.from_bytes(data[21:25], "little")
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        need(path, not data[20] & 2, f"{name!r} is an animation")
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    need(path, kind == b"VP8 ", f"{name!r} is a WebP picture of an unknown kind")
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def webp_pixels(path: Path, name: str, data: bytes) -> np.ndarray:  # [H,W,4] uint8
    """The picture ``name`` of ``path``. The caller has judged ``webp_size``; UserError when it is damaged."""
    from PIL import Image, UnidentifiedImageError

    size = webp_size(path, name, data)
    try:
        with Image.open(BytesIO(data), formats=["WEBP"]) as picture:
            need(path, picture.size == size, f"{name!r} has two sizes, {picture.size} and {size}")
            return np.asarray(picture.convert("RGBA"))
    except (OSError, ValueError, EOFError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        problem = " ".join(str(error).split())[:100]
    need(path, False, f"{name!r} is damaged ({problem})")
    raise AssertionError
