"""What a codec is, and what codecs share."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, ClassVar, Protocol

import numpy as np

from splat.io.packed import Attribute

Shapes = Mapping[str, tuple[int, ...]]
"""Field -> [N,...]: what an attribute decodes to. Several where its name joins them with ``+``, in that order."""
Layout = dict[str, tuple[str, tuple[int, ...]]]
"""Stream -> (numpy's name of its type, its shape)."""


class Codec(Protocol):
    """A frozen dataclass whose fields are settings of the encoder; each has an ``encode`` of its own.

    Decoding needs no settings. It gets numbers from files nobody vouches for: whatever is wrong with them is a
    ValueError, KeyError or TypeError.
    """

    kind: ClassVar[str]

    @staticmethod
    def layout(numbers: Mapping[str, Any], shapes: Shapes) -> Layout:
        """The streams that an attribute of these numbers has. Their sizes follow from ``shapes`` and ``numbers``; they
        are compared with the file's size before anything is decoded."""
        ...

    @staticmethod
    def decode(attribute: Attribute, shapes: Shapes) -> dict[str, np.ndarray]:
        """float32 by field, as ``shapes`` says; streams have the types and shapes of ``layout``."""
        ...


def only(shapes: Shapes) -> tuple[str, tuple[int, ...]]:
    """Name and shape for codecs of one field."""
    if len(shapes) != 1:
        raise ValueError(f"it decodes one field, not {', '.join(shapes) or 'none'}")
    return next(iter(shapes.items()))


def flat(shape: tuple[int, ...]) -> tuple[int, int]:
    """[N,...] as (N, numbers per row)."""
    return shape[0], prod(shape[1:])


def whole(numbers: Mapping[str, Any], name: str, low: int, high: int) -> int:
    """A whole number of the file within its limits."""
    value = numbers[name]
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} = {value!r} is not a whole number from {low} to {high}")
    return value


def finite_list(numbers: Mapping[str, Any], name: str, lengths: tuple[int, ...]) -> np.ndarray:
    """A list of the file as float64, with one of these lengths, every number finite in float32."""
    value = numbers[name]
    if not isinstance(value, list) or len(value) not in lengths:
        raise ValueError(f"{name} is not a list of {' or '.join(map(str, lengths))} numbers")
    if any(type(part) not in (int, float) or not abs(part) < 3.5e38 for part in value):
        raise ValueError(f"{name} holds something that is no finite number")
    return np.array(value, np.float64)


def checked(values: np.ndarray) -> np.ndarray:
    """``values`` as float32 numpy; ValueError where one is not finite: the caller leaves such rows out."""
    values = np.asarray(values, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("only finite numbers can be packed")
    return values


def code_type(largest: int) -> str:
    """The smaller unsigned type that holds codes up to ``largest`` (below 2^16)."""
    return "uint8" if largest < 256 else "uint16"


def attribute_of(
    codec: type[Codec], numbers: dict[str, Any], streams: dict[str, np.ndarray], values: Mapping[str, np.ndarray],
    coding: Mapping[str, Any],
) -> Attribute:  # fmt: skip
    """An attribute whose tolerance is what was measured against ``values``."""
    rough = Attribute(codec.kind, numbers, streams, dict(coding))
    decoded = codec.decode(rough, {name: table.shape for name, table in values.items()})
    worst = max((float(np.abs(decoded[name].astype(np.float64) - table).max())
                 for name, table in values.items() if table.size), default=0.0)  # fmt: skip
    return Attribute(codec.kind, numbers, streams, dict(coding), worst)
