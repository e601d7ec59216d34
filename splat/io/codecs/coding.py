"""Between arrays and the bytes of a stream: planes of bytes, squeezed by Zstandard or drawn as lossless WebP."""

from __future__ import annotations

from math import ceil, isqrt, prod
from typing import Any

import numpy as np

from splat.io.packed import Coding

LEVEL = 19
_WINDOW = 2**27
"""Largest look-back of Zstandard that a reader grants, bytes."""
_WEBP = {"lossless": True, "quality": 80, "method": 4, "exact": True}
"""Beyond these, effort costs minutes and saves a per mille or two."""
_WEBP_HEAD = 25


def picture_width(rows: int) -> int:
    """Pixels per line of a picture of so many: as square as can be."""
    return isqrt(max(rows - 1, 0)) + 1


def squeezed(array: np.ndarray, coding: Coding) -> tuple[dict[str, Any], list[bytes]]:
    """What the header says of the stream, and its parts. Nothing is written for no numbers."""
    array = np.ascontiguousarray(array)
    if not array.size:
        return {"coding": "raw"}, []
    if coding == "webp":
        return {"coding": "webp"}, [_drawn(picture) for picture in _pictures(array)]
    planes = np.ascontiguousarray(_planes(array))
    if coding == "raw":
        return {"coding": "raw"}, [planes.tobytes()]
    facts: dict[str, Any] = {"coding": "zstd"}
    if array.dtype.kind == "u" and array.ndim and len(array) > 1:
        steps = np.ascontiguousarray(_planes(_differences(array)))
        if _entropy(steps) < _entropy(planes):
            planes, facts["steps"] = steps, True
    from zstandard import ZstdCompressor

    return facts, [ZstdCompressor(level=LEVEL, write_checksum=True).compress(planes.tobytes())]


