"""What a primitive must say about itself: its fields, its start, its pictures, its exports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from splat.model.render_inputs import RenderInputs
from splat.model.row_edit import RowEdit

Rows = Mapping[str, Tensor]
"""Raw parameters by field name; every tensor has one row per splat."""

Ability = Literal["split", "halve", "opacities", "scales", "covariance", "filter3d", "sharpness"]
"""Optional parts of the protocol that others build on: ``split``, ``halve``, ``with_opacities``, ``resized``,
``covariance_product``, a ``filter3d`` that is drawn, and ``sharpness(rows) -> [N]`` (the activated factor that turns
distance from the border into opacity; only primitives with a border have one)."""

Halving = Literal["ends", "overlap"]
"""How one becomes two: ``ends`` are apart along the longest axis (Improved-GS: the number of splats is what counts),
``overlap`` keeps the picture (Brush: mass and variance along every axis)."""


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
    purpose: ClassVar[str]
    """One line for ``--help``: what it is for, and what it costs."""
    export: ClassVar[Literal["exact", "lossy"]]
    """Whether ``gaussian_rows`` draws the same picture."""
    can: ClassVar[frozenset[Ability]]
    """Which optional parts work for this primitive; a densifier that needs more says so before training."""

    @property
    def pieces(self) -> int:
        """Into how many rows one splits, where the densifier has no number of its own."""
        ...

    @property
    def most_pieces(self) -> int | None:
        """The largest number ``split`` makes; None = any."""
        ...

    def fields(self, sh_degree: int) -> tuple[FieldSpec, ...]: ...

    def start(self, xyz: Tensor, rgb: Tensor, *, sh_degree: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Rows from points: ``xyz [P,3]`` float, ``rgb [P,3]`` in [0,1]."""
        ...

    def render_inputs(self, rows: Rows, *, filter3d: Tensor | None = None) -> RenderInputs: ...

    def opacities(self, rows: Rows) -> Tensor:
        """Activated opacities [N]."""
        ...

    def scales(self, rows: Rows) -> Tensor:
        """Activated sizes [N,3], world units: standard deviations along the splat's axes (or the world's, where it
        has no axes)."""
        ...

    def covariance_product(self, rows: Rows, vectors: Tensor) -> Tensor:
        """Each splat's 3D covariance times its vector: ``vectors [N,3]`` -> [N,3], world units squared x theirs."""
        ...

    def split(self, rows: Rows, parents: Tensor, *, children: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Raw values of ``children`` smaller rows per parent (the fields that differ), ordered child-major:
        all first children, then all second ones. Where they lie and how small they are is the primitive's rule."""
        ...

    def halve(self, rows: Rows, parents: Tensor, *, how: Halving = "ends") -> dict[str, Tensor]:
        """Raw values of 2 smaller rows per parent (the fields that differ), child-major, to both sides of its centre.
        Nothing is drawn at random."""
        ...

    def with_opacities(self, opacities: Tensor) -> dict[str, Tensor]:
        """Raw field values for activated ``opacities [R]``."""
        ...

    def resized(self, rows: Rows, which: Tensor, factors: Tensor) -> dict[str, Tensor]:
        """Raw values of rows ``which [R]`` with their size times ``factors [R]`` (the fields that differ): the same
        picture of the splat, larger or smaller about its centre."""
        ...

    def transformed(self, rows: Rows, similarity: Tensor) -> dict[str, Tensor]:
        """All rows after moving the splats by a similarity [4,4]: places, sizes, orientations, colour directions."""
        ...

    def turned(self, rows: Rows, means: Tensor, turns: Tensor) -> dict[str, Tensor]:
        """Raw values of the rows (the fields that differ) carried to ``means [R,3]`` and turned by unit quaternions
        ``turns [R,4]``: quick, for previews; sizes and colours stay as they are."""
        ...

    def deformed(self, rows: Rows, means: Tensor, gradients: Tensor) -> dict[str, Tensor]:
        """Raw values of the rows (the fields that differ) carried to ``means [R,3]``, their shapes deformed by
        ``gradients [R,3,3]`` (the Jacobian of the new place by the old one), their colours turned by the rotation in
        it. Stretches are limited (``geometry.deformation``). For a similarity this is ``transformed``."""
        ...

    def gaussian_rows(self, rows: Rows, *, filter3d: Tensor | None = None) -> dict[str, Tensor]:
        """Plain 3DGS rows (means, quats, log_scales, logit_opacities, sh0, sh_rest); the Mip 3D filter is folded in."""
        ...

    def regularizer(self, rows: Rows) -> Tensor | None:
        """A term to add to the loss (differentiable, scalar)."""
        ...

    def upkeep(self, rows: Rows, step: int) -> Iterator[RowEdit]:
        """Edits due after optimizer step ``step``, before the densifier's."""
        ...

    def rescaled(self, factor: float) -> Primitive:
        """The same settings with their schedule stretched by ``factor``."""
        ...

    def fitted(self, focal_px: float) -> Primitive:
        """The same settings with those filled in that depend on the capture: ``focal_px`` is its typical focal
        length at the size of training."""
        ...


def stretched(steps: int, factor: float, *, at_least: int = 1) -> int:
    """A schedule number times ``factor``, rounded; never below ``at_least`` (nor raised above what it was)."""
    return max(round(steps * factor), min(at_least, steps))
