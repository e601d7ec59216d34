"""Colours from a neural field: features of a hash grid at the splat's place, and a small network that turns them into
SH coefficients.

The published field (Lee et al. 2024) gives one colour per direction, so a network has to run for every view and no
other renderer can draw the model. Ours gives the coefficients themselves: evaluated once, the splats are plain, and
nothing is lost by exporting them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from splat.io.codecs.codec import Layout, Shapes, attribute_of, checked, finite_list, flat, whole
from splat.io.codecs.hash_grid import GridShape, Plan, contracted, looked_up, planned
from splat.io.codecs.log16 import Log16
from splat.io.packed import Attribute, Coding

CHUNK = 65_536
"""Points looked up at a time while decoding."""
LAYERS = ("hidden", "hidden_bias", "out", "out_bias")
_PLACES = "means."
"""Streams of the places begin with this."""


@dataclass(frozen=True)
class FieldShape:
    """What the field is, beside its numbers."""

    grid: GridShape
    center: tuple[float, float, float]
    """World units."""
    radius: float
    hidden: int
    outputs: int
    """Coefficients of a splat, over all fields that it predicts."""

    def layers(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the network's tables, by name."""
        return {
            "hidden": (self.grid.width, self.hidden), "hidden_bias": (self.hidden,),
            "out": (self.hidden, self.outputs), "out_bias": (self.outputs,),
        }  # fmt: skip

    def plan(self, means: Tensor, *, gradients: bool = True) -> Plan:
        """Of the places [N,3]."""
        return planned(contracted(means, self.center, self.radius), self.grid, gradients=gradients)


def coefficients(shape: FieldShape, tables: Mapping[str, Tensor], plan: Plan) -> Tensor:  # [N,outputs]
    """The field at the plan's places; ``tables`` holds ``grid`` [entries,F] and those of ``LAYERS``."""
    features = looked_up(tables["grid"], plan).view(-1, shape.grid.width)
    hidden = torch.addmm(tables["hidden_bias"], features, tables["hidden"]).relu()
    return torch.addmm(tables["out_bias"], hidden, tables["out"])


@dataclass(frozen=True)
class Field:
    """Decodes places with the colours, which depend on them."""

    kind: ClassVar[str] = "field"

    bits: int = 8
    """Of the grid's features, in equal steps over the range of each level."""
    coding: Coding = "webp"
    """Of the places."""

    def encode(
        self, values: Mapping[str, np.ndarray], shape: FieldShape, tables: Mapping[str, np.ndarray]
    ) -> Attribute:  # fmt: skip
        """``values``: ``means`` and the fields to predict, in order; those only to measure the tolerance."""
        places = Log16(coding=self.coding).encode(values["means"])
        grid = checked(tables["grid"])
        codes, ranges = rounded_levels(grid, shape.grid.sizes, self.bits)
        numbers = {
            "means": dict(places.numbers), "resolutions": list(shape.grid.resolutions), "bits": self.bits,
            "log2_size": shape.grid.log2_size, "features": shape.grid.features, "center": list(shape.center),
            "radius": shape.radius, "hidden": shape.hidden, "ranges": ranges,
        }  # fmt: skip
        streams = {_PLACES + name: array for name, array in places.streams.items()} | {"grid": codes}
        streams |= {name: checked(tables[name]).astype(np.float16) for name in LAYERS}
        coding = {_PLACES + name: how for name, how in places.coding.items()}
        return attribute_of(Field, numbers, streams, {name: checked(table) for name, table in values.items()}, coding)

    @staticmethod
    def layout(numbers: Mapping[str, Any], shapes: Shapes) -> Layout:
        shape = _shape_of(numbers, shapes)
        bits = whole(numbers, "bits", 1, 8)
        places = Log16.layout(_places(numbers), {"means": shapes["means"]})
        layers = {name: ("float16", size) for name, size in shape.layers().items()}
        grid = {"grid": ("uint8", (sum(shape.grid.sizes), shape.grid.features))} if bits else {}
        return {_PLACES + name: entry for name, entry in places.items()} | layers | grid

    @staticmethod
    def decode(attribute: Attribute, shapes: Shapes) -> dict[str, np.ndarray]:
        numbers, streams = attribute.numbers, attribute.streams
        shape = _shape_of(numbers, shapes)
        own = {name.removeprefix(_PLACES): array for name, array in streams.items() if name.startswith(_PLACES)}
        places = Attribute(Log16.kind, _places(numbers), own)
        means = Log16.decode(places, {"means": shapes["means"]})["means"]
        tables = {name: torch.from_numpy(streams[name].astype(np.float32)) for name in LAYERS}
        ranges = finite_list(numbers, "ranges", (2 * len(shape.grid.resolutions),))
        bits = whole(numbers, "bits", 1, 8)
        tables["grid"] = torch.from_numpy(level_values(streams["grid"], shape.grid.sizes, ranges, bits))
        out = np.empty((len(means), shape.outputs), np.float32)
        for start in range(0, len(means), CHUNK):
            part = torch.from_numpy(means[start : start + CHUNK])
            plan = shape.plan(part, gradients=False)
            out[start : start + CHUNK] = coefficients(shape, tables, plan).numpy()
        decoded, at = {"means": means}, 0
        for name, full in _predicted(shapes).items():
            width = flat(full)[1]
            decoded[name] = out[:, at : at + width].reshape(full)
            at += width
        return decoded


