"""What edits by hand ask of the training that follows: which pixels of the photographs contradict them, and where
nothing may grow back. By number of the edit, so that undoing one ends its share alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from splat.geometry.camera import Camera
from splat.model.row_edit import RowEdit

LONGEST_SIDE_PX = 256
"""Of a mask. A look at it costs a few milliseconds a view on two cores, and the margin is wider than its pixels."""
REGION_CELLS = 64
"""Voxels along the longest side of a deleted region, at most."""
NEIGHBOURS = 1
"""Voxels around those that held a deleted splat's centre where nothing grows, either."""


def mask_size(camera: Camera) -> tuple[int, int]:
    """Width and height of a view's mask."""
    scale = min(1.0, LONGEST_SIDE_PX / max(camera.width, camera.height))
    return max(1, round(camera.width * scale)), max(1, round(camera.height * scale))


def changed_rows(edit: RowEdit) -> tuple[Tensor, Tensor]:
    """Old rows [N] bool that are gone or look otherwise after ``edit``, and new rows [M] bool that look otherwise or
    were not there."""
    after = torch.zeros(edit.count_after, dtype=torch.bool, device=edit.source.device)
    for rows, _ in edit.values.values():
        after[rows] = True
    numbers = torch.arange(edit.count_after, device=edit.source.device)
    first = numbers.new_full((edit.count_before,), edit.count_after)
    first.scatter_reduce_(0, edit.source, numbers, "amin")
    after |= first[edit.source] != numbers
    before = first == edit.count_after
    stays = ~before
    before[stays] = after[first[stays]]
    return before, after


