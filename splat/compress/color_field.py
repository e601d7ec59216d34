"""A field of colours while training: its size, its start from coefficients that are there, its place in a state.

The grid is looked up where the splats were a while ago (``PLACES``, refreshed now and then), so that the plan of
look-ups can be kept; the file looks it up where they end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log2, sqrt

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from splat.compress.protocol import CompressState
from splat.geometry.rng import keyed_generator
from splat.io.codecs.field import LAYERS, FieldShape, coefficients
from splat.io.codecs.hash_grid import GridShape, Plan

PREFIX = "field."
"""The field's names in a state begin with this."""
PLACES = "field_places"
BASE_CELLS = 16
_BATCH = 2**15
"""Splats that a step of the start looks at; a batch is kept for ``_BATCH_STEPS``."""
_BATCH_STEPS = 10
_RATE, _RATE_LAST = 1e-2, 1e-3
"""Learning rates of the start, first and last step."""
_plans: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Places -> their plan. Nothing that a checkpoint would miss: it follows from the places."""


@dataclass(frozen=True)
class FieldSize:
    """How large a field is made."""

    levels: int
    features: int
    """Per entry of the grid."""
    entries_per_splat: float
    """Of a level; the rest is as the scene."""
    hidden: int


def field_shape(means: Tensor, size: FieldSize, outputs: int) -> FieldShape:
    """A field for splats at ``means [N,3]``: its middle half holds four fifths of them, its cells go down to half of
    their spacing on a surface, and its table grows with their number (published: 2^19 entries for every scene)."""
    count = max(len(means), 1)
    means = means.detach().double().cpu()
    means = means if len(means) else torch.zeros(1, 3, dtype=torch.float64)
    center = means.median(0).values
    distances = (means - center).square().sum(1).sqrt()
    radius = float(distances.sort().values[int(0.8 * (count - 1))]) or 1.0
    log2_size = min(max(ceil(log2(max(count * size.entries_per_splat, 1))), 6), 19)
    finest = min(max(8 * sqrt(count), 4 * BASE_CELLS), 4096)
    growth = (finest / BASE_CELLS) ** (1 / max(size.levels - 1, 1))
    cells = tuple(round(BASE_CELLS * growth**level) for level in range(size.levels))
    x, y, z = center.tolist()
    return FieldShape(GridShape(cells, log2_size, size.features), (x, y, z), radius, size.hidden, outputs)


def shape_in(state: CompressState) -> FieldShape:
    """The shape of the field that ``state`` holds."""
    held = {name.removeprefix(PREFIX): value for name, value in state.scalars.items() if name.startswith(PREFIX)}
    cells = tuple(int(held[f"cells{level}"]) for level in range(int(held["levels"])))
    grid = GridShape(cells, int(held["log2_size"]), int(held["features"]))
    center = (held["x"], held["y"], held["z"])
    return FieldShape(grid, center, held["radius"], int(held["hidden"]), int(held["outputs"]))


def put_field(state: CompressState, shape: FieldShape, tables: Mapping[str, Tensor], means: Tensor) -> None:
    """Make the field part of ``state``, for splats at ``means``."""
    x, y, z = shape.center
    facts = {
        "x": x, "y": y, "z": z, "radius": shape.radius, "hidden": shape.hidden, "outputs": shape.outputs,
        "levels": len(shape.grid.resolutions), "log2_size": shape.grid.log2_size, "features": shape.grid.features,
    }  # fmt: skip
    facts |= {f"cells{level}": cells for level, cells in enumerate(shape.grid.resolutions)}
    state.scalars.update({PREFIX + name: float(value) for name, value in facts.items()})
    state.parameters.update({PREFIX + name: table.requires_grad_(True) for name, table in tables.items()})
    refresh_places(state, means)


def tables_in(state: CompressState) -> dict[str, Tensor]:
    """The field's learnable tables."""
    return {name: state.parameters[PREFIX + name] for name in ("grid", *LAYERS)}


def refresh_places(state: CompressState, means: Tensor) -> None:
    state.rows[PLACES] = means.detach().clone()


