"""Residual vector quantisation while training: every stage picks the entry nearest to what the stages before left."""

from __future__ import annotations

import torch
from torch import Tensor

SAMPLE = 2**15
"""Rows that k-means looks at."""
_PAIRS = 2**21
"""Rows times entries that are compared at a time."""


def fitted_books(values: Tensor, *, stages: int, entries: int, rounds: int, generator: torch.Generator) -> Tensor:
    """Books [S,E,D] for ``values [N,D]`` by k-means, stage after stage on what is left (``generator`` on the CPU)."""
    values = values.detach()
    if len(values) > SAMPLE:
        values = values[torch.randperm(len(values), generator=generator)[:SAMPLE].to(values.device)]
    books, rest = [], values.clone()
    for _ in range(stages):
        book = kmeans(rest, entries, rounds=rounds, generator=generator)
        books.append(book)
        if len(rest):
            rest = rest - book[nearest(rest, book)]
    return torch.stack(books)


def kmeans(values: Tensor, entries: int, *, rounds: int, generator: torch.Generator) -> Tensor:  # [N,D] -> [E,D]
    """Lloyd's rounds from rows drawn at random. Entries nobody chose move to the rows that are worst off."""
    if not len(values):
        return values.new_zeros(entries, values.shape[1])
    drawn = torch.randperm(len(values), generator=generator)[:entries].to(values.device)
    drawn = drawn.repeat(-(-entries // len(drawn)))[:entries]  # fewer rows than entries
    book = values[drawn].clone()
    for _ in range(rounds):
        labels, distances = _nearest(values, book)
        sums, counts = label_sums(values, labels, entries)
        book = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp_min(1), book.double()).to(values.dtype)
        unused = (counts == 0).nonzero().squeeze(1)
        if len(unused):
            worst = torch.sort(distances, descending=True, stable=True).indices[: len(unused)]
            book[unused[: len(worst)]] = values[worst]
    return book


def label_sums(values: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:  # [count,D] float64, [count]
    """Sums of the rows of each label, always in the same order."""
    if values.device.type == "cpu":
        columns = [torch.bincount(labels, weights=column.double(), minlength=count) for column in values.unbind(1)]
        return torch.stack(columns, 1), torch.bincount(labels, minlength=count).double()
    chosen = torch.nn.functional.one_hot(labels, count).double()  # bincount adds in any order there
    return chosen.T @ values.double(), chosen.sum(0)


def nearest(values: Tensor, book: Tensor) -> Tensor:  # [N,D], [E,D] -> [N] int64
    return _nearest(values, book)[0]


def _nearest(values: Tensor, book: Tensor) -> tuple[Tensor, Tensor]:
    labels, distances = [], []
    for part in values.split(max(_PAIRS // len(book), 1)):
        # The length of the row itself changes nothing of which is nearest.
        product = torch.addmm(book.square().sum(1), part, book.T, alpha=-2)
        least = product.min(1)
        labels.append(least.indices)
        distances.append(least.values + part.square().sum(1))
    if not labels:
        return values.new_zeros(0, dtype=torch.int64), values.new_zeros(0)
    return torch.cat(labels), torch.cat(distances)


def chosen_entries(values: Tensor, books: Tensor) -> tuple[Tensor, Tensor]:  # [N,S] int64, [N,D]
    """The entry of every stage, and their sums."""
    rest, choice = values, []
    for book in books:
        labels = nearest(rest, book)
        choice.append(labels)
        rest = rest - book[labels]
    none = torch.zeros(len(values), 0, dtype=torch.int64, device=values.device)
    return torch.stack(choice, 1) if choice else none, values - rest


def quantised(values: Tensor, books: Tensor) -> Tensor:
    """Sums of entries [N,D] in place of ``values``. The gradient passes straight to ``values``; that of ``books
    [S,E,D]`` is the one of their mean squared distance from what they stand for, whatever the picture asks."""
    result: Tensor = _Quantised.apply(values, books)
    return result


class _Quantised(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, books: Tensor) -> Tensor:
        rest, grads = values, []
        for book in books:
            labels = nearest(rest, book)
            if ctx.needs_input_grad[1]:
                sums, counts = label_sums(rest, labels, len(book))
                grads.append((2 * (counts[:, None] * book - sums) / max(values.numel(), 1)).to(book.dtype))
            rest = rest - book[labels]
        ctx.grads = torch.stack(grads) if grads else None
        return values - rest

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        return grad, ctx.grads