def restored(parts: list[bytes], facts: dict[str, Any], dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array of ``squeezed``; ValueError when the parts are not what it must be made of."""
    wanted = np.dtype(dtype)
    if not prod(shape):
        if parts:
            raise ValueError("bytes for a stream without numbers")
        return np.zeros(shape, wanted)
    coding = facts.get("coding")
    if coding == "webp":
        if wanted.kind != "u":
            raise ValueError(f"{dtype} cannot be a picture")
        return _of_pictures(parts, wanted, shape)
    if coding not in ("raw", "zstd"):
        raise ValueError(f"coding {coding!r} is not known; choices: raw, zstd, webp")
    if len(parts) != 1:
        raise ValueError(f"{len(parts)} parts where one is meant")
    size = prod(shape) * wanted.itemsize
    data = parts[0] if coding == "raw" else _inflated(parts[0], size)
    if len(data) != size:
        raise ValueError(f"{len(data):,} bytes where {size:,} are needed")
    planes = np.frombuffer(data, np.uint8).reshape(-1, shape[0] if shape else 1)
    array = _of_planes(planes, wanted, shape)
    if facts.get("steps") is True:
        if wanted.kind != "u":
            raise ValueError(f"{dtype} cannot be steps")
        array = _sums(array)
    return array


def _planes(array: np.ndarray) -> np.ndarray:  # [N,...] -> [C * bytes, N] uint8: what is alike lies together
    rows = len(array) if array.ndim else 1
    little = array.reshape(rows, -1).astype(array.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(little).view(np.uint8).reshape(rows, -1).T


def _of_planes(planes: np.ndarray, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    rows = np.ascontiguousarray(planes.T)
    return rows.view(dtype.newbyteorder("<")).reshape(shape).astype(dtype, copy=False)


def _differences(array: np.ndarray) -> np.ndarray:
    """From row to row; small ones of either sign are small numbers."""
    signed = np.diff(array, axis=0, prepend=np.zeros_like(array[:1])).view(f"i{array.itemsize}")
    return ((signed << 1) ^ (signed >> (8 * array.itemsize - 1))).view(array.dtype)


def _sums(steps: np.ndarray) -> np.ndarray:
    signed = (steps >> 1) ^ (~(steps & 1) + steps.dtype.type(1))
    return np.cumsum(signed, axis=0, dtype=steps.dtype)


def _entropy(planes: np.ndarray) -> float:
    """Bits that the bytes of the planes need one by one."""
    bits = 0.0
    for plane in planes:
        counts = np.bincount(plane, minlength=256)
        counts = counts[counts > 0]
        bits += float((counts * np.log2(len(plane) / counts)).sum())
    return bits


def _inflated(data: bytes, size: int) -> bytes:
    from zstandard import ZstdDecompressor, ZstdError, get_frame_parameters

    try:
        # The library takes what a frame says of its size as its word and allocates it.
        if get_frame_parameters(data).content_size != size:
            raise ValueError(f"its Zstandard frame is not one of {size:,} bytes")
        inflate = ZstdDecompressor(max_window_size=_WINDOW)
        return inflate.decompress(data, max_output_size=size, read_across_frames=False, allow_extra_data=False)
    except ZstdError as error:
        raise ValueError(f"its Zstandard data is damaged ({error})") from error


def _pictures(array: np.ndarray) -> list[np.ndarray]:  # [R,...] -> [H,W,3] each
    if array.dtype.kind != "u" or array.itemsize > 2 or not array.ndim:
        raise ValueError(f"{array.dtype} cannot be drawn as a picture: only uint8 and uint16 can")
    rows = len(array)
    width = picture_width(rows)
    height = ceil(rows / width)
    little = np.ascontiguousarray(array.reshape(rows, -1).astype(array.dtype.newbyteorder("<"), copy=False))
    bytewise = little.view(np.uint8).reshape(rows, -1, array.itemsize)
    planes = np.ascontiguousarray(bytewise.transpose(2, 1, 0)).reshape(-1, rows)  # all low bytes, then all high ones
    planes = np.pad(planes, ((0, 0), (0, height * width - rows)), mode="edge")
    pictures = []
    for start in range(0, len(planes), 3):
        group = planes[start : start + 3]
        group = group[[0, 1, 2][: len(group)] + [len(group) - 1] * (3 - len(group))]  # equal channels cost nothing
        pictures.append(np.ascontiguousarray(group.T).reshape(height, width, 3))
    return pictures


def _of_pictures(parts: list[bytes], dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    rows, channels = shape[0], prod(shape[1:])
    width = picture_width(rows)
    height = ceil(rows / width)
    count = channels * dtype.itemsize
    if len(parts) != ceil(count / 3):
        raise ValueError(f"{len(parts)} pictures where {ceil(count / 3)} are needed")
    planes = np.empty((count, rows), np.uint8)
    for index, part in enumerate(parts):
        pixels = _pixels(part, width, height).reshape(-1, 3)[:rows]
        kept = min(3, count - 3 * index)
        planes[3 * index : 3 * index + kept] = pixels.T[:kept]
    bytewise = planes.reshape(dtype.itemsize, channels, rows).transpose(2, 1, 0)
    return np.ascontiguousarray(bytewise).view(dtype.newbyteorder("<")).reshape(shape).astype(dtype, copy=False)


def _drawn(picture: np.ndarray) -> bytes:
    from io import BytesIO

    from PIL import Image

    stream = BytesIO()
    Image.fromarray(picture).save(stream, "WEBP", **_WEBP)
    return stream.getvalue()


def _pixels(data: bytes, width: int, height: int) -> np.ndarray:  # [H,W,3] uint8
    """A lossless WebP of exactly this size; its header is judged before the library sees it."""
    from io import BytesIO

    from PIL import Image

    if len(data) < _WEBP_HEAD or data[:4] != b"RIFF" or data[8:16] != b"WEBPVP8L" or data[20] != 0x2F:
        raise ValueError("not a lossless WebP picture")
    bits = int.from_bytes(data[21:25], "little")
    if (bits & 0x3FFF, bits >> 14 & 0x3FFF) != (width - 1, height - 1):
        raise ValueError(f"a picture that is not {width} x {height}")
    try:
        with Image.open(BytesIO(data), formats=["WEBP"]) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise ValueError(f"its WebP data is damaged ({' '.join(str(error).split())[:100]})") from error
    if pixels.shape != (height, width, 3):
        raise ValueError(f"a picture that is not {width} x {height}")
    return pixels
