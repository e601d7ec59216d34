"""SPZ, Niantic's compressed splats: versions 1 to 4 in, 2 to 4 out (specs: compression B4).

Versions 1 to 3 are one gzip member: 16 bytes of header, then positions, alphas, colours, sizes, rotations, SH. Version
4 is a plain header of 32 bytes, records of extensions, a table of sizes, and one Zstandard frame per attribute.
Version 3 is what most readers take, so it is what ``.spz`` means when written.

The frame: axes in a file are RUB (y up), those of a PLY are RDF (y down), so y and z change their signs both ways.
That is what the format's description, its phone app, splat-transform and SuperSplat do; the description's own PLY
converter, gsply and gaussforge store a PLY's numbers as they are, and nothing in a file tells: such a file appears
turned by 180 degrees about x. An extension that names the axes is honoured when reading.

Not carried: the up axis, where the model came from, and which compensated 2D filter it was (one flag, as in a PLY's
``SplatRenderMode``).
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from splat.errors import UserError
from splat.io.atomic import write_bytes
from splat.io.axes import flipped, signs_between
from splat.io.bounded import MAX_SPLATS, gunzipped, need, need_size, read_bytes
from splat.io.locality import local_rows
from splat.io.plain import PlainSplats, model_of, plain_of
from splat.io.spz_rows import (
    LEAST_FRACTIONAL_BITS,
    MOST_FRACTIONAL_BITS,
    POSITION_LIMIT,
    SH_COEFFICIENTS,
    SpzHead,
    fitting_fractional_bits,
    packed,
    unpacked,
)
from splat.model.splat_model import SplatModel

MAGIC = b"NGSP"
_GZIP = b"\x1f\x8b"
_HEAD = struct.Struct("<4sIIBBBB")
_HEAD4 = struct.Struct("<4sIIBBBBI12x")
_ANTIALIASED, _EXTENSIONS = 1, 2
_GZIP_LEVEL, _ZSTD_LEVEL = 7, 12
_MAX_RATIO, _FREE_BYTES = 256, 2**24
"""A file may claim so many times its size, or so many bytes if that is more. Real scenes shrink 2 to 4 times."""
_EXTENSION_BYTES = 2**20
"""Of versions before 4, behind the attributes."""
_COORDINATE_SYSTEM = 0xADBE0003
"""The extension in which a writer may say what its axes are."""
_AXES = ("LDB", "RDB", "LUB", "RUB", "LDF", "RDF", "LUF", "RUF")
"""What it may say, from 1 on (0: nothing; from 9 on, z is up: not known to this reader)."""
_STORED, _CAPTURE = "RUB", "RDF"
"""Axes in the file where it does not say, and of a PLY."""


def looks_like_spz(head: bytes, path: Path) -> bool:
    """By the magic word, plain or inside a gzip member; a damaged gzip member counts if its name says SPZ."""
    if head[:4] == MAGIC:
        return True
    return head[:2] == _GZIP and (_start(head) == MAGIC or path.suffix.lower() == ".spz")


def read_spz(path: str | Path) -> tuple[SplatModel, dict[str, Any]]:
    """A model from a file of any version."""
    path = Path(path)
    plain, facts = plain_from_spz(path, read_bytes(path))
    return model_of(plain, path, format="spz", **facts)


def write_spz(model: SplatModel, path: str | Path, header: dict[str, Any] | None = None) -> None:
    """Version 3: gzip, rotations in 32 bits."""
    write_bytes(path, spz_bytes(plain_of(model), Path(path), version=3))


def write_spz2(model: SplatModel, path: str | Path, header: dict[str, Any] | None = None) -> None:
    """Version 2, for old readers: rotations in 24 bits, off by up to some degrees where w is close to 0."""
    write_bytes(path, spz_bytes(plain_of(model), Path(path), version=2))


def write_spz4(model: SplatModel, path: str | Path, header: dict[str, Any] | None = None) -> None:
    """Version 4: version 3's numbers in Zstandard frames; smaller, and fewer readers know it."""
    write_bytes(path, spz_bytes(plain_of(model), Path(path), version=4))


def spz_bytes(plain: PlainSplats, path: Path, *, version: int) -> bytes:
    """A whole SPZ file, neighbours in space near each other in it.

    UserError, naming ``path``, when the format cannot hold the splats.
    """
    if not plain.count:
        raise UserError(f"{path}: no splats to write, and SPZ cannot hold none")
    bits = fitting_fractional_bits(plain)
    if not bits:
        farthest = float(np.abs(plain.means).max())
        limit = POSITION_LIMIT / 2**LEAST_FRACTIONAL_BITS
        raise UserError(f"{path}: a splat lies {farthest:,.0f} units out; SPZ reaches {limit:,.0f}; crop or scale")
    head = SpzHead(version, plain.count, plain.sh_degree, bits, plain.antialiased, has_extensions=False)
    blocks = packed(flipped(plain.taken(local_rows(plain.means)), signs_between(_CAPTURE, _STORED)), head)
    flags = _ANTIALIASED if head.antialiased else 0
    fields = (MAGIC, version, head.count, head.sh_degree, bits, flags)
    if version < 4:
        squeeze = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)  # 31: as a gzip member, its date 0
        raw = b"".join([_HEAD.pack(*fields, 0), *(block.tobytes() for block in blocks.values())])
        return squeeze.compress(raw) + squeeze.flush()
    import zstandard

    streams = [block.tobytes() for block in blocks.values() if len(block)]
    frames = [zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(stream) for stream in streams]
    sizes = [struct.pack("<QQ", len(frame), len(stream)) for frame, stream in zip(frames, streams, strict=True)]
    return b"".join([_HEAD4.pack(*fields, len(frames), _HEAD4.size), *sizes, *frames])


