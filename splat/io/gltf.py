"""Binary glTF with KHR_gaussian_splatting: plain, or with an SPZ file inside (specs: compression B7).

The frame: glTF's y points up, a PLY's down. Splats are turned by 180 degrees about z on the way out and back on the
way in (RDF to LUF axes), positions, rotations and SH alike: what splat-transform writes and PlayCanvas' viewers do to
a PLY. Transforms of nodes are honoured if they scale all axes alike. With SPZ inside (a draft extension), its bytes
are those of an ordinary ``.spz`` file, RUB axes and all, as the draft says; CesiumJS shows them without the half turn
about the vertical axis that the draft asks for.

What glTF has no word for stands in ``asset.extras.splat``: the 2D filter, the up axis, where the model came from.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from splat.errors import UserError
from splat.geometry.sh import C0
from splat.io.atomic import atomic_path
from splat.io.bounded import MAX_SPLATS, need, read_bytes
from splat.io.gltf_document import MAGIC, Document, glb_head, parsed_glb
from splat.io.gltf_scene import (
    OPACITY,
    ROTATION,
    SCALE,
    SPLATS,
    SPZ,
    SRGB,
    capture_from_gltf,
    gltf_from_capture,
    linear_from_srgb,
    placed_splats,
    sh_name,
)
from splat.io.plain import LOG_SCALE_MAX, LOG_SCALE_MIN, PlainSplats, model_of, plain_of
from splat.io.spz import spz_bytes
from splat.model.filter2d import FILTERS_2D
from splat.model.splat_model import SplatModel

_FLOAT, _UBYTE, _USHORT = 5126, 5121, 5123
_ARRAY_BUFFER = 34962
_POINTS = 0
_KERNEL = {
    "kernel": "ellipse", "colorSpace": SRGB, "projection": "perspective", "sortingMethod": "cameraDistance",
}  # fmt: skip
_TURN = np.diag((-1.0, -1.0, 1.0, 1.0))
"""glTF's axes from a capture's, and back."""


def looks_like_glb(head: bytes, path: Path) -> bool:
    """By the magic word."""
    return head[:4] == MAGIC


def read_gltf(path: str | Path) -> tuple[SplatModel, dict[str, Any]]:
    """All splats of the default scene as one model; splats compressed with SPZ included."""
    path = Path(path)
    document = parsed_glb(path, read_bytes(path))
    warnings: list[str] = []
    parts = []
    total = 0
    for plain, world in placed_splats(document, warnings):
        total += plain.count
        need(path, total <= MAX_SPLATS, f"holds more than {MAX_SPLATS:,} splats")
        parts.append(_moved(path, capture_from_gltf(plain), _TURN @ world @ _TURN))
    need(path, bool(parts), f"a glTF file without Gaussian splats ({SPLATS})")
    plain = _joined(parts)
    return model_of(plain, path, format="glb", warnings=warnings, **_facts(document))


def write_glb(model: SplatModel, path: str | Path, header: dict[str, Any] | None = None) -> None:
    """Every number as float32; COLOR_0 with linear colours for viewers that show points."""
    path = Path(path)
    plain = plain_of(model)
    if not plain.count:
        raise UserError(f"{path}: no splats to write, and glTF cannot hold none")
    plain = gltf_from_capture(plain)
    arrays = _attributes(plain)
    views, accessors, offset = [], [], 0
    for i, (name, values) in enumerate(arrays.items()):
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": values.nbytes, "target": _ARRAY_BUFFER})
        accessors.append({"bufferView": i, **_accessor(name, values)})
        offset += values.nbytes
    root = _root(model, header or {}, extensions=[SPLATS])
    root |= {"buffers": [{"byteLength": offset}], "bufferViews": views, "accessors": accessors}
    root["meshes"] = [_mesh(list(arrays), _KERNEL)]
    head = glb_head(root, offset, path)
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        stream.write(head)
        for values in arrays.values():
            stream.write(values.tobytes())


def write_glb_spz(model: SplatModel, path: str | Path, header: dict[str, Any] | None = None) -> None:
    """The same with an SPZ file of version 3 in place of the numbers, which readers are required to know.

    The attributes are those of the draft: opacity is in COLOR_0, and there is no SH attribute for degree 0; CesiumJS
    would take one for a sign that there is none at all.
    """
    path = Path(path)
    plain = plain_of(model)
    payload = spz_bytes(plain, path, version=3)
    arrays = _attributes(gltf_from_capture(plain))
    del arrays[OPACITY], arrays[sh_name(0, 0)]
    arrays["COLOR_0"] = arrays["COLOR_0"].astype(np.uint8)  # only its type counts
    root = _root(model, header or {}, extensions=[SPLATS, SPZ])
    root["extensionsRequired"] = [SPLATS, SPZ]
    root |= {"buffers": [{"byteLength": len(payload)}]}
    root |= {"bufferViews": [{"buffer": 0, "byteOffset": 0, "byteLength": len(payload)}]}
    root["accessors"] = [_accessor(name, values) for name, values in arrays.items()]
    root["meshes"] = [_mesh(list(arrays), {**_KERNEL, "extensions": {SPZ: {"bufferView": 0}}})]
    padding = b"\0" * (-len(payload) % 4)
    head = glb_head(root, len(payload) + len(padding), path)
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"".join([head, payload, padding]))


def _attributes(plain: PlainSplats) -> dict[str, np.ndarray]:
    """Arrays by attribute, little-endian, of splats in glTF's axes."""
    color = np.empty((plain.count, 4), "<u2")
    color[:, :3] = np.rint(linear_from_srgb(plain.sh0.astype(np.float64) * C0 + 0.5) * 65_535)
    color[:, 3] = np.rint(plain.opacities * 65_535.0)
    arrays = {
        "POSITION": plain.means,
        "COLOR_0": color,
        ROTATION: plain.quats[:, [1, 2, 3, 0]],
        SCALE: np.exp(np.clip(plain.log_scales, LOG_SCALE_MIN, LOG_SCALE_MAX)),
        OPACITY: plain.opacities,
        sh_name(0, 0): plain.sh0,
    }
    for band in range(1, plain.sh_degree + 1):
        for n in range(2 * band + 1):
            arrays[sh_name(band, n)] = plain.sh_rest[:, band * band - 1 + n]
    return {
        name: values if name == "COLOR_0" else np.ascontiguousarray(values, "<f4") for name, values in arrays.items()
    }


