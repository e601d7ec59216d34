"""What ``meta.json`` of a SOG file says, judged number by number before a picture is opened."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from splat.errors import UserError
from splat.io.bounded import MAX_SPLATS, need, plain_names
from splat.model.filter2d import FILTERS_2D

MAX_META_BYTES = 2**20
MAX_PALETTE = 65_536
PALETTE_ROW = 64
"""Entries beside each other in the picture of the palette."""
COEFFICIENTS = {1: 3, 2: 8, 3: 15}


@dataclass(frozen=True, eq=False)
class Values:
    """How the bytes of some pictures become numbers: by a codebook, or evenly between ends."""

    files: tuple[str, ...]
    book: np.ndarray | None = None  # [<=256] float32
    ends: np.ndarray | None = None  # [2,channels] float64


@dataclass(frozen=True, eq=False)
class SogMeta:
    """A checked ``meta.json``."""

    version: int
    count: int
    antialiased: bool
    means: Values
    quats: Values
    scales: Values
    sh0: Values
    palette: Values | None
    bands: int | None
    """None in version 1: the picture's width says it."""
    palette_count: int | None
    facts: dict[str, Any]
    """For the header: generator, up_axis, provenance, filter2d."""


def parse_meta(path: Path, data: bytes) -> SogMeta:
    """UserError names whatever is missing, of the wrong type or out of range."""
    try:
        meta = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its meta.json is no JSON ({' '.join(str(error).split())[:100]})") from error
    need(path, isinstance(meta, dict), "its meta.json is no JSON object")
    version = meta.get("version", 1)
    need(path, version in (1, 2) and not isinstance(version, bool), f"SOG version {version!r:.40} is not 1 or 2")
    part = {name: _part(path, meta, name) for name in ("means", "scales", "quats", "sh0")}
    shape = part["means"].get("shape")
    count = meta.get("count", shape[0] if isinstance(shape, list) and shape else None)
    need(path, _is_count(count, MAX_SPLATS), f"a count of {count!r:.40} splats; 1 to {MAX_SPLATS:,} are possible")
    higher = _part(path, meta, "shN") if meta.get("shN") is not None else None
    bands = palette_count = None
    if higher is not None and version == 2:
        bands, palette_count = higher.get("bands"), higher.get("count")
        need(path, _is_count(bands, 3), f"{bands!r:.40} SH bands; 1 to 3 are possible")
        need(
            path, _is_count(palette_count, MAX_PALETTE), f"a palette of {palette_count!r:.40}; at most {MAX_PALETTE:,}"
        )
    values = _evenly if version == 1 else _by_book
    return SogMeta(
        version, count, meta.get("model") == "antialiased",
        means=_evenly(path, part["means"], "means", 3, files=2),
        quats=Values(_names(path, part["quats"], "quats", 1)),
        scales=values(path, part["scales"], "scales", 3), sh0=values(path, part["sh0"], "sh0", 4),
        palette=None if higher is None else values(path, higher, "shN", 1, files=2),
        bands=bands, palette_count=palette_count, facts=_facts(meta),
    )  # fmt: skip


def _part(path: Path, meta: dict[str, Any], name: str) -> dict[str, Any]:
    found = meta.get(name)
    need(path, isinstance(found, dict), f"its meta.json has no object {name!r}")
    return found


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _names(path: Path, part: dict[str, Any], name: str, number: int) -> tuple[str, ...]:
    files = part.get("files")
    good = isinstance(files, list) and len(files) == number and all(isinstance(file, str) for file in files)
    need(path, good, f"{name}.files in its meta.json must be {number} names, not {files!r:.60}")
    plain_names(path, files)
    return tuple(files)


def _floats(path: Path, found: Any, where: str, least: int, most: int) -> np.ndarray:
    """A list of finite numbers."""
    if most == 1 and not isinstance(found, list):
        found = [found]
    good = isinstance(found, list) and least <= len(found) <= most
    good = good and all(isinstance(value, int | float) and not isinstance(value, bool) for value in found)
    good = good and all(abs(value) < 1e30 for value in found)  # NaN compares false
    need(path, good, f"{where} in its meta.json must be {least} to {most} finite numbers, not {found!r:.60}")
    return np.array(found, np.float64)


def _evenly(path: Path, part: dict[str, Any], name: str, channels: int, *, files: int = 1) -> Values:
    ends = [_floats(path, part.get(end), f"{name}.{end}", channels, channels) for end in ("mins", "maxs")]
    return Values(_names(path, part, name, files), ends=np.stack(ends))


def _by_book(path: Path, part: dict[str, Any], name: str, channels: int, *, files: int = 1) -> Values:
    book = _floats(path, part.get("codebook"), f"{name}.codebook", 1, 256)
    return Values(_names(path, part, name, files), book=book.astype(np.float32))


def _facts(meta: dict[str, Any]) -> dict[str, Any]:
    """What else it tells; parts of another form are somebody else's and are passed over."""
    asset, extras = meta.get("asset"), meta.get("extras")
    own = extras.get("splat") if isinstance(extras, dict) else None
    own = own if isinstance(own, dict) else {}
    facts: dict[str, Any] = {}
    if isinstance(asset, dict) and isinstance(asset.get("generator"), str):
        facts["generator"] = asset["generator"][:200]
    up = own.get("up_axis")
    if isinstance(up, list) and len(up) == 3 and all(isinstance(v, int | float) and abs(v) < 1e30 for v in up):
        facts["up_axis"] = [float(v) for v in up]
    if isinstance(own.get("provenance"), dict):
        facts["provenance"] = {key[:200]: str(value)[:200] for key, value in list(own["provenance"].items())[:100]}
    if own.get("filter2d") in list(FILTERS_2D):
        facts["filter2d"] = own["filter2d"]
    return facts