@dataclass(frozen=True, eq=False)
class Tombstones:
    """Voxels in which rows that come after the edit are removed, and older ones that drift in."""

    origin: Tensor  # [3] float64, world units
    cell: float
    """Side of a voxel, world units."""
    keys: Tensor  # [T] int64, rising
    since: int
    """Rows with this number (``Labels.ids``) or a higher one came after the edit."""

    @staticmethod
    def of(gone: Tensor, left: Tensor, since: int) -> Tombstones | None:
        """Around the centres ``gone [G,3]``, but not where one of ``left [L,3]`` is; None where nothing remains."""
        gone = gone[gone.isfinite().all(1)].double()
        if not gone.shape[0]:
            return None
        low, high = gone.amin(0), gone.amax(0)
        # As many voxels as splats, were they spread evenly through their box: then neighbours have no gaps.
        spread = float(((high - low).clamp_min(1e-9).prod() / gone.shape[0]) ** (1 / 3))
        cell = max(spread, float((high - low).max()) / REGION_CELLS, 1e-9)
        found = Tombstones(low - cell * (NEIGHBOURS + 0.5), cell, gone.new_empty(0, dtype=torch.int64), since)
        steps = torch.arange(-NEIGHBOURS, NEIGHBOURS + 1, device=gone.device)
        around = torch.cartesian_prod(steps, steps, steps)
        cells = found._cells(gone)
        numbers, order = _keys(cells).sort()  # one of each first: 27 neighbours of a million splats need gigabytes
        cells = cells[order[numbers != torch.cat([numbers[:1] - 1, numbers[:-1]])]]
        keys = _keys((cells[:, None] + around).reshape(-1, 3)).unique()
        alive = found.keys_of(left[left.isfinite().all(1)]).unique()
        keys = keys[~torch.isin(keys, alive)]
        return replace(found, keys=keys) if keys.numel() else None

    def holds(self, points: Tensor) -> Tensor:  # [N,3] -> [N] bool
        return torch.isin(self.keys_of(points), self.keys)

    @cached_property
    def deep(self) -> Tensor:  # [D] int64, rising
        """Voxels within: those whose neighbours, corners included, are voxels of this, too."""
        steps = torch.arange(-1, 2, device=self.keys.device)
        within = torch.ones_like(self.keys, dtype=torch.bool)
        for aside in _keys(torch.cartesian_prod(steps, steps, steps)).tolist():
            within &= torch.isin(self.keys + aside, self.keys)
        return self.keys[within]

    def forbids(self, points: Tensor, ids: Tensor) -> Tensor:  # [N,3], [N] -> [N] bool
        """Rows that came after the edit wherever they lie in it; older ones that drifted in where they lie deep: those
        that stood at its border and tremble stay."""
        forbidden = torch.zeros_like(ids, dtype=torch.bool)
        high = self.origin + self.cell * (_SPAN // 2)
        near = ((points > self.origin) & (points < high)).all(1).nonzero().squeeze(1)  # mostly few
        keys = self.keys_of(points[near])
        later = ids[near] >= self.since
        forbidden[near] = torch.isin(keys, self.deep) | (later & torch.isin(keys, self.keys))
        return forbidden

    def keys_of(self, points: Tensor) -> Tensor:  # [N,3] -> [N] int64, -1 outside the grid
        cells = self._cells(points)
        inside = ((cells >= 0) & (cells < _SPAN)).all(1)
        return torch.where(inside, _keys(cells), -1)

    def _cells(self, points: Tensor) -> Tensor:  # [N,3] int64
        scaled = (points.detach().double() - self.origin) / self.cell
        return scaled.nan_to_num(-1.0).clamp(-1, _SPAN).floor().long()


_SPAN = 2 * (REGION_CELLS + 2 * NEIGHBOURS + 2)


def _keys(cells: Tensor) -> Tensor:  # [...,3] -> [...]
    x, y, z = cells.unbind(-1)
    return (x * _SPAN + y) * _SPAN + z


@dataclass(frozen=True, eq=False)
class Shield:
    """Of one edit."""

    masks: Mapping[int, np.ndarray]
    """By place among the training views: the contradicted pixels, eight to a byte (``numpy.packbits``)."""
    tombstones: Tombstones | None = None


@dataclass(frozen=True, eq=False)
class Protection:
    """Of all edits that stand; a value, so that what was made from it knows when it is old."""

    shields: Mapping[int, Shield] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.shields)

    def with_shield(self, number: int, shield: Shield) -> Protection:
        return Protection({**self.shields, number: shield})

    def without(self, number: int) -> Protection:
        return Protection({key: shield for key, shield in self.shields.items() if key != number})

    def kept(self, view: int, camera: Camera, width: int, height: int) -> Tensor | None:  # [height,width] bool
        """Pixels of training view ``view`` that still count, at any size; None = all. ``camera`` is the full one."""
        own = [shield.masks[view] for shield in self.shields.values() if view in shield.masks]
        if not own:
            return None
        across, down = mask_size(camera)
        bits = np.unpackbits(np.bitwise_or.reduce(own), count=across * down).reshape(down, across)
        contradicts = torch.from_numpy(bits)[None, None].float()
        if width < across or height < down:  # a pixel counts only if all of it does
            small = -interpolate(-contradicts, (height, width), mode="area")
            return small[0, 0] <= 0
        return interpolate(contradicts, (height, width), mode="nearest-exact")[0, 0] == 0

    def buried(self, means: Tensor, ids: Tensor) -> Tensor | None:  # [N,3], [N] -> [N] bool
        """Rows that came to lie where an edit allows none; None where no edit forbids any place."""
        stones = [shield.tombstones for shield in self.shields.values() if shield.tombstones is not None]
        if not stones:
            return None
        found = torch.zeros_like(ids, dtype=torch.bool)
        for each in stones:
            found |= each.forbids(means, ids)
        return found

    # checkpoints ------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """By ``NUMBER.TABLE``; ``of_tensors`` reads them back."""
        tables: dict[str, Tensor] = {}
        for number, shield in self.shields.items():
            views = sorted(shield.masks)
            tables[f"{number}.views"] = torch.tensor(views, dtype=torch.int64)
            lengths = [len(shield.masks[view]) for view in views]
            tables[f"{number}.lengths"] = torch.tensor(lengths, dtype=torch.int64)
            packed = np.concatenate([shield.masks[view] for view in views]) if views else np.zeros(0, np.uint8)
            tables[f"{number}.masks"] = torch.from_numpy(packed)
            if shield.tombstones is not None:
                stones = shield.tombstones
                tables[f"{number}.keys"] = stones.keys
                tables[f"{number}.origin"] = stones.origin
                tables[f"{number}.cell"] = torch.tensor([stones.cell], dtype=torch.float64)
                tables[f"{number}.since"] = torch.tensor([stones.since], dtype=torch.int64)
        return tables

    @staticmethod
    def of_tensors(tables: Mapping[str, Tensor], device: torch.device | str = "cpu") -> Protection:
        numbers = sorted({int(name.partition(".")[0]) for name in tables})
        return Protection({number: _shield_of(tables, f"{number}.", device) for number in numbers})


def packed_mask(mask: Tensor) -> np.ndarray:  # [h,w] bool -> [ceil(h w / 8)] uint8
    return np.packbits(mask.cpu().numpy())


def _shield_of(tables: Mapping[str, Tensor], prefix: str, device: torch.device | str) -> Shield:
    own = {name.removeprefix(prefix): table for name, table in tables.items() if name.startswith(prefix)}
    ends = own["lengths"].cumsum(0).tolist()
    parts = np.split(own["masks"].cpu().numpy(), ends[:-1]) if ends else []
    masks = {view: part.copy() for view, part in zip(own["views"].tolist(), parts, strict=True)}
    if "keys" not in own:
        return Shield(masks)
    stones = Tombstones(
        own["origin"].to(device), float(own["cell"][0]), own["keys"].to(device), int(own["since"][0])
    )  # fmt: skip
    return Shield(masks, stones)
