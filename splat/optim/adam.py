"""Adam whose moments are kept by field name, so that a row edit is ordinary indexing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from splat.model.primitive import FieldSpec
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel
from splat.render.types import RowUpdate

EPS = 1e-15
"""The reference's value: gradients of a mean over pixels are tiny, and any larger epsilon would damp them."""


class SplatAdam:
    """Adam over the rows of one model. Holds two moments per field and a step count per field.

    The count of a field rises only when it had a gradient (as in torch), and row edits do not reset it:
    bias correction belongs to the field, fresh rows simply start from zero moments.
    """

    def __init__(self, specs: Iterable[FieldSpec], betas: tuple[float, float] = (0.9, 0.999), eps: float = EPS) -> None:
        self.names = tuple(spec.name for spec in specs)
        self.betas = betas
        self.eps = eps
        self.steps = 0
        """Calls of ``step`` since ``start``."""
        self._first: dict[str, Tensor] = {}  # running mean of gradients, shaped like the field
        self._second: dict[str, Tensor] = {}  # running mean of their squares
        self._field_steps: dict[str, int] = {}

    def start(self, model: SplatModel) -> None:
        """Zero moments for every field of the model that is optimised."""
        self.steps = 0
        self._first = {name: torch.zeros_like(model.rows[name].detach()) for name in self.names}
        self._second = {name: torch.zeros_like(model.rows[name].detach()) for name in self.names}
        self._field_steps = dict.fromkeys(self.names, 0)

    def step(self, model: SplatModel, lrs: Mapping[str, float]) -> None:
        """Update in place every row tensor that has a gradient, then clear the gradients."""
        from splat.native import ops  # loads the native library, so only when it is used

        self.steps += 1
        for name in self.names:
            table = model.rows[name]
            grad, table.grad = table.grad, None
            if grad is None:
                continue
            self._field_steps[name] += 1
            if table.numel() == 0:
                continue
            ops.adam_step(
                table.detach(), grad.contiguous(), self._first[name], self._second[name],
                lr=lrs[name], beta1=self.betas[0], beta2=self.betas[1], eps=self.eps, step=self._field_steps[name],
            )  # fmt: skip

    def planned(self, lrs: Mapping[str, float]) -> RowUpdate:
        """The coming step as something a backward pass can take; nothing changes before ``committed``."""
        steps = {name: count + 1 for name, count in self._field_steps.items()}
        return RowUpdate(self._first, self._second, dict(lrs), steps, self.betas, self.eps)

    def committed(self, update: RowUpdate) -> None:
        """Count what the backward pass has stepped; ``step`` follows as ever, and finds no gradients."""
        for name in update.taken or ():
            self._field_steps[name] = update.steps[name]

    def apply(self, edit: RowEdit) -> None:
        """Move the moments as the edit moves the rows."""
        self.take(self.edited(edit))

    def edited(self, edit: RowEdit) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The moments as ``apply`` would leave them, for ``take``; nothing changes yet."""
        first, second = (
            {name: edit.apply_to_moments(table, name) for name, table in moments.items()}
            for moments in (self._first, self._second)
        )
        return first, second

    def take(self, moments: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
        """Go on with these moments."""
        self._first, self._second = moments

    def moments(self, name: str) -> tuple[Tensor, Tensor]:
        """First and second moment of a field, shaped like it."""
        return self._first[name], self._second[name]

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything a checkpoint needs; the moments are not copied."""
        counts = torch.tensor([self.steps, *(self._field_steps[name] for name in self.names)], dtype=torch.int64)
        return {
            "steps": counts,
            **{f"first.{name}": table for name, table in self._first.items()},
            **{f"second.{name}": table for name, table in self._second.items()},
        }

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what ``state_tensors`` gave; ValueError when it belongs to other fields."""
        expected = {"steps", *(f"{part}.{name}" for part in ("first", "second") for name in self.names)}
        if set(tensors) != expected:
            raise ValueError(f"optimizer state holds {sorted(tensors)}, this model needs {sorted(expected)}")
        self.steps, *field_steps = tensors["steps"].tolist()
        self._field_steps = dict(zip(self.names, field_steps, strict=True))
        self._first = {name: tensors[f"first.{name}"].clone() for name in self.names}
        self._second = {name: tensors[f"second.{name}"].clone() for name in self.names}
