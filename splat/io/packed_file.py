"""Reads and writes ``.spack`` (its layout stands in ``packed``), and turns what is packed into a model and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from splat.errors import UserError
from splat.io.atomic import write_bytes
from splat.io.bounded import MAX_SPLATS, need, need_size, read_bytes
from splat.io.codecs import CODECS
from splat.io.codecs.codec import Shapes
from splat.io.codecs.coding import restored, squeezed
from splat.io.codecs.half import Half
from splat.io.codecs.log16 import Log16
from splat.io.codecs.smallest3 import Smallest3
from splat.io.codecs.uniform import Uniform
from splat.io.native_file import primitive_of_header
from splat.io.packed import Attribute, Coding, Packed
from splat.model.filter2d import FILTERS_2D
from splat.model.primitive import Primitive
from splat.model.splat_model import SplatModel

MAGIC = b"SPLATPK1"
FORMAT = "splat-packed"
VERSION = 1
"""Raised whenever an older reader would misread the file."""
FILTER3D = "filter3d"
"""The one attribute that is no field of the primitive: the Mip filter's size [N]."""
_MOST_JSON = 2**24
_SPARE, _GROWTH = 2**20, 256
"""No file decodes to more bytes of streams than this many, and this many times its size."""
_FACTS = ("world_from_input", "up_axis", "provenance")
"""What a header may say beside the model."""
_FAULTS = (ValueError, KeyError, TypeError, OverflowError, IndexError, MemoryError, AttributeError)


def write_packed(packed: Packed, path: str | Path, header: Mapping[str, Any] | None = None) -> None:
    """One file of ``packed``; ``header`` may hold ``world_from_input``, ``up_axis`` and ``provenance``."""
    attributes, blobs = _squeezed(packed)
    if _grows_too_much(packed, sum(map(len, blobs))):  # a reader could not tell it from a bomb
        attributes, blobs = _squeezed(packed, coding="raw")
    known = {name: value for name, value in (header or {}).items() if name in _FACTS and value is not None}
    facts = {
        **known, "format": FORMAT, "version": VERSION, "compressor": packed.kind, "primitive": packed.primitive,
        "settings": dict(packed.settings), "count": packed.count, "sh_degree": packed.sh_degree,
        "filter2d": packed.filter2d, "attributes": attributes,
    }  # fmt: skip
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    write_bytes(path, b"".join([MAGIC, len(text).to_bytes(4, "little"), text, *blobs]))


def read_packed(path: str | Path) -> tuple[Packed, dict[str, Any]]:
    """What ``write_packed`` was given, and the file's header with ``attributes`` as name -> bytes."""
    path = Path(path)
    data = read_bytes(path)
    facts, start = _facts_of(path, data)
    primitive = primitive_of_header(path, facts)
    count, sh_degree, filter2d = facts.get("count"), facts.get("sh_degree"), facts.get("filter2d")
    need(path, sh_degree in (0, 1, 2, 3) and type(sh_degree) is int, f"SH degree {sh_degree!r} is not 0, 1, 2 or 3")
    known = isinstance(filter2d, str) and filter2d in FILTERS_2D
    need(path, known, f"2D filter {filter2d!r} is not known; choices: {', '.join(FILTERS_2D)}")
    fits = type(count) is int and 0 <= count <= min(MAX_SPLATS, len(data))
    need(path, fits, f"{count!r} splats cannot be in {len(data):,} bytes")
    table = facts.get("attributes")
    need(path, isinstance(table, dict), "its header lists no attributes")
    kind = facts.get("compressor")
    need(path, isinstance(kind, str), f"compressor {kind!r} is not a name")
    shapes = _shapes(primitive, sh_degree, count)
    reader = _Reader(path, data, start)
    attributes = {name: reader.attribute(name, entry, shapes) for name, entry in sorted(table.items())}
    need(path, reader.at == len(data), f"{len(data) - reader.at:,} bytes too many at its end")
    _check_cover(path, attributes, shapes)
    settings = {name: value for name, value in facts.get("settings", {}).items()}
    packed = Packed(kind, count, sh_degree, primitive.kind, settings, filter2d, attributes)
    header = {name: facts[name] for name in _FACTS if name in facts}
    header |= {"format": "spack", "primitive": primitive.kind, "sh_degree": sh_degree, "filter2d": filter2d}
    return packed, {**header, "compressor": kind, "attributes": reader.sizes, "warnings": []}


def read_spack(path: str | Path) -> tuple[SplatModel, dict[str, Any]]:
    """The model of a ``.spack`` file, whichever compressor made it."""
    packed, header = read_packed(path)
    try:
        return unpacked(packed), header
    except _FAULTS as error:
        raise UserError(f"{path}: {_one_line(error)}") from error


def write_spack(model: SplatModel, path: str | Path, header: Mapping[str, Any] | None = None) -> None:
    """Any model without a compressor's help: see ``plainly_packed``."""
    write_packed(plainly_packed(model), path, header)


