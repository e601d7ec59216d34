"""Taking edits back: what an edit destroys, kept by the numbers of the splats, so that rows may move meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from splat.errors import UserError
from splat.live.commands import Rows
from splat.model.labels import HELD, Labels
from splat.model.row_edit import RowEdit

_LABELS = "labels."
_AT_REST = ("adam.", "compress.moments.", "grads.", "compress.grads.")
"""Beginnings of the names of tables that are cleared for rows that are held."""
_WAITING = ("grads.", "compress.grads.")
"""Of those that an optimizer step uses up."""
_MIX = (-7046029254386353131, -4417276706812531889)
"""Odd 64-bit constants (of SplitMix64, as signed numbers): they spread ids and places over all bits."""


@dataclass(frozen=True, eq=False)
class Lost:
    """Rows an edit removed, K of them, on the CPU."""

    ids: Tensor  # [K] int64
    places: Tensor  # [K] int64, ascending: where they stood in the table before the edit
    values: Mapping[str, Tensor]  # [K,...] raw fields
    tables: Mapping[str, Tensor]  # [K,...] everything else that has a row per splat
    order: int
    """Fingerprint of the ids the edit left: while they are the same, the places are."""


@dataclass(frozen=True, eq=False)
class Patch:
    """What takes an edit back; applied, it has a patch of its own, which does it again."""

    values: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Raw field -> ids [R] and what they held."""
    tables: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """The same by qualified name, as ``RowEdit.tables``."""
    made: Tensor | None = None  # [A] int64: ids of rows the edit made
    lost: Lost | None = None
    step: int = 0
    """When the edit was made: gradients that wait for an optimizer step are of use at that step alone."""


def patch_of(edit: RowEdit, rows: Rows) -> Patch:
    """What takes back ``edit``, which has not been applied to ``rows`` yet. Its new rows are the fresh ones; the
    others keep their order."""
    labels = rows.labels
    new = edit.fresh if edit.fresh is not None else torch.zeros_like(edit.source, dtype=torch.bool)
    made = _ids_made(edit, labels, new)
    kept = torch.zeros(edit.count_before, dtype=torch.bool, device=edit.source.device)
    kept[edit.source[~new]] = True
    removed = (~kept).nonzero().squeeze(1)
    values = {name: _old(edit, labels, which, new, rows.model.rows[name].detach())
              for name, (which, _) in edit.values.items()}  # fmt: skip
    tables = _old_tables(edit, rows, new)
    lost = None
    if len(removed):
        ids_after = labels.ids[edit.source]
        ids_after[new] = made
        fields = {name: _home(table.detach()[removed]) for name, table in rows.model.rows.items()}
        others = {name: _home(table) for name, table in rows.taken(removed).items()}
        lost = Lost(_home(labels.ids[removed]), _home(removed), fields, others, fingerprint(ids_after))
    made = _home(made) if len(made) else None
    return Patch(_without_empty(values), _without_empty(tables), made, lost, rows.step)


def edit_of_patch(patch: Patch, rows: Rows, reason: str) -> RowEdit | None:
    """The edit that applies ``patch`` to rows that may have moved, come or gone since: splats are found by their
    numbers; those that are gone stay so. None when nothing is left to change. UserError when no row would be left."""
    labels = rows.labels
    device, count = labels.ids.device, labels.count
    keep = torch.ones(count, dtype=torch.bool, device=device)
    if patch.made is not None:
        gone = labels.rows_of(patch.made.to(device))
        keep[gone[gone >= 0]] = False
    back = _missing(patch.lost, labels)
    kept = keep.nonzero().squeeze(1)
    after = len(kept) + len(back)
    if after == 0 or (count == 0 and len(back)):
        raise UserError(f"{reason}: no splat would be left, or none is there to begin with")
    returns = torch.zeros(after, dtype=torch.bool, device=device)
    if len(back):
        as_it_was = len(back) == len(patch.lost.ids) and fingerprint(labels.ids) == patch.lost.order
        returns[patch.lost.places.to(device) if as_it_was else torch.arange(len(kept), after, device=device)] = True
    source = torch.zeros(after, dtype=torch.int64, device=device)
    source[~returns] = kept
    place = torch.full((count,), -1, dtype=torch.int64, device=device)
    place[kept] = (~returns).nonzero().squeeze(1)
    values, tables = _placed(patch.values, labels, place), _placed(patch.tables, labels, place)
    if len(back):
        new_rows = returns.nonzero().squeeze(1)
        for own, lost in ((values, patch.lost.values), (tables, patch.lost.tables)):
            for name, table in lost.items():
                own[name] = _joined(own.get(name), (new_rows, table[back].to(device)))
    if rows.step != patch.step:
        tables = {name: own for name, own in tables.items() if not name.startswith(_WAITING)}
    values, tables = _fitting(values, rows.model.rows), _fitting(tables, rows.taken(source[:0]))
    if len(back) == 0 and len(kept) == count and not values and not tables:
        return None
    return RowEdit(source, count, values, returns if len(back) else None, None, reason, tables=tables)


