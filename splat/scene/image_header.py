"""Size, alpha and completeness of an image file from a few kilobytes of it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".exr")
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
# Start-of-frame markers; C4, C8 and CC share their range but are tables.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN = 0xDA
_JPEG_BARE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length
_PNG_END = b"IEND"
_CHECKSUM_BYTES = 4  # what follows the name of PNG's last chunk


@dataclass(frozen=True)
class ImageHeader:
    width: int
    height: int
    has_alpha: bool
    is_cut_short: bool
    """The file lacks its end marker: the lower part of the picture is missing."""


def read_header(path: Path) -> ImageHeader | None:
    """None when the file is no readable image. Orientation tags are ignored, as COLMAP does."""
    header = None
    try:
        with path.open("rb") as file:
            start = file.read(len(_PNG))
            if start == _PNG:
                header = _read_png(file)
            elif start.startswith(_JPEG):
                header = _read_jpeg(file)
    except OSError:
        return None
    except struct.error:
        pass
    if header is not None:
        return header
    from splat.scene.images import decoded_header

    return decoded_header(path)


def _read_png(file: BinaryIO) -> ImageHeader | None:
    head = file.read(18)  # length, "IHDR", width, height, depth, colour type
    if len(head) < 18 or head[4:8] != b"IHDR":
        return None
    width, height, _, color_type = struct.unpack(">IIBB", head[8:18])
    if not (width and height):
        return None
    chunks = file.read(65536) if color_type == 3 else b""  # a palette has alpha when a tRNS chunk precedes the data
    has_alpha = color_type in (4, 6) or b"tRNS" in chunks.split(b"IDAT")[0]
    return ImageHeader(width, height, has_alpha, not _has_end(file, _PNG_END, len(_PNG)))


def _read_jpeg(file: BinaryIO) -> ImageHeader | None:
    """Walk the segments to the frame header; thumbnails sit inside segments and are stepped over."""
    file.seek(len(_JPEG))
    size = None
    while True:
        marker = _next_marker(file)
        if marker is None:
            return None
        if marker in _JPEG_BARE:
            continue
        (length,) = struct.unpack(">H", file.read(2))
        if marker in _JPEG_FRAMES:
            _, height, width = struct.unpack(">BHH", file.read(5))
            size = (width, height)
            file.seek(length - 7, 1)
        elif marker == _JPEG_SCAN:
            break
        else:
            file.seek(length - 2, 1)
    if size is None or not all(size):
        return None
    return ImageHeader(*size, has_alpha=False, is_cut_short=not _has_end(file, _JPEG_END, file.tell()))


def _next_marker(file: BinaryIO) -> int | None:
    byte = file.read(1)
    if byte != b"\xff":
        return None
    while byte == b"\xff":
        byte = file.read(1)
    return byte[0] if byte else None


def _has_end(file: BinaryIO, marker: bytes, data_at: int) -> bool:
    """Whether the picture is complete: its end marker is last, or, when something was appended, further ahead.

    Inside compressed JPEG data the marker cannot occur: there, 0xFF is always followed by 0 or a restart.
    """
    end = file.seek(0, 2)
    file.seek(max(data_at, end - len(marker) - _CHECKSUM_BYTES))
    if marker in file.read():
        return True
    file.seek(data_at)
    return marker in file.read()
