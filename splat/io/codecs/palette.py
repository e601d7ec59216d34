"""Rows taken from a palette of whole vectors: a label per splat, the palette in 8 bits or float16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from splat.io.codecs.codec import Layout, Shapes, attribute_of, checked, code_type, finite_list, flat, only, whole
from splat.io.packed import Attribute, Coding

LARGEST = 65_536


@dataclass(frozen=True)
class Palette:
    """What SH coefficients beyond the first band get: the palette itself comes from the caller."""

    kind: ClassVar[str] = "palette"

    bits: int = 8
    """Of the palette's own numbers, 1 to 16, in equal steps over their range."""
    coding: Coding = "zstd"

    def encode(self, values: np.ndarray, palette: np.ndarray, labels: np.ndarray) -> Attribute:
        """``values [N,...]``, only to measure the tolerance; ``palette [P,...]`` with P up to 65,536, ``labels [N]``.
        Entries nobody uses are left out and the rest sorted, so that labels of neighbours in it are alike."""
        values, palette = checked(values), checked(palette)
        used, labels = np.unique(np.asarray(labels, np.int64).reshape(-1), return_inverse=True)
        palette = palette.reshape(len(palette), -1)[used]
        order = np.argsort(palette[:, 0], kind="stable") if palette.shape[1] else np.arange(len(palette))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        labels, palette = rank[labels.reshape(-1)], palette[order]
        if len(palette) > LARGEST:
            raise ValueError(f"{len(palette)} entries; a palette has at most {LARGEST}")
        low, high = (float(palette.min()), float(palette.max())) if palette.size else (0.0, 0.0)
        step = (high - low) / (2**self.bits - 1)
        codes = np.rint((palette.astype(np.float64) - low) / (step or 1)).astype(code_type(2**self.bits - 1))
        numbers = {"entries": len(palette), "bits": self.bits, "range": [low, high]}
        streams = {"labels": labels.astype(code_type(max(len(palette) - 1, 0))), "palette": codes}
        coding = {"labels": self.coding}
        return attribute_of(Palette, numbers, streams, {"": values}, coding)

    @staticmethod
    def layout(numbers: Mapping[str, Any], shapes: Shapes) -> Layout:
        count, channels = flat(only(shapes)[1])
        entries, bits = whole(numbers, "entries", 0, LARGEST), whole(numbers, "bits", 1, 16)
        return {
            "labels": (code_type(max(entries - 1, 0)), (count,)),
            "palette": (code_type(2**bits - 1), (entries, channels)),
        }

    @staticmethod
    def decode(attribute: Attribute, shapes: Shapes) -> dict[str, np.ndarray]:
        name, shape = only(shapes)
        low, high = finite_list(attribute.numbers, "range", (2,))
        bits = whole(attribute.numbers, "bits", 1, 16)
        labels, codes = attribute.streams["labels"], attribute.streams["palette"]
        if labels.size and labels.max() >= len(codes):
            raise ValueError(f"a label beyond the {len(codes)} entries")
        palette = np.clip(low + (high - low) / (2**bits - 1) * codes, low, high).astype(np.float32)
        return {name: palette[labels].reshape(shape)}
