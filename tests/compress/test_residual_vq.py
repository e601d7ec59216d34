from itertools import pairwise

import pytest
import torch

from splat.compress.residual_vq import chosen_entries, fitted_books, kmeans, label_sums, nearest, quantised


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _values(count=3000, seed=0):
    rng = _rng(seed)
    return torch.randn(count, 3, generator=rng) * 0.7 + torch.randint(0, 4, (count, 1), generator=rng)


def _books(values, stages=4, entries=16, rounds=10):
    return fitted_books(values, stages=stages, entries=entries, rounds=rounds, generator=_rng())


def test_nearest_is_nearest():
    values, book = _values(), torch.randn(16, 3, generator=_rng(1))
    expected = torch.cdist(values.double(), book.double())
    picked = expected.gather(1, nearest(values, book)[:, None])
    torch.testing.assert_close(picked[:, 0], expected.min(1).values, atol=1e-5, rtol=1e-5)


def test_every_stage_and_every_round_helps():
    values = _values()
    errors = [(chosen_entries(values, _books(values, stages))[1] - values).square().mean() for stages in (1, 2, 3, 4)]
    assert all(later < 0.4 * earlier for earlier, later in pairwise(errors))
    one, ten = (
        (chosen_entries(values, _books(values, 1, 16, rounds))[1] - values).square().mean() for rounds in (0, 10)
    )
    assert ten < 0.8 * one


def test_few_rows_and_none():
    for count in (0, 1, 5):
        values = _values(count)
        books = _books(values)
        assert books.shape == (4, 16, 3) and books.isfinite().all()
        choice, sums = chosen_entries(values, books)
        assert choice.shape == (count, 4)
        torch.testing.assert_close(sums, values, atol=1e-5, rtol=0)


def test_unused_entries_are_put_to_use():
    values = torch.cat([torch.zeros(500, 2), torch.arange(20.0)[:, None].repeat(1, 2) * 10])
    book = kmeans(values, 16, rounds=15, generator=_rng())
    assert len(torch.unique(nearest(values, book))) == 16


def test_label_sums():
    values, labels = torch.randn(50, 4, generator=_rng()), torch.randint(0, 7, (50,), generator=_rng(1))
    sums, counts = label_sums(values, labels, 9)
    expected = torch.zeros(9, 4, dtype=torch.float64).index_add(0, labels, values.double())
    torch.testing.assert_close(sums, expected)
    assert counts.tolist() == torch.bincount(labels, minlength=9).tolist()


def test_straight_through_and_the_books_own_gradient():
    values = _values(200).requires_grad_(True)
    books = _books(values.detach(), 2, 8)
    books = (books + 0.3 * torch.randn(books.shape, generator=_rng(3))).requires_grad_(
        True
    )  # k-means ends where it is 0
    weights = torch.randn(200, 3, generator=_rng(2))
    drawn = quantised(values, books)
    (drawn * weights).sum().backward()
    torch.testing.assert_close(drawn, chosen_entries(values, books)[1])
    torch.testing.assert_close(values.grad, weights)
    free = books.detach().clone().requires_grad_(True)
    rest, loss = values.detach(), 0.0
    for book in free:
        entry = book[nearest(rest, book)]
        loss = loss + (entry - rest).square().mean()
        rest = rest - entry.detach()
    loss.backward()
    torch.testing.assert_close(books.grad, free.grad, atol=1e-6, rtol=1e-4)
    assert books.grad.abs().max() > 1e-2


def test_stepping_along_that_gradient_lowers_the_error():
    values = _values(2000)
    books = _books(values, 3, 16, rounds=1).requires_grad_(True)
    before = (chosen_entries(values, books.detach())[1] - values).square().mean()
    adam = torch.optim.Adam([books], lr=2e-3)
    for _ in range(60):
        adam.zero_grad()
        quantised(values, books).sum().backward()
        adam.step()
    after = (chosen_entries(values, books.detach())[1] - values).square().mean()
    assert after < 0.9 * before


@pytest.mark.parametrize("threads", [2, 3])
def test_the_same_on_any_number_of_threads(threads):
    values, used = _values(5000), torch.get_num_threads()
    results = []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            books = _books(values, 2).requires_grad_(True)
            drawn = quantised(values, books)
            drawn.sum().backward()
            results.append((books.detach(), drawn.detach(), books.grad))
    finally:
        torch.set_num_threads(used)
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))
