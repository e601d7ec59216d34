"""Operations, views and rows for tests of the editor."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from hypothesis import strategies as st

from splat.edit import ops, shapes
from splat.edit.bench import Bench
from splat.model.splat_model import SplatModel

sys.path.insert(0, str(Path(__file__).parent / "io"))
from gaussians import camera_at, model_of, random_model

VIEW = shapes.ViewSpec.of(camera_at((0.3, 0.1, -3.0), size=(64, 48)))
numbers = st.floats(-3, 3, allow_nan=False, width=32)
factors = st.floats(0, 2, allow_nan=False)
point2 = st.tuples(st.floats(-5, 70), st.floats(-5, 50))
point3 = st.tuples(numbers, numbers, numbers)
IDENTITY = tuple(tuple(float(row == column) for column in range(4)) for row in range(4))


def moved(scale: float, shift: tuple[float, float, float]) -> tuple[tuple[float, ...], ...]:
    rows = ((*(scale * (row == column) for column in range(3)), shift[row]) for row in range(3))
    return (*rows, IDENTITY[3])


in_space = st.one_of(
    st.builds(shapes.Sphere, point3, factors),
    st.builds(lambda at, size: shapes.Box(moved(1.0, at), size), point3, st.tuples(factors, factors, factors)),
    st.builds(shapes.ColorRange, st.tuples(factors, factors, factors), factors),
    st.builds(shapes.AttributeRange, st.sampled_from(["x", "opacity", "hue", "age", "id"]), numbers, numbers),
    st.just(shapes.Everything()),
    st.just(shapes.Nothing()),
)
on_screen = st.one_of(
    st.builds(shapes.Rect, st.just(VIEW), point2, point2),
    st.builds(shapes.Lasso, st.just(VIEW), st.lists(point2, min_size=3, max_size=6).map(tuple)),
    st.builds(shapes.Brush, st.just(VIEW), st.lists(point2, min_size=1, max_size=4).map(tuple), st.floats(0.5, 20)),
    st.builds(shapes.Click, st.just(VIEW), point2),
    st.builds(shapes.Flood, st.just(VIEW), point2, factors),
    st.builds(lambda inside: shapes.Mask((VIEW,), ((64 * 48 - inside, inside),)), st.integers(0, 64 * 48)),
)
combine = st.sampled_from(["set", "add", "subtract", "intersect"])
selects = st.builds(ops.Select, in_space | on_screen, combine)
handles = st.builds(ops.Handle, point3, point3, factors)
any_op = st.one_of(
    selects, st.builds(ops.Select, on_screen, combine, st.sampled_from(["centers", "visible"])),
    st.just(ops.Invert()), st.builds(ops.Mark, st.sampled_from(["hide", "show", "lock", "unlock"])),
    st.builds(ops.Delete, st.booleans()), st.builds(ops.Duplicate, point3),
    st.builds(lambda scale, shift: ops.Transform(moved(scale, shift)), st.floats(0.25, 4), point3),
    st.builds(ops.Recolor, st.tuples(factors, factors, factors), st.floats(-1, 1), factors, numbers,
              opacity=factors),
    st.builds(ops.Drag, st.lists(handles, min_size=1, max_size=2).map(tuple), st.lists(handles, max_size=2).map(tuple),
              st.sampled_from(["arap", "rigid", "smooth", "lattice"])),
)  # fmt: skip
"""Every operation."""


def shifted(model: SplatModel, mask: torch.Tensor, drag: ops.Drag) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A drag that takes all along, for tests that are not about drags."""
    rows = mask.nonzero().squeeze(1)
    way = torch.tensor(drag.handles[0].to) - torch.tensor(drag.handles[0].at)
    return rows, {"means": model.rows["means"].detach()[rows] + way}


class MomentBench(Bench):
    """A bench with a table of moments that rest while rows are held, as in a training."""

    def __init__(self, model: SplatModel) -> None:
        super().__init__(model)
        self.moments = torch.arange(1.0, 1.0 + model.count)

    def taken(self, rows):
        return super().taken(rows) | {"adam.first.means": self.moments[rows].clone()}

    def apply(self, edit):
        moments = edit.restored(edit.apply_to_moments(self.moments, "means"), "adam.first.means").clone()
        super().apply(edit)
        if "labels.flags" in edit.tables:
            moments[self.labels.having(8)] = 0
        self.moments = moments

    def state(self) -> dict[str, torch.Tensor]:
        """Copies of all tables."""
        rows = {name: table.detach().clone() for name, table in self.model.rows.items()}
        return rows | {name: table.clone() for name, table in self.taken(torch.arange(self.model.count)).items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """The very bits."""
    return first.keys() == second.keys() and all(
        table.shape == second[name].shape and table.dtype == second[name].dtype
        and bool((_bits(table) == _bits(second[name])).all()) for name, table in first.items()
    )  # fmt: skip


def _bits(table: torch.Tensor) -> torch.Tensor:
    return table.contiguous().view(torch.int32) if table.dtype == torch.float32 else table


__all__ = ["IDENTITY", "VIEW", "MomentBench", "any_op", "camera_at", "in_space", "model_of", "moved", "on_screen",
           "random_model", "same", "selects", "shifted"]  # fmt: skip
