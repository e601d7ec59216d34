"""Changing colours and opacities by hand."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from splat.edit.ops import Recolor
from splat.errors import UserError
from splat.geometry.sh import C0
from splat.model.splat_model import SplatModel

LUMA = (0.2126, 0.7152, 0.0722)
"""Rec. 709: what of a grey the channels are."""
_NARROWEST = 1 / 255
"""Least distance of the black and the white point: below it every colour is one of two."""
_OFF = 1e-6
"""Opacity of splats that are switched off (by a mask): they keep what they have in store."""
_COLOR_FIELDS = ("sh0", "sh_rest")


def color_map(op: Recolor) -> tuple[list[list[float]], list[float]]:
    """Matrix [3,3] and offset [3] of the colour change ``rgb -> matrix @ rgb + offset``: black and white points, then
    brightness, tint and temperature (half a stop up in red and down in blue at 1), then saturation about the luma."""
    width = op.white - op.black
    if width < _NARROWEST:
        raise UserError(f"recolor: white {op.white:g} must be above black {op.black:g} by 1/255 at least")
    warm = sqrt(2) ** op.temperature
    factors = [op.tint[0] * warm, op.tint[1], op.tint[2] / warm]
    shift = op.brightness - op.black / width
    mix = [[op.saturation * (row == column) + (1 - op.saturation) * LUMA[column] for column in range(3)]
           for row in range(3)]  # fmt: skip
    matrix = [[mix[row][column] * factors[column] / width for column in range(3)] for row in range(3)]
    offset = [sum(mix[row][column] * factors[column] * shift for column in range(3)) for row in range(3)]
    return matrix, offset


def recolored_values(model: SplatModel, rows: Tensor, op: Recolor) -> dict[str, Tensor]:
    """Raw values of ``rows`` [R] after ``op``, of the fields it changes.

    The change is affine in the colour, so it holds for what is seen from every direction: bands above 0 are turned by
    the matrix alone. UserError where the primitive has no such fields.
    """
    values: dict[str, Tensor] = {}
    if _changes_color(op):
        missing = [name for name in _COLOR_FIELDS if name not in model.rows]
        if missing:
            raise UserError(f"recolor: primitive '{model.primitive.kind}' has no {', '.join(missing)}")
        matrix, offset = color_map(op)
        plain, rest = (model.rows[name].detach()[rows] for name in _COLOR_FIELDS)
        # color = C0 * sh0 + 1/2 + bands above.
        grey = [(sum(matrix[row]) / 2 + offset[row] - 0.5) / C0 for row in range(3)]
        values["sh0"] = _mixed(plain, matrix) + plain.new_tensor(grey)
        values["sh_rest"] = _mixed(rest, matrix)
    if op.opacity != 1:
        values |= _faded(model, rows, op.opacity)
    return values


def _changes_color(op: Recolor) -> bool:
    still = Recolor()
    names = ("tint", "temperature", "saturation", "brightness", "black", "white")
    return any(getattr(op, name) != getattr(still, name) for name in names)


def _mixed(colors: Tensor, matrix: list[list[float]]) -> Tensor:  # [...,3] -> [...,3]
    """Written out: the same bits on any number of threads."""
    red, green, blue = colors.unbind(-1)
    return torch.stack([row[0] * red + row[1] * green + row[2] * blue for row in matrix], dim=-1)


def _faded(model: SplatModel, rows: Tensor, factor: float) -> dict[str, Tensor]:
    if "opacities" not in model.primitive.can:
        raise UserError(f"recolor: opacities of primitive '{model.primitive.kind}' cannot be set")
    before = model.opacities.detach()[rows]
    raw = model.primitive.with_opacities((before * factor).clamp(0, 1))
    off = before < _OFF
    values = {}
    for name, new in raw.items():
        old = model.rows[name].detach()[rows]
        values[name] = torch.where(off.reshape(-1, *[1] * (old.ndim - 1)), old, new.to(old))
    return values