def fingerprint(ids: Tensor) -> int:
    """A number that differs, as good as always, for other ids and for another order of them."""
    places = torch.arange(len(ids), dtype=torch.int64, device=ids.device)
    mixed = (ids * _MIX[0]) ^ (places * _MIX[1])
    return int((mixed * ((mixed >> 29) | 1)).sum()) ^ len(ids)


def _ids_made(edit: RowEdit, labels: Labels, new: Tensor) -> Tensor:  # [A]
    """The ids the new rows will have: those they bring, else the next ones, in their order."""
    count = int(new.sum())
    ids = torch.arange(labels.next_id, labels.next_id + count, device=new.device)
    brought = edit.tables.get("labels.ids")
    if brought is None:
        return ids
    rows, own = brought
    whole = torch.zeros(edit.count_after, dtype=torch.int64, device=new.device)
    whole[new] = ids
    whole[rows] = own.to(whole)
    return whole[new]


def _old_tables(edit: RowEdit, rows: Rows, new: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """What the edit overwrites besides raw fields, of rows that stay; and the moments of those it holds from now on,
    which whoever trains them puts to rest."""
    labels, old = rows.labels, {}
    groups: list[tuple[Tensor, Tensor, dict[str, Tensor]]] = []
    """Rows of the edit, their ids, and copies of their tables: many tables mostly share their rows."""
    for name, (which, _) in edit.tables.items():
        if name.startswith(_LABELS):
            stays = edit.source[which[~new[which]]]
            old[name] = _home(labels.ids[stays]), _home(getattr(labels, name.removeprefix(_LABELS))[stays])
            continue
        group = next((group for group in groups if torch.equal(group[0], which)), None)
        if group is None:
            stays = edit.source[which[~new[which]]]
            group = which, _home(labels.ids[stays]), rows.taken(stays)
            groups.append(group)
        if name in group[2]:
            old[name] = group[1], _home(group[2][name])
    held = _held_now(edit, labels, new)
    if len(held):
        ids = _home(labels.ids[held])
        for name, table in rows.taken(held).items():
            if name.startswith(_AT_REST) and name not in old:
                old[name] = ids, _home(table)
    return old


def _held_now(edit: RowEdit, labels: Labels, new: Tensor) -> Tensor:  # [R] int64, old rows
    if "labels.flags" not in edit.tables:
        return edit.source[:0]
    which, flags = edit.tables["labels.flags"]
    stays = ~new[which]
    before = edit.source[which[stays]]
    return before[((flags[stays] & HELD) != 0) & ((labels.flags[before] & HELD) == 0)]


def _old(edit: RowEdit, labels: Labels, which: Tensor, new: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Ids and present values of what the edit overwrites of rows that stay."""
    stays = edit.source[which[~new[which]]]
    return _home(labels.ids[stays]), _home(table[stays])


def _missing(lost: Lost | None, labels: Labels) -> Tensor:  # [B] int64, on the CPU
    """Which of the lost rows are to come back: those that are not there."""
    if lost is None:
        return torch.zeros(0, dtype=torch.int64)
    return _home(labels.rows_of(lost.ids.to(labels.ids.device)) < 0).nonzero().squeeze(1)


def _placed(
    own: Mapping[str, tuple[Tensor, Tensor]], labels: Labels, place: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Values by id as values by row of the table after the edit; rows that are gone are left out."""
    placed, known = {}, {}
    for name, (ids, table) in own.items():
        if id(ids) not in known:
            here = labels.rows_of(ids.to(place.device))
            known[id(ids)] = torch.where(here >= 0, place[here.clamp_min(0)], -1) if len(place) else here
        rows = known[id(ids)]
        there = rows >= 0
        if bool(there.any()):
            placed[name] = rows[there], table.to(place.device)[there]
    return placed


def _fitting(own: dict[str, tuple[Tensor, Tensor]], tables: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Without tables that are gone, or are others by now."""
    return {name: pair for name, pair in own.items() if name in tables and pair[1].shape[1:] == tables[name].shape[1:]}


def _joined(first: tuple[Tensor, Tensor] | None, second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    if first is None:
        return second
    return torch.cat([first[0], second[0]]), torch.cat([first[1], second[1].to(first[1])])


def _without_empty(own: dict[str, tuple[Tensor, Tensor]]) -> dict[str, tuple[Tensor, Tensor]]:
    """Also lets tables of the same rows share one tensor of ids."""
    shared: list[Tensor] = []
    smaller = {}
    for name, (ids, table) in own.items():
        if len(ids) == 0:
            continue
        known = next((each for each in shared if torch.equal(each, ids)), None)
        if known is None:
            shared.append(known := ids)
        smaller[name] = known, table
    return smaller


def _home(table: Tensor) -> Tensor:
    """On the CPU, where there is more room than on a GPU."""
    return table.detach().cpu()
