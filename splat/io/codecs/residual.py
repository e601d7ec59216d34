"""Vectors as sums of entries of small books, one book per stage: residual vector quantisation (Lee et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from splat.io.codecs.codec import Layout, Shapes, attribute_of, checked, flat, only, whole
from splat.io.packed import Attribute, Coding


@dataclass(frozen=True)
class Residual:
    """The books and the choice of entries come from the caller."""

    kind: ClassVar[str] = "residual"

    coding: Coding = "zstd"

    def encode(self, values: np.ndarray, books: np.ndarray, choice: np.ndarray) -> Attribute:
        """``values [N,...]``, only to measure the tolerance; ``books [S,E,D]`` (float16 in the file), ``choice [N,S]``,
        the entry of each stage."""
        stages, entries, _ = books.shape
        streams = {"choice": choice.astype(np.uint8), "books": books.astype(np.float16)}
        numbers = {"stages": stages, "entries": entries}
        return attribute_of(Residual, numbers, streams, {"": checked(values)}, {"choice": self.coding})

    @staticmethod
    def layout(numbers: Mapping[str, Any], shapes: Shapes) -> Layout:
        count, channels = flat(only(shapes)[1])
        stages, entries = whole(numbers, "stages", 1, 16), whole(numbers, "entries", 1, 256)
        return {"choice": ("uint8", (count, stages)), "books": ("float16", (stages, entries, channels))}

    @staticmethod
    def decode(attribute: Attribute, shapes: Shapes) -> dict[str, np.ndarray]:
        name, shape = only(shapes)
        books, choice = attribute.streams["books"].astype(np.float32), attribute.streams["choice"]
        if choice.size and choice.max() >= books.shape[1]:
            raise ValueError(f"a choice beyond the {books.shape[1]} entries")
        total = np.zeros(flat(shape), np.float32)
        for stage, book in enumerate(books):
            total += book[choice[:, stage]]
        return {name: total.reshape(shape)}
