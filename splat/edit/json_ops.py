"""Operations as JSON and back, and the log of a session: a file with one operation per line.

The form of an object is read off the dataclasses of ``ops`` and ``shapes``, so there is nothing to keep in step; what
a value may be besides its type stands in ``_RULES``.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from splat.edit.attributes import ATTRIBUTES
from splat.edit.ops import OPS, Op
from splat.errors import UserError
from splat.geometry.rotations import split_similarity
from splat.io.atomic import write_text

FORMAT, VERSION = "splat-edits", 1
"""``VERSION`` rises whenever an older reader would misread a log."""
_LARGEST_LOG = 1 << 30
"""Bytes; more is no log of edits by hand."""
_LONGEST_KEPT = 10_000_000
"""Characters of operations that a checkpoint keeps in its header."""
_ROUNDED = 1e-6
"""How far a rotation read from text may be from one."""
_TYPES = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}


def op_to_json(op: Op) -> dict[str, Any]:
    """An object of plain numbers, texts and lists; ``op_from_json`` makes an equal operation of it."""
    return _to_json(op)


def op_from_json(data: Any, where: str = "") -> Op:
    """The operation an object describes; UserError with the place (after ``where``), the value and the choices."""
    return _one_of(OPS, "operation", data, where or "the operation")


def ops_from_json(data: Any, where: str = "") -> list[Op]:
    """The operations of a log that has been parsed."""
    where = where or "the log"
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise UserError(f"{where}: not a log of edits (its format is not {FORMAT!r})")
    version = data.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UserError(f"{where}: version {version!r} is not a whole number from 1")
    if version > VERSION:
        raise UserError(
            f"{where}: written by a newer splat (version {version}, this one reads up to {VERSION}); update"
        )
    ops = data.get("ops")
    if not isinstance(ops, list):
        raise UserError(f"{where}: its ops are no list")
    return [op_from_json(op, f"{where}: op {number}") for number, op in enumerate(ops, start=1)]


def read_log(path: str | Path) -> list[Op]:
    """The operations of a log, oldest first."""
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST_LOG:
            raise UserError(f"{path}: larger than any log of edits")
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: no JSON ({' '.join(str(error).split()) or 'too deep'})") from error
    return ops_from_json(data, str(path))


def log_lines(path: str | Path, count: int) -> list[str] | None:
    """The lines of the first ``count`` operations of a log, to be kept elsewhere, too; None where it does not tell
    them, or they are too long for that."""
    try:
        lines = [op_line(op) for op in read_log(path)[:count]] if count else []
    except UserError:
        return None
    return lines if len(lines) == count and sum(map(len, lines)) <= _LONGEST_KEPT else None


def write_log(path: str | Path, ops: Sequence[Op]) -> Path:
    """Write a log, oldest operation first, whole or not at all."""
    return write_lines(path, [op_line(op) for op in ops])


def op_line(op: Op) -> str:
    """The line of an operation in a log; UserError where it holds a number that is not finite."""
    try:
        return json.dumps(op_to_json(op), allow_nan=False)
    except ValueError as error:
        raise UserError(f"{op.kind}: all its numbers must be finite, to be kept in a log") from error


def write_lines(path: str | Path, lines: Sequence[str]) -> Path:
    """As ``write_log``, for lines that are there already."""
    body = ",\n".join(lines)
    ops = f"[\n{body}\n]" if lines else "[]"
    return write_text(path, f'{{"format": "{FORMAT}", "version": {VERSION}, "ops": {ops}}}\n')


# --- values ------------------------------------------------------------------------------------------------------


def _to_json(value: Any) -> Any:
    if is_dataclass(value):
        kind = getattr(value, "kind", None)
        own = {field.name: _to_json(getattr(value, field.name)) for field in fields(value)}
        return own if kind is None else {"kind": kind, **own}
    if isinstance(value, tuple | list):
        return [_to_json(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _one_of(table: Mapping[str, type], what: str, data: Any, where: str) -> Any:
    """An object that names its kind."""
    if not isinstance(data, Mapping):
        raise UserError(f"{where}: {_shown(data)} is no object")
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in table:
        raise UserError(f"{where}: kind {_shown(kind)} is no {what}{_choices(kind, table)}")
    rest = {name: value for name, value in data.items() if name != "kind"}
    return _object(table[kind], rest, f"{where} ({kind})")


def _object(cls: type, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise UserError(f"{where}: {_shown(data)} is no object")
    hints = _hints(cls)
    for name in data:
        if name not in hints:
            raise UserError(f"{where}: there is no {_shown(name)} here{_choices(name, hints)}")
    values = {}
    for field in fields(cls):
        if field.name in data:
            values[field.name] = _value(hints[field.name], data[field.name], f"{where}: {field.name}")
        elif field.default is MISSING:
            raise UserError(f"{where}: {field.name} is missing")
    made = cls(**values)
    for name, (fits, rule) in _RULES.get(cls.__name__, {}).items():
        if not fits(getattr(made, name)):
            raise UserError(f"{where}: {name} {_shown(data.get(name))} does not fit: it must be {rule}")
    return made


def _value(hint: Any, data: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _one_of({each.kind: each for each in args}, "shape", data, where)
    if origin is Literal:
        if not isinstance(data, str) or data not in args:
            raise UserError(f"{where}: {_shown(data)} does not fit{_choices(data, args)}")
        return data
    if origin is tuple:
        return _tuple(args, data, where)
    if is_dataclass(hint):
        return _object(hint, data, where)
    is_number = isinstance(data, int | float) and not isinstance(data, bool)
    if hint is float and is_number and _is_finite(data):
        return float(data)
    if hint is not float and type(data) is hint:
        return data
    raise UserError(f"{where}: {_shown(data)} is not {_TYPES[hint]}")


def _tuple(args: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(data, list | tuple):
        raise UserError(f"{where}: {_shown(data)} is no list")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_value(args[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if len(data) != len(args):
        raise UserError(f"{where}: {_shown(data)} has {len(data)} parts, not {len(args)}")
    return tuple(_value(hint, item, f"{where}[{i}]") for i, (hint, item) in enumerate(zip(args, data, strict=True)))


@cache
def _hints(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond float
        return False


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _choices(value: Any, choices: Sequence[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(value, list(choices), n=1) if isinstance(value, str) else []
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{hint}; choices: {', '.join(choices) or 'none'}"


# --- rules -------------------------------------------------------------------------------------------------------

Rule = tuple[Callable[[Any], bool], str]


def _has_shape(rows: int, columns: int) -> Callable[[Any], bool]:
    return lambda table: len(table) == rows and all(len(row) == columns for row in table)


def _is_rigid(table: Any) -> bool:
    if not _has_shape(4, 4)(table):
        return False
    matrix = np.array(table)
    turn = matrix[:3, :3]
    is_turn = np.allclose(turn @ turn.T, np.eye(3), atol=_ROUNDED) and np.linalg.det(turn) > 0
    return bool(is_turn and (matrix[3] == (0, 0, 0, 1)).all())


def _is_similarity(table: Any) -> bool:
    if not _has_shape(4, 4)(table):
        return False
    try:
        split_similarity(np.array(table))
    except UserError:
        return False
    return True


def _is_pinhole(table: Any) -> bool:
    return _has_shape(3, 3)(table) and table[0][0] > 0 and table[1][1] > 0


_NOT_NEGATIVE: Rule = (lambda value: value >= 0, "0 or more")
_POSITIVE: Rule = (lambda value: value > 0, "above 0")
_SIZE: Rule = (lambda value: 0 < value <= 1 << 14, "1 to 16384 px")
_RIGID: Rule = (_is_rigid, "4 x 4: a rotation and a translation")
_RULES: Mapping[str, Mapping[str, Rule]] = {
    "ViewSpec": {"camera_from_world": _RIGID, "K": (_is_pinhole, "3 x 3 with focal lengths above 0"),
                 "width": _SIZE, "height": _SIZE},
    "Lasso": {"points": (lambda points: len(points) >= 3, "3 points at least")},
    "Brush": {"points": (lambda points: len(points) >= 1, "1 point at least"), "radius_px": _POSITIVE},
    "Mask": {"views": (lambda views: len(views) >= 1, "1 view at least"),
             "runs": (lambda runs: all(length >= 0 for view in runs for length in view), "lengths, 0 or more"),
             "share": (lambda share: 0 <= share <= 1, "0 to 1")},
    "Flood": {"tolerance": _NOT_NEGATIVE},
    "Sphere": {"radius": _NOT_NEGATIVE},
    "Box": {"world_from_box": _RIGID, "size": (lambda size: min(size) >= 0, "0 or more")},
    "ColorRange": {"tolerance": _NOT_NEGATIVE},
    "AttributeRange": {"attribute": (lambda name: name in ATTRIBUTES, f"one of {', '.join(ATTRIBUTES)}")},
    "Transform": {"similarity": (_is_similarity, "4 x 4: a rotation, one positive scale and a translation")},
    "Recolor": {"tint": (lambda tint: min(tint) >= 0, "0 or more"), "opacity": _NOT_NEGATIVE,
                "temperature": (lambda value: -1 <= value <= 1, "-1 to 1"), "saturation": _NOT_NEGATIVE},
    "Handle": {"radius": _NOT_NEGATIVE, "turn": (any, "a quaternion other than zero")},
    "Drag": {"handles": (lambda handles: len(handles) >= 1, "1 handle at least"), "band": _NOT_NEGATIVE,
             "nodes": (lambda nodes: 1 <= nodes <= 100_000, "1 to 100000"), "smooth_rotations": _NOT_NEGATIVE},
}  # fmt: skip
"""Class -> field -> what it must be, beyond its type."""
