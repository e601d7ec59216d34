"""One list of up to 256 values for all numbers of a field, chosen by k-means in one dimension."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from splat.io.codecs.codec import Layout, Shapes, attribute_of, checked, only, whole
from splat.io.packed import Attribute, Coding

_ROUNDS = 100
_ENOUGH = 1e-5
"""Rounds end when the squared error falls by less than this share."""


@dataclass(frozen=True)
class Codebook:
    """Each number becomes the index of the nearest entry."""

    kind: ClassVar[str] = "codebook"

    entries: int = 256
    """2 to 256."""
    coding: Coding = "zstd"

    def __post_init__(self) -> None:
        if not 2 <= self.entries <= 256:
            raise ValueError(f"entries = {self.entries} does not fit: 2 to 256")

    def encode(self, values: np.ndarray) -> Attribute:
        """``values [N,...]``, finite."""
        values = checked(values)
        book = scalar_codebook(values, self.entries)
        codes = nearest_entry(values, book)
        streams = {"codes": codes, "book": book}
        return attribute_of(Codebook, {"entries": len(book)}, streams, {"": values}, {"codes": self.coding})

    @staticmethod
    def layout(numbers: Mapping[str, Any], shapes: Shapes) -> Layout:
        entries = whole(numbers, "entries", 1, 256)
        return {"codes": ("uint8", only(shapes)[1]), "book": ("float32", (entries,))}

    @staticmethod
    def decode(attribute: Attribute, shapes: Shapes) -> dict[str, np.ndarray]:
        book, codes = attribute.streams["book"], attribute.streams["codes"]
        if not np.isfinite(book).all():
            raise ValueError("an entry that is not finite")
        if codes.size and codes.max() >= len(book):
            raise ValueError(f"a code beyond the {len(book)} entries")
        return {only(shapes)[0]: book[codes]}


def scalar_codebook(values: np.ndarray, entries: int) -> np.ndarray:  # [...] -> [at most entries] float32, ascending
    """Lloyd's rounds on sorted values, started at equal shares of the cube root of their density (the best spacing of
    many entries: Panter and Dite 1951). Values that are few anyway are the book."""
    ordered = np.sort(np.asarray(values, np.float32), axis=None)
    if not ordered.size:
        return np.zeros(1, np.float32)
    if len(distinct := np.unique(ordered)) <= entries:
        return distinct
    sums = np.concatenate([[0.0], np.cumsum(ordered, dtype=np.float64)])
    squares = float(np.square(ordered, dtype=np.float64).sum())
    book = _spread(ordered, entries)
    before = np.inf
    for _ in range(_ROUNDS):
        cuts = np.searchsorted(ordered, (book[1:] + book[:-1]) / 2)
        edges = np.concatenate([[0], cuts, [len(ordered)]])
        counts, totals = np.diff(edges), np.diff(sums[edges])
        book = np.sort(np.where(counts > 0, totals / np.maximum(counts, 1), book))
        error = squares - float((np.square(totals) / np.maximum(counts, 1)).sum())
        if error > before * (1 - _ENOUGH):
            break
        before = error
    return np.unique(book.astype(np.float32))


def nearest_entry(values: np.ndarray, book: np.ndarray) -> np.ndarray:  # [...] -> [...] uint8
    """Index of the nearest entry of an ascending book."""
    middles = (book[1:].astype(np.float64) + book[:-1]) / 2
    return np.searchsorted(middles, np.asarray(values, np.float64)).astype(np.uint8)


def _spread(ordered: np.ndarray, entries: int) -> np.ndarray:
    low, high = float(ordered[0]), float(ordered[-1])
    counts, edges = np.histogram(ordered, bins=1024, range=(low, high))
    shares = np.concatenate([[0.0], np.cumsum(np.cbrt(counts))])
    wanted = (np.arange(entries) + 0.5) / entries * shares[-1]
    return np.interp(wanted, shares, edges)
