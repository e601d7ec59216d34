"""How many bytes a packed model will be, before it is a file, and which coding of its streams takes fewest."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
from torch.utils.weak import WeakIdKeyDictionary

from splat.io.codecs.coding import squeezed
from splat.io.packed import Attribute, Coding, Packed

FACTS_BYTES = 900
"""Room for what a header says beside the model: its frame, its up axis, where it came from (with a name of 300 letters
at the most)."""
_sizes: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Array -> coding -> what the header says, bytes: squeezing takes longest, and the same is asked several times."""


def best_coding(attribute: Attribute) -> Attribute:
    """Every stream squeezed the way that takes fewer bytes."""
    return replace(attribute, coding={name: _best(array) for name, array in attribute.streams.items()})


def attribute_bytes(attribute: Attribute) -> dict[str, int]:
    """By stream."""
    return {name: _squeezed_bytes(array, attribute.coding.get(name, "zstd"))
            for name, array in attribute.streams.items()}  # fmt: skip


def stored_bytes(packed: Packed) -> int:
    """At least what the file of ``packed`` will have, and hardly more."""
    per_row, fixed = parts_of(packed)
    return round(per_row * packed.count + fixed)


def parts_of(packed: Packed) -> tuple[float, float]:
    """Bytes per splat, and bytes that do not depend on their number."""
    rows = fixed = 0.0
    for attribute in packed.attributes.values():
        for name, size in attribute_bytes(attribute).items():
            if len(attribute.streams[name]) == packed.count:
                rows += size
            else:
                fixed += size
    return rows / max(packed.count, 1), fixed + _header_bytes(packed)


def _header_bytes(packed: Packed) -> int:
    entries: dict[str, Any] = {}
    for name, each in packed.attributes.items():
        streams = [
            {"name": stream, **_squeezed(array, each.coding.get(stream, "zstd"))[0]}
            for stream, array in each.streams.items()
        ]
        entries[name] = {
            "codec": each.codec, "numbers": dict(each.numbers), "tolerance": each.tolerance, "streams": streams,
        }  # fmt: skip
    facts = {
        "format": "splat-packed", "version": 1, "compressor": packed.kind, "primitive": packed.primitive,
        "settings": dict(packed.settings), "count": packed.count, "sh_degree": packed.sh_degree,
        "filter2d": packed.filter2d, "attributes": entries,
    }  # fmt: skip
    return len(json.dumps(facts, separators=(",", ":"))) + FACTS_BYTES


def _best(array: np.ndarray) -> Coding:
    if array.dtype.kind != "u" or array.itemsize > 2 or not array.size:
        return "zstd"
    return min(("webp", "zstd"), key=lambda coding: _squeezed_bytes(array, coding))  # type: ignore[return-value]


def _squeezed_bytes(array: np.ndarray, coding: Coding) -> int:
    return _squeezed(array, coding)[1]


def _squeezed(array: np.ndarray, coding: Coding) -> tuple[dict[str, Any], int]:
    known = _sizes.setdefault(array, {})
    if coding not in known:
        facts, parts = squeezed(array, coding)
        known[coding] = {**facts, "bytes": [len(part) for part in parts]}, sum(map(len, parts))
    return known[coding]