def rounded_levels(grid: np.ndarray, sizes: Sequence[int], bits: int) -> tuple[np.ndarray, list[float]]:
    """Codes [entries,F] in equal steps over the range of each level, and the ranges (low, high, low, ...)."""
    codes, ranges, start = np.empty(grid.shape, np.uint8), [], 0
    for size in sizes:
        part = grid[start : start + size].astype(np.float64)
        low, high = float(part.min()), float(part.max())
        codes[start : start + size] = np.rint((part - low) / ((high - low) or 1) * (2**bits - 1))
        ranges += [low, high]
        start += size
    return codes, ranges


def level_values(codes: np.ndarray, sizes: Sequence[int], ranges: Sequence[float], bits: int) -> np.ndarray:
    """float32 of ``rounded_levels``."""
    values, start = np.empty(codes.shape, np.float32), 0
    for level, size in enumerate(sizes):
        low, high = ranges[2 * level], ranges[2 * level + 1]
        values[start : start + size] = low + codes[start : start + size] * ((high - low) / (2**bits - 1))
        start += size
    return values


def _predicted(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {name: full for name, full in shapes.items() if name != "means"}


def _places(numbers: Mapping[str, Any]) -> Mapping[str, Any]:
    places = numbers["means"]
    if not isinstance(places, Mapping):
        raise ValueError("it says nothing of the places")
    return places


def _shape_of(numbers: Mapping[str, Any], shapes: Shapes) -> FieldShape:
    if "means" not in shapes or len(shapes) < 2:
        raise ValueError(f"it decodes means and what depends on them, not {', '.join(shapes)}")
    resolutions = numbers["resolutions"]
    if not isinstance(resolutions, list) or not 1 <= len(resolutions) <= 24:
        raise ValueError("resolutions is not a list of 1 to 24 numbers")
    cells = tuple(whole({"resolution": value}, "resolution", 1, 2**16) for value in resolutions)
    grid = GridShape(cells, whole(numbers, "log2_size", 1, 22), whole(numbers, "features", 1, 16))
    x, y, z = (float(part) for part in finite_list(numbers, "center", (3,)))
    (radius,) = finite_list({"radius": [numbers["radius"]]}, "radius", (1,))
    if not radius > 0:
        raise ValueError(f"radius = {radius} is not above 0")
    outputs = sum(flat(full)[1] for full in _predicted(shapes).values())
    return FieldShape(grid, (x, y, z), float(radius), whole(numbers, "hidden", 1, 1024), outputs)
