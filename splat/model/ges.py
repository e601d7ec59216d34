"""Generalized exponential splatting (Hamdi et al. 2024; specs: primitives 2): Gaussians with a learned effective size.

The paper's kernel exp(-q^(beta/2) / 2) is not what it draws: it draws a Gaussian whose standard deviations are
multiplied by phi(s) = 2 / (1 + exp(-strength s)), s = beta - 2. That is one more way for the size to move, quick
where the gradient is steady, and so these rows are Gaussians to every rasterizer and file.

We leave the release in two places. Its export multiplies the *logarithm* of the sizes by phi; ours adds log phi, so
that the file draws the same picture. Its resets of s drop phi, so that all sizes jump; ours keep phi in the sizes
(``published_reset`` brings the jump back). Its pruning of small phi is left out: phi would have to fall below 0.5
(0.005 in the release) between two resets, and stays within a tenth of 1 there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from splat.model.gaussian_family import GaussianFamily
from splat.model.primitive import FieldSpec, Rows, stretched
from splat.model.row_edit import RowEdit

_FLAT = 80.0
"""Beyond this, phi is 0 or 2 anyway, and exp() comes near the end of float32."""
_MIN_STEPS_BETWEEN_RESETS = 100
"""Shortened runs do not reset more often: s moves by a thousandth per step and must get somewhere in between."""


@dataclass(frozen=True)
class GesPrimitive(GaussianFamily):
    """Settings of Gaussians with an effective size."""

    kind: ClassVar[str] = "ges"
    purpose: ClassVar[str] = "Gaussians with a learned size factor: as fast as plain ones, and exported as such exactly"
    export: ClassVar[Literal["exact", "lossy"]] = "exact"

    lr_shapes: float = 1e-3
    """Learning rate of the shapes (1.5e-3 in the paper's text)."""
    shape_strength: float = 0.1
    """How strongly a shape changes the size (rho)."""
    shape_reset_every: int = 1000
    """Steps between two resets of the shapes; 0 = never."""
    shape_reset_stop: int = 15_000
    """No reset from this step on."""
    published_reset: bool = False
    """Let sizes jump at a reset, as the released code does, instead of keeping what the shapes had become."""

    def fields(self, sh_degree: int) -> tuple[FieldSpec, ...]:
        return (*super().fields(sh_degree), FieldSpec("shapes", (), "identity", self.lr_shapes))

    def start(self, xyz: Tensor, rgb: Tensor, *, sh_degree: int, generator: torch.Generator) -> dict[str, Tensor]:
        rows = super().start(xyz, rgb, sh_degree=sh_degree, generator=generator)
        return rows | {"shapes": torch.zeros_like(rows["logit_opacities"])}

    def drawn_log_scales(self, rows: Rows) -> Tensor:
        return rows["log_scales"] + self.log_size_factors(rows)[:, None]

    def log_size_factors(self, rows: Rows) -> Tensor:  # [N]
        """log phi, differentiable and exactly 0 where s is: log(2 / (1 + exp(-x))) = -log1p(expm1(-x) / 2)."""
        x = (self.shape_strength * rows["shapes"]).clamp(-_FLAT, _FLAT)
        return -torch.log1p(torch.expm1(-x) / 2)

    def upkeep(self, rows: Rows, step: int) -> Iterator[RowEdit]:
        """The reset of the shapes, their factor folded into the sizes: the picture keeps every bit."""
        if not self.shape_reset_every or step >= self.shape_reset_stop or step % self.shape_reset_every:
            return
        rows = {name: rows[name].detach() for name in ("log_scales", "shapes")}
        count = rows["shapes"].shape[0]
        if count == 0:
            return
        everyone = torch.arange(count, device=rows["shapes"].device)
        values = {"shapes": (everyone, torch.zeros_like(rows["shapes"]))}
        if not self.published_reset:
            values["log_scales"] = (everyone, self.drawn_log_scales(rows))
        yield RowEdit.overwrite(
            count, values, fresh=torch.ones_like(everyone, dtype=torch.bool), fresh_fields=frozenset({"shapes"}),
            reason="reshape",
        )  # fmt: skip

    def rescaled(self, factor: float) -> GesPrimitive:
        return replace(
            self,
            shape_reset_every=stretched(self.shape_reset_every, factor, at_least=_MIN_STEPS_BETWEEN_RESETS),
            shape_reset_stop=stretched(self.shape_reset_stop, factor),
        )