def plain_from_spz(path: Path, data: bytes) -> tuple[PlainSplats, dict[str, Any]]:
    """The splats of a whole SPZ file, and facts about it for a model's header. ``path`` is for messages."""
    if data[:2] == _GZIP:
        head = _head(path, _start(data, _HEAD.size), len(data))
        most = _HEAD.size + sum(head.sections().values()) + _EXTENSION_BYTES
        body, records = _split(path, head, gunzipped(path, data, most=most))
    else:
        head = _head(path, data[: _HEAD.size], len(data))
        body, records = _streams(path, head, data) if head.version >= 4 else _split(path, head, data)
    axes, warnings = _axes(records) or _STORED, []
    if axes not in _AXES:
        warnings.append(f"{path}: says its axes are {axes}, which is not known here; taken as {_STORED}")
        axes = _STORED
    if head.sh_degree == 4:
        warnings.append(f"{path}: SH degree 4; its fourth band was left out")
    plain = flipped(unpacked(head, body), signs_between(axes, _CAPTURE))
    return plain, {"format_version": head.version, "fractional_bits": head.fractional_bits, "warnings": warnings}


def _start(data: bytes, size: int = 4) -> bytes:
    """The first bytes of a gzip member's content, as far as they can be had."""
    try:
        return zlib.decompressobj(wbits=31).decompress(data[:65_536], size)
    except zlib.error:
        return b""


def _head(path: Path, start: bytes, file_size: int) -> SpzHead:
    """The header in ``start``, judged against the size of the file."""
    need(path, start[:4] == MAGIC[: len(start)] and len(start) > 0, "not an SPZ file")
    need_size(path, len(start), _HEAD.size, "the header")
    _, version, count, sh_degree, bits, flags, _ = _HEAD.unpack(start)
    need(path, 1 <= version <= 4, f"SPZ version {version}; this version reads 1 to 4")
    need(path, sh_degree in SH_COEFFICIENTS, f"SH degree {sh_degree}; SPZ has 0 to 4")
    fits = bits <= MOST_FRACTIONAL_BITS
    need(path, fits or version == 1, f"{bits} fractional bits; at most {MOST_FRACTIONAL_BITS} make sense")
    head = SpzHead(version, count, sh_degree, bits, bool(flags & _ANTIALIASED), bool(flags & _EXTENSIONS))
    claimed = sum(head.sections().values())
    believable = count <= MAX_SPLATS and claimed <= max(_MAX_RATIO * file_size, _FREE_BYTES)
    need(path, believable, f"claims {count:,} splats, which {file_size:,} bytes cannot hold")
    return head


def _split(path: Path, head: SpzHead, content: bytes) -> tuple[dict[str, np.ndarray], bytes]:
    """Attributes of version 1 to 3, and what stands behind them."""
    blocks, offset = {}, _HEAD.size
    for name, size in head.sections().items():
        need_size(path, len(content) - offset, size, f"{name} of {head.count:,} splats")
        blocks[name] = np.frombuffer(content, np.uint8, size, offset)
        offset += size
    return blocks, content[offset:] if head.has_extensions else b""


def _streams(path: Path, head: SpzHead, data: bytes) -> tuple[dict[str, np.ndarray], bytes]:
    """Attributes of version 4, and its records of extensions."""
    need_size(path, len(data), _HEAD4.size, "the header")
    streams, table = _HEAD4.unpack(data[: _HEAD4.size])[6:]
    sections = {name: size for name, size in head.sections().items() if size}
    need(path, streams == len(sections), f"{streams} streams where {len(sections)} are expected")
    need(path, table >= _HEAD4.size, f"its table of streams starts at byte {table}, inside the header")
    need_size(path, len(data) - table, 16 * streams, "the table of streams")
    blocks = {name: np.empty(0, np.uint8) for name in head.sections()}
    offset = table + 16 * streams
    for i, (name, expected) in enumerate(sections.items()):
        size, claimed = struct.unpack_from("<QQ", data, table + 16 * i)
        need(path, claimed == expected, f"stream {name} is said to hold {claimed:,} bytes; {expected:,} are expected")
        need_size(path, len(data) - offset, size, f"stream {name}")
        blocks[name] = np.frombuffer(_unzstd(path, data[offset : offset + size], expected, name), np.uint8)
        offset += size
    return blocks, data[_HEAD4.size : table] if head.has_extensions else b""


def _unzstd(path: Path, frame: bytes, size: int, name: str) -> bytes:
    """Exactly ``size`` bytes of one frame, whatever its own header claims."""
    import zstandard

    try:
        with zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(frame) as stream:
            content = stream.read(size + 1)
    except zstandard.ZstdError as error:
        raise UserError(f"{path}: stream {name} is damaged ({' '.join(str(error).split())})") from error
    need(path, len(content) <= size, f"stream {name} holds more than the {size:,} bytes it should")
    need_size(path, len(content), size, f"stream {name}")
    return content


def _axes(records: bytes) -> str | None:
    """The axes named in the extensions, which are records of a kind, a size and so many bytes; None where none are."""
    offset = 0
    while offset + 8 <= len(records):
        kind, size = struct.unpack_from("<II", records, offset)
        payload = records[offset + 8 : offset + 8 + size]
        if kind == _COORDINATE_SYSTEM and size >= 1 and len(payload) == size:
            code = int.from_bytes(payload[:4], "little")
            return _AXES[code - 1] if 1 <= code <= len(_AXES) else f"number {code}" if code else None
        offset += 8 + size
    return None
