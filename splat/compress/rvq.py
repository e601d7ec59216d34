"""Compact 3D Gaussians (Lee et al. 2024; specs: compression A1) with changes of our own.

Masks decide while training which splats are worth keeping. Late, sizes and rotations move onto the entries of residual
books, and colours onto a palette or into a neural field; from then on the picture is drawn as the file decodes, and
what remains learns to live with it.

Where we leave the paper: sizes are quantised as logarithms (linear steps are large errors for small splats) and
quaternions with their sign made unique; the field's table follows the scene's size and it predicts SH coefficients, so
that what decodes is plain splats (``splat.io.codecs.field``); it may also start late, from the coefficients there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from splat.compress.color_field import (
    PREFIX,
    FieldSize,
    field_colors,
    field_shape,
    importance,
    put_field,
    refresh_places,
    shape_in,
    started_field,
    tables_in,
)
from splat.compress.masks import MASKS, START, mask_loss, masked_rows, shown
from splat.compress.none import SCHEDULE_STEPS, NoCompression
from splat.compress.own_adam import step_learnables
from splat.compress.palette import palette_attribute, palette_colors, started_palette
from splat.compress.protocol import CompressState
from splat.compress.residual_vq import chosen_entries, fitted_books, quantised
from splat.geometry.rng import keyed_generator
from splat.io.codecs.field import Field, coefficients
from splat.io.codecs.residual import Residual
from splat.io.packed import Attribute, Coding, Packed
from splat.io.packed_file import arrays_of, packable_rows, packed_of, plain_attribute, taken, unpacked
from splat.model.primitive import stretched
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel

SHAPES = ("log_scales", "quats")
"""Fields that residual books may stand for, where the primitive has them."""
COLORS = ("sh0", "sh_rest")
CODING: Coding = "webp"
"""Of numbers per splat: 5 to 10 % smaller than Zstandard's, as neighbouring channels are alike."""
_BOOK_START = 29_000
"""Of ``SCHEDULE_STEPS`` steps."""
_MASK_STEPS = 2000
"""A run of fewer steps learns its masks at a higher rate: from where they start to the threshold takes 560 steps."""
_MASKED_SPLATS = 80_000
"""A mean over fewer splats would press harder on each; below this number what each must be worth stays the same."""
_MOST_MASK_WEIGHT = 0.2
"""Measured on the embedded scene, 1,500 steps of ``adaptive`` with 80,000 splats (26.12 dB): 0.1 removes 9 % of them at
26.12 dB, 0.2 35 % at 26.03, 0.3 57 % at 25.67; the published 5e-4 removes none in so few steps. At three times the
learning rate everything goes."""
_ALIGNED = ("quats",)