def looks_like_spack(head: bytes, path: Path) -> bool:
    return head.startswith(MAGIC)


def unpacked(packed: Packed) -> SplatModel:
    """What a file of ``packed`` decodes to. ValueError and its like where the numbers of a file make no sense."""
    from splat.model.primitives import PRIMITIVES

    primitive = PRIMITIVES[packed.primitive](**packed.settings)
    shapes = _shapes(primitive, packed.sh_degree, packed.count)
    tables: dict[str, torch.Tensor] = {}
    for name, attribute in packed.attributes.items():
        own = {part: shapes[part] for part in name.split("+")}
        try:
            decoded = CODECS[attribute.codec].decode(attribute, own)
        except _FAULTS as error:
            raise ValueError(f"attribute {name!r}: {_one_line(error)}") from error
        for part, values in decoded.items():
            if values.shape != shapes[part] or not np.isfinite(values).all():
                raise ValueError(f"attribute {name!r} does not decode to finite numbers {shapes[part]}")
            tables[part] = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    filter3d = tables.pop(FILTER3D, None)
    specs = primitive.fields(packed.sh_degree)
    rows = {spec.name: tables[spec.name] if prod(spec.shape) else torch.zeros(packed.count, *spec.shape)
            for spec in specs}  # fmt: skip
    return SplatModel(primitive, rows, packed.sh_degree, packed.filter2d, filter3d)


def packed_of(model: SplatModel, kind: str, attributes: Mapping[str, Attribute]) -> Packed:
    """The attributes with the facts of the model they were made from."""
    return Packed(
        kind, model.count, model.sh_degree, model.primitive.kind, asdict(model.primitive), model.filter2d, attributes
    )


def arrays_of(model: SplatModel, order: torch.Tensor | None = None) -> dict[str, np.ndarray]:
    """The rows as float32 numpy by field, with ``filter3d`` where there is one; ``order`` [M] picks rows."""
    tables = {name: table.detach() for name, table in model.rows.items()}
    if model.filter3d is not None:
        tables[FILTER3D] = model.filter3d
    if order is not None:
        tables = {name: table[order.to(table.device)] for name, table in tables.items()}
    return {name: table.cpu().float().contiguous().numpy() for name, table in tables.items()}


def packable_rows(model: SplatModel) -> torch.Tensor:
    """Rows [M] int64 with finite numbers only, in Morton order: neighbours in space then lie together in the file."""
    from splat.native.ops import morton_order

    finite = torch.ones(model.count, dtype=torch.bool, device=model.device)
    tables = [*model.rows.values(), *([model.filter3d] if model.filter3d is not None else [])]
    for table in tables:
        finite &= table.detach().isfinite().reshape(model.count, prod(table.shape[1:])).all(1)
    rows = finite.nonzero().squeeze(1)
    return rows[morton_order(model.rows["means"].detach()[rows]).to(rows.device)]


def taken(model: SplatModel, rows: torch.Tensor) -> SplatModel:
    """These rows [M] of ``model``, in this order, in memory of their own."""
    tables = {name: table.detach()[rows] for name, table in model.rows.items()}
    filter3d = None if model.filter3d is None else model.filter3d[rows]
    return SplatModel(model.primitive, tables, model.sh_degree, model.filter2d, filter3d)


def plainly_packed(model: SplatModel, *, coding: Coding = "zstd") -> Packed:
    """Every field in steps that are hardly seen: 16 bits for places, 10 for quaternions, 8 to 10 for the rest."""
    model = taken(model, packable_rows(model))
    attributes = {name: plain_attribute(name, values, coding) for name, values in arrays_of(model).items()}
    return packed_of(model, "none", {name: attribute for name, attribute in attributes.items() if attribute})


def plain_attribute(name: str, values: np.ndarray, coding: Coding = "zstd") -> Attribute | None:
    """A field by the codec that suits it; None where there are no numbers to keep."""
    if not prod(values.shape[1:]):
        return None
    if name in ("means", "vertices"):
        return Log16(coding=coding).encode(values)
    if name == "quats":
        return Smallest3(10, coding=coding).encode(values)
    if name == "logit_opacities":
        return Uniform(8, through="sigmoid", coding=coding).encode(values)
    if name == FILTER3D:
        return Half().encode(values)
    return Uniform(8 if name.startswith("sh") else 10, coding=coding).encode(values)


def _shapes(primitive: Primitive, sh_degree: int, count: int) -> Shapes:
    fields = {spec.name: (count, *spec.shape) for spec in primitive.fields(sh_degree)}
    return {**fields, FILTER3D: (count,)} if "filter3d" in primitive.can else fields


