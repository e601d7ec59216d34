"""Dragging a selection by handles: an interactive session, and the same as a function of its arguments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from splat.edit.drag.rigid import rigid_motion
from splat.edit.ops import Drag, Handle
from splat.errors import UserError
from splat.geometry.rotations import quat_from_matrix
from splat.model.splat_model import SplatModel


class DragSession:
    """Interactive; holds copies of the rows that can move, so that the model may go on changing."""

    rows: Tensor  # [R] int64: the selection and the band around it

    def __init__(self, model: SplatModel, mask: Tensor, drag: Drag, *, frozen: Tensor | None = None) -> None:
        """``mask [N]`` bool is the selection; rows of ``frozen [N]`` never move (locked ones)."""
        keep = mask if frozen is None else mask & ~frozen
        self.rows = keep.nonzero().squeeze(1)
        if not len(self.rows):
            raise UserError("a drag needs a selection: no splat is selected")
        self._drag, self._primitive = drag, model.primitive
        self._before = {name: table.detach()[self.rows] for name, table in model.rows.items()}
        self.move(drag.handles)

    def move(self, handles: Sequence[Handle]) -> dict[str, Tensor]:
        """Quick raw values of ``rows`` (places and orientations; sizes and colours as they were)."""
        if not handles:
            raise UserError("a drag needs at least one handle")
        at, to = (torch.tensor([getattr(h, name) for h in (*handles, *self._drag.anchors)]) for name in ("at", "to"))
        self._motion = rigid_motion(at, to)
        turn = quat_from_matrix(self._motion[0])
        return self._primitive.turned(self._before, self._means(), turn.expand(len(self.rows), 4))

    def finish(self) -> dict[str, Tensor]:
        """Full quality: covariances and colours turned with the deformation."""
        gradients = self._motion[0].expand(len(self.rows), 3, 3)
        return self._primitive.deformed(self._before, self._means(), gradients)

    def _means(self) -> Tensor:
        rotation, translation = self._motion
        return (self._before["means"].double() @ rotation.T + translation).float()


def drag_values(
    model: SplatModel, mask: Tensor, drag: Drag, *, frozen: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Rows [R] and their raw values after the drag; the same bits for the same arguments."""
    session = DragSession(model, mask, drag, frozen=frozen)
    return session.rows, session.finish()
