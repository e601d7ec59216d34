"""PlayCanvas' compressed PLY: 16 bytes per splat, bounds per 256 splats, one byte per SH coefficient.

Layout (splat-transform, ``compressed-chunk.ts`` and ``decompress-ply.ts``): elements ``chunk`` (18 floats; 12 in an
older variant without bounds of colours), ``vertex`` (four uint32) and, from SH degree 1, ``sh`` (bytes, channel-major).

* ``packed_position`` and ``packed_scale``: 11, 10, 11 bits, x first, between the chunk's bounds; scales as logarithms.
* ``packed_rotation``: 2 bits say which of w, x, y, z is largest, then the others in that order, 10 bits each over
  +-sqrt(1/2).
* ``packed_color``: 8 bits each of red, green, blue (0.5 + C0 f_dc, between the chunk's bounds) and of the opacity.
* ``f_rest_*``: bytes 0 and 255 are -4 and 4; between them byte b is ((b + 0.5) / 256 - 0.5) * 8. There is no code
  for zero, so bands that are zero throughout are left out.

Decoded positions, scales and colours are off by at most half a step of their chunk's range.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from splat.errors import UserError
from splat.io.atomic import write_bytes
from splat.io.bounded import MAX_SPLATS, need, need_size, read_bytes
from splat.io.locality import BLOCK, block_bounds, local_rows
from splat.io.plain import PlainSplats, model_of, plain_of
from splat.io.ply import header_comments, read_comments
from splat.model.splat_model import SplatModel

C0 = 0.28209479177387814
"""Value of the constant spherical harmonic."""
LOG_SCALE_LIMIT = 20.0
SH_LIMIT = 4.0
_POSITION_BITS = (11, 10, 11)
_ROWS_PER_STEP = 256 * BLOCK
_MAX_HEADER_BYTES = 65_536
_GROUPS = (("x", "y", "z"), ("scale_x", "scale_y", "scale_z"), ("r", "g", "b"))
_BOUNDS = [f"{end}_{axis}" for group in _GROUPS for end in ("min", "max") for axis in group]
_PACKED = ["packed_position", "packed_rotation", "packed_scale", "packed_color"]
_REST_DEGREES = {0: 0, 9: 1, 24: 2, 45: 3}
_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip


def looks_like_compressed_ply(head: bytes, path: Path) -> bool:
    """A PLY whose header has an element ``chunk``; the name decides where comments push it out of ``head``."""
    if head[:4] not in (b"ply\n", b"ply\r"):
        return False
    unseen = b"end_header" not in head and path.name.lower().endswith(".compressed.ply")
    return unseen or re.search(rb"[\r\n]element[ \t]+chunk[ \t]", head.split(b"end_header")[0]) is not None


def write_compressed_ply(model: SplatModel, path: str | Path, header: dict[str, Any] | None = None) -> None:
    """Write ``model`` as plain Gaussians in spatial order, in the frame its rows are in.

    Numbers are rounded to the nearest code. ``header["up_axis"]`` and ``header["provenance"]`` become comments.
    """
    plain = plain_of(model)
    plain = plain.taken(local_rows(plain.means))
    degree = _used_degree(plain)
    log_scales = np.clip(plain.log_scales, -LOG_SCALE_LIMIT, LOG_SCALE_LIMIT)
    colors = (0.5 + C0 * plain.sh0.astype(np.float64)).astype(np.float32)
    bounds = [np.hstack(block_bounds(values)) for values in (plain.means, log_scales, colors)]
    packed = np.empty((plain.count, 4), "<u4")
    packed[:, 0] = _pack_vectors(_within(plain.means, bounds[0]))
    packed[:, 1] = _pack_quats(plain.quats)
    packed[:, 2] = _pack_vectors(_within(log_scales, bounds[1]))
    packed[:, 3] = _pack_colors(_within(colors, bounds[2]), plain.opacities)
    higher = (degree + 1) ** 2 - 1
    rest = plain.sh_rest[:, :higher].transpose(0, 2, 1).reshape(plain.count, 3 * higher)
    chunks = np.hstack(bounds).astype("<f4")
    lines = [
        "ply", "format binary_little_endian 1.0",
        *(f"comment {line}" for line in header_comments(replace(model, sh_degree=degree), header or {})),
        f"element chunk {len(chunks)}", *(f"property float {name}" for name in _BOUNDS),
        f"element vertex {plain.count}", *(f"property uint {name}" for name in _PACKED),
    ]  # fmt: skip
    if degree:
        lines += [f"element sh {plain.count}", *(f"property uchar f_rest_{i}" for i in range(rest.shape[1]))]
    head = "\n".join([*lines, "end_header", ""]).encode("ascii")
    write_bytes(path, b"".join((head, chunks.tobytes(), packed.tobytes(), _pack_sh(rest).tobytes())))


def read_compressed_ply(path: str | Path) -> tuple[SplatModel, dict[str, Any]]:
    """The model of a compressed PLY by any writer, and its header; UserError on anything else."""
    path = Path(path)
    data = read_bytes(path)
    elements, comments, body = _parse_header(path, data)
    chunks, packed, rest = _tables(path, data, elements, body)
    plain = _decoded(chunks, packed, rest)
    facts = read_comments(comments)
    warnings = []
    if (unknown := facts.pop("unknown_filter2d", None)) is not None:
        warnings.append(f"{path}: 2D filter {unknown!r} is not known here; {facts['filter2d']} is the closest it names")
    return model_of(plain, path, format="compressed-ply", comments=comments, warnings=warnings, **facts)


@dataclass
class _Element:
    """One block of rows, as the header declares it."""

    name: str
    count: int
    columns: list[tuple[str, str]]

    def dtype(self, path: Path) -> np.dtype:
        names = [name for name, _ in self.columns]
        need(path, len(set(names)) == len(names), f"its element {self.name[:40]!r} names a property twice")
        return np.dtype(self.columns)


def _parse_header(path: Path, data: bytes) -> tuple[list[_Element], list[str], int]:
    """Elements in file order, comments, and where the rows start."""
    head = data[:_MAX_HEADER_BYTES]
    end = re.search(rb"[\r\n]end_header[ \t]*(\r\n|\n|\r)", head)
    need(path, head[:3] == b"ply" and end is not None, "a PLY header without its end")
    assert end is not None
    elements: list[_Element] = []
    comments: list[str] = []
    order = ""
    for line in head[: end.start()].decode("ascii", "replace").splitlines()[1:]:
        keyword, *words = line.split() or [""]
        if keyword == "format" and words:
            need(path, words[0] != "ascii", "a compressed PLY in text form; only binary ones exist")
            order = {"binary_little_endian": "<", "binary_big_endian": ">"}.get(words[0], "")
        elif keyword == "comment":
            comments.append(line.split(None, 1)[1] if words else "")
        elif keyword == "element" and len(words) == 2:
            need(
                path,
                words[1].isdecimal() and len(words[1]) <= 12,
                f"element {words[0][:40]!r} has {words[1][:40]!r} rows",
            )
            elements.append(_Element(words[0], int(words[1]), []))
        elif keyword == "property" and elements:
            known = len(words) == 2 and words[0] in _TYPES
            need(
                path, known, f"element {elements[-1].name[:40]!r} has a property {' '.join(words)[:80]!r}, not a number"
            )
            elements[-1].columns.append((words[1], order + _TYPES[words[0]]))
        elif keyword not in ("", "obj_info"):
            raise UserError(f"{path}: its PLY header has a line {line[:80]!r}")
    need(path, order != "", "its PLY header names no byte order; binary_little_endian is what there is")
    return elements, comments, end.end()


def _tables(
    path: Path, data: bytes, elements: list[_Element], start: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # [M,18] float32, [N,4] uint32, [N,3(K-1)] uint8
    """The three elements as plain arrays, judged against the size of the file and against each other."""
    found: dict[str, np.ndarray] = {}
    for element in elements:
        dtype = element.dtype(path)
        size = element.count * dtype.itemsize
        need_size(path, len(data) - start, size, f"element {element.name[:40]!r} with {element.count:,} rows")
        need(path, element.name not in found, f"has two elements {element.name[:40]!r}")
        if dtype.itemsize:
            found[element.name] = np.frombuffer(data, dtype, element.count, start)
        start += size
    for name, columns in {"chunk": _BOUNDS[:12], "vertex": _PACKED}.items():
        missing = columns if name not in found else [c for c in columns if c not in found[name].dtype.names]
        need(path, not missing, f"not a compressed PLY: its element {name!r} misses {', '.join(missing)}")
    count = len(found["vertex"])
    need(path, count <= MAX_SPLATS, f"claims {count:,} splats; at most {MAX_SPLATS:,} are read")
    chunks = _chunk_table(found["chunk"])
    enough = len(chunks) * BLOCK >= count
    need(path, enough, f"{len(chunks)} chunks of {BLOCK} splats do not cover its {count:,} splats")
    wide = all(found["vertex"].dtype[name].kind in "ui" for name in _PACKED)
    need(path, wide, "its packed columns are not whole numbers")
    packed = np.stack([found["vertex"][name].astype(np.uint32) for name in _PACKED], axis=1)
    return chunks, packed, _sh_table(path, found.get("sh"), count)


def _chunk_table(chunks: np.ndarray) -> np.ndarray:  # [M,18] float32
    table = np.empty((len(chunks), len(_BOUNDS)), np.float32)
    table[:, 12:15], table[:, 15:18] = 0, 1  # what the older variant means
    colored = all(name in chunks.dtype.names for name in _BOUNDS)
    with np.errstate(over="ignore", invalid="ignore"):
        for column, name in enumerate(_BOUNDS if colored else _BOUNDS[:12]):
            table[:, column] = chunks[name]
    return table


def _sh_table(path: Path, sh: np.ndarray | None, count: int) -> np.ndarray:  # [N,3(K-1)] uint8
    if sh is None:
        return np.zeros((count, 0), np.uint8)
    names = [name for name in sh.dtype.names if name.startswith("f_rest_")]
    ordered = [f"f_rest_{i}" for i in range(len(names))]
    known = len(names) in _REST_DEGREES and set(names) == set(ordered)
    need(path, known, f"{len(names)} f_rest columns; SH degree 0, 1, 2, 3 needs 0, 9, 24, 45 numbered from 0")
    need(path, len(sh) == count, f"{len(sh):,} rows of SH for {count:,} splats")
    need(path, all(sh.dtype[name] == np.uint8 for name in names), "its f_rest columns are not bytes")
    table = np.empty((count, len(names)), np.uint8)
    for column, name in enumerate(ordered):
        table[:, column] = sh[name]
    return table


def _decoded(chunks: np.ndarray, packed: np.ndarray, rest: np.ndarray) -> PlainSplats:
    """All splats, a block of rows at a time."""
    count, higher = len(packed), rest.shape[1] // 3
    means, log_scales, sh0 = (np.empty((count, 3), np.float32) for _ in range(3))
    quats, opacities = np.empty((count, 4), np.float32), np.empty(count, np.float32)
    sh_rest = np.empty((count, higher, 3), np.float32)
    table = _sh_values()
    for start in range(0, count, _ROWS_PER_STEP):
        rows = slice(start, start + _ROWS_PER_STEP)
        codes = packed[rows]
        bounds = np.repeat(chunks[start // BLOCK : (start + _ROWS_PER_STEP) // BLOCK], BLOCK, axis=0)[: len(codes)]
        with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is left out by ``model_of``
            means[rows] = _between(_unpack_vectors(codes[:, 0]), bounds[:, 0:6])
            log_scales[rows] = _between(_unpack_vectors(codes[:, 2]), bounds[:, 6:12])
            color = _unpack(codes[:, 3], (8, 8, 8, 8))
            sh0[rows] = (_between(color[:, :3], bounds[:, 12:18]) - 0.5) / C0
        quats[rows] = _unpack_quats(codes[:, 1])
        opacities[rows] = color[:, 3]
        sh_rest[rows] = table[rest[rows]].reshape(len(codes), 3, higher).transpose(0, 2, 1)
    return PlainSplats(means, quats, log_scales, opacities, sh0, sh_rest, _REST_DEGREES[3 * higher])


def _used_degree(plain: PlainSplats) -> int:
    """The highest band with a coefficient that is not zero."""
    used = np.flatnonzero(plain.sh_rest.any(axis=(0, 2))) if plain.count else np.arange(plain.sh_rest.shape[1])
    return int(np.sqrt(used[-1] + 1)) if len(used) else 0


def _within(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:  # [N,3], [M,6] -> [N,3] float64 in 0..1
    """Where values lie between the bounds of their chunk; 0 where these coincide."""
    low, high = (np.repeat(part.astype(np.float64), BLOCK, axis=0)[: len(values)] for part in np.hsplit(bounds, 2))
    span = high - low
    return np.clip((values - low) / np.where(span > 0, span, 1), 0, 1)


def _between(fractions: np.ndarray, bounds: np.ndarray) -> np.ndarray:  # [N,3] in 0..1, [N,6] -> [N,3] float64
    """Inverse of ``_within``; 0 and 1 give the bounds exactly."""
    low, high = bounds[:, :3].astype(np.float64), bounds[:, 3:].astype(np.float64)
    return low * (1 - fractions) + high * fractions


def _codes(fractions: np.ndarray, bits: int) -> np.ndarray:
    """0..1 as the nearest of 2^bits numbers."""
    return np.clip(np.floor(fractions * (2**bits - 1) + 0.5), 0, 2**bits - 1).astype(np.uint32)


def _pack(fractions: list[np.ndarray], bits: tuple[int, ...]) -> np.ndarray:  # -> [N] uint32, the first highest
    word = np.zeros(len(fractions[0]), np.uint32)
    for values, width in zip(fractions, bits, strict=True):
        word = (word << np.uint32(width)) | _codes(values, width)
    return word


def _unpack(words: np.ndarray, bits: tuple[int, ...]) -> np.ndarray:  # [N] uint32 -> [N,len(bits)] float64 in 0..1
    fractions = np.empty((len(words), len(bits)))
    shift = sum(bits)
    for column, width in enumerate(bits):
        shift -= width
        fractions[:, column] = ((words >> np.uint32(shift)) & np.uint32(2**width - 1)) / (2**width - 1)
    return fractions


def _pack_vectors(fractions: np.ndarray) -> np.ndarray:
    return _pack(list(fractions.T), _POSITION_BITS)


def _unpack_vectors(words: np.ndarray) -> np.ndarray:
    return _unpack(words, _POSITION_BITS)


def _pack_colors(colors: np.ndarray, opacities: np.ndarray) -> np.ndarray:
    return _pack([*colors.T, opacities.astype(np.float64)], (8, 8, 8, 8))


def _pack_quats(quats: np.ndarray) -> np.ndarray:  # [N,4] of unit length -> [N] uint32
    """Codes that decode to rotations with the same codes again, so that the file is stable.

    Where two components are nearly equal, rounding can exchange which is the largest: that is followed until it
    settles (it costs less than a step), or goes to and fro between two codes, of which the smaller is taken.
    """
    words = _quat_words(quats)
    again = _quat_words(_unpack_quats(words))
    for _ in range(8):
        if np.array_equal(again, words):
            break
        loose = np.flatnonzero(again != words)
        words[loose], again[loose] = again[loose], _quat_words(_unpack_quats(again[loose]))
    return np.minimum(words, again)


def _quat_words(quats: np.ndarray) -> np.ndarray:
    quats = quats.astype(np.float64)
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    largest = np.abs(quats).argmax(axis=1)
    sign = np.where(np.take_along_axis(quats, largest[:, None], axis=1) < 0, -1, 1)
    others = np.take_along_axis(quats * sign, _OTHERS[largest], axis=1) * np.sqrt(0.5) + 0.5
    return (largest.astype(np.uint32) << np.uint32(30)) | _pack(list(others.T), (10, 10, 10))


_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])


def _unpack_quats(words: np.ndarray) -> np.ndarray:  # [N] uint32 -> [N,4] float32
    others = (_unpack(words, (10, 10, 10)) - 0.5) * np.sqrt(2)
    largest = (words >> np.uint32(30)).astype(np.int64)
    quats = np.empty((len(words), 4))
    np.put_along_axis(quats, _OTHERS[largest], others, axis=1)
    rest = np.sqrt(np.maximum(0, 1 - (others**2).sum(axis=1)))
    np.put_along_axis(quats, largest[:, None], rest[:, None], axis=1)
    return quats.astype(np.float32)


def _sh_values() -> np.ndarray:  # [256] float32
    """What the published decoders make of every byte."""
    fractions = (np.arange(256) + 0.5) / 256
    fractions[0], fractions[255] = 0, 1
    return ((fractions - 0.5) * 2 * SH_LIMIT).astype(np.float32)


def _pack_sh(values: np.ndarray) -> np.ndarray:  # [N,M] -> [N,M] uint8
    """The byte whose decoded value is nearest: the two end codes stand 3/4 of a step from their neighbours."""
    place = (values / (2 * SH_LIMIT) + 0.5) * 256
    codes = np.clip(np.floor(place), 1, 254)
    return np.where(place < 0.75, 0, np.where(place >= 255.25, 255, codes)).astype(np.uint8)
