"""Codebooks against exhaustive search and Lloyd's iterations; palettes against Lloyd's from random points."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from splat.io import palette as palette_module
from splat.io.codebook import codebook_indices, fit_codebook
from splat.io.palette import kmeans, nearest
from splat.native.nearest import nearest_two
from splat.native.ops import set_threads


def error_of(values: np.ndarray, book: np.ndarray) -> float:
    return float(((values - book[codebook_indices(values, book)]) ** 2).mean())


def heavy_tailed(count: int, dim: int = 45, seed: int = 0) -> torch.Tensor:
    """Vectors like coefficients of spherical harmonics: most small, some large, channels alike."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.normal(size=(count, 1, 1)) * 0.8 - 2.6)
    shared = rng.normal(size=(count, dim // 3, 1)) + 0.35 * rng.normal(size=(count, dim // 3, 3))
    return torch.from_numpy((size * shared).reshape(count, dim).astype(np.float32))


def mean_square(points: torch.Tensor, centroids: torch.Tensor, labels: torch.Tensor) -> float:
    return float(((points - centroids[labels]) ** 2).double().mean())


def lloyd(points: torch.Tensor, k: int, turns: int) -> float:
    """The error of Lloyd's iterations from ``k`` random points."""
    centroids = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:k]].clone()
    for _ in range(turns):
        labels = nearest_two(points, centroids)[0][:, 0]
        sums = torch.zeros_like(centroids).index_add_(0, labels, points)
        counts = torch.bincount(labels, minlength=k)[:, None]
        centroids = torch.where(counts > 0, sums / counts.clamp_min(1), centroids)
    return mean_square(points, centroids, nearest_two(points, centroids)[0][:, 0])


def test_a_codebook_is_the_best_division():
    values = np.random.default_rng(3).lognormal(size=11)
    ordered = np.sort(values)
    cuts = itertools.combinations(range(1, len(values)), 3)
    best = min(sum(((part - part.mean()) ** 2).sum() for part in np.split(ordered, cut)) for cut in cuts)
    found = error_of(values, fit_codebook(values, 4)) * len(values)
    assert found == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("name", ["normal", "laplace", "standard_cauchy", "lognormal"])
def test_a_codebook_is_better_than_lloyds_from_quantiles(name):
    values = getattr(np.random.default_rng(0), name)(size=40_000).clip(-1e4, 1e4)
    ordered, book = np.sort(values), np.quantile(values, (np.arange(256) + 0.5) / 256)
    sums = np.concatenate([[0], np.cumsum(ordered)])
    for _ in range(100):
        cuts = np.concatenate([[0], np.searchsorted(ordered, (book[1:] + book[:-1]) / 2), [len(values)]])
        counts = np.diff(cuts)
        book = np.where(counts > 0, np.diff(sums[cuts]) / np.maximum(counts, 1), book)
    found = fit_codebook(values)
    assert found.shape == (256,) and (np.diff(found) >= 0).all()
    assert error_of(values, found) < 0.8 * error_of(values, book.astype(np.float32))


def test_a_codebook_of_few_values_holds_them_and_weights_count():
    values = np.array([3, -1, 3, 0.5], np.float32)
    book = fit_codebook(values, 8)
    assert book.tolist() == [-1, 0.5, 3, 3, 3, 3, 3, 3] and codebook_indices(values, book).tolist() == [2, 0, 2, 1]
    assert fit_codebook(np.full(5, 2.5), 4).tolist() == [2.5] * 4
    assert fit_codebook(np.array([0.0, 1.0]), 1, weights=np.array([1.0, 3.0])).tolist() == [0.75]


def test_as_many_centroids_as_different_points_are_exact():
    points = torch.cat([torch.eye(5), torch.eye(5), -torch.zeros(1, 5)])
    centroids, labels = kmeans(points, 6, seed=0)
    assert len(centroids) == 6 and torch.equal(centroids[labels], points.abs())


@pytest.mark.parametrize(("count", "k"), [(6000, 2000), (3000, 2500), (4000, 64)])
def test_kmeans_beats_lloyds_ten_iterations(count, k):
    points = heavy_tailed(count)
    centroids, labels = kmeans(points, k, seed=0)
    assert centroids.shape == (k, 45) and centroids.dtype == torch.float32
    assert mean_square(points, centroids, labels) <= lloyd(points, k, 10)


def test_the_search_in_groups_misses_little():
    points = heavy_tailed(8000)
    centroids = points[::4]
    assert len(centroids) > palette_module.FLAT
    best = mean_square(points, centroids, nearest_two(points, centroids)[0][:, 0])
    assert mean_square(points, centroids, nearest(points, centroids)) < 1.02 * best
    guess = nearest_two(points, centroids)[0][:, 0]
    assert mean_square(points, centroids, nearest(points, centroids, guess)) <= best


def test_weights_draw_centroids():
    points = torch.tensor([[0.0], [1.0], [10.0], [11.0], [20.0]])
    centroids, labels = kmeans(points, 2, seed=0, weights=torch.tensor([1e-3, 1e-3, 5.0, 5.0, 5.0]))
    assert centroids[labels[4]].item() == pytest.approx(20.0) and centroids[labels[2]].item() == pytest.approx(
        10.5, abs=0.01
    )


def test_the_same_palette_on_any_number_of_threads():
    points = heavy_tailed(5000, 9)
    expected = kmeans(points, 1500, seed=4)
    threads = torch.get_num_threads()
    try:
        set_threads(1)
        torch.set_num_threads(1)
        found = kmeans(points, 1500, seed=4)
    finally:
        set_threads(0)
        torch.set_num_threads(threads)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    assert not torch.equal(kmeans(points, 1500, seed=5)[0], expected[0])


@pytest.mark.slow
def test_a_palette_of_full_size():
    points = heavy_tailed(200_000, seed=1)
    centroids, labels = kmeans(points, 65_536, seed=0)
    few = slice(0, 10_000)
    best = mean_square(points[few], centroids, nearest_two(points[few], centroids)[0][:, 0])
    assert mean_square(points[few], centroids, labels[few]) < 1.01 * best
