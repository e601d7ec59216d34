"""Which splats a glTF scene shows, and where: nodes, their transforms, and the attributes of their meshes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from splat.geometry.sh import C0
from splat.io.axes import flipped, signs_between
from splat.io.bounded import need
from splat.io.gltf_document import Document, named
from splat.io.plain import PlainSplats
from splat.io.spz import plain_from_spz

SPLATS, SPZ = "KHR_gaussian_splatting", "KHR_gaussian_splatting_compression_spz_2"
SCALE, ROTATION, OPACITY = f"{SPLATS}:SCALE", f"{SPLATS}:ROTATION", f"{SPLATS}:OPACITY"
SRGB = "srgb_rec709_display"
_LEAST_BYTES = 3
"""Of a position in the file."""
_Json = dict[str, Any]


def sh_name(band: int, coefficient: int) -> str:
    """The attribute of one coefficient's red, green and blue."""
    return f"{SPLATS}:SH_DEGREE_{band}_COEF_{coefficient}"


def placed_splats(document: Document, warnings: list[str]) -> Iterator[tuple[PlainSplats, np.ndarray]]:
    """Splats of every primitive that has some, in glTF's axes, and the world transform [4,4] of their node.

    Sentences about what was not taken as it stands are added to ``warnings``.
    """
    used, taken, left_out = set(), 0, 0
    for index, world in _mesh_nodes(document):
        mesh = document.item("meshes", index)
        need(document.path, index not in used, f"shows meshes[{index}] more than once, which is not read here")
        used.add(index)
        primitives = mesh.get("primitives")
        need(document.path, isinstance(primitives, list), f"meshes[{index}] has no primitives")
        for primitive in primitives:
            extension = _extension(document, document.object(primitive, "primitive"), SPLATS)
            if extension is None:
                left_out += 1
                continue
            taken += _bytes_taken(document, primitive, extension)
            fits = taken <= len(document.binary)  # all together, whatever they share
            need(document.path, fits, "shows the same splats many times, or more than it has bytes for")
            yield _splats(document, primitive, extension, warnings), world
    if left_out:
        warnings.append(f"{document.path}: {left_out} meshes that are no splats were left out")


def _bytes_taken(document: Document, primitive: _Json, extension: _Json) -> int:
    """At least so much of the file a primitive needs for itself."""
    compressed = _extension(document, extension, SPZ)
    if compressed is not None:
        return document.whole(document.item("bufferViews", compressed.get("bufferView")), "byteLength", 0, "SPZ data")
    attributes = document.object(primitive.get("attributes"), "attributes")
    need(document.path, "POSITION" in attributes, "its splats have no POSITION")
    return _LEAST_BYTES * document.whole(document.item("accessors", attributes["POSITION"]), "count", 0, "POSITION")


def _mesh_nodes(document: Document) -> Iterator[tuple[int, np.ndarray]]:
    """Index of the mesh and world transform of every node that has one, in the file's order."""
    scenes, nodes = document.root.get("scenes"), document.root.get("nodes", [])
    need(document.path, isinstance(nodes, list), "its nodes are no list")
    if scenes:
        roots = document.item("scenes", document.root.get("scene", 0)).get("nodes", [])
        need(document.path, isinstance(roots, list), "its scene's nodes are no list")
    else:
        roots = list(range(len(nodes)))
    pending = [(root, np.eye(4)) for root in reversed(roots)]
    seen = set()
    while pending:
        index, parent = pending.pop()
        node = document.item("nodes", index)
        if index in seen and not scenes:
            continue  # without scenes, children are reached twice
        need(document.path, index not in seen, f"nodes[{index}] has more than one parent")
        seen.add(index)
        world = parent @ _local(document, node, index)
        children = node.get("children", [])
        need(document.path, isinstance(children, list), f"nodes[{index}] has no list of children")
        pending += [(child, world) for child in reversed(children)]
        if "mesh" in node:
            instanced = _extension(document, node, "EXT_mesh_gpu_instancing") is not None
            need(document.path, not instanced, f"nodes[{index}] is drawn many times over, which is not read here")
            yield node["mesh"], world