def _squeezed(packed: Packed, coding: Coding | None = None) -> tuple[dict[str, Any], list[bytes]]:
    attributes: dict[str, Any] = {}
    blobs: list[bytes] = []
    for name, attribute in sorted(packed.attributes.items()):
        streams = []
        for stream, array in sorted(attribute.streams.items()):
            facts, parts = squeezed(array, coding or attribute.coding.get(stream, "zstd"))
            streams.append({"name": stream, "bytes": [len(part) for part in parts], **facts})
            blobs += parts
        attributes[name] = {
            "codec": attribute.codec, "numbers": dict(attribute.numbers), "tolerance": attribute.tolerance,
            "streams": streams,
        }  # fmt: skip
    return attributes, blobs


def _grows_too_much(packed: Packed, size: int) -> bool:
    total = sum(array.nbytes for attribute in packed.attributes.values() for array in attribute.streams.values())
    return packed.count > size or total > _SPARE + _GROWTH * size


def _facts_of(path: Path, data: bytes) -> tuple[dict[str, Any], int]:
    need(path, data.startswith(MAGIC), "not a .spack file")
    need_size(path, len(data), len(MAGIC) + 4, "the header")
    start = len(MAGIC) + 4
    length = int.from_bytes(data[len(MAGIC) : start], "little")
    need(path, length <= _MOST_JSON, f"a header of {length:,} bytes; at most {_MOST_JSON:,} make sense")
    need_size(path, len(data) - start, length, "the header")
    try:
        facts = json.loads(data[start : start + length].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its header is not JSON ({_one_line(error)})") from error
    need(path, isinstance(facts, dict) and facts.get("format") == FORMAT, "its header is not that of a .spack file")
    version = facts.get("version")
    need(path, type(version) is int and version >= 1, f"format version {version!r} is not a whole number from 1")
    newer = f"written by a newer splat (version {version}, this one reads up to {VERSION}); update"
    need(path, version <= VERSION, newer)
    return facts, start + length


def _check_cover(path: Path, attributes: Mapping[str, Attribute], shapes: Shapes) -> None:
    parts = [part for name in attributes for part in name.split("+")]
    twice = sorted({part for part in parts if parts.count(part) > 1})
    need(path, not twice, f"holds {', '.join(twice)} more than once")
    missing = [name for name, shape in shapes.items()
               if name not in parts and name != FILTER3D and prod(shape[1:])]  # fmt: skip
    need(path, not missing, f"its attributes miss {', '.join(missing)}")


class _Reader:
    """Takes streams off the file in the order in which they were written."""

    def __init__(self, path: Path, data: bytes, start: int) -> None:
        self.path, self.data, self.at = path, data, start
        self.left = _SPARE + _GROWTH * len(data)
        """Bytes that streams may still decode to."""
        self.sizes: dict[str, int] = {}

    def attribute(self, name: str, entry: Any, shapes: Shapes) -> Attribute:
        try:
            return self._attribute(name, entry, shapes)
        except UserError:
            raise
        except _FAULTS as error:
            raise UserError(f"{self.path}: attribute {name!r}: {_one_line(error)}") from error

    def _attribute(self, name: str, entry: Any, shapes: Shapes) -> Attribute:
        codec, numbers, tolerance = entry["codec"], entry["numbers"], entry["tolerance"]
        if not isinstance(codec, str) or codec not in CODECS:
            raise ValueError(f"codec {codec!r} is not known; choices: {', '.join(CODECS)}")
        if unknown := [part for part in name.split("+") if part not in shapes]:
            raise ValueError(f"{', '.join(unknown)} is no field here; it has {', '.join(shapes)}")
        if not isinstance(numbers, dict) or type(tolerance) not in (int, float) or not tolerance >= 0:
            raise ValueError("its numbers are no numbers")
        layout = CODECS[codec].layout(numbers, {part: shapes[part] for part in name.split("+")})
        listed = [stream["name"] for stream in entry["streams"]]
        if sorted(layout) != listed:
            raise ValueError(f"streams {listed}; codec {codec!r} needs {sorted(layout)}")
        begin = self.at
        streams = {stream["name"]: self._stream(stream, *layout[stream["name"]]) for stream in entry["streams"]}
        self.sizes[name] = self.at - begin
        coding = {stream["name"]: stream.get("coding", "raw") for stream in entry["streams"]}
        return Attribute(codec, numbers, streams, coding, float(tolerance))

    def _stream(self, facts: dict[str, Any], dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        self.left -= prod(shape) * np.dtype(dtype).itemsize
        if self.left < 0:
            raise ValueError(f"stream {facts['name']!r} decodes to more than a file of this size can hold")
        parts = []
        for length in facts["bytes"]:
            if type(length) is not int or length < 0 or length > len(self.data) - self.at:
                raise ValueError(f"cut short: {length!r} bytes of stream {facts['name']!r} are not there")
            parts.append(self.data[self.at : self.at + length])
            self.at += length
        return restored(parts, facts, dtype, shape)


def recoded(packed: Packed, coding: Coding) -> Packed:
    """The same numbers with every stream squeezed another way."""
    attributes = {name: replace(each, coding=dict.fromkeys(each.streams, coding))
                  for name, each in packed.attributes.items()}  # fmt: skip
    return replace(packed, attributes=attributes)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
