"""SplatModel: raw parameters, one row per splat. It knows no optimizer, file or rasterizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splat.model.primitive import Primitive
from splat.model.render_inputs import RenderInputs
from splat.model.row_edit import RowEdit


@dataclass(eq=False)
class SplatModel:
    """A primitive's settings with its rows."""

    primitive: Primitive
    rows: dict[str, Tensor]
    sh_degree: int
    """Highest band stored."""
    filter2d: str = "classic"
    filter3d: Tensor | None = None  # [N] world units, Mip 3D filter; None = off

    @property
    def count(self) -> int:
        return next(iter(self.rows.values())).shape[0]

    @property
    def device(self) -> torch.device:
        return next(iter(self.rows.values())).device

    @property
    def opacities(self) -> Tensor:  # [N]
        return self.primitive.opacities(self.rows)

    @property
    def scales(self) -> Tensor:  # [N,3]
        return self.primitive.scales(self.rows)

    def render_inputs(self) -> RenderInputs:
        return self.primitive.render_inputs(self.rows, filter3d=self.filter3d)

    def requires_grad_(self, on: bool = True) -> SplatModel:
        for tensor in self.rows.values():
            tensor.requires_grad_(on)
        return self

    def apply(self, edit: RowEdit) -> None:
        """Apply the edit to every field. What it leaves alone stays the same tensor; the rest become new leaf
        tensors with the same ``requires_grad`` and no gradient."""
        unknown = sorted(set(edit.values) - set(self.rows))
        if unknown:
            raise ValueError(f"row edit '{edit.reason}' sets {unknown}, the model has {sorted(self.rows)}")
        plain = {name: table.detach() for name, table in self.rows.items()}
        edited = {name: edit.apply_to(table, name) for name, table in plain.items()}
        filter3d = None if self.filter3d is None else edit.apply_to(self.filter3d)
        for name, table in edited.items():  # all or nothing: above, memory may run out
            if table is not plain[name]:
                self.rows[name] = table.requires_grad_(self.rows[name].requires_grad)
        self.filter3d = filter3d

    def detached(self) -> SplatModel:
        """A copy that shares no memory, for files and viewers."""
        rows = {name: table.detach().clone() for name, table in self.rows.items()}
        filter3d = None if self.filter3d is None else self.filter3d.clone()
        return SplatModel(self.primitive, rows, self.sh_degree, self.filter2d, filter3d)

    def metadata(self) -> dict[str, Any]:
        """What a file must remember beside the rows."""
        return {"primitive": self.primitive.kind, "sh_degree": self.sh_degree, "filter2d": self.filter2d}