def _accessor(name: str, values: np.ndarray) -> dict[str, Any]:
    kind = "SCALAR" if values.ndim == 1 else f"VEC{values.shape[1]}"
    component = {"f": _FLOAT, "u": _USHORT if values.itemsize == 2 else _UBYTE}[values.dtype.kind]
    described: dict[str, Any] = {"componentType": component, "count": len(values), "type": kind}
    if component != _FLOAT:
        described["normalized"] = True
    if name == "POSITION":
        described |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
    return described


def _mesh(attributes: list[str], extension: dict[str, Any]) -> dict[str, Any]:
    indices = {name: index for index, name in enumerate(attributes)}
    return {"primitives": [{"attributes": indices, "mode": _POINTS, "extensions": {SPLATS: extension}}]}


def _root(model: SplatModel, header: dict[str, Any], *, extensions: list[str]) -> dict[str, Any]:
    from splat import __version__

    own: dict[str, Any] = {"filter2d": model.filter2d}
    if header.get("up_axis") is not None:
        own["up_axis"] = [float(value) for value in header["up_axis"]]
    own["provenance"] = {str(key): str(value) for key, value in sorted(header.get("provenance", {}).items())}
    asset = {"version": "2.0", "generator": f"splat {__version__}", "extras": {"splat": own}}
    return {
        "asset": asset, "extensionsUsed": extensions, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
    }  # fmt: skip


def _facts(document: Document) -> dict[str, Any]:
    """What the asset says about itself that a model's header keeps; nothing of another type than expected."""
    asset = document.root.get("asset")
    asset = asset if isinstance(asset, dict) else {}
    extras = asset.get("extras")
    own = extras.get("splat") if isinstance(extras, dict) else None
    own = own if isinstance(own, dict) else {}
    facts: dict[str, Any] = {"provenance": {}}
    provenance = own.get("provenance")
    if isinstance(provenance, dict):
        facts["provenance"] = {_line(key): _line(value) for key, value in provenance.items() if isinstance(value, str)}
    if isinstance(asset.get("generator"), str):
        facts["provenance"].setdefault("generator", _line(asset["generator"]))
    if isinstance(own.get("filter2d"), str) and own["filter2d"] in FILTERS_2D:
        facts["filter2d"] = own["filter2d"]
    up = own.get("up_axis")
    if isinstance(up, list) and len(up) == 3 and all(type(v) in (int, float) and abs(v) < math.inf for v in up):
        facts["up_axis"] = [float(value) for value in up]
    return facts


def _line(text: str) -> str:
    """One printable line of somebody's text."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())[:200]


def _moved(path: Path, plain: PlainSplats, transform: np.ndarray) -> PlainSplats:
    """Splats after a node's transform, which must be a similarity."""
    if np.array_equal(transform, np.eye(4)):
        return plain
    from splat.model.primitives import PRIMITIVES

    names = ("means", "quats", "log_scales", "sh_rest")
    rows = {name: torch.from_numpy(np.ascontiguousarray(getattr(plain, name))) for name in names}
    try:
        rows = PRIMITIVES["gaussian"]().transformed(rows, torch.from_numpy(transform))
    except UserError as error:
        raise UserError(f"{path}: a node's transform cannot be applied to splats ({error})") from error
    return replace(plain, **{name: rows[name].numpy() for name in names})


def _joined(parts: list[PlainSplats]) -> PlainSplats:
    """All splats as one; missing SH bands are zero."""
    if len(parts) == 1:
        return parts[0]
    degree = max(part.sh_degree for part in parts)
    wide = (degree + 1) ** 2 - 1
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("means", "quats", "log_scales", "opacities", "sh0")
    }
    rest = [np.pad(part.sh_rest, ((0, 0), (0, wide - part.sh_rest.shape[1]), (0, 0))) for part in parts]
    antialiased = all(part.antialiased for part in parts)
    return PlainSplats(sh_rest=np.concatenate(rest), sh_degree=degree, antialiased=antialiased, **arrays)
