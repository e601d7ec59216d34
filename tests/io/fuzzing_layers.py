"""Containers opened and sealed again, so that damage done inside is not caught by the first checksum or length."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Layer:
    """A container's content and how to wrap it again, with lengths and checksums that fit."""

    parts: list[bytes]
    sealed: Callable[[list[bytes]], bytes]


def opened(data: bytes) -> Layer | None:
    """What ``data`` contains; None for what is no container, or a broken one."""
    for start, opener in _OPENERS.items():
        if data.startswith(start):
            try:
                return opener(data)
            except Exception:  # broken in whatever way
                return None
    if len(data) > 9 and data[8:9] == b"{":
        return _safetensors(data)
    return None


def _gzip(data: bytes) -> Layer:
    return Layer([gzip.decompress(data)], lambda parts: gzip.compress(parts[0], 1, mtime=0))


def _zip(data: bytes) -> Layer:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def sealed(parts: list[bytes]) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if sum(map(len, parts)) % 2 else 0) as archive:
            for name, part in zip(members, parts, strict=True):
                archive.writestr(zipfile.ZipInfo(name), part)
        return out.getvalue()

    return Layer(list(members.values()), sealed)


def _image(data: bytes) -> Layer:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        kind, mode, size = image.format, image.mode, image.size
        pixels = image.tobytes()

    def sealed(parts: list[bytes]) -> bytes:
        """The same picture size where the pixels are as many, one row of them otherwise."""
        depth = len(mode)
        fits = len(parts[0]) == len(pixels)
        shape = size if fits else (max(1, min(len(parts[0]) // depth, 16_000)), 1)
        body = parts[0][: shape[0] * shape[1] * depth].ljust(shape[0] * shape[1] * depth, b"\0")
        out = io.BytesIO()
        options = {"lossless": True, "exact": True, "method": 0} if kind == "WEBP" else {}
        Image.frombytes(mode, shape, body).save(out, kind, **options)
        return out.getvalue()

    return Layer([pixels], sealed)


def _spz4(data: bytes) -> Layer | None:
    """Header and table of contents stay; the streams are unpacked."""
    import zstandard

    version, count, toc = data[4], data[15], int.from_bytes(data[16:20], "little")
    if version < 4:
        return None
    start, streams = toc + 16 * count, []
    for index in range(count):
        size = int.from_bytes(data[toc + 16 * index :][:8], "little")
        streams.append(zstandard.ZstdDecompressor().decompressobj().decompress(data[start : start + size]))
        start += size

    def sealed(parts: list[bytes]) -> bytes:
        frames = [zstandard.ZstdCompressor(level=1).compress(part) for part in parts[1:]]
        table = b"".join(struct.pack("<QQ", len(f), len(p)) for f, p in zip(frames, parts[1:], strict=True))
        return b"".join([parts[0], table, *frames])

    return Layer([data[:toc], *streams], sealed)


def _glb(data: bytes) -> Layer:
    chunks, at = [], 12
    while at + 8 <= len(data):
        size, kind = struct.unpack_from("<II", data, at)
        chunks.append((kind, data[at + 8 : at + 8 + size]))
        at += 8 + size

    def sealed(parts: list[bytes]) -> bytes:
        padded = [part + b" \0"[index > 0 :][:1] * (-len(part) % 4) for index, part in enumerate(parts)]
        body = b"".join(struct.pack("<II", len(p), kind) + p for p, (kind, _) in zip(padded, chunks, strict=True))
        return data[:8] + (len(body) + 12).to_bytes(4, "little") + body

    return Layer([content for _, content in chunks], sealed)


def _safetensors(data: bytes) -> Layer:
    end = 8 + int.from_bytes(data[:8], "little")
    return Layer([data[8:end], data[end:]], lambda parts: len(parts[0]).to_bytes(8, "little") + b"".join(parts))


def _spack(data: bytes) -> Layer:
    """The header's JSON, then every stream unpacked; the sizes in the header follow where it still is one."""
    end = 12 + int.from_bytes(data[8:12], "little")
    facts, streams, at, packed = json.loads(data[12:end]), [], end, []
    for size in _stream_sizes(facts):
        blob = data[at : at + size]
        packed.append(blob.startswith(_ZSTD))
        streams.append(_unzstd(blob) if packed[-1] else blob)
        at += size

    def sealed(parts: list[bytes]) -> bytes:
        blobs = [_zstd(part) if squeeze else part for part, squeeze in zip(parts[1:], packed, strict=True)]
        text = parts[0]
        try:
            table = json.loads(text)
            sizes = iter(map(len, blobs))
            for _, attribute in sorted(table["attributes"].items()):
                for stream in attribute["streams"]:
                    stream["bytes"] = [next(sizes) for _ in stream["bytes"]]
            text = json.dumps(table).encode("utf-8", "surrogatepass")
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration, RuntimeError):
            pass
        return b"".join([data[:8], len(text).to_bytes(4, "little"), text, *blobs])

    return Layer([data[12:end], *streams], sealed)


def _stream_sizes(facts: dict) -> list[int]:
    return [size for _, attribute in sorted(facts["attributes"].items())
            for stream in attribute["streams"] for size in stream["bytes"]]  # fmt: skip


def _zstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=1).compress(data)


def _unzstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


_OPENERS: dict[bytes, Callable[[bytes], Layer | None]] = {
    b"\x1f\x8b": _gzip, b"PK\3\4": _zip, b"RIFF": _image, b"\x89PNG": _image, b"NGSP": _spz4, b"glTF": _glb,
    b"SPLATPK1": _spack,
}  # fmt: skip
"""By first bytes."""
