"""Reading files nobody vouches for: sizes are judged before memory is taken, and every failure names the file."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

from splat.errors import UserError

MAX_SPLATS = 2**28
"""More splats than this (64 GB of rows at SH degree 3) is taken for a broken header."""
_CHUNK = 2**20


def read_bytes(path: Path, *, most: int | None = None) -> bytes:
    """The whole file; UserError when it cannot be read or is larger than ``most`` bytes."""
    try:
        size = os.stat(path).st_size
        if most is not None and size > most:
            raise UserError(f"{path}: {size:,} bytes where at most {most:,} make sense")
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def need(path: Path, holds: bool, problem: str) -> None:
    """Raise ``UserError("path: problem")`` unless ``holds``."""
    if not holds:
        raise UserError(f"{path}: {problem}")


def need_size(path: Path, got: int, wanted: int, what: str) -> None:
    """Refuse a block that is shorter than its header promises."""
    need(path, got >= wanted, f"cut short: {what} needs {wanted:,} bytes, {got:,} are there")


def gunzipped(path: Path, data: bytes, *, most: int) -> bytes:
    """A gzip member's content; UserError when it is damaged or larger than ``most`` bytes.

    The content is taken in pieces, so a small file cannot make a large one in memory.
    """
    inflate = zlib.decompressobj(wbits=31)
    pieces: list[bytes] = []
    total = 0
    try:
        while data and not inflate.eof:
            piece = inflate.decompress(data, _CHUNK)
            data = inflate.unconsumed_tail
            pieces.append(piece)
            total += len(piece)
            need(path, total <= most, f"decompresses to more than {most:,} bytes, which its header does not explain")
            if not piece and not data:
                break
    except zlib.error as error:
        raise UserError(f"{path}: its gzip data is damaged ({error})") from error
    need(path, inflate.eof, "cut short: its gzip data ends early")
    return b"".join(pieces)


def zip_member(path: Path, archive: zipfile.ZipFile, name: str, *, most: int) -> bytes:
    """One file of a zip archive; nothing is ever unpacked to disk.

    UserError when it is missing, damaged, encrypted, or larger than ``most`` bytes whatever its entry says.
    """
    try:
        info = archive.getinfo(name)
        need(path, info.file_size <= most, f"{name!r} inside claims {info.file_size:,} bytes; at most {most:,} fit")
        with archive.open(info) as stream:
            data = stream.read(most + 1)
    except KeyError as error:
        raise UserError(f"{path}: holds no {name!r}") from error
    except (zipfile.BadZipFile, RuntimeError, ValueError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path}: {name!r} inside cannot be read ({' '.join(str(error).split())[:200]})") from error
    need(path, len(data) <= most, f"{name!r} inside is larger than {most:,} bytes")
    return data


def plain_names(path: Path, names: Collection[str]) -> None:
    """Refuse file names from inside a file that could lead out of its folder."""
    for name in names:
        bad = name in ("", ".", "..") or not name.isprintable() or any(mark in name for mark in ("/", "\\", ":"))
        need(path, not bad, f"names {name!r} as one of its files; only plain names in the same folder are read")
