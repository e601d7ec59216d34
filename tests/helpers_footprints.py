"""Rows of every footprint for rasterizer tests, by name: the tables that ``RenderInputs`` keeps without names too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields

import torch
from torch import Tensor

from splat.model.render_inputs import RenderInputs

SHAPE_TABLES = {"gaussian": (), "gef": ("shapes",), "convex": ("vertices", "log_deltas", "log_sigmas")}
"""Kind -> names of the tables of ``RenderInputs.shape``, in order."""
PLAIN_TABLES = tuple(f.name for f in fields(RenderInputs) if f.name not in ("kind", "shape", "constants"))
Normal = Callable[..., Tensor]
"""Random numbers of a shape."""


def inputs_of(rows: Mapping[str, Tensor], *, kind: str = "gaussian", constants: tuple[float, ...] = ()) -> RenderInputs:
    """``RenderInputs`` of tables by name."""
    plain = {name: rows.get(name) for name in PLAIN_TABLES}
    shape = tuple(rows[name] for name in SHAPE_TABLES[kind])
    return RenderInputs(**plain, kind=kind, shape=shape, constants=constants)


def rows_of(inputs: RenderInputs) -> dict[str, Tensor]:
    """Every table of ``inputs`` by name."""
    rows = {name: getattr(inputs, name) for name in PLAIN_TABLES if getattr(inputs, name) is not None}
    return rows | dict(zip(SHAPE_TABLES[inputs.kind], inputs.shape, strict=True))


def with_rows(inputs: RenderInputs, **changed: Tensor) -> RenderInputs:
    """``inputs`` with the named tables replaced."""
    return inputs_of(rows_of(inputs) | changed, kind=inputs.kind, constants=inputs.constants)


def axes_rows(n: int, normal: Normal) -> dict[str, Tensor]:
    return {"quats": normal(n, 4), "log_scales": normal(n, 3) * 0.5 - 2.0}


def gef_rows(n: int, normal: Normal) -> dict[str, Tensor]:
    return {"shapes": normal(n)}


def convex_rows(n: int, normal: Normal, *, vertices: int = 6) -> dict[str, Tensor]:
    """Hulls about as large as those ellipses, with borders from sharp to soft. The offsets are not centred."""
    return {
        "vertices": normal(n, vertices, 3) * 0.25 + 0.2 * normal(n, 1, 3),
        "log_deltas": normal(n) * 0.5 - 2.3,
        "log_sigmas": normal(n) * 0.5 - 0.7,
    }


def make_hostile_gef(rows: dict[str, Tensor]) -> None:
    """Overwrite shapes of the first rows: next to the ends of the range, and beyond it."""
    shapes = rows["shapes"]
    shapes[5], shapes[7], shapes[8] = -6.0, 6.0, -3.0  # fills the screen, a needle, a flake
    shapes[15], shapes[16] = -20.0, 20.0  # saturated, at the clamp of alpha
    shapes[17:19] = 2.0
    shapes[22], shapes[24] = 0.0, torch.nan


def make_hostile_convex(rows: dict[str, Tensor]) -> None:
    """Overwrite the first rows with what must not hurt the others. Needs at least 32 rows."""
    means, vertices, logits = rows["means"], rows["vertices"], rows["logit_opacities"]
    means[0, 2] = -3.0  # behind
    means[1, 2] = 0.0  # in the plane of the camera
    vertices[2, 0, 2] = -30.0  # one vertex behind the camera
    means[3, :2] = torch.tensor([40.0, -3.0])  # far off screen
    means[4, :2] = torch.tensor([3.5, 0.5])  # off screen but wide enough to reach in
    vertices[4] *= 8.0
    vertices[5, :, :2] *= 12.0  # fills the screen
    means[5, 2] = 9.0
    vertices[6] *= 1e-3  # far below a pixel
    vertices[7, :] = vertices[7, :1].clone()  # a point
    vertices[8, :, :] = vertices[8, :1].clone() * torch.linspace(-1, 1, vertices.shape[1])[:, None]  # a line
    means[9, 0] = torch.nan
    vertices[10, 2, 1] = torch.nan
    vertices[11, 0, 0] = torch.inf
    logits[12] = torch.nan
    rows["sh0"][13, 2] = torch.nan
    rows["log_deltas"][14], rows["log_sigmas"][23] = torch.nan, torch.nan
    logits[15], logits[16] = 9.0, 12.0  # alpha clamps at 0.99
    faint = -torch.log(torch.tensor(254.0, dtype=torch.float64))  # sigmoid(faint) = 1/255
    logits[17], logits[18] = faint + 0.01, faint - 0.01
    for values in rows.values():  # rows 19-21 are one splat thrice: ties resolve by row
        values[20:22] = values[19].clone()
    rows["sh0"][20] += 1.0
    rows["sh0"][22] = -9.0  # colour clamps at 0
    vertices[24, 3] = vertices[24, 1]  # two vertices at one place
    vertices[25, 3:] = vertices[25, 2].clone()  # a triangle, the rest of it at one corner
    rows["log_deltas"][26], rows["log_sigmas"][26] = 3.0, 3.0  # a polygon with hard borders
    rows["log_deltas"][27], rows["log_sigmas"][27] = -6.0, -1.0  # a wide haze
    rows["log_deltas"][28], rows["log_sigmas"][29] = 300.0, 300.0
