"""As many bytes as you give it: pruning, fewer bands, coarser steps and palettes, weighed against each other.

Of the published families it takes what pays and leaves what does not (specs: compression, 0 and A3): pruning by what
the training itself says of a splat's worth, a palette of view-dependent colour that learns on after k-means, and
steps that training draws through. Settings are those knobs themselves; ``budget_search`` finds them for a goal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import floor, log2, prod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from splat.compress.fake_quant import Steps, opacity_steps, quats_attribute, rounded_quats
from splat.compress.none import NoCompression
from splat.compress.own_adam import step_learnables
from splat.compress.palette import PALETTE
from splat.compress.protocol import CompressState, Goal
from splat.compress.rest_palette import begun_palette, drawn_rest, entries_of, rest_attribute, rest_bytes
from splat.compress.stored_size import best_coding, parts_of, stored_bytes
from splat.compress.turns import least_turned
from splat.errors import UserError
from splat.io.codecs.half import Half
from splat.io.packed import Attribute, Packed
from splat.io.packed_file import FILTER3D, packable_rows, packed_of, taken, unpacked
from splat.io.selection import largest, opacity_importance, with_sh_degree
from splat.model.primitive import stretched
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel

GATE = "gate"
"""Among the state's rows: ones [N] that opacities are multiplied by in thought. Their squared gradients, added up, are
the splats' worth (the Fisher information of their being there)."""
_WORTH = f"second.{GATE}"
_TURNED, _SPAN, _BEGUN, _SEED, _FITTED = "turned", "span", "rows_begun", "seed", "rows_fitted"
_PRUNINGS = 4
_TRIES = 12
_NEARLY = 0.995
"""Of the goal, what a guess of the splats' number aims at."""
_GUESSED = 1.1
"""The same before there is a palette: what is gone does not come back."""
_OTHER_STEP = 1 / 64
"""Of fields with no setting of their own."""
BYTES_PER_MB = 1_000_000


