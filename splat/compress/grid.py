"""Splats on a self-organizing grid: neighbours are alike, so pictures of the grid are small."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from splat.compress.grid_sort import aligned_quats, grid_order, kept_rows, side_of
from splat.compress.none import NoCompression
from splat.compress.protocol import CompressState
from splat.compress.smoothness import smoothness_loss
from splat.io.packed import Coding, Packed
from splat.model.primitive import stretched
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel

if TYPE_CHECKING:
    from splat.io.packed import Attribute

CELL = "cell"
"""Name of the state's table [N] int64: the cell each row got when rows were last sorted, row by row of the grid."""
_SORTED = "sorted_rows"
_LENGTH_SLACK = 0.05
_SORTS_AFTERWARDS = 4
"""Sorts while a model is trained on that was trained already."""


@dataclass(frozen=True)
class GridCompressor(NoCompression):
    """Settings of the grid (Morgenstern et al. 2024; specs: compression A2). Steps are those of a run of 30,000.

    Measured on scenes/nook (240 x 180, 1,500 steps, 20,000 splats: 26.97 dB, 4.96 MB as PLY). With 6 bits for
    orientations, sizes and colours and 3 for their view-dependent part: packed afterwards 353 kB in random order, 326
    in Morton's, 322 sorted (26.74 dB); trained without smoothness 324 (26.78), with 0.3 on orientations 315 (26.74),
    with the paper's weights 308 (26.57; orientations 29 % smaller, opacities 35 %). A bit less of every number costs
    less than the last of these, so the default is mild. With the default bits: 416 kB (26.83) without smoothness,
    407 (26.85) with. Drawing what is rounded lost 0.02 to 0.06 dB, for the last 5, 10 and 25 % of the steps, at coarse
    steps and at fine ones: hence never.
    """

    kind: ClassVar[str] = "grid"
    purpose: ClassVar[str] = "rows sorted onto a grid and pulled towards their neighbours, kept as lossless pictures"
    sorts: ClassVar[bool] = True

    sort_from: int = 15_000
    """The first sort; before it, rows come and go and nothing is smoothed."""
    sort_every: int = 2_500
    """Steps between sorts."""
    smoothness: float = 0.3
    """Weight of the distance to neighbours in the loss; 0 = none."""
    smoothness_ramp: int = 1_000
    """Steps after the first sort over which it grows from nothing."""
    smooth_quats: float = 10.0
    """Share of orientations in that distance."""
    smooth_opacities: float = 0.0
    """Share of raw opacities (1 in the paper: a third fewer bytes of theirs, 0.1 dB)."""
    smooth_scales: float = 0.0
    """Share of log sizes."""
    smooth_sh0: float = 0.0
    """Share of base colours."""
    smooth_sh_rest: float = 0.0
    """Share of the view-dependent colour."""
    smooth_means: float = 0.0
    """Share of positions, world units."""
    round_from: int = 0
    """From here on, what is drawn is rounded as the file will be, and gradients pass through; 0 = never."""
    bits_means: int = 14
    """Of positions, on a logarithmic scale."""
    bits_quats: int = 6
    """Of each component of a quaternion."""
    bits_scales: int = 6
    """Of log sizes."""
    bits_opacities: int = 5
    """Of activated opacities."""
    bits_sh0: int = 7
    """Of base colours."""
    bits_sh_rest: int = 4
    """Of the view-dependent colour."""
    coding: Coding = "webp"
    """How planes become bytes."""

    def rescaled(self, factor: float) -> GridCompressor:
        return replace(
            self,
            sort_from=stretched(self.sort_from, factor, at_least=1),
            sort_every=stretched(self.sort_every, factor, at_least=25),
            smoothness_ramp=stretched(self.smoothness_ramp, factor, at_least=1),
            round_from=stretched(self.round_from, factor, at_least=1),
        )

    def afterwards(self, steps: int) -> GridCompressor:
        return replace(
            self,
            sort_from=1,
            sort_every=max(steps // _SORTS_AFTERWARDS, 25),
            smoothness_ramp=max(steps // 8, 1),
            round_from=max(steps // 2, 1) if self.round_from else 0,
        )

    # training ---------------------------------------------------------------------------------------------

    def start(self, model: SplatModel, *, seed: int) -> CompressState:
        """Sorted once, so that even a model that is not trained further packs well; rows stay where they are."""
        state = CompressState(scalars={_SORTED: 0.0})
        state.rows[CELL] = _cells(model, seed=seed)
        return state

    def drawn(self, state: CompressState, step: int, rows: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if not self.round_from or step < self.round_from:
            return rows
        return {name: self._rounded(name, table) for name, table in rows.items()}

    def regularizer(self, state: CompressState, step: int, model: SplatModel) -> Tensor | None:
        """None while rows do not fill the grid they were sorted onto: growth since has moved neighbours apart."""
        count = state.scalars[_SORTED]
        if self.smoothness <= 0 or count != model.count or not count:
            return None
        loss = smoothness_loss(model.rows, side=side_of(model.count), weights=self._shares())
        ramp = min((step - self.sort_from) / self.smoothness_ramp, 1.0)
        return None if loss is None else loss * (self.smoothness * ramp)

    def edits(self, state: CompressState, step: int, model: SplatModel, *, seed: int) -> Iterator[RowEdit]:
        """Down to a full square, then sorted; quaternions become those that are closest to their neighbours'."""
        if step < self.sort_from or (step - self.sort_from) % self.sort_every or not model.count:
            return
        kept = kept_rows(_importance(state, model))
        if len(kept) < model.count:
            yield RowEdit(kept, model.count, reason="prune")
        if side_of(model.count) ** 2 != model.count:  # too many rows are held by hand: the file sorts what fills one
            return
        order = grid_order(model.rows, seed=seed + step).to(model.device)
        values = {}
        if "quats" in model.rows:
            quats = aligned_quats(model.rows["quats"].detach()[order], side_of(model.count))
            values["quats"] = (torch.arange(model.count, device=model.device), quats)
        yield RowEdit(order, model.count, values, reason="sort")
        state.rows[CELL] = torch.arange(model.count, device=model.device)
        state.scalars[_SORTED] = float(model.count)

    # the file ---------------------------------------------------------------------------------------------

    def finished(self, state: CompressState, step: int, model: SplatModel) -> SplatModel:
        from splat.io.packed_file import unpacked

        packed = self.pack(state, model)
        decoded = unpacked(packed)
        rows = {name: table.to(model.device) for name, table in decoded.rows.items()}
        filter3d = None if decoded.filter3d is None else decoded.filter3d.to(model.device)
        return SplatModel(model.primitive, rows, decoded.sh_degree, decoded.filter2d, filter3d)

    def pack(self, state: CompressState, model: SplatModel) -> Packed:
        from splat.io.packed_file import arrays_of, packed_of

        model = self._arranged(state, model)
        attributes = {name: self._attribute(name, values) for name, values in arrays_of(model).items()
                      if prod(values.shape[1:])}  # fmt: skip
        return packed_of(model, self.kind, attributes)

    def _arranged(self, state: CompressState, model: SplatModel) -> SplatModel:
        """The rows that fill a square, finite ones only, in the order of their cells: where rows have come since the
        sort, beside those they were made from."""
        from splat.io.packed_file import taken

        finite = torch.ones(model.count, dtype=torch.bool, device=model.device)
        for table in [*model.rows.values(), *([] if model.filter3d is None else [model.filter3d])]:
            finite &= table.detach().isfinite().flatten(1).all(1) if table.ndim > 1 else table.detach().isfinite()
        rows = finite.nonzero().squeeze(1)
        rows = rows[kept_rows(_importance(state, model)[rows])]
        cells = state.rows[CELL].to(model.device)[rows]
        model = taken(model, rows[torch.sort(cells, stable=True).indices])
        if "quats" in model.rows:
            fresh = state.scalars[_SORTED] != model.count
            quats = model.rows["quats"]
            model.rows["quats"] = aligned_quats(quats, side_of(model.count)) if fresh else _unit(quats)
        return model

    def _attribute(self, name: str, values: object) -> Attribute:
        from splat.io.codecs.half import Half
        from splat.io.codecs.uniform import Uniform

        if name == "filter3d":
            return Half().encode(values)
        bits, through = self._steps(name)
        return Uniform(bits, "channel", through, self.coding).encode(values)

    def _steps(self, name: str) -> tuple[int, Literal["identity", "log", "sigmoid"]]:
        bits = {
            "means": self.bits_means, "vertices": self.bits_means, "quats": self.bits_quats,
            "log_scales": self.bits_scales, "logit_opacities": self.bits_opacities, "sh0": self.bits_sh0,
            "sh_rest": self.bits_sh_rest,
        }  # fmt: skip
        through = {"means": "log", "vertices": "log", "logit_opacities": "sigmoid"}
        return bits.get(name, 8), through.get(name, "identity")  # type: ignore[return-value]

    def _shares(self) -> dict[str, float]:
        return {
            "quats": self.smooth_quats, "logit_opacities": self.smooth_opacities, "log_scales": self.smooth_scales,
            "sh0": self.smooth_sh0, "sh_rest": self.smooth_sh_rest, "means": self.smooth_means,
        }  # fmt: skip

    def _rounded(self, name: str, table: Tensor) -> Tensor:
        """Forward the nearest step, backward as if nothing were done."""
        if not table.numel():
            return table
        bits, through = self._steps(name)
        flat = table.detach().reshape(table.shape[0], -1)
        flat = _unit(flat) if name == "quats" else flat
        forward, back = _WARPS[through]
        warped = forward(flat)
        low, high = warped.amin(0), warped.amax(0)
        step = (high - low) / (2**bits - 1)
        codes = ((warped - low) / torch.where(step > 0, step, torch.ones_like(step))).round()
        rounded = back(low + codes * step).clamp(flat.amin(0), flat.amax(0)).reshape(table.shape)
        return table + (rounded - table.detach())


def _cells(model: SplatModel, *, seed: int) -> Tensor:  # [N] int64
    """The cell of each row; those that do not fit into the square come last."""
    cells = torch.full((model.count,), model.count, dtype=torch.int64, device=model.device)
    kept = kept_rows(model.opacities.detach().nan_to_num(-1.0))
    rows = {name: table.detach()[kept].nan_to_num(0.0, 0.0, 0.0) for name, table in model.rows.items()}
    if len(kept):
        order = kept[grid_order(rows, seed=seed).to(kept.device)]
        cells[order] = torch.arange(len(order), device=model.device)
    return cells


def _importance(state: CompressState, model: SplatModel) -> Tensor:  # [N]
    """Opacities; what was edited by hand goes last."""
    opacities = model.opacities.detach()
    return opacities if state.held is None else opacities + state.held.to(opacities)


def _unit(quats: Tensor) -> Tensor:
    """Of length 1; length 0 is no turn. A length that rounding explains stays: what was decoded packs as it is."""
    lengths = quats.norm(dim=1, keepdim=True)
    near = (lengths - 1).abs() < _LENGTH_SLACK
    unit = torch.where(near, quats, quats / lengths.clamp_min(1e-30))
    return torch.where(lengths > 0, unit, quats.new_tensor([1.0, 0, 0, 0]))


def _logarithm(values: Tensor) -> Tensor:
    return values.sign() * values.abs().log1p()


def _exponential(values: Tensor) -> Tensor:
    return values.sign() * values.abs().expm1()


def _same(values: Tensor) -> Tensor:
    return values


def _warps() -> dict[str, tuple]:
    from splat.model.activations import logit, sigmoid

    return {"identity": (_same, _same), "log": (_logarithm, _exponential), "sigmoid": (sigmoid, logit)}


_WARPS = _warps()