def field_colors(state: CompressState, *, bits: int) -> Tensor:  # [N,outputs]
    """What the field predicts for every splat, its grid rounded as in the file; differentiable in its tables."""
    shape, tables, places = shape_in(state), tables_in(state), state.rows[PLACES]
    plan = _plans.get(places)
    if plan is None:
        plan = _plans[places] = shape.plan(places.detach())
    grid = tables["grid"]
    tables["grid"] = grid + (rounded_grid(grid.detach(), shape.grid, bits) - grid.detach())
    return coefficients(shape, tables, plan)


def rounded_grid(grid: Tensor, shape: GridShape, bits: int) -> Tensor:
    """As ``codecs.field`` stores it: equal steps over the range of each level."""
    levels = []
    for part in grid.split(list(shape.sizes)):
        low, high = part.min(), part.max()
        step = ((high - low) / (2**bits - 1)).clamp_min(torch.finfo(grid.dtype).tiny)
        levels.append(low + ((part - low) / step).round() * step)
    return torch.cat(levels)


def started_field(
    shape: FieldShape, means: Tensor, targets: Tensor, weights: Tensor, *, steps: int, seed: int
) -> dict[str, Tensor]:
    """Tables of a field fitted to ``targets [N,outputs]`` at ``means``, each splat weighted by ``weights [N]``: many
    cheap steps without drawing anything. The SH basis is orthonormal, so squared differences of coefficients are those
    of colours over all directions."""
    from splat.native import ops

    tables = _first_tables(shape, targets, weights, seed=seed)
    moments = {name: (torch.zeros_like(table), torch.zeros_like(table)) for name, table in tables.items()}
    whole = len(means) <= _BATCH
    batch: tuple[Plan, Tensor, Tensor] | None = None
    for step in range(1, steps + 1 if len(means) else 1):
        if batch is None or (not whole and step % _BATCH_STEPS == 1):
            batch = _batch(shape, means, targets, weights, whole=whole, seed=seed, step=step)
        plan, wanted, worth = batch
        for table in tables.values():
            table.requires_grad_(True)
        loss = ((coefficients(shape, tables, plan) - wanted).square() * worth).mean()
        grads = torch.autograd.grad(loss, list(tables.values()))
        rate = _RATE * (_RATE_LAST / _RATE) ** (step / steps)
        for (name, table), grad in zip(tables.items(), grads, strict=True):
            ops.adam_step(
                table.detach(), grad.contiguous(), *moments[name], lr=rate, beta1=0.9, beta2=0.99, eps=1e-15, step=step
            )
    return {name: table.detach() for name, table in tables.items()}


def _batch(
    shape: FieldShape, means: Tensor, targets: Tensor, weights: Tensor, *, whole: bool, seed: int, step: int
) -> tuple[Plan, Tensor, Tensor]:
    if not whole:
        generator = keyed_generator(seed, "field_batch", step)
        rows = torch.randint(len(means), (_BATCH,), generator=generator).to(means.device)
        means, targets, weights = means[rows], targets[rows], weights[rows]
    return shape.plan(means), targets, weights[:, None]


def _first_tables(shape: FieldShape, targets: Tensor, weights: Tensor, *, seed: int) -> dict[str, Tensor]:
    generator = keyed_generator(seed, "field", 0)
    sizes = {"grid": (sum(shape.grid.sizes), shape.grid.features), **shape.layers()}
    spread = {"grid": 1e-2, "hidden": sqrt(2 / shape.grid.width), "out": 0.1 / sqrt(shape.hidden)}
    tables = {
        name: torch.randn(size, generator=generator) * spread[name] if name in spread else torch.zeros(size)
        for name, size in sizes.items()
    }
    tables = {name: table.to(targets) for name, table in tables.items()}
    if len(targets):
        mean = (targets.double() * weights.double()[:, None]).sum(0) / weights.double().sum().clamp_min(1e-30)
        tables["out_bias"] = mean.to(targets.dtype)
    return tables


def importance(opacities: Tensor, scales: Tensor) -> Tensor:  # [N], [N,3] -> [N]
    """How much of a picture a splat makes up: opacity times the area of its broad side, with a mean of 1. No splat
    counts for more than 20."""
    broad = scales.sort(dim=1).values[:, 1:]
    area = opacities * broad[:, 0] * broad[:, 1]
    area = area / area.double().mean().clamp_min(1e-30).to(area.dtype)
    return area.clamp(1e-3, 20.0)
