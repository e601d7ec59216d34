"""The container of a binary glTF and its arrays, read without believing any number in it (glTF 2.0, chapters 3.6, 4).

A file is 12 bytes of header and chunks: JSON, then one of bytes. Buffers in other files are refused: a model is one
file here.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from splat.errors import UserError
from splat.io.bounded import need, need_size

MAGIC = b"glTF"
_HEAD, _CHUNK = struct.Struct("<4sII"), struct.Struct("<II")
_JSON, _BIN = 0x4E4F534A, 0x004E4942
MAX_BYTES = 2**32 - 1
"""Of a whole file, which holds its own length in 32 bits."""
COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_KNOWN_REQUIRED = {
    "KHR_gaussian_splatting", "KHR_gaussian_splatting_compression_spz_2", "KHR_mesh_quantization",
    "KHR_materials_unlit",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Document:
    """A file's JSON and its one chunk of bytes."""

    path: Path
    root: dict[str, Any]
    binary: memoryview

    def item(self, kind: str, index: Any) -> dict[str, Any]:
        """``root[kind][index]``, an object."""
        items = self.root.get(kind, [])
        valid = isinstance(items, list) and type(index) is int and 0 <= index < len(items)
        need(self.path, valid, f"refers to {kind}[{_short(index)}], which is not there")
        return self.object(items[index], f"{kind}[{index}]")

    def object(self, value: Any, what: str) -> dict[str, Any]:
        need(self.path, isinstance(value, dict), f"its {what} is no JSON object")
        return value

    def whole(self, holder: dict[str, Any], key: str, default: int, what: str) -> int:
        """A whole number from 0 on."""
        value = holder.get(key, default)
        valid = type(value) is int and 0 <= value < 2**53
        need(self.path, valid, f"{what} has {key} {_short(value)}; a whole number from 0 on is needed")
        return value

    def view(self, index: Any) -> tuple[memoryview, int]:
        """The bytes of a buffer view and its stride, 0 for none."""
        holder, what = self.item("bufferViews", index), f"bufferViews[{index}]"
        need(self.path, not holder.get("extensions"), f"{what} is compressed by an extension that is not read here")
        buffer = self.item("buffers", holder.get("buffer"))
        inside = holder["buffer"] == 0 and "uri" not in buffer
        need(self.path, inside, "keeps its numbers in another file or in text; only data inside the file is read")
        start = self.whole(holder, "byteOffset", 0, what)
        size = self.whole(holder, "byteLength", 0, what)
        need_size(self.path, len(self.binary) - start, size, what)
        return self.binary[start : start + size], self.whole(holder, "byteStride", 0, what)

    def array(self, index: Any, kinds: tuple[str, ...]) -> np.ndarray:  # [count,width] float32
        """The numbers of an accessor whose type is among ``kinds``; normalised integers as fractions of one."""
        holder, what = self.item("accessors", index), f"accessors[{index}]"
        kind, component = holder.get("type"), holder.get("componentType")
        need(self.path, kind in kinds, f"{what} is of type {_short(kind)} where {' or '.join(kinds)} is needed")
        need(self.path, type(component) is int and component in COMPONENTS,
             f"{what} has component type {_short(component)}; known are {', '.join(map(str, COMPONENTS))}")  # fmt: skip
        need(self.path, "sparse" not in holder, f"{what} is sparse, which is not read here")
        need(self.path, "bufferView" in holder, f"{what} has no data")
        data, stride = self.view(holder["bufferView"])
        dtype, width = np.dtype(COMPONENTS[component]), WIDTHS[kind]
        count = self.whole(holder, "count", 0, what)
        start = self.whole(holder, "byteOffset", 0, what)
        stride = stride or width * dtype.itemsize
        need(self.path, stride >= width * dtype.itemsize, f"{what} has elements larger than their stride of {stride}")
        need(self.path, count > 0, f"{what} has no elements")
        need_size(self.path, len(data) - start, (count - 1) * stride + width * dtype.itemsize, what)
        values = np.ndarray((count, width), dtype, data, start, (stride, dtype.itemsize))
        if dtype.kind == "f" or not holder.get("normalized"):
            return values.astype(np.float32)
        return np.maximum(values / np.float32(np.iinfo(dtype).max), -1).astype(np.float32)


def parsed_glb(path: Path, data: bytes) -> Document:
    """The document in a whole binary file; UserError when it is damaged or needs what is not known here."""
    need_size(path, len(data), _HEAD.size, "the header")
    magic, version, length = _HEAD.unpack_from(data)
    need(path, magic == MAGIC, "not a binary glTF file")
    need(path, version == 2, f"glTF version {version}; only 2 is read")
    need_size(path, len(data), length, "the file")
    chunks: dict[int, memoryview] = {}
    offset = _HEAD.size
    while offset + _CHUNK.size <= min(length, len(data)):
        size, kind = _CHUNK.unpack_from(data, offset)
        offset += _CHUNK.size
        need_size(path, length - offset, size, "a chunk")
        if kind in (_JSON, _BIN) and kind not in chunks:
            chunks[kind] = memoryview(data)[offset : offset + size]
        offset += size
    need(path, _JSON in chunks, "a glTF file without its JSON")
    document = Document(path, _parsed_json(path, bytes(chunks[_JSON])), chunks.get(_BIN, memoryview(b"")))
    required = document.root.get("extensionsRequired", [])
    unknown = [name for name in required if type(name) is not str or name not in _KNOWN_REQUIRED]
    need(path, not unknown, f"needs {named(unknown)}, which is not read here")
    return document


def glb_head(root: dict[str, Any], binary_bytes: int, path: Path) -> bytes:
    """All of a file but the ``binary_bytes`` (a multiple of 4) that follow."""
    text = json.dumps(root, separators=(",", ":"), allow_nan=False).encode("ascii")
    text += b" " * (-len(text) % 4)
    total = _HEAD.size + 2 * _CHUNK.size + len(text) + binary_bytes
    if total > MAX_BYTES:
        raise UserError(f"{path}: would take {total:,} bytes; a binary glTF file has room for {MAX_BYTES:,}")
    return b"".join([_HEAD.pack(MAGIC, 2, total), _CHUNK.pack(len(text), _JSON), text, _CHUNK.pack(binary_bytes, _BIN)])


def _parsed_json(path: Path, text: bytes) -> dict[str, Any]:
    try:
        root = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its JSON is damaged ({' '.join(str(error).split())[:100]})") from error
    need(path, isinstance(root, dict), "its JSON is no object")
    need(path, isinstance(root.get("extensionsRequired", []), list), "its extensionsRequired is no list")
    return root


def named(values: list[Any]) -> str:
    """Names from inside a file, safe to print."""
    return ", ".join(_short(value) for value in values[:4])


def _short(value: Any) -> str:
    return ascii(value)[:60]
