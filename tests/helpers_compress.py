"""A compressor that uses every hook, for tests of the parts around compressors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from splat.compress.none import NoCompression
from splat.compress.protocol import CompressState, Goal
from splat.errors import UserError
from splat.io.packed import Packed
from splat.io.packed_file import plainly_packed
from splat.model.primitive import Primitive
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel

STEP = 0.05
EPS = 1e-15


@dataclass(frozen=True)
class Veil(NoCompression):
    """A logit per row that drops rows where it is low, and one factor on the base colours."""

    kind: ClassVar[str] = "veil"
    purpose: ClassVar[str] = "for tests only"
    aims: ClassVar[frozenset[str]] = frozenset({"size", "quality"})

    begin: int = 2
    """First step drawn through the veil."""
    prune_every: int = 4
    pull: float = 0.05
    most: int = 0
    """Rows in the file; 0 = all."""

    def blocked(self, primitive: Primitive) -> str | None:
        return "compressor 'veil' cannot veil primitive 'gef'" if primitive.kind == "gef" else None

    def rescaled(self, factor: float) -> Veil:
        times = {name: max(1, round(getattr(self, name) * factor)) for name in ("begin", "prune_every")}
        return replace(self, **times)

    def afterwards(self, steps: int) -> Veil:
        return replace(self, begin=1, prune_every=max(steps // 2, 1))

    def aimed(self, goal: Goal) -> Veil:
        return replace(self, most=goal.size_bytes // 1000)

    def tuned(self, model: SplatModel, goal: Goal, measure: Callable[[SplatModel], float]) -> Veil:
        assert measure(model) > 0
        if goal.size_bytes is not None and goal.size_bytes < 1000:
            raise UserError(f"compressor 'veil' needs 1000 bytes, the goal is {goal.size_bytes}")
        return replace(self, most=10 if goal.size_bytes is not None else 0)

    def start(self, model: SplatModel, *, seed: int) -> CompressState:
        generator = torch.Generator().manual_seed(seed)
        logits = torch.rand(model.count, generator=generator).to(model.device) - 0.25
        gain = torch.ones(1, device=model.device)
        moments = {f"{part}.{name}": torch.zeros_like(table) for part in ("first", "second")
                   for name, table in (("veil", logits), ("gain", gain))}  # fmt: skip
        return CompressState(
            {"veil": logits.requires_grad_(True)}, {"gain": gain.requires_grad_(True)}, moments, {"updates": 0.0}
        )

    def drawn(self, state: CompressState, step: int, rows: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if step < self.begin:
            return rows
        shown = torch.sigmoid(state.rows["veil"])
        hard = (state.rows["veil"] > 0).to(shown.dtype)
        veil = shown + (hard - shown).detach()
        return {**rows, "logit_opacities": rows["logit_opacities"] - 8 * (1 - veil),
                "sh0": rows["sh0"] * state.parameters["gain"]}  # fmt: skip

    def regularizer(self, state: CompressState, step: int, model: SplatModel) -> Tensor | None:
        return self.pull * torch.sigmoid(state.rows["veil"]).mean() if step >= self.begin and self.pull else None

    def update(self, state: CompressState, step: int) -> None:
        state.scalars["updates"] += 1
        for name, table in (*state.rows.items(), *state.parameters.items()):
            grad, table.grad = table.grad, None
            if grad is None:
                continue
            first, second = state.moments[f"first.{name}"], state.moments[f"second.{name}"]
            first.mul_(0.9).add_(grad, alpha=0.1)
            second.mul_(0.99).addcmul_(grad, grad, value=0.01)
            with torch.no_grad():
                table.sub_(STEP * first / (second.sqrt() + EPS))

    def edits(self, state: CompressState, step: int, model: SplatModel, *, seed: int) -> Iterator[RowEdit]:
        if step % self.prune_every or step < self.begin:
            return
        keep = state.rows["veil"].detach() > -0.2
        keep[:3] = True
        yield RowEdit.keep(keep, "veil")
        assert state.rows["veil"].shape[0] == model.count == int(keep.sum())  # applied before the next is asked
        yield RowEdit.reorder(torch.arange(model.count - 1, -1, -1, device=model.device), "turn")

    def finished(self, state: CompressState, step: int, model: SplatModel) -> SplatModel:
        if step < self.begin:
            return model
        return self._decoded(state, model)

    def _decoded(self, state: CompressState, model: SplatModel) -> SplatModel:
        kept = (state.rows["veil"].detach() > 0).nonzero().squeeze(1)[: self.most or None]
        rows = {name: table.detach()[kept] for name, table in model.rows.items()}
        rows["sh0"] = rows["sh0"] * state.parameters["gain"].detach()
        filter3d = None if model.filter3d is None else model.filter3d[kept]
        return replace(model, rows=rows, filter3d=filter3d)

    def pack(self, state: CompressState, model: SplatModel) -> Packed | None:
        return replace(plainly_packed(self._decoded(state, model)), kind=self.kind)


def compress_bits(state: CompressState) -> dict[str, bytes]:
    """Every number of a compressor's state."""
    bits = {name: table.detach().cpu().numpy().tobytes() for name, table in state.tensors().items()}
    return bits | {name: repr(value).encode() for name, value in state.scalars.items()}
