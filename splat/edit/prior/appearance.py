"""Colour, opacity, size and orientation of the rows of a drag, as they learn in the second stage."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from splat.edit.prior.adam import Group

RATES: Mapping[str, float] = {
    "sh0": 0.01, "sh_rest": 0.01 / 20, "logit_opacities": 0.01, "log_scales": 0.001, "quats": 0.01,
}  # fmt: skip
"""Learning rates of raw fields (specs: viewer_editing 4.1; higher bands a twentieth of the base colour's, as in
training). What a primitive has besides stays as it is."""


class Appearance:
    """Changes of raw fields; none at first."""

    def __init__(self, rows: Mapping[str, Tensor], soft: Tensor) -> None:
        """rows: raw fields of the R rows; soft [R]: factor on what each row takes of a step."""
        self._soft = soft
        self._changes = {name: torch.zeros_like(rows[name], requires_grad=True) for name in RATES if name in rows}

    def groups(self, factor: float) -> list[Group]:
        return [Group([table], RATES[name] * factor) for name, table in self._changes.items()]

    def applied(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The fields that learn: those of ``rows`` with their changes."""
        return {
            name: rows[name] + change * self._soft.reshape(-1, *[1] * (change.ndim - 1))
            for name, change in self._changes.items()
        }
