"""PNG files of our own renders: 8-bit grey and RGB, 16-bit grey. zlib does the work; no image library needed."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from splat.errors import UserError
from splat.io.atomic import write_bytes

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOR_TYPES = {1: 0, 3: 2}  # channels -> PNG colour type
_NONE, _SUB, _UP = 0, 1, 2  # row filters (PNG specification, section 9.2)


def write_png(path: str | Path, pixels: np.ndarray) -> Path:
    """Write ``pixels`` [H,W,3] uint8, [H,W] uint8 or [H,W] uint16, atomically."""
    return write_bytes(path, png_bytes(pixels), sync=False)


def png_bytes(pixels: np.ndarray, *, level: int = 6) -> bytes:
    """The PNG file of ``pixels``. Every row is stored as its difference from the row above."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    depth = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16}[pixels.dtype]
    if channels not in _COLOR_TYPES or (depth == 16 and channels != 1) or not height or not width:
        raise ValueError(f"PNG needs [H,W] or [H,W,3] uint8, or [H,W] uint16 pixels, got {pixels.shape} {pixels.dtype}")
    raw = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder(">"))).view(np.uint8).reshape(height, -1)
    rows = np.empty((height, raw.shape[1] + 1), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = raw[0]
    rows[1:, 1:] = raw[1:] - raw[:-1]
    head = struct.pack(">IIBBBBB", width, height, depth, _COLOR_TYPES[channels], 0, 0, 0)
    chunks = (b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), level)), (b"IEND", b"")
    return _SIGNATURE + b"".join(_chunk(name, data) for name, data in chunks)


def read_png(path: str | Path) -> np.ndarray:
    """Pixels of a PNG that ``write_png`` (or a writer as simple) made; UserError for any other file."""
    try:
        return _decode(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, IndexError, KeyError, struct.error, zlib.error) as error:
        raise UserError(f"{path}: not a PNG of the kind written here ({error})") from error


def _decode(data: bytes) -> np.ndarray:
    if not data.startswith(_SIGNATURE):
        raise ValueError("no PNG signature")
    offset, head, body = len(_SIGNATURE), b"", b""
    while offset < len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        name, content = data[offset + 4 : offset + 8], data[offset + 8 : offset + 8 + length]
        offset += 12 + length
        head, body = (content, body) if name == b"IHDR" else (head, body + content if name == b"IDAT" else body)
    width, height, depth, color, _, _, interlace = struct.unpack(">IIBBBBB", head)
    channels = {0: 1, 2: 3}[color]
    if interlace or depth not in (8, 16) or width * height * channels > 2**31:
        raise ValueError("interlaced, palette or low-depth pixels")
    step = channels * depth // 8
    limit = height * (width * step + 1)
    rows = np.frombuffer(zlib.decompressobj().decompress(body, limit), np.uint8).reshape(height, -1)
    pixels = np.empty((height, width * step), np.uint8)
    for y, row in enumerate(rows):
        if row[0] not in (_NONE, _SUB, _UP):
            raise ValueError(f"row filter {row[0]}")
        if row[0] == _SUB:
            pixels[y] = np.cumsum(row[1:].reshape(width, step), axis=0, dtype=np.uint8).reshape(-1)
        else:
            pixels[y] = row[1:] + pixels[y - 1] if row[0] == _UP and y else row[1:]
    shape = (height, width) if channels == 1 else (height, width, channels)
    return pixels.view(">u2").astype(np.uint16).reshape(shape) if depth == 16 else pixels.reshape(shape)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
