"""The generalized exponential function itself as a kernel (ours; specs: primitives 2.7).

alpha = o exp(-4.5 (q / 9)^h) with q the squared Mahalanobis distance in the picture: h = 1 is the Gaussian, small h a
peak with a wide skirt, large h a disc with a soft border. Written like this, every h passes through the same value
three standard deviations out, so that footprints stay comparable while h learns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log
from typing import ClassVar, Literal

import torch
from torch import Tensor

from splat.model.activations import tanh
from splat.model.gaussian_family import GAUSSIAN_FIELDS, GaussianFamily, raw_opacities, raw_scales, with_filter_folded
from splat.model.gaussian_match import gef_match
from splat.model.primitive import FieldSpec, Rows
from splat.model.render_inputs import RenderInputs

_EXPONENT_RANGE = 4.0
"""h lies between 1/4 and 4."""


@dataclass(frozen=True)
class GefPrimitive(GaussianFamily):
    """Settings of splats with an exponent of their own."""

    kind: ClassVar[str] = "gef"
    purpose: ClassVar[str] = "an exponent learned per splat: mostly better at equal count, steps a third longer"
    export: ClassVar[Literal["exact", "lossy"]] = "lossy"

    lr_shapes: float = 1e-3
    """Learning rate of the raw exponents (h = 4^tanh(s))."""

    def fields(self, sh_degree: int) -> tuple[FieldSpec, ...]:
        return (*super().fields(sh_degree), FieldSpec("shapes", (), "identity", self.lr_shapes))

    def start(self, xyz: Tensor, rgb: Tensor, *, sh_degree: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Gaussians: the exponent is 1."""
        rows = super().start(xyz, rgb, sh_degree=sh_degree, generator=generator)
        return rows | {"shapes": torch.zeros_like(rows["logit_opacities"])}

    def render_inputs(self, rows: Rows, *, filter3d: Tensor | None = None) -> RenderInputs:
        inputs = super().render_inputs(rows, filter3d=filter3d)
        return replace(inputs, kind=self.kind, shape=(rows["shapes"],))

    def exponents(self, rows: Rows) -> Tensor:  # [N]
        """h per row."""
        return (tanh(rows["shapes"]) * log(_EXPONENT_RANGE)).exp()

    def gaussian_rows(self, rows: Rows, *, filter3d: Tensor | None = None) -> dict[str, Tensor]:
        """The Gaussians nearest in the picture, splat by splat (least squares); overlaps are not looked at."""
        rows = {name: table.detach() for name, table in rows.items()}
        plain = with_filter_folded({name: rows[name] for name in GAUSSIAN_FIELDS}, filter3d)
        opacities = self.opacities(plain)
        size, strength = gef_match(tanh(rows["shapes"]), opacities)
        return plain | raw_scales(self.scales(plain) * size[:, None]) | raw_opacities(opacities * strength)