@dataclass(frozen=True)
class RvqCompressor(NoCompression):
    """Settings of masks, residual books and colours."""

    kind: ClassVar[str] = "rvq"
    purpose: ClassVar[str] = "learned masks remove splats; sizes and rotations from small books, colours from a palette"

    masks: bool = True
    """Learn for every splat whether it is worth drawing (not for convex, which has masks of its own)."""
    mask_weight: float = 5e-4
    """Weight of the mean mask in the loss; larger removes more. The default is that of 30,000 steps."""
    mask_threshold: float = 0.01
    """Splats whose mask falls to this are removed."""
    mask_every: int = 100
    """Steps between removals."""
    lr_masks: float = 0.01
    """Learning rate of the masks."""
    shapes: Literal["books", "plain"] = "books"
    """Sizes and rotations by residual books, or in plain equal steps."""
    stages: int = 5
    """Books in a row, 1 to 16 (published: 6)."""
    entries: int = 64
    """Entries of a book, 2 to 256."""
    book_start: int = _BOOK_START
    """Step at which sizes and rotations move onto their books."""
    book_rounds: int = 10
    """Rounds of k-means that start a book (published: 1)."""
    lr_books: float = 1e-4
    """Learning rate of the books."""
    commitment: float = 0.0
    """Weight of the distance of sizes and rotations from their entries in the loss (published: none)."""
    commitment_steps: int = 1000
    """Steps over which that weight rises from 0."""
    color: Literal["palette", "field", "sh"] = "palette"
    """View-dependent colour from a palette learned with the rest, from a neural field, or kept."""
    color_start: int = 25_000
    """Step at which colours move onto the palette or into the field."""
    palette_share: float = 0.1
    """Entries of the palette per splat; never more than 65,536."""
    lr_palette: float = 2e-4
    """Learning rate of the palette's entries."""
    field_bands: Literal["higher", "all"] = "higher"
    """What the field predicts: view-dependent colour, or the base colour, too (published)."""
    field_levels: int = 8
    """Resolutions of the field's grid."""
    field_features: int = 4
    """Features of the grid's entries."""
    field_entries: float = 0.25
    """Entries of a level per splat."""
    field_hidden: int = 64
    """Width of the field's network."""
    field_start_steps: int = 600
    """Steps in which the field first learns the colours that are there; none of them draws."""
    field_refresh: int = 100
    """Steps between look-ups of where the splats are."""
    lr_field: float = 1e-3
    """Learning rate of the field once it draws."""

    def __post_init__(self) -> None:
        for name, low, high in (("stages", 1, 16), ("entries", 2, 256), ("field_levels", 1, 24)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} = {getattr(self, name)} does not fit: {low} to {high}")

    def rescaled(self, factor: float) -> RvqCompressor:
        least = {"mask_every": 50, "field_refresh": 50}  # each costs a copy of the rows, or a plan
        steps = ("mask_every", "book_start", "color_start", "commitment_steps", "field_refresh")
        own = {name: stretched(getattr(self, name), factor, at_least=least.get(name, 1)) for name in steps}
        total = SCHEDULE_STEPS * own["book_start"] / _BOOK_START  # also where these are stretched already
        faster = max(_MASK_STEPS / max(total, 1), 1.0) / max(_MASK_STEPS * factor / max(total, 1), 1.0)
        # What a mask is worth acts through its drift, step by step: weights of short runs are larger, to a limit.
        weight = max(self.mask_weight, min(self.mask_weight / factor**2, _MOST_MASK_WEIGHT))
        return replace(self, **own, lr_masks=min(self.lr_masks * faster, 0.1), mask_weight=weight)

    def afterwards(self, steps: int) -> RvqCompressor:
        """Books and colours from the start; masks only where there are steps to learn them in."""
        short = replace(self.rescaled(max(steps, 1) / SCHEDULE_STEPS), mask_weight=self.mask_weight)
        return replace(short, book_start=0, color_start=0, masks=self.masks and steps > 0)

    def start(self, model: SplatModel, *, seed: int) -> CompressState:
        state = CompressState()
        if self.masks and MASKS not in model.rows:
            state.rows[MASKS] = torch.full((model.count,), START, device=model.device).requires_grad_(True)
        self._begin(state, 0, model, seed=seed)
        return state

    def drawn(self, state: CompressState, step: int, rows: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if not state.rows and not state.parameters:
            return rows
        changed = dict(rows)
        for name in SHAPES:
            if name in state.parameters:
                values = _one_sign(rows[name]) if name in _ALIGNED else rows[name]
                changed[name] = quantised(values.detach(), state.parameters[name]) + (values - values.detach())
        if PREFIX + "grid" in state.parameters:
            changed |= _split(field_colors(state, bits=Field().bits), rows, self._predicted(rows))
        elif "palette" in state.parameters:
            changed["sh_rest"] = palette_colors(state).view_as(rows["sh_rest"])
        return masked_rows(changed, state.rows[MASKS], self.mask_threshold) if MASKS in state.rows else changed

    def regularizer(self, state: CompressState, step: int, model: SplatModel) -> Tensor | None:
        terms = []
        if MASKS in state.rows and model.count and self.mask_weight:
            share = min(model.count / _MASKED_SPLATS, 1.0)
            terms.append(self.mask_weight * share * mask_loss(state.rows[MASKS]))
        if self.commitment and model.count:
            rise = min((step - state.scalars.get("book_begin", step)) / max(self.commitment_steps, 1), 1.0)
            for name in SHAPES:
                if name in state.parameters and rise > 0:
                    values = _one_sign(model.rows[name]) if name in _ALIGNED else model.rows[name]
                    entries = chosen_entries(values.detach(), state.parameters[name].detach())[1]
                    terms.append(self.commitment * rise * (values - entries).square().mean())
        return sum(terms[1:], terms[0]) if terms else None

    def update(self, state: CompressState, step: int) -> None:
        rates = {MASKS: self.lr_masks, "palette": self.lr_palette, "field": self.lr_field}
        step_learnables(state, rates | dict.fromkeys(SHAPES, self.lr_books))

    def edits(self, state: CompressState, step: int, model: SplatModel, *, seed: int) -> Iterator[RowEdit]:
        if MASKS in state.rows and step % self.mask_every == 0:
            kept = shown(state.rows[MASKS], self.mask_threshold)
            if not bool(kept.all()):
                yield RowEdit.keep(kept, reason="mask")
        self._begin(state, step, model, seed=seed)
        if PREFIX + "grid" in state.parameters and step % self.field_refresh == 0:
            refresh_places(state, model.rows["means"])

    def finished(self, state: CompressState, step: int, model: SplatModel) -> SplatModel:
        decoded = unpacked(self.pack(state, model))
        decoded.rows = {name: table.to(model.device) for name, table in decoded.rows.items()}
        decoded.filter3d = None if decoded.filter3d is None else decoded.filter3d.to(model.device)
        return decoded

    @torch.no_grad()
    def pack(self, state: CompressState, model: SplatModel) -> Packed:
        """What has not moved onto books, palette or field yet is kept in equal steps."""
        rows = self._kept_rows(state, model)
        model = taken(model, rows)
        arrays = arrays_of(model)
        attributes: dict[str, Attribute | None] = {}
        if PREFIX + "grid" in state.parameters:
            names = ("means", *self._predicted(model.rows))
            attributes["+".join(names)] = self._field_attribute(state, model, names[1:])
        for name in SHAPES:
            if name in state.parameters:
                attributes[name] = _book_attribute(state.parameters[name], name, model.rows[name])
        if "palette" in state.parameters:
            attributes["sh_rest"] = palette_attribute(state, rows, arrays["sh_rest"], CODING)
        done = {part for name in attributes for part in name.split("+")}
        attributes |= {
            name: plain_attribute(name, values, CODING) for name, values in arrays.items() if name not in done
        }
        return packed_of(model, self.kind, {name: each for name, each in attributes.items() if each is not None})

    def _kept_rows(self, state: CompressState, model: SplatModel) -> Tensor:
        rows = packable_rows(model)
        return rows[shown(state.rows[MASKS], self.mask_threshold)[rows]] if MASKS in state.rows else rows

    def _begin(self, state: CompressState, step: int, model: SplatModel, *, seed: int) -> None:
        """Start what is due and has not begun."""
        if self.shapes == "books" and step >= self.book_start:
            for name in SHAPES:
                if name in model.rows and name not in state.parameters:
                    values = model.rows[name].detach()
                    values = _one_sign(values) if name in _ALIGNED else values
                    generator = keyed_generator(seed, f"book_{name}", step)
                    books = fitted_books(values[values.isfinite().all(1)], stages=self.stages, entries=self.entries,
                                         rounds=self.book_rounds, generator=generator)  # fmt: skip
                    state.parameters[name] = books.requires_grad_(True)
                    state.scalars["book_begin"] = float(step)
        begun = PREFIX + "grid" in state.parameters or "palette" in state.parameters
        if step < self.color_start or begun or self.color == "sh" or not prod(model.rows["sh_rest"].shape[1:]):
            return
        if self.color == "palette":
            colors = model.rows["sh_rest"].detach()
            started_palette(state, colors, share=self.palette_share, seed=seed)
        else:
            self._begin_field(state, model, seed=seed)

    def _begin_field(self, state: CompressState, model: SplatModel, *, seed: int) -> None:
        rows = {name: table.detach() for name, table in model.rows.items()}
        finite = packable_rows(model)
        targets = torch.cat([rows[name].flatten(1) for name in self._predicted(rows)], 1)[finite]
        means = rows["means"][finite]
        size = FieldSize(self.field_levels, self.field_features, self.field_entries, self.field_hidden)
        shape = field_shape(means, size, targets.shape[1])
        tables = started_field(shape, means, targets, _worth(model)[finite], steps=self.field_start_steps, seed=seed)
        put_field(state, shape, tables, rows["means"])

    def _predicted(self, rows: Mapping[str, Tensor]) -> tuple[str, ...]:
        return COLORS if self.field_bands == "all" else COLORS[1:]

    def _field_attribute(self, state: CompressState, model: SplatModel, names: tuple[str, ...]) -> Attribute:
        shape, tables = shape_in(state), tables_in(state)
        colors = coefficients(shape, tables, shape.plan(model.rows["means"], gradients=False))
        values = {"means": model.rows["means"], **_split(colors, model.rows, names)}
        arrays = {name: table.detach().cpu().float().numpy() for name, table in values.items()}
        return Field(coding=CODING).encode(
            arrays, shape, {name: table.detach().cpu().float().numpy() for name, table in tables.items()}
        )


def _worth(model: SplatModel) -> Tensor:  # [N]
    rows = {name: table.detach() for name, table in model.rows.items()}
    return importance(model.primitive.opacities(rows), model.primitive.scales(rows))


def _book_attribute(books: Tensor, name: str, values: Tensor) -> Attribute:
    values = _one_sign(values) if name in _ALIGNED else values
    books = books.detach().half().to(values.dtype)  # as the file has them
    choice = chosen_entries(values, books)[0]
    return Residual("zstd").encode(values.cpu().numpy(), books.cpu().numpy(), choice.cpu().numpy())


def _one_sign(quats: Tensor) -> Tensor:  # [N,4] -> [N,4]
    """Length 1, the largest component positive; differentiable. Two quaternions for one turn would need two entries."""
    w, x, y, z = quats.unbind(1)
    length = (w * w + x * x + y * y + z * z).sqrt().clamp_min(1e-12)
    largest = quats.detach().gather(1, quats.detach().abs().argmax(1, keepdim=True))
    return quats / length[:, None] * torch.where(largest < 0, -1.0, 1.0)


def _split(colors: Tensor, rows: Mapping[str, Tensor], names: tuple[str, ...]) -> dict[str, Tensor]:
    """Columns [N,outputs] as the fields they stand for."""
    out, at = {}, 0
    for name in names:
        width = prod(rows[name].shape[1:])
        out[name] = colors[:, at : at + width].view(rows[name].shape)
        at += width
    return out
