"""Our own file, ``model.safetensors``: the raw rows exactly as trained, and what is needed to draw them again."""

from __future__ import annotations

import difflib
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from splat.errors import UserError
from splat.io.tensors import load_tensors, save_tensors
from splat.model.filter2d import FILTERS_2D
from splat.model.primitive import Primitive
from splat.model.splat_model import SplatModel

FORMAT = "splat-model"
VERSION = 1
"""Raised whenever an older reader would misread the file."""
_ROW = "rows."


def write_native(model: SplatModel, path: str | Path, header: dict[str, Any] | None = None) -> None:
    """Write every row and the Mip filter unchanged, in the training frame.

    ``header`` may hold ``world_from_input`` (4x4 lists), ``up_axis`` and ``provenance``; they are kept as given.
    """
    complete = dict(header or {})
    complete.update(
        format=FORMAT, version=VERSION, primitive=model.primitive.kind, settings=asdict(model.primitive),
        sh_degree=model.sh_degree, filter2d=model.filter2d, count=model.count,
    )  # fmt: skip
    complete.pop("warnings", None)
    tensors = {_ROW + name: table for name, table in model.rows.items()}
    if model.filter3d is not None:
        tensors["filter3d"] = model.filter3d
    save_tensors(path, tensors, complete)


def read_native(path: str | Path) -> tuple[SplatModel, dict[str, Any]]:
    """The model and the header it was written with."""
    path = Path(path)
    tensors, header = load_tensors(path)
    check_header(path, header)
    primitive = primitive_of_header(path, header)
    sh_degree, filter2d = header.get("sh_degree"), header.get("filter2d", "classic")
    if sh_degree not in (0, 1, 2, 3):
        raise UserError(f"{path}: SH degree {sh_degree!r} is not 0, 1, 2 or 3")
    if not isinstance(filter2d, str) or filter2d not in FILTERS_2D:
        raise UserError(f"{path}: 2D filter {filter2d!r} is not known; choices: {', '.join(FILTERS_2D)}")
    rows = {name[len(_ROW) :]: table for name, table in tensors.items() if name.startswith(_ROW)}
    filter3d = tensors.get("filter3d")
    _check_rows(path, rows, filter3d, primitive, sh_degree)
    ordered = {field.name: rows.pop(field.name) for field in primitive.fields(sh_degree)}
    warnings = [f"{path}: table {name!r} is no field of {primitive.kind!r} and was left out" for name in sorted(rows)]
    return SplatModel(primitive, ordered, sh_degree, filter2d, filter3d), {**header, "warnings": warnings}


def check_header(path: Path, header: dict[str, Any]) -> None:
    """Refuse files that are no models and models from a newer version."""
    if header.get("format") != FORMAT:
        raise UserError(f"{path}: a safetensors file, but not a splat model (its header has no format {FORMAT!r})")
    version = header.get("version")
    if not isinstance(version, int) or version < 1:
        raise UserError(f"{path}: format version {version!r} is not a whole number from 1")
    if version > VERSION:
        raise UserError(f"{path}: written by a newer splat (format {version}, this one reads up to {VERSION}); update")


def primitive_of_header(path: Path, header: dict[str, Any]) -> Primitive:
    """The primitive a header names, with its settings; UserError where they are not known."""
    from splat.model.primitives import PRIMITIVES

    kind, settings = header.get("primitive"), header.get("settings", {})
    if not isinstance(kind, str) or kind not in PRIMITIVES:
        raise UserError(f"{path}: primitive {kind!r} is not known here; choices: {', '.join(sorted(PRIMITIVES))}")
    cls = PRIMITIVES[kind]
    known = {field.name: field.default for field in fields(cls)}
    if not isinstance(settings, dict):
        raise UserError(f"{path}: the settings of primitive {kind!r} are not an object")
    for name, value in settings.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known) or 'none'}"
            raise UserError(f"{path}: primitive {kind!r} has no setting {name!r}{hint}")
        if not _is_like(value, known[name]):
            raise UserError(f"{path}: setting {name!r} of primitive {kind!r} is {value!r}, not like {known[name]!r}")
    try:
        return cls(**settings)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: the settings of primitive {kind!r} are wrong: {error}") from error


def _is_like(value: Any, default: Any) -> bool:
    """Whether a setting is of its default's sort; what may be None says nothing about the rest."""
    if value is None or default is None:
        return True
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    number = int | float
    return isinstance(value, type(default)) or (isinstance(value, number) and isinstance(default, number))


def _check_rows(
    path: Path, rows: dict[str, torch.Tensor], filter3d: torch.Tensor | None, primitive: Primitive, sh_degree: int
) -> None:
    specs = primitive.fields(sh_degree)
    missing = [spec.name for spec in specs if spec.name not in rows]
    if missing:
        raise UserError(f"{path}: the rows of primitive {primitive.kind!r} miss {', '.join(missing)}")
    if filter3d is not None and "filter3d" not in primitive.can:
        raise UserError(f"{path}: holds a Mip 3D filter, which primitive {primitive.kind!r} does not take")
    counts = {name: len(table) if table.ndim else -1 for name, table in rows.items()}
    if filter3d is not None:
        counts["filter3d"] = len(filter3d) if filter3d.ndim == 1 else -1
    if len(set(counts.values())) != 1 or -1 in counts.values():
        raise UserError(f"{path}: its tables have different numbers of rows: {counts}")
    for spec in specs:
        shape = tuple(rows[spec.name].shape[1:])
        if shape != tuple(spec.shape) or not rows[spec.name].is_floating_point():
            raise UserError(
                f"{path}: field {spec.name!r} is {shape} per row; primitive {primitive.kind!r} with these settings and "
                f"SH degree {sh_degree} needs {spec.shape}"
            )
