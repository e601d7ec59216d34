"""The knobs of ``budget`` for a goal: every one is measured by itself, then all are set by one price of bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from splat.compress.palette import LABELS, PALETTE
from splat.compress.protocol import CompressState, Goal
from splat.compress.rate_search import Option, Plan, loss_of, plan_for_loss, plan_for_size
from splat.compress.rest_palette import begun_palette, entries_of, rest_attribute
from splat.compress.stored_size import attribute_bytes, best_coding, stored_bytes
from splat.compress.turns import least_turned
from splat.errors import UserError
from splat.geometry.sh import coefficients_of_degree
from splat.io.packed import Attribute
from splat.io.packed_file import packable_rows, taken
from splat.io.palette import kmeans
from splat.io.selection import largest, opacity_importance, with_sh_degree
from splat.model.splat_model import SplatModel

if TYPE_CHECKING:
    from splat.compress.budget import BudgetCompressor

Measure = Callable[[SplatModel], float]
LEVELS: dict[str, tuple[float, ...]] = {
    "bits_means": (16.0, 14.0, 13.0, 12.0, 11.0),
    "bits_quats": (10, 7, 6, 5, 4),
    "bits_opacities": (8, 6, 5, 4, 3),
    "step_scales": (0.01, 0.05, 0.12, 0.2, 0.3),
    "step_sh0": (0.006, 0.025, 0.05, 0.08, 0.13),
}
"""Settings of each knob, the finest first."""
COLORS: tuple[tuple[int, float, float], ...] = (
    (3, 0.5, 0.01), (3, 0.2, 0.02), (3, 0.1, 0.03), (3, 0.05, 0.03), (3, 0.025, 0.03), (2, 0.05, 0.03),
    (2, 0.0125, 0.03), (1, 0.025, 0.03), (1, 0.006, 0.03), (0, 0.0, 0.03),
)  # fmt: skip
"""Highest band, entries of the palette per splat, step of its numbers."""
SHARES = (0.9, 0.8, 0.65, 0.5, 0.35)
WORST, _GOOD = 2.0, 32.0
"""dB: coarser settings of a knob are not looked at when one costs this; where the model is compared with itself, so
that any error is a large share of none, when it costs as much of a good picture."""
RECOVERED = {"prune": 0.92, "color": 0.5, "steps": 0.5}
"""Of its loss, what training through it wins back."""
_FIELDS = {"bits_means": ("means", "vertices"), "bits_quats": ("quats",), "bits_opacities": ("logit_opacities",),
           "step_scales": ("log_scales",), "step_sh0": ("sh0",)}  # fmt: skip
_SAMPLE = 2**17
"""Rows whose bytes are counted; neighbours in the file."""
_SMALLEST_SHARE = 0.04
_CHECKS, _PACKINGS = 4, 3
_HEAD_BYTES = 3000
"""Of a file, roughly."""
_BETWEEN = 4
"""Parts into which the distance between two measured settings is cut."""


def searched(compressor: BudgetCompressor, model: SplatModel, goal: Goal, measure: Measure) -> BudgetCompressor:
    """``compressor`` with its knobs set for ``goal``. UserError when it is out of reach."""
    search = _Search(compressor, model, measure)
    knobs, shares = search.curves()
    if goal.size_bytes is not None:
        return replace(search.for_size(knobs, shares, goal.size_bytes), target_mb=goal.size_bytes / 1e6)
    return search.within(knobs, shares, goal.psnr_drop or 0.0)


class _Search:
    """One search: the model in the order of its file, and what was measured of it."""

    def __init__(self, compressor: BudgetCompressor, model: SplatModel, measure: Measure) -> None:
        finest = {name: levels[0] for name, levels in LEVELS.items()}
        self.compressor = replace(compressor, **finest, keep=1.0, target_mb=0.0)  # type: ignore[arg-type]
        self.model, self.measure = _arranged(model), measure
        bare = replace(self.compressor, palette=0.0, prune_until=0, round_from=0)
        self.state = bare.start(self.model, seed=0)
        self.state.scalars.pop("rows_fitted")  # its colours stay as they are until they are looked at
        self.base = measure(self._decoded(self.compressor, self.state))
        self.own = measure(model)
        self.much = loss_of(WORST) * max(1.0, 10 ** ((self.base - _GOOD) / 10))

    # what each knob costs ---------------------------------------------------------------------------------

    def curves(self) -> tuple[dict[str, list[Option]], dict[float, float]]:
        """The options of every knob, and kept share -> loss."""
        knobs: dict[str, list[Option]] = {}
        for name, levels in LEVELS.items():
            if any(field in self.model.rows for field in _FIELDS[name]):
                knobs[name] = list(self._options(name, levels))
        if prod(self.model.rows["sh_rest"].shape[1:]) and self.model.count:
            knobs["color"] = list(self._colors())
        fields = {field for fields in _FIELDS.values() for field in fields} | {"sh_rest"}
        others = [name for name, table in self.model.rows.items() if name not in fields and prod(table.shape[1:])]
        knobs["rest"] = [Option({}, sum(map(self._row_bytes, others)), 0.0, 0.0)]
        return knobs, self._shares()

    def _options(self, name: str, levels: Sequence[float]) -> Iterator[Option]:
        before: Option | None = None
        for level in levels:
            tried = replace(self.compressor, **{name: level})  # type: ignore[arg-type]
            size = sum(self._row_bytes(field, tried) for field in _FIELDS[name] if field in self.model.rows)
            lost = 0.0 if before is None else self._loss(self._decoded(tried, self.state)) * self._left("steps")
            lost = lost if before is None else max(lost, before.loss)
            option = Option({name: level}, size, 0.0, lost)
            if before is not None and isinstance(level, float):
                yield from _between(name, before, option)
            yield option
            if lost > self.much:
                return
            before = option

    def _colors(self) -> Iterator[Option]:
        finest: tuple[Tensor, Tensor] | None = None
        for degree, share, step in COLORS:
            if degree > self.model.sh_degree or degree > self.compressor.sh_degree:
                continue
            settings = {"sh_degree": degree, "palette": share, "step_rest": step}
            tried = replace(self.compressor, **settings, prune_until=0)  # type: ignore[arg-type]
            state = CompressState(dict(self.state.rows), {}, {}, {**self.state.scalars, "rows_fitted": 1.0})
            row_bytes = fixed = 0.0
            if degree and share:
                finest = finest or self._palette(degree, share)
                state.parameters[PALETTE], state.rows[LABELS] = self._coarser(finest, degree, share)
                sizes = attribute_bytes(best_coding(self._rest(state, degree, step)))
                row_bytes, fixed = sizes["labels"] / max(len(self._sample()), 1), float(sizes["palette"])
            lost = self._loss(self._decoded(tried, state))
            yield Option(settings, row_bytes, fixed, max(lost, 0.0) * self._left("color"))

    def _palette(self, degree: int, share: float) -> tuple[Tensor, Tensor]:
        state = CompressState()
        rest = with_sh_degree(self.model, degree).rows["sh_rest"]
        begun_palette(state, rest, entries=entries_of(share, self.model.count), weights=opacity_importance(self.model),
                      seed=0)  # fmt: skip
        return state.parameters[PALETTE].detach(), state.rows[LABELS]

    def _coarser(self, finest: tuple[Tensor, Tensor], degree: int, share: float) -> tuple[Tensor, Tensor]:
        """Fewer entries with fewer bands, made of those there are: in no time, and nearly as good."""
        palette, labels = finest
        palette = palette[:, : 3 * (coefficients_of_degree(degree) - 1)]
        entries = entries_of(share, self.model.count)
        if entries >= len(palette):
            return palette, labels
        mass = torch.bincount(labels, minlength=len(palette)).float()
        fewer, of_entries = kmeans(palette, max(entries, 1), seed=0, weights=mass)
        return fewer, of_entries[labels]

    def _shares(self) -> dict[float, float]:
        worth, found, worst = opacity_importance(self.model), {}, 0.0
        decoded = self._decoded(self.compressor, self.state)
        for share in SHARES:
            kept = largest(worth, max(round(share * self.model.count), 1))
            rows = {name: table[kept] for name, table in decoded.rows.items()}
            filter3d = None if decoded.filter3d is None else decoded.filter3d[kept]
            worst = max(worst, self._loss(replace(decoded, rows=rows, filter3d=filter3d)))
            found[share] = worst * self._left("prune")
            if worst > 2 * self.much:
                break
        return found

    # goals ------------------------------------------------------------------------------------------------

    def for_size(
        self, knobs: Mapping[str, Sequence[Option]], shares: Mapping[float, float], size: int
    ) -> BudgetCompressor:
        """The least loss in ``size`` bytes: planned, packed, and planned again with what that showed."""
        asked, best = float(size - _HEAD_BYTES), None
        for _ in range(_PACKINGS):
            plan = plan_for_size(knobs, shares, rows=self.model.count, size=asked)
            if plan is None:
                break
            found = self.settings(plan)
            actual = self._packed_bytes(found)
            if best is None or best[0] < actual <= size or size < actual < best[0]:
                best = actual, found
            if 0.985 * size <= actual <= size:
                break
            asked *= 0.996 * size / actual
        if best is not None:
            return best[1]
        plan = self.coarsest(knobs)
        least = self.smallest_bytes(plan)
        if least > size:
            raise UserError(
                f"--target-mb {size / 1e6:g} is out of reach: the smallest file of this model has {least / 1e6:.3g} MB"
            )
        return self.settings(plan)

    def within(
        self, knobs: Mapping[str, Sequence[Option]], shares: Mapping[float, float], drop: float
    ) -> BudgetCompressor:
        """The smallest file whose loss, measured of all knobs together, is what was asked."""
        already = loss_of(max(self.own - self.base, 0.0))
        wanted, allowed = loss_of(drop), max(loss_of(drop) - already, 0.0)
        best = None
        for _ in range(_CHECKS):
            plan = plan_for_loss(knobs, shares, rows=self.model.count, loss=allowed)
            found = self.settings(plan)
            if self.compressor.learns:  # what it will win back is not there yet to be measured
                return found
            lost = loss_of(self.own - self.measure(self._together(found)))
            if lost <= wanted:
                best = found
                if lost > 0.93 * wanted or allowed <= 0:
                    break
            allowed *= min(max(0.97 * wanted / max(lost, 1e-9), 0.25), 2.0)
        if best is None:
            raise UserError(
                f"--max-psnr-drop {drop:g} is out of reach: even the finest settings lose "
                f"{max(self.own - self.base, 0):.3g} dB; splat export --format native loses nothing"
            )
        return best

    def settings(self, plan: Plan) -> BudgetCompressor:
        chosen: dict[str, Any] = {}
        for option in plan.options.values():
            chosen |= option.settings
        return replace(self.compressor, **chosen, keep=plan.share)

    def coarsest(self, knobs: Mapping[str, Sequence[Option]]) -> Plan:
        few = {name: min(options, key=lambda each: each.bytes(1)) for name, options in knobs.items()}
        return Plan(few, _SMALLEST_SHARE, 0.0, 0.0)

    def smallest_bytes(self, plan: Plan) -> int:
        """One splat at the coarsest settings."""
        tried = replace(self.settings(plan), prune_until=0, round_from=0, keep=1.0)
        one = torch.arange(min(self.model.count, 1), device=self.model.device)
        return stored_bytes(tried.encoded(tried.start(self.model, seed=0), self.model, one))

    # the parts --------------------------------------------------------------------------------------------

    def _left(self, what: str) -> float:
        return 1 - RECOVERED[what] if self.compressor.learns else 1.0

    def _loss(self, model: SplatModel) -> float:
        return loss_of(self.base - self.measure(model))

    def _decoded(self, compressor: BudgetCompressor, state: CompressState) -> SplatModel:
        with torch.no_grad():
            return replace(self.model, rows=compressor.rounded_rows(state, self.model.rows))

    def _together(self, compressor: BudgetCompressor) -> SplatModel:
        now = replace(compressor, round_from=0, prune_until=0)
        return now.finished(now.start(self.model, seed=0), 0, self.model)

    def _packed_bytes(self, compressor: BudgetCompressor) -> int:
        now = replace(compressor, round_from=0, prune_until=0)
        return stored_bytes(now.pack(now.start(self.model, seed=0), self.model))

    def _sample(self) -> Tensor:  # rows that lie together in the file
        count = self.model.count
        begin = max((count - _SAMPLE) // 2, 0)
        return torch.arange(begin, min(begin + _SAMPLE, count), device=self.model.device)

    def _row_bytes(self, field: str, compressor: BudgetCompressor | None = None) -> float:
        rows = self._sample()
        if not len(rows):
            return 0.0
        attribute = (compressor or self.compressor).attribute(self.state, field, self.model.rows[field][rows])
        return sum(attribute_bytes(attribute).values()) / len(rows)

    def _rest(self, state: CompressState, degree: int, step: float) -> Attribute:
        rows = self._sample()
        values = with_sh_degree(self.model, degree).rows["sh_rest"][rows]
        state = CompressState({LABELS: state.rows[LABELS]}, state.parameters)
        return rest_attribute(state, rows, values, step=step)


def _arranged(model: SplatModel) -> SplatModel:
    """The rows that can be packed, in the order of the file, ellipsoids by their shortest names."""
    model = taken(model, packable_rows(model))
    if {"quats", "log_scales"} <= set(model.rows):
        quats, scales = least_turned(model.rows["quats"], model.rows["log_scales"])
        model.rows |= {"quats": quats, "log_scales": scales}
    return model


def _between(name: str, fine: Option, coarse: Option) -> Iterator[Option]:
    """Settings that nobody measured: bytes along a straight line, errors by the square of the step."""
    low, high = fine.settings[name], coarse.settings[name]
    for part in range(1, _BETWEEN):
        share = part / _BETWEEN
        level = low + share * (high - low) if name.startswith("bits") else low ** (1 - share) * high**share
        grown = (4**share - 1) / 3
        yield Option(
            {name: level}, fine.row_bytes + share * (coarse.row_bytes - fine.row_bytes), 0.0,
            fine.loss + grown * (coarse.loss - fine.loss),
        )  # fmt: skip
