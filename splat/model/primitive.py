"""What a primitive must say about itself: its fields, its start, its pictures, its exports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from splat.model.render_inputs import RenderInputs

Rows = Mapping[str, Tensor]
"""Raw parameters by field name; every tensor has one row per splat."""

Ability = Literal["split", "opacities", "scales", "covariance"]
"""Optional parts of the protocol that densifiers build on: ``split``, ``with_opacities``, ``with_scales`` and
``covariance_product``."""


@dataclass(frozen=True)
class FieldSpec:
    """One raw parameter per splat."""

    name: str
    shape: tuple[int, ...]
    """Tail shape; () for a scalar per splat."""
    activation: Literal["identity", "exp", "sigmoid", "normalize"]
    lr: float
    """Base learning rate of Adam."""
    lr_final_ratio: float = 1.0
    """Log-linear decay: the rate at the last step over the rate at the first."""
    lr_times_extent: bool = False
    """Multiply the rate by the scene extent (positions)."""


class Primitive(Protocol):
    """A frozen dataclass: fields are its settings, methods its behaviour. Holds no rows."""

    kind: ClassVar[str]
    export: ClassVar[Literal["exact", "lossy"]]
    """Whether ``gaussian_rows`` draws the same picture."""
    can: ClassVar[frozenset[Ability]]
    """Which optional parts work for this primitive; a densifier that needs more says so before training."""

    def fields(self, sh_degree: int) -> tuple[FieldSpec, ...]: ...

    def start(self, xyz: Tensor, rgb: Tensor, *, sh_degree: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Rows from points: ``xyz [P,3]`` float, ``rgb [P,3]`` in [0,1]."""
        ...

    def render_inputs(self, rows: Rows, *, filter3d: Tensor | None = None) -> RenderInputs: ...

    def opacities(self, rows: Rows) -> Tensor:
        """Activated opacities [N]."""
        ...

    def scales(self, rows: Rows) -> Tensor:
        """Activated standard deviations [N,3], world units."""
        ...

    def covariance_product(self, rows: Rows, vectors: Tensor) -> Tensor:
        """Each splat's 3D covariance times its vector: ``vectors [N,3]`` -> [N,3], world units squared x theirs."""
        ...

    def split(self, rows: Rows, parents: Tensor, *, children: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Raw values of ``children`` rows per parent (the fields that differ), ordered child-major:
        all first children, then all second ones. Centres are drawn from the parent, sizes divided by 0.8*children."""
        ...

    def with_opacities(self, opacities: Tensor) -> dict[str, Tensor]:
        """Raw field values for activated ``opacities [R]``."""
        ...

    def with_scales(self, scales: Tensor) -> dict[str, Tensor]:
        """Raw field values for activated ``scales [R,3]``."""
        ...

    def transformed(self, rows: Rows, similarity: Tensor) -> dict[str, Tensor]:
        """All rows after moving the splats by a similarity [4,4]: places, sizes, orientations, colour directions."""
        ...

    def gaussian_rows(self, rows: Rows, *, filter3d: Tensor | None = None) -> dict[str, Tensor]:
        """Plain 3DGS rows (means, quats, log_scales, logit_opacities, sh0, sh_rest); the Mip 3D filter is folded in."""
        ...