@dataclass(frozen=True)
class BudgetCompressor(NoCompression):
    """The knobs. Steps of training are those of a run of 30,000."""

    kind: ClassVar[str] = "budget"
    purpose: ClassVar[str] = "the best picture in --target-mb: prunes, rounds and makes palettes as far as that needs"
    aims: ClassVar[frozenset[Literal["size", "quality"]]] = frozenset({"size", "quality"})

    target_mb: float = 0.0
    """The file has at most so many MB (10^6 bytes), by pruning beyond ``keep`` if need be; 0 = any size."""
    keep: float = 1.0
    """Share of the splats that stay."""
    sh_degree: int = 3
    """Highest band of colour that stays."""
    palette: float = 0.05
    """Entries of the palette of view-dependent colour per splat, at most 65,536; 0 = no view-dependent colour."""
    bits_means: float = 13.0
    """Of positions: steps of the scene's extent, on a logarithmic scale, over 2 to this power."""
    bits_quats: int = 6
    """Of the components of rotations, 2 to 16."""
    bits_opacities: int = 5
    """Of opacities, 1 to 8."""
    step_scales: float = 0.12
    """Of the logarithms of sizes."""
    step_sh0: float = 0.05
    """Of base colours."""
    step_rest: float = 0.03
    """Of the palette's numbers."""
    round_from: int = 20_000
    """From this step of training on, the picture is drawn from what the file will hold, and pruning begins."""
    prune_until: int = 25_000
    """By this step pruning has reached its goal, and colours move onto the palette."""
    lr_palette: float = 2e-4
    """Learning rate of the palette's entries."""

    def __post_init__(self) -> None:
        bounds = (("keep", 0, 1), ("sh_degree", 0, 3), ("palette", 0, 1), ("bits_means", 4, 16), ("bits_quats", 2, 16),
                  ("bits_opacities", 1, 8), ("step_scales", 1e-4, 4), ("step_sh0", 1e-4, 4),
                  ("step_rest", 1e-4, 4))  # fmt: skip
        for name, low, high in bounds:
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} = {getattr(self, name)} does not fit: {low} to {high}")

    @property
    def learns(self) -> bool:
        """Whether training goes on through the steps, and wins back what they cost."""
        return self.prune_until > 0

    def rescaled(self, factor: float) -> BudgetCompressor:
        steps = {name: stretched(getattr(self, name), factor, at_least=1) for name in ("round_from", "prune_until")}
        return replace(self, **steps, lr_palette=min(self.lr_palette * max(0.2 / max(factor, 1e-9), 1.0), 1e-3))

    def afterwards(self, steps: int) -> BudgetCompressor:
        return replace(self, round_from=0, prune_until=2 * steps // 5, lr_palette=1e-3)

    def aimed(self, goal: Goal) -> BudgetCompressor:
        if goal.size_bytes is None:
            raise UserError("a quality goal needs a model to compare with: train first, then splat compress "
                            "--max-psnr-drop; or give a size, --target-mb")  # fmt: skip
        return replace(self, target_mb=goal.size_bytes / BYTES_PER_MB)

    def tuned(self, model: SplatModel, goal: Goal, measure: Callable[[SplatModel], float]) -> BudgetCompressor:
        from splat.compress.budget_search import searched

        return searched(self, model, goal, measure)

    # training ---------------------------------------------------------------------------------------------

    def start(self, model: SplatModel, *, seed: int) -> CompressState:
        state = CompressState(scalars={_SEED: float(seed)})
        if self.round_from <= 0:
            self._begin(state, model)
        if self.prune_until <= 0:
            self._fit_palette(state, model)
        return state

    def drawn(self, state: CompressState, step: int, rows: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if _BEGUN not in state.scalars:
            return rows
        changed = {name: self._rounded(state, name, table) for name, table in rows.items() if name != "sh_rest"}
        if GATE in state.rows and step <= self.prune_until:
            gate = state.rows[GATE]
            transparency = 1 / (1 + rows["logit_opacities"].detach().clamp(-30, 13).exp())
            logits = changed["logit_opacities"]
            changed["logit_opacities"] = logits + (gate - gate.detach()) / transparency
        changed["sh_rest"] = drawn_rest(state, rows["sh_rest"], step=self.step_rest, degree=self.sh_degree)
        return changed

    def update(self, state: CompressState, step: int) -> None:
        gate = state.rows.get(GATE)
        if gate is not None and gate.grad is not None:
            state.moments[_WORTH] = state.moments[_WORTH] + gate.grad.square()
            gate.grad = None
        step_learnables(state, {PALETTE: self.lr_palette})

    def edits(self, state: CompressState, step: int, model: SplatModel, *, seed: int) -> Iterator[RowEdit]:
        if step < self.round_from:
            return
        if _BEGUN not in state.scalars:
            self._begin(state, model)
        if _TURNED not in state.scalars:
            state.scalars[_TURNED] = 1.0
            if {"quats", "log_scales"} <= set(model.rows) and model.count:
                quats, scales = least_turned(model.rows["quats"].detach(), model.rows["log_scales"].detach())
                everyone = torch.arange(model.count, device=model.device)
                yield RowEdit.overwrite(
                    model.count, {"quats": (everyone, quats), "log_scales": (everyone, scales)},
                    fresh=torch.ones(model.count, dtype=torch.bool, device=model.device),
                    fresh_fields=frozenset({"quats", "log_scales"}), reason="turn",
                )  # fmt: skip
        due = self._prunings()
        if step in due:
            if due[step] == 1:
                self._fit_palette(state, model)
            count = self._goal_count(state, model)
            count = min(round(model.count * (count / max(model.count, 1)) ** (1 / due[step])), model.count)
            if count < model.count:
                yield RowEdit.keep(largest(self._worth(state, model), max(count, 1)), reason="prune")

    # the file ---------------------------------------------------------------------------------------------

    def finished(self, state: CompressState, step: int, model: SplatModel) -> SplatModel:
        decoded = unpacked(self.pack(state, model))
        decoded.rows = {name: table.to(model.device) for name, table in decoded.rows.items()}
        decoded.filter3d = None if decoded.filter3d is None else decoded.filter3d.to(model.device)
        return decoded

    @torch.no_grad()
    def pack(self, state: CompressState, model: SplatModel) -> Packed:
        """UserError where ``target_mb`` is less than a single splat takes."""
        state = self._ready(state, model)
        rows = packable_rows(model)
        worth = self._worth(state, model)[rows]
        finite = len(rows)
        if self.prune_until <= 0 and self.keep < 1:
            rows = rows[largest(worth, min(max(round(self.keep * finite), 1), finite))]
        packed = self.encoded(state, model, rows)
        limit = int(self.target_mb * BYTES_PER_MB)
        if not limit or stored_bytes(packed) <= limit:
            return packed
        return self._fitting(state, model, limit, (packed, len(rows)))

    def encoded(self, state: CompressState, model: SplatModel, rows: Tensor) -> Packed:
        """These rows [M] of a model, in this order."""
        chosen = taken(model, rows)
        if _TURNED not in state.scalars and {"quats", "log_scales"} <= set(chosen.rows):
            quats, scales = least_turned(chosen.rows["quats"], chosen.rows["log_scales"])
            chosen.rows |= {"quats": quats, "log_scales": scales}
        degree = min(self.sh_degree, chosen.sh_degree) if PALETTE in state.parameters else 0
        chosen = with_sh_degree(chosen, degree)
        attributes: dict[str, Attribute] = {}
        for name, table in chosen.rows.items():
            if name == "sh_rest" and prod(table.shape[1:]):
                attributes[name] = best_coding(rest_attribute(state, rows, table, step=self.step_rest))
            elif prod(table.shape[1:]):
                attributes[name] = self.attribute(state, name, table)
        if chosen.filter3d is not None:
            attributes[FILTER3D] = Half().encode(chosen.filter3d.cpu().float().numpy())
        return packed_of(chosen, self.kind, attributes)

    def attribute(self, state: CompressState, name: str, table: Tensor) -> Attribute:
        """A field with its values rounded."""
        if name == "quats":
            return best_coding(quats_attribute(table, self.bits_quats, "webp"))
        return best_coding(self._steps(state, name).attribute(table, "webp"))

    def _rounded(self, state: CompressState, name: str, table: Tensor) -> Tensor:
        if name == "quats":
            return rounded_quats(table, self.bits_quats)
        return self._steps(state, name).rounded(table)

    def _steps(self, state: CompressState, name: str) -> Steps:
        if name in ("means", "vertices"):
            return Steps(state.scalars[_SPAN] * 2.0**-self.bits_means, "log" if name == "means" else "identity")
        if name == "logit_opacities":
            return opacity_steps(self.bits_opacities)
        known = {"log_scales": self.step_scales, "sh0": self.step_sh0}
        return Steps(known.get(name, _OTHER_STEP))

    def rounded_rows(self, state: CompressState, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What decodes, of all rows, without making a file of them."""
        rounded = {name: self._rounded(state, name, table) for name, table in rows.items() if name != "sh_rest"}
        return rounded | {"sh_rest": drawn_rest(state, rows["sh_rest"], step=self.step_rest, degree=self.sh_degree)}

    # beginnings -------------------------------------------------------------------------------------------

    def _begin(self, state: CompressState, model: SplatModel) -> None:
        state.scalars[_SPAN] = span_of(model)
        state.scalars[_BEGUN] = float(model.count)
        if self.prune_until > 0:
            state.rows[GATE] = torch.ones(model.count, device=model.device).requires_grad_(True)
            state.moments[_WORTH] = torch.zeros(model.count, device=model.device)
            state.moments[f"first.{GATE}"] = torch.zeros(model.count, device=model.device)

    def _fit_palette(self, state: CompressState, model: SplatModel) -> None:
        if _FITTED in state.scalars:
            return
        state.scalars[_FITTED] = float(model.count)
        rest = with_sh_degree(model, min(self.sh_degree, model.sh_degree)).rows["sh_rest"]
        kept = model.count if self.prune_until > 0 else model.count * self.keep
        begun_palette(state, rest, entries=entries_of(self.palette, round(kept)), weights=opacity_importance(model),
                      seed=int(state.scalars[_SEED]))  # fmt: skip

    def _ready(self, state: CompressState, model: SplatModel) -> CompressState:
        """A state in which everything has begun; ``state`` itself stays as it is."""
        copy = replace(state, rows=dict(state.rows), parameters=dict(state.parameters), moments=dict(state.moments),
                       scalars=dict(state.scalars))  # fmt: skip
        if _BEGUN not in copy.scalars:
            self._begin(copy, model)
        self._fit_palette(copy, model)
        return copy

    # pruning ----------------------------------------------------------------------------------------------

    def _prunings(self) -> dict[int, int]:
        """Step -> how many prunings are left, it included."""
        begin = max(self.round_from, 0)
        if self.prune_until <= 0:
            return {}
        times = [begin + (self.prune_until - begin) * (turn + 1) // _PRUNINGS for turn in range(_PRUNINGS)]
        return {max(time, 1): _PRUNINGS - turn for turn, time in enumerate(times)}

    def _worth(self, state: CompressState, model: SplatModel) -> Tensor:  # [N]
        """What each splat is worth keeping; by its looks alone where no training has said it."""
        looks = opacity_importance(model)
        told = state.moments.get(_WORTH)
        if told is None or not bool((told > 0).any()):
            return looks
        worth = told + 1e-12 * told.max() * looks  # those no view has seen go first, the fainter ones before
        return worth if state.held is None else worth + state.held * (worth.max() + looks)  # no loss speaks for these

    @torch.no_grad()
    def _goal_count(self, state: CompressState, model: SplatModel) -> int:
        """How many splats are to stay; rather more while the palette is a guess."""
        count = floor(self.keep * state.scalars[_BEGUN] + 0.5)
        if not self.target_mb or not model.count:
            return count
        per_row, fixed = parts_of(self.encoded(state, model, packable_rows(model)))
        slack = _NEARLY
        if PALETTE not in state.parameters:
            rest = with_sh_degree(model, min(self.sh_degree, model.sh_degree)).rows["sh_rest"]
            each, whole = rest_bytes(rest, entries_of(self.palette, model.count), step=self.step_rest)
            per_row, fixed, slack = per_row + each, fixed + whole, _GUESSED
        return max(int((self.target_mb * BYTES_PER_MB - fixed) / per_row * slack), 1)

    def _fitting(
        self, state: CompressState, model: SplatModel, limit: int, known: tuple[Packed, int]
    ) -> Packed:  # fmt: skip
        """As many of the worthiest rows as fit: by what a row takes, then by halves. ``known``: what did not fit, and
        its rows."""
        rows = packable_rows(model)
        worth = self._worth(state, model)[rows]
        packed, count = known
        low, high, best = 0, count, None
        for turn in range(_TRIES):
            per_row, fixed = parts_of(packed)
            guess = int((limit - fixed) / max(per_row, 1e-9)) if turn < _TRIES // 2 else (low + high) // 2
            count = min(max(guess, low + 1), high - 1)
            if count <= low or count < 1:
                break
            packed = self.encoded(state, model, rows[largest(worth, count)])
            size = stored_bytes(packed)
            if size <= limit:
                low, best = count, packed
                if size > limit * _NEARLY:
                    break
            else:
                high = count
        if best is None:
            least = stored_bytes(self.encoded(state, model, rows[largest(worth, 1)]))
            raise UserError(
                f"target_mb = {self.target_mb:g} does not fit: with these settings one splat takes "
                f"{least / BYTES_PER_MB:.3g}"
            )
        return best


def span_of(model: SplatModel) -> float:
    """The longest axis of the means on the scale of their steps, in half octaves: what was rounded has the same."""
    means = model.rows["means"].detach()
    means = means[means.isfinite().all(1)]
    if not len(means):
        return 1.0
    warped = means.sign() * means.abs().log1p()
    return float(2.0 ** (floor(2 * log2(max(float((warped.amax(0) - warped.amin(0)).max()), 1e-6)) + 0.25) / 2))
