"""Binary glTF files taken apart and put together."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from gaussians import random_model

from splat.io.gltf import write_glb

KHR = "KHR_gaussian_splatting"
SPZ = "KHR_gaussian_splatting_compression_spz_2"


def taken_apart(path: Path) -> tuple[dict, bytes]:
    """JSON and bytes of a file."""
    data = path.read_bytes()
    magic, version, total, size, kind = struct.unpack_from("<4sIIII", data)
    assert (magic, version, total, kind, size % 4) == (b"glTF", 2, len(data), 0x4E4F534A, 0)
    binary_size, kind = struct.unpack_from("<II", data, 20 + size)
    assert (kind, binary_size) == (0x004E4942, len(data) - 28 - size)
    return json.loads(data[20 : 20 + size]), data[28 + size :]


def put_together(path: Path, root: object, binary: bytes = b"") -> Path:
    text = (root if isinstance(root, str) else json.dumps(root)).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
    return path


def written(tmp_path: Path, **settings) -> tuple[dict, bytes]:
    write_glb(random_model(**settings), tmp_path / "m.glb")
    return taken_apart(tmp_path / "m.glb")


def attributes(root: dict) -> dict:
    return root["meshes"][0]["primitives"][0]["attributes"]


def floats(root: dict, binary: bytes, name: str) -> np.ndarray:
    accessor = root["accessors"][attributes(root)[name]]
    view = root["bufferViews"][accessor["bufferView"]]
    return np.frombuffer(binary, "<f4", view["byteLength"] // 4, view["byteOffset"]).reshape(accessor["count"], -1)
