"""Vector codebooks: k-means for palettes of tens of thousands of entries, on a CPU, in seconds.

Two things are done otherwise than in Lloyd's iterations (1982) from random points:

* A point is compared with the centroids of the few groups nearest to its own (an inverted file: Jegou et al. 2011), and
  with the centroid it had; so a turn costs N·sqrt(k)·probes instead of N·k.
* Between turns, centroids whose points would go elsewhere at little cost are moved to the points that are farthest
  from theirs (as in the enhanced LBG of Patanè and Russo 2001). Where there are only a few points to a centroid, as in
  palettes of spherical harmonics, this lowers the error far more than more turns would.

Everything is added up in a fixed order: the same palette on any number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

FLAT = 1024
"""Up to so many centroids are all compared."""
PROBES, FINAL_PROBES = 8, 24
_GROUPS = 256
_COARSE_POINTS, _COARSE_TURNS = 64, 6  # points per group to learn groups from; turns
_SETTLING = 3  # last turns without moves
_MOVED = 0.2  # of all centroids, at most, in one turn


def kmeans(
    points: Tensor, k: int, *, seed: int, weights: Tensor | None = None, iterations: int = 10
) -> tuple[Tensor, Tensor]:
    """Centroids [K,D] float32, K <= k, and the centroid of every point, labels [N] int64; on the device of the points.

    points [N,D] and ``weights`` [N] (at least 0; None: all alike), finite. Makes the weighted sum of squared distances
    small; exact, and K the number of different points, where that is at most ``k``.
    """
    if points.ndim != 2 or k < 1:
        raise ValueError(f"points [N,D] and k >= 1 are needed, got {tuple(points.shape)} and {k}")
    table = points.detach().to("cpu", torch.float32).numpy()
    mass = np.ones(len(table)) if weights is None else weights.detach().cpu().double().numpy().reshape(-1)
    rows, mass, inverse = _distinct_rows(table, mass if mass.any() else np.ones(len(table)))
    if len(rows) <= k:
        centroids, labels = rows, np.arange(len(rows))
    else:
        centroids, labels = _clustered(rows, mass, k, np.random.default_rng(seed), iterations)
    return torch.from_numpy(centroids).to(points.device), torch.from_numpy(labels[inverse]).to(points.device)


def nearest(points: Tensor, centroids: Tensor, labels: Tensor | None = None) -> Tensor:  # [N] int64
    """The nearest centroid of every point; for more than ``FLAT`` of them, nearly so, and never farther than ``labels``
    (int64, a first guess)."""
    table = points.detach().to("cpu", torch.float32).numpy()
    entries = centroids.detach().to("cpu", torch.float32).numpy()
    if not len(table):
        return torch.zeros(0, dtype=torch.int64, device=points.device)
    guess = None if labels is None else labels.detach().cpu().numpy()
    found = _Groups.of(table, len(entries)).search(entries, guess, probes=FINAL_PROBES)
    return torch.from_numpy(found.labels).to(points.device)


@dataclass(frozen=True, eq=False)
class _Found:
    """The centroid of every point, and the next best one among those looked at."""

    labels: np.ndarray  # [n] int64
    sq_distances: np.ndarray  # [n] float64
    others: np.ndarray  # [n] int64, -1 for none
    other_sq_distances: np.ndarray  # [n] float64


@dataclass(frozen=True, eq=False)
class _Groups:
    """Points in groups, so that only centroids of near groups are looked at."""

    points: np.ndarray  # [n,D]
    centres: np.ndarray | None  # [G,D]; None: one group of all
    order: np.ndarray  # [n] points, group after group
    begin: np.ndarray  # [G+1]
    near: np.ndarray  # [G,G] groups by distance, the group itself first

    @classmethod
    def of(cls, points: np.ndarray, k: int) -> _Groups:
        count = len(points)
        if k <= FLAT:
            return cls(points, None, np.arange(count), np.array([0, count]), np.zeros((1, 1), np.int64))
        groups = min(_GROUPS, int(np.sqrt(k)))
        sample = points[:: max(1, count // (_COARSE_POINTS * groups))]
        centres = sample[:: max(1, len(sample) // groups)][:groups].copy()
        for _ in range(_COARSE_TURNS):
            homes = _two(sample, centres)[0][:, 0]
            centres = _means(sample, np.ones(len(sample)), homes, centres)
        homes = _two(points, centres)[0][:, 0]
        apart = ((centres[:, None].astype(np.float64) - centres[None]) ** 2).sum(axis=2)
        np.fill_diagonal(apart, -1)
        begin = np.concatenate([[0], np.cumsum(np.bincount(homes, minlength=len(centres)))])
        order = np.argsort(homes, kind="stable")
        return cls(points, centres, order, begin, np.argsort(apart, axis=1, kind="stable"))

    def search(self, centroids: np.ndarray, guess: np.ndarray | None, *, probes: int) -> _Found:
        if self.centres is None or len(centroids) <= FLAT:
            labels, sq_distances = _two(self.points, centroids)
        else:
            in_order, squares = _two(self.points[self.order], centroids, self._lists(centroids, probes))
            labels, sq_distances = np.empty_like(in_order), np.empty_like(squares)
            labels[self.order], sq_distances[self.order] = in_order, squares
        found = _Found(labels[:, 0], sq_distances[:, 0], labels[:, 1], sq_distances[:, 1])
        return found if guess is None else _at_least(found, self.points, centroids, guess)

    def _lists(self, centroids: np.ndarray, probes: int):
        """Of every group, the centroids of the groups around it."""
        from splat.native.nearest import Lists

        assert self.centres is not None
        home = _two(centroids, self.centres)[0][:, 0]
        members = np.argsort(home, kind="stable").astype(np.int32)
        begin = np.concatenate([[0], np.cumsum(np.bincount(home, minlength=len(self.centres)))])
        lists = []
        for near in self.near:
            filled = [group for group in near if begin[group] < begin[group + 1]][:probes]
            lists.append(np.sort(np.concatenate([members[begin[group] : begin[group + 1]] for group in filled])))
        candidate_begin = np.concatenate([[0], np.cumsum([len(some) for some in lists])])
        return Lists(
            torch.from_numpy(self.begin), torch.from_numpy(candidate_begin), torch.from_numpy(np.concatenate(lists))
        )


def _clustered(
    rows: np.ndarray, mass: np.ndarray, k: int, rng: np.random.Generator, iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    groups = _Groups.of(rows, k)
    centroids = rows[_start(rows, mass, k, groups, rng)]
    labels = None
    for turn in range(max(iterations, 1)):
        found = groups.search(centroids, labels, probes=PROBES)
        if labels is not None and np.array_equal(labels, found.labels):
            break
        labels = found.labels
        centroids = _means(rows, mass, labels, centroids)
        if turn < iterations - _SETTLING:
            centroids = _relocated(rows, mass, found, centroids)
    return centroids, groups.search(centroids, labels, probes=FINAL_PROBES).labels


def _start(rows: np.ndarray, mass: np.ndarray, k: int, groups: _Groups, rng: np.random.Generator) -> np.ndarray:  # [k]
    """Different rows, drawn half evenly and half by squared distance to a rough centre (Bachem et al. 2016)."""
    rough = groups.centres if groups.centres is not None else np.average(rows, axis=0, weights=mass)[None]
    far = _two(rows, rough.astype(np.float32))[1][:, 0] * mass
    chance = mass / mass.sum() + far / max(far.sum(), np.finfo(np.float64).tiny)
    keys = -np.log1p(-rng.random(len(rows))) / np.maximum(chance, np.finfo(np.float64).tiny)
    return np.sort(np.argsort(keys, kind="stable")[:k])


def _relocated(rows: np.ndarray, mass: np.ndarray, found: _Found, centroids: np.ndarray) -> np.ndarray:
    """Centroids that are hardly needed go to points that are badly served."""
    k = len(centroids)
    squares = _sq_distances(rows, centroids, found.labels)
    others = np.where(found.others < 0, 0, found.others)
    dearer = np.where(found.others < 0, np.inf, mass * (_sq_distances(rows, centroids, others) - squares))
    cost = np.bincount(found.labels, dearer, minlength=k)  # of doing without; an empty one costs nothing
    total = np.bincount(found.labels, mass, minlength=k)
    rest = total[found.labels] - mass
    # What a centroid of its own saves at a row: Ward's formula for taking one point out of a cluster.
    saved = np.where(rest > 0, mass * squares * total[found.labels] / np.where(rest > 0, rest, 1), 0)
    by_gain = np.lexsort((-saved, found.labels))  # of each cluster, the row that gains most
    first = np.concatenate([[True], np.diff(found.labels[by_gain]) > 0])
    best = by_gain[first]
    best = best[np.argsort(-saved[best], kind="stable")]
    removable = np.argsort(cost, kind="stable")
    most = min(len(best), len(removable), int(k * _MOVED))
    # Splitting one cluster and dropping another pays while the gain exceeds the cost.
    pays = saved[best[:most]] > cost[removable[:most]]
    moves = most if pays.all() else int(np.argmin(pays))
    best, removable = best[:moves], removable[:moves]
    rank = np.full(k, k)
    rank[removable] = np.arange(moves)
    rank[found.labels[best]] = k  # what is split stays
    blocked = np.zeros(k, bool)  # rows of a dropped centroid must find their other one in place
    fall = rank[others] < rank[found.labels]
    blocked[found.labels[fall]] = True
    dropped = removable[(rank[removable] < k) & ~blocked[removable]]
    moved = centroids.copy()
    moved[dropped] = rows[best[: len(dropped)]]
    return moved


def _at_least(found: _Found, points: np.ndarray, centroids: np.ndarray, guess: np.ndarray) -> _Found:
    """``found``, or ``guess`` where that is nearer."""
    squares = _sq_distances(points, centroids, guess)
    keep = (squares < found.sq_distances) & (guess != found.labels)
    return _Found(
        np.where(keep, guess, found.labels), np.where(keep, squares, found.sq_distances),
        np.where(keep, found.labels, found.others), np.where(keep, found.sq_distances, found.other_sq_distances),
    )  # fmt: skip


def _two(points: np.ndarray, centroids: np.ndarray, lists=None) -> tuple[np.ndarray, np.ndarray]:
    """Labels [n,2] int64 and squared distances [n,2] float64."""
    from splat.native.nearest import nearest_two

    labels, squares = nearest_two(torch.from_numpy(points), torch.from_numpy(centroids), lists)
    return labels.numpy(), squares.numpy().astype(np.float64)


def _sq_distances(points: np.ndarray, centroids: np.ndarray, labels: np.ndarray) -> np.ndarray:  # [n] float64
    apart = points - centroids[labels]
    return np.einsum("nd,nd->n", apart, apart).astype(np.float64)


def _means(rows: np.ndarray, mass: np.ndarray, labels: np.ndarray, centroids: np.ndarray) -> np.ndarray:  # [k,D]
    """The weighted means of the rows with each label; a centroid without rows stays."""
    order = np.argsort(labels, kind="stable")
    begin = np.flatnonzero(np.concatenate([[True], np.diff(labels[order]) > 0]))
    sums = np.add.reduceat(rows[order] * mass[order, None], begin, axis=0)
    total = np.add.reduceat(mass[order], begin)
    used = labels[order][begin][total > 0]
    means = centroids.copy()
    means[used] = (sums / np.where(total > 0, total, 1)[:, None])[total > 0]
    return means


def _distinct_rows(table: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Different rows, the summed weight of each, and which of them every row is."""
    if not len(table):
        return table, mass, np.zeros(0, np.int64)
    table = np.ascontiguousarray(table + np.float32(0))  # one zero, not two
    hashed = np.full(len(table), 0x9E3779B97F4A7C15, np.uint64)
    for column in table.view(np.uint32).T:
        hashed = (hashed ^ column) * np.uint64(0xD6E8FEB86659FD93)
        hashed ^= hashed >> np.uint64(32)
    _, first, inverse = np.unique(hashed, return_index=True, return_inverse=True)
    if not np.array_equal(table[first][inverse], table):  # two rows with one hash
        _, first, inverse = np.unique(table, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    inverse = place[inverse.reshape(-1)]
    return table[first[order]], np.bincount(inverse, mass, minlength=len(order)), inverse
