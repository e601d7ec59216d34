"""Quaternions as the three components that are not the largest, which is what the unit length leaves free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar

import numpy as np

from splat.io.codecs.codec import Layout, Shapes, attribute_of, checked, code_type, flat, only, whole
from splat.io.packed import Attribute, Coding

_REACH = 1 / sqrt(2)
"""No component but the largest exceeds it."""


@dataclass(frozen=True)
class Smallest3:
    """Length and sign of a quaternion turn nothing: what decodes has length 1 and its largest component above 0."""

    kind: ClassVar[str] = "smallest3"

    bits: int = 8
    """Per component, 2 to 16."""
    coding: Coding = "zstd"

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise ValueError(f"bits = {self.bits} does not fit: 2 to 16")

    def encode(self, quats: np.ndarray) -> Attribute:
        """``quats [N,4]``, of any length; those of length 0 turn nothing. The tolerance is against ``upright`` ones."""
        quats = upright(checked(quats))
        largest = np.abs(quats).argmax(1)
        rest = np.take_along_axis(quats.astype(np.float64), _OTHERS[largest], axis=1)
        # An even number of steps each side: 0 is one of them, and packs as itself.
        codes = np.rint((rest / _REACH + 1) * _half(self.bits)).clip(0, 2 * _half(self.bits))
        streams = {"largest": largest.astype(np.uint8), "codes": codes.astype(code_type(2**self.bits - 1))}
        coding = {"codes": self.coding, "largest": self.coding}
        return attribute_of(Smallest3, {"bits": self.bits}, streams, {"": quats}, coding)

    @staticmethod
    def layout(numbers: Mapping[str, Any], shapes: Shapes) -> Layout:
        count, channels = flat(only(shapes)[1])
        if channels != 4:
            raise ValueError(f"a quaternion has 4 components, not {channels}")
        bits = whole(numbers, "bits", 2, 16)
        return {"largest": ("uint8", (count,)), "codes": (code_type(2**bits - 1), (count, 3))}

    @staticmethod
    def decode(attribute: Attribute, shapes: Shapes) -> dict[str, np.ndarray]:
        name, shape = only(shapes)
        half = _half(whole(attribute.numbers, "bits", 2, 16))
        largest, codes = attribute.streams["largest"], attribute.streams["codes"]
        if codes.size and (codes.max() > 2 * half or largest.max() > 3):
            raise ValueError("a code out of range")
        rest = (codes / half - 1.0) * _REACH
        quats = np.empty(shape, np.float64)
        np.put_along_axis(quats, _OTHERS[largest], rest, axis=1)
        last = np.sqrt(np.maximum(1 - np.square(rest).sum(1), 0))
        np.put_along_axis(quats, largest[:, None].astype(np.int64), last[:, None], axis=1)
        # Not upright(): rounding may have made another component the largest, and a changed sign would be an error.
        return {name: (quats / np.sqrt(np.square(quats).sum(1, keepdims=True))).astype(np.float32)}


def upright(quats: np.ndarray) -> np.ndarray:  # [N,4] -> [N,4] float32
    """The same turns by quaternions of length 1 whose largest component is positive; length 0 is no turn."""
    quats = np.asarray(quats, np.float64)
    lengths = np.sqrt(np.square(quats).sum(1, keepdims=True))
    quats = np.where(lengths > 0, quats / np.where(lengths > 0, lengths, 1), (1.0, 0, 0, 0))
    largest = np.take_along_axis(quats, np.abs(quats).argmax(1)[:, None], axis=1)
    return (quats * np.where(largest < 0, -1.0, 1.0)).astype(np.float32)


def _half(bits: int) -> int:
    return 2 ** (bits - 1) - 1


_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