def _local(document: Document, node: _Json, index: int) -> np.ndarray:  # [4,4]
    """A node's transform relative to its parent."""
    if "matrix" in node:
        return _numbers(document, node["matrix"], 16, f"nodes[{index}].matrix").reshape(4, 4).T
    local = np.eye(4)
    x, y, z, w = _numbers(document, node.get("rotation", [0, 0, 0, 1]), 4, f"nodes[{index}].rotation")
    length = np.sqrt(x * x + y * y + z * z + w * w)
    need(document.path, length > 0, f"nodes[{index}].rotation has no length")
    x, y, z, w = x / length, y / length, z / length, w / length
    local[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    local[:3, :3] *= _numbers(document, node.get("scale", [1, 1, 1]), 3, f"nodes[{index}].scale")
    local[:3, 3] = _numbers(document, node.get("translation", [0, 0, 0]), 3, f"nodes[{index}].translation")
    return local


def _numbers(document: Document, values: Any, count: int, what: str) -> np.ndarray:  # [count] float64
    valid = isinstance(values, list) and len(values) == count and all(type(value) in (int, float) for value in values)
    valid = valid and all(abs(value) < 1e30 for value in values)  # NaN and infinity are not
    need(document.path, valid, f"{what} is not {count} finite numbers")
    return np.array(values, np.float64)


def _extension(document: Document, holder: _Json, name: str) -> _Json | None:
    extensions = document.object(holder.get("extensions", {}), "extensions")
    return document.object(extensions[name], name) if name in extensions else None


def _splats(document: Document, primitive: _Json, extension: _Json, warnings: list[str]) -> PlainSplats:
    """The splats of one primitive, in glTF's axes."""
    kernel, space = extension.get("kernel", "ellipse"), extension.get("colorSpace", SRGB)
    if kernel != "ellipse":
        warnings.append(f"{document.path}: splats of kernel {named([kernel])}, taken as ellipses")
    if space != SRGB:
        warnings.append(f"{document.path}: colours in {named([space])}, taken as they stand; they may look dark")
    compressed = _extension(document, extension, SPZ)
    if compressed is not None:
        plain, facts = plain_from_spz(document.path, bytes(document.view(compressed.get("bufferView"))[0]))
        warnings += facts["warnings"]
        return gltf_from_capture(plain)
    others = sorted(document.object(extension.get("extensions", {}), "extensions"))
    need(document.path, not others, f"its splats are compressed with {named(others)}, not read here")
    attributes = document.object(primitive.get("attributes"), "attributes")
    missing = [name for name in ("POSITION", ROTATION, SCALE, OPACITY) if name not in attributes]
    need(document.path, not missing, f"its splats miss {', '.join(missing)}")
    return _plain(document, attributes, linear=space != SRGB, warnings=warnings)


def _plain(document: Document, attributes: _Json, *, linear: bool, warnings: list[str]) -> PlainSplats:
    means = document.array(attributes["POSITION"], ("VEC3",))
    scales = document.array(attributes[SCALE], ("VEC3",))
    degree = _sh_degree(document, attributes)
    if sh_name(0, 0) in attributes:
        sh0 = document.array(attributes[sh_name(0, 0)], ("VEC3",))
    else:
        need(document.path, "COLOR_0" in attributes, f"its splats have neither {sh_name(0, 0)} nor COLOR_0")
        color = document.array(attributes["COLOR_0"], ("VEC3", "VEC4"))[:, :3]
        sh0 = ((color if linear else srgb_from_linear(color)) - 0.5) / np.float32(C0)
    names = [sh_name(band, n) for band in range(1, degree + 1) for n in range(2 * band + 1)]
    bands = [document.array(attributes[name], ("VEC3",)) for name in names]
    quats = document.array(attributes[ROTATION], ("VEC4",))[:, [3, 0, 1, 2]]
    opacities = document.array(attributes[OPACITY], ("SCALAR",))[:, 0]
    uneven = {len(values) for values in (scales, sh0, quats, opacities, *bands)} - {len(means)}
    need(document.path, not uneven, f"its attributes differ in length: {len(means):,} positions, {_some(uneven)}")
    if (scales < 0).any():  # drafts of the extension had logarithms, which a file does not say
        warnings.append(f"{document.path}: has negative sizes, so sizes were taken as logarithms, as in early drafts")
        log_scales = scales
    else:
        with np.errstate(divide="ignore"):
            log_scales = np.log(scales)
    sh_rest = np.stack(bands, axis=1) if bands else np.zeros((len(means), 0, 3), np.float32)
    return PlainSplats(means, quats, log_scales, opacities, sh0.astype(np.float32), sh_rest, degree)


def _sh_degree(document: Document, attributes: _Json) -> int:
    """The highest band; UserError when one is there in part or without those below."""
    there = [sum(sh_name(band, n) in attributes for n in range(2 * band + 1)) for band in range(1, 4)]
    degree = max((band for band, count in enumerate(there, 1) if count), default=0)
    whole = all(count == 2 * band + 1 for band, count in enumerate(there[:degree], 1))
    need(document.path, whole, f"SH bands 1 to 3 have {there} of 3, 5 and 7 coefficients; each needs all or none")
    return degree


def gltf_from_capture(plain: PlainSplats) -> PlainSplats:
    """Splats turned by 180 degrees about z, to glTF's axes."""
    w, x, y, z = plain.quats.T
    return replace(flipped(plain, signs_between("RDF", "LUF")), quats=np.stack([-z, -y, x, w], axis=1))


def capture_from_gltf(plain: PlainSplats) -> PlainSplats:
    """Inverse of ``gltf_from_capture``, to the last bit."""
    w, x, y, z = plain.quats.T
    return replace(flipped(plain, signs_between("LUF", "RDF")), quats=np.stack([z, y, -x, -w], axis=1))


def srgb_from_linear(linear: np.ndarray) -> np.ndarray:
    """Display values of linear light, both 0..1 (IEC 61966-2-1)."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def linear_from_srgb(srgb: np.ndarray) -> np.ndarray:
    """Inverse of ``srgb_from_linear``."""
    srgb = np.clip(srgb, 0, 1)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _some(counts: set[int]) -> str:
    return ", ".join(f"{count:,}" for count in sorted(counts)[:4])
