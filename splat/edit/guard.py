"""Row edits of densifiers, primitives and compressors, made to leave rows alone that were edited by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel

Values = Mapping[str, tuple[Tensor, Tensor]]


def guarded(edit: RowEdit, held: Tensor, *, worth: Tensor | None = None) -> RowEdit:
    """``edit`` as far as it leaves the rows where ``held [N] bool`` alone: each is there once afterwards, with its
    values and moments. Where they stand may change; ``edit`` itself comes back when it does nothing else to them.

    A held row that would go comes back where it was, if a further copy of another row stands there now; else in its
    order among the first rows. Copies of held rows are left out. ``worth [N]``: as many other rows go as came back,
    the least worth first, so that the number of rows stays what ``edit`` makes it.
    """
    edit.check_count(held.shape[0])
    if not bool(held.any()):
        return edit
    source = _with_held_in_place(edit.source, held)
    first = _is_first(source, edit.count_before)
    kept = first | ~held[source]
    at = kept.nonzero().squeeze(1)  # rows of the new table that stay, by their place in ``source``
    present = torch.zeros_like(held).index_fill_(0, source, True)
    missing = (held & ~present).nonzero().squeeze(1)
    if worth is not None and missing.numel():
        at = _cheapest_left_out(at, source, held, worth, at.numel() + missing.numel() - edit.count_after)
    source, at = _merged(source[at], at, missing)
    changed = at < 0
    if source.shape == edit.source.shape and bool((source == edit.source).all()) and not _touches(edit, held):
        return edit
    # Rows that are held now carry nothing of the edit; nor do those whose source became another.
    own = ~changed & ~held[source]
    place = torch.full((edit.count_after,), -1, dtype=torch.int64, device=source.device)
    place[at[own]] = own.nonzero().squeeze(1)
    fresh = None
    if edit.fresh is not None:
        fresh = torch.zeros(source.shape[0], dtype=torch.bool, device=source.device)
        fresh[own] = edit.fresh[at[own]]
    reasons = None
    if edit.reasons is not None:
        reasons = edit.reasons.new_zeros(source.shape[0])
        reasons[own] = edit.reasons[at[own]]
    return RowEdit(
        source, edit.count_before, _moved(edit.values, place), fresh, edit.fresh_fields, edit.reason, reasons,
        _moved(edit.tables, place),
    )  # fmt: skip


def left_alone(
    edits: Iterable[RowEdit], *, held: Callable[[], Tensor | None], keeps_count: SplatModel | None = None
) -> Iterator[RowEdit]:
    """``guarded`` of each of a generator's edits, by what is held when it comes (None = nothing); those of which
    nothing is left are passed over. With ``keeps_count``, the model edited, the faintest other rows go for those that
    come back."""
    for edit in edits:
        now = held()
        if now is None:
            yield edit
        else:
            left = guarded(edit, now, worth=None if keeps_count is None else keeps_count.opacities.detach())
            if left is edit or not does_nothing(left):
                yield left


def does_nothing(edit: RowEdit) -> bool:
    """What is left of an edit when everything it wanted is held."""
    empty = all(rows.numel() == 0 for rows, _ in (*edit.values.values(), *edit.tables.values()))
    return edit.is_identity and empty and (edit.fresh is None or not bool(edit.fresh.any()))


def _with_held_in_place(source: Tensor, held: Tensor) -> Tensor:
    """Held rows that are gone, put where they stood, where a further copy of a row stands now (relocations)."""
    count = min(source.shape[0], held.shape[0])
    first = _is_first(source, held.shape[0])
    present = torch.zeros_like(held).index_fill_(0, source, True)
    # A row that stands in its own place is no further copy, even if another copy comes before it.
    numbers = torch.arange(source.shape[0], device=source.device)
    home = torch.zeros_like(held)
    home[source[source == numbers]] = True
    copy = torch.where(home[source], source != numbers, ~first)
    back = held[:count] & ~present[:count] & copy[:count]
    source = source.clone()
    source[:count][back] = numbers[:count][back]
    return source


def _is_first(source: Tensor, count: int) -> Tensor:  # [M] bool
    """Whether a new row is the first made of its old row; one in the old row's place goes before all others."""
    numbers = torch.arange(source.shape[0], device=source.device)
    rank = torch.where(source == numbers, -1, numbers)
    first = rank.new_full((count,), source.shape[0])
    first.scatter_reduce_(0, source, rank, "amin")
    return first[source] == rank


def _cheapest_left_out(at: Tensor, source: Tensor, held: Tensor, worth: Tensor, count: int) -> Tensor:
    """``at`` without ``count`` rows that are not held."""
    if count <= 0:
        return at
    free = (~held[source[at]]).nonzero().squeeze(1)
    order = torch.sort(worth[source[at[free]]].nan_to_num(-1.0), stable=True).indices
    out = torch.ones(at.shape[0], dtype=torch.bool, device=at.device)
    out[free[order[:count]]] = False
    return at[out]


def _merged(source: Tensor, at: Tensor, missing: Tensor) -> tuple[Tensor, Tensor]:
    """``missing`` old rows among the others: before the first of the leading, rising ones that is larger. Their
    ``at`` is -1."""
    if not missing.numel():
        return source, at
    rising = torch.ones_like(source, dtype=torch.bool)
    rising[1:] = source[1:] > source[:-1]
    leading = int(rising.long().cumprod(0).sum())
    place = torch.searchsorted(source[:leading].contiguous(), missing)
    numbers = torch.arange(source.shape[0], device=source.device)
    order = torch.argsort(torch.cat([place * 2, numbers * 2 + 1]), stable=True)
    return torch.cat([missing, source])[order], torch.cat([at.new_full(missing.shape, -1), at])[order]


def _touches(edit: RowEdit, held: Tensor) -> bool:
    """Whether values, moments or tables of a held row would change though rows stand where the edit wants them."""
    own = held[edit.source]
    if edit.fresh is not None and bool((edit.fresh & own).any()):
        return True
    return any(bool(own[rows].any()) for rows, _ in (*edit.values.values(), *edit.tables.values()))


def _moved(values: Values, place: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Values by the rows where their new rows stand now; without those that went."""
    moved = {}
    for name, (rows, new) in values.items():
        there = place[rows]
        stays = there >= 0
        moved[name] = there[stays], new[stays]
    return moved
