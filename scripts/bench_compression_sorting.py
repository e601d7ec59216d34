"""What an order of splats is worth to pictures of them, for ``bench_compression.py --sorting``."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from bench_compression_runs import Row
from torch import Tensor

from splat.compress.grid import CELL, GridCompressor
from splat.compress.grid_sort import aligned_quats, grid_order, kept_rows, neighbour_distance, side_of, sort_features
from splat.io.packed_file import packable_rows, read_packed, taken, write_packed
from splat.model.splat_model import SplatModel
from splat.native.ops import morton_order

Order = Callable[[SplatModel, int], Tensor]


def _random(model: SplatModel, seed: int) -> Tensor:
    return torch.randperm(model.count, generator=torch.Generator().manual_seed(seed))


def _morton(model: SplatModel, seed: int) -> Tensor:
    return morton_order(model.rows["means"].detach()).cpu()


def _sorted(model: SplatModel, seed: int) -> Tensor:
    return grid_order(model.rows, seed=seed).cpu()


def _as_is(model: SplatModel, seed: int) -> Tensor:
    return torch.arange(model.count)


ORDERS: Mapping[str, Order] = {"random": _random, "Morton": _morton, "grid, sorted now": _sorted}
TRAINED_ORDERS: Mapping[str, Order] = {"random": _random, "Morton": _morton, "grid, as trained": _as_is}


def sorting_rows(
    label: str, model: SplatModel, orders: Mapping[str, Order], compressor: GridCompressor, *, seed: int
) -> list[Row]:
    """A row per order: how alike neighbours are (the first order is 1), and the bytes of each attribute as the
    file of ``compressor`` keeps it."""
    model = squared(model)
    rows: list[Row] = []
    for name, order in orders.items():
        began = time.perf_counter()
        chosen = order(model, seed)
        seconds = time.perf_counter() - began if order is not _as_is else None
        rows.append({"model": label, "order": name, "splats": model.count, "sort_secs": seconds,
                     **likeness(model, chosen), "bytes": sizes(model, chosen, compressor)})  # fmt: skip
    chance = {key: rows[0][key] or 1.0 for key in ("near", "turns")}
    for row in rows:
        row |= {key: row[key] / first for key, first in chance.items()}
        row["bytes_per_splat"] = sum(row["bytes"].values()) / max(model.count, 1)
    return rows


def squared(model: SplatModel) -> SplatModel:
    """The rows that fill a square, finite ones only, on the CPU."""
    rows = packable_rows(model).sort().values
    rows = rows[kept_rows(model.opacities.detach()[rows])]
    found = taken(model, rows)
    return SplatModel(found.primitive, {name: table.detach().cpu() for name, table in found.rows.items()},
                      found.sh_degree, found.filter2d, found.filter3d)  # fmt: skip


def likeness(model: SplatModel, order: Tensor) -> dict[str, float]:
    """Mean distance to the next cells: of what is sorted by (places, colours, sizes), and of rotations."""
    side = side_of(model.count)
    found = {"near": neighbour_distance(sort_features(model.rows)[order], side), "turns": 0.0}
    if "quats" in model.rows:
        found["turns"] = neighbour_distance(aligned_quats(model.rows["quats"][order], side), side)
    return found


def sizes(model: SplatModel, order: Tensor, compressor: GridCompressor) -> dict[str, int]:
    """Bytes per attribute of a file in this order."""
    state = compressor.start(model, seed=0)
    cells = torch.empty(model.count, dtype=torch.int64)
    cells[order] = torch.arange(model.count)
    state.rows[CELL] = cells
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sorted.spack"
        write_packed(compressor.pack(state, model), path)
        return read_packed(path)[1]["attributes"]
