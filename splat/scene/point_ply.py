"""Coloured points from a PLY file: what ``ply_file_path`` and ``points3d.ply`` hold. Splat files are read elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from splat.scene.capture import plural
from splat.scene.types import PointCloud, SceneError

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_HEADER_LIMIT = 1 << 20
_GREY = 128


def read_point_ply(path: Path, warnings: list[str]) -> PointCloud | None:
    """Positions in float64 and colours; None when the file has no points. Points that are not finite are dropped."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SceneError(f"{path}: cannot be read ({error.strerror or error})") from None
    order, count, fields, start = _header(path, data)
    columns = [name for name, _ in fields]
    missing = [axis for axis in "xyz" if axis not in columns]
    if missing:
        raise SceneError(f"{path}: its vertices have no {', '.join(missing)}; they have {', '.join(columns)}")
    if order == "=":
        table = _ascii_rows(path, data[start:], count, fields)
    else:
        table = _rows(path, data, start, count, np.dtype([(name, order + kind) for name, kind in fields]))
    xyz = np.column_stack([table[axis].astype(np.float64) for axis in "xyz"])
    finite = np.isfinite(xyz).all(axis=1)
    if not finite.all():
        warnings.append(f"{plural(int((~finite).sum()), 'point')} of {count:,} dropped, position is not finite.")
    if not finite.any():
        return None
    return PointCloud(xyz[finite], _colors(table, columns)[finite], source="ply")


def _header(path: Path, data: bytes) -> tuple[str, int, list[tuple[str, str]], int]:
    """Byte order, number of vertices, their fields, and where the data starts."""
    end = data.find(b"end_header", 0, _HEADER_LIMIT)
    line_end = data.find(b"\n", end)
    if not data.startswith(b"ply") or end < 0 or line_end < 0:
        raise SceneError(f"{path}: is not a PLY file; expected a header from 'ply' to 'end_header'")
    order, count, fields, element, first = "", -1, [], "", True
    for line in data[:end].decode("latin-1").splitlines():
        match line.split():
            case ["format", kind, _] if kind in _ORDERS:
                order = _ORDERS[kind]
            case ["element", name, number] if number.isdecimal() and len(number) < 16:
                element = name
                if name == "vertex":
                    count = int(number)
                    if not first:
                        raise SceneError(f"{path}: has other elements before its vertices; save it with vertices first")
                first = False
            case ["property", "list", *_] if element == "vertex":
                raise SceneError(f"{path}: its vertices hold lists; expected plain numbers")
            case ["property", kind, name] if element == "vertex" and kind in _TYPES:
                fields.append((name, _TYPES[kind]))
            case ["property", *_] if element == "vertex":
                raise SceneError(f"{path}: cannot read the header line {line[:60]!a}")
    if not order or count < 0 or len({name for name, _ in fields}) != len(fields) or not fields:
        raise SceneError(f"{path}: its header states no readable format and vertices")
    return order, count, fields, line_end + 1


def _rows(path: Path, data: bytes, start: int, count: int, layout: np.dtype) -> np.ndarray:
    if count * layout.itemsize > len(data) - start:
        raise SceneError(
            f"{path}: announces {count:,} points of {layout.itemsize} bytes "
            f"but holds {len(data) - start:,} bytes; cut short"
        )
    return np.frombuffer(data, dtype=layout, count=count, offset=start)


def _ascii_rows(path: Path, body: bytes, count: int, fields: list[tuple[str, str]]) -> np.ndarray:
    lines = body.split(b"\n", count)[:count] if count < len(body) else []
    cells = [line.split()[: len(fields)] for line in lines]
    if len(cells) < count or any(len(row) < len(fields) for row in cells):
        raise SceneError(
            f"{path}: announces {count:,} points of {len(fields)} numbers but holds fewer; cut short or damaged"
        )
    try:
        values = np.array(cells, dtype=np.bytes_).astype(np.float64).reshape(count, len(fields))
    except ValueError as error:
        raise SceneError(f"{path}: holds something that is no number ({error})") from None
    table = np.empty(count, dtype=[(name, "f8") for name, _ in fields])
    for column, (name, _) in enumerate(fields):
        table[name] = values[:, column]
    return table


def _colors(table: np.ndarray, columns: list[str]) -> np.ndarray:  # [P,3] uint8
    """8-bit colours as they are; floats are read as 0 to 1; grey when there are none."""
    names = next((trio for trio in (("red", "green", "blue"), ("r", "g", "b")) if set(trio) <= set(columns)), None)
    if names is None:
        return np.full((len(table), 3), _GREY, dtype=np.uint8)
    colors = np.nan_to_num(np.column_stack([table[name].astype(np.float64) for name in names]))
    unit = table[names[0]].dtype.kind == "f" and len(colors) > 0 and colors.max() <= 1.0
    return np.clip(np.rint(colors * (255.0 if unit else 1.0)), 0, 255).astype(np.uint8)
