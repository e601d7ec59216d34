"""One-dimensional codebooks: the few values that stand for many, with the least squared error."""

from __future__ import annotations

import numpy as np

BINS = 1024
"""Cells among which the search divides: four per entry of a codebook of 256."""
BAND = 256
"""An entry takes at most this many cells."""
_GROUPS = 4096  # of equal weight, from which the density is read
_POLISH = 100  # turns of Lloyd's on the values themselves; each costs some microseconds


def fit_codebook(values: np.ndarray, size: int = 256, *, weights: np.ndarray | None = None) -> np.ndarray:
    """The ``size`` ascending float32 values nearest to all ``values`` (any shape, finite) in the squared mean.

    Exact where there are no more than ``size`` different values (the last one is then repeated). Else the best
    division into ``size`` runs of neighbouring cells, by dynamic programming (Wang and Song 2011), then Lloyd's
    iterations on the values themselves. ``weights`` as ``values``, at least 0.
    """
    distinct, mass = _distinct(values, weights)
    if len(distinct) <= size:
        book = distinct if len(distinct) else np.zeros(1)
        return np.concatenate([book, np.full(size - len(book), book[-1])]).astype(np.float32)
    centre = float(np.average(distinct, weights=mass))
    shifted = distinct - centre
    sums = np.zeros((3, len(distinct) + 1))
    for power in range(3):
        np.cumsum(mass * shifted**power, out=sums[power, 1:])
    cells = _cells(distinct, mass)
    cuts = cells[_division(sums[:, cells], size)]
    book = _polished(shifted, sums, cuts)
    return (book + centre).astype(np.float32)


def codebook_indices(values: np.ndarray, book: np.ndarray) -> np.ndarray:
    """The index of the nearest entry of the ascending ``book`` for every value, of the least integer type that fits."""
    ascending = book.astype(np.float64)
    middles = (ascending[1:] + ascending[:-1]) / 2
    kind = np.uint8 if len(book) <= 256 else np.uint16 if len(book) <= 65_536 else np.int64
    return np.searchsorted(middles, values.astype(np.float64)).astype(kind)


def _distinct(values: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The different values in ascending order, and the weight of each (positive)."""
    flat = values.reshape(-1).astype(np.float64) + 0.0  # one zero, not two
    if weights is None:
        distinct, counts = np.unique(flat, return_counts=True)
        return distinct, counts.astype(np.float64)
    distinct, inverse = np.unique(flat, return_inverse=True)
    mass = np.bincount(inverse, np.broadcast_to(weights, values.shape).reshape(-1), minlength=len(distinct))
    kept = mass > 0
    return (distinct[kept], mass[kept]) if kept.any() else (distinct, np.ones(len(distinct)))


def _cells(distinct: np.ndarray, mass: np.ndarray) -> np.ndarray:  # [<=BINS+1] indices, from 0 to len(distinct)
    """Starts of cells, as narrow where the entries of a good codebook are: their density goes with the cube root of
    that of the values (Panter and Dite 1951)."""
    if len(distinct) <= BINS:
        return np.arange(len(distinct) + 1)
    total = np.cumsum(mass)
    ends = np.searchsorted(total, np.linspace(0, total[-1], _GROUPS + 1)[1:-1])
    edges = np.unique(np.concatenate([[0], ends, [len(distinct) - 1]]))
    widths = np.diff(distinct[edges])
    density = np.cbrt(np.diff(total[edges]) * widths**2)
    along = np.concatenate([[0.0], np.cumsum(density + density.mean() * 1e-3)])
    walls = np.interp(np.linspace(0, along[-1], BINS + 1)[1:-1], along, distinct[edges])
    return np.unique(np.concatenate([[0], np.searchsorted(distinct, walls), [len(distinct)]]))


def _division(sums: np.ndarray, size: int) -> np.ndarray:  # sums [3,B+1] -> [size+1] cell indices
    """Where to cut B cells into ``size`` runs so that the squares around the runs' means are least."""
    cells = sums.shape[1] - 1
    if cells <= size:
        return np.arange(cells + 1)
    band = min(BAND, cells)
    ends, lengths = np.arange(1, cells + 1)[:, None], np.arange(1, band + 1)[None, :]
    starts = ends - lengths
    inside = starts >= 0
    held = sums[:, ends] - sums[:, np.maximum(starts, 0)]
    cost = np.where(inside, held[2] - held[1] ** 2 / np.maximum(held[0], np.finfo(np.float64).tiny), np.inf)
    best = np.full(cells + 1, np.inf)
    best[0] = 0
    chosen = np.zeros((size, cells + 1), np.int32)
    for turn in range(size):
        behind = np.where(inside, best[np.maximum(starts, 0)], np.inf) + cost
        choice = behind.argmin(axis=1)
        best = np.concatenate([[np.inf], np.take_along_axis(behind, choice[:, None], 1)[:, 0]])
        chosen[turn, 1:] = choice + 1
    cuts = [cells]
    for turn in range(size - 1, -1, -1):
        cuts.append(cuts[-1] - int(chosen[turn, cuts[-1]]))
    return np.array(cuts[::-1])


def _polished(shifted: np.ndarray, sums: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Lloyd's iterations from runs ``cuts`` (indices of values) to where they stand still."""
    held = np.diff(sums[:, cuts], axis=1)
    book = held[1] / held[0]
    for _ in range(_POLISH):
        moved = np.concatenate([[0], np.searchsorted(shifted, (book[1:] + book[:-1]) / 2), [len(shifted)]])
        if np.array_equal(moved, cuts):
            break
        cuts = moved
        held = np.diff(sums[:, cuts], axis=1)
        book = np.where(held[0] > 0, held[1] / np.where(held[0] > 0, held[0], 1), book)
    return book
