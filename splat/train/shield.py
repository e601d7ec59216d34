"""Training views without the pixels that contradict an edit by hand, and the looks that find those out."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splat.edit.protection import (
    Protection,
    Shield,
    Tombstones,
    changed_rows,
    mask_size,
    packed_mask,
)
from splat.edit.sight import Sight, Watched, contradicted, part_of
from splat.geometry.camera import Camera
from splat.model.labels import HELD
from splat.model.render_inputs import RenderInputs
from splat.model.row_edit import RowEdit
from splat.render.types import Rasterizer
from splat.train.events import Event, Shielding, Warned
from splat.train.frames import FrameSource, View
from splat.train.memory import free_caches, ran_out
from splat.train.state import TrainState

CACHE_BYTES = 256 * 2**20
LEAST_HEARD = 0.1
"""Of what a splat shows in all training views: with less in pixels that count, no photograph speaks for it."""
HEARD_IN = 32
"""Training views, evenly spread, that tell which rows rest; at most."""
AROUND_PX = 8
"""Of the pictures looked at: where splats about contradicted pixels are heard, if they are."""
COLOURS = frozenset({"sh0", "sh_rest"})
"""Fields that say nothing of where a splat is seen."""
BURY_EVERY = 100
"""Steps, where no refinement comes between."""
BEAT_SECS = 0.05
"""Between two events while views are looked at."""


class ShieldedFrames:
    """``FrameSource`` with the protection of a state in the masks. Without any it hands out the very same views."""

    def __init__(self, frames: FrameSource, state: TrainState) -> None:
        self.cameras: tuple[Camera, ...] = frames.cameras
        self._frames, self._state = frames, state
        self._made_for: Protection | None = None
        self._kept: OrderedDict[tuple[int, int, int], Tensor | None] = OrderedDict()
        self._bytes = 0

    def prefetch(self, indices: Sequence[int]) -> None:
        self._frames.prefetch(indices)

    def view(self, index: int, scale: float) -> View:
        """As ``FrameSource.view``; its mask is zero where the photograph contradicts an edit."""
        view = self._frames.view(index, scale)
        kept = self.kept(view)
        if kept is None:
            return view
        return replace(view, mask=kept if view.mask is None else view.mask * (kept > 0))

    def kept(self, view: View) -> Tensor | None:  # [1,H,W] uint8, 0 or 255
        """Pixels of a view that no edit contradicts; None = all."""
        if not self._state.protection:
            return None
        if self._made_for is not self._state.protection:
            self._forget()
            self._made_for = self._state.protection
        height, width = view.pixels.shape[1:3]
        key = (view.index, height, width)
        if key not in self._kept:
            kept = self._made_for.kept(view.index, self.cameras[view.index], width, height)
            mask = None if kept is None else (kept.to(view.pixels.device).to(torch.uint8) * 255)[None]
            self._remember(key, mask)
        self._kept.move_to_end(key)
        return self._kept[key]

    def release(self) -> None:
        """As ``FrameSource.release``."""
        self._frames.release()
        self._forget()

    def _forget(self) -> None:
        self._kept.clear()
        self._bytes = 0

    def _remember(self, key: tuple[int, int, int], mask: Tensor | None) -> None:
        self._kept[key] = mask
        self._bytes += 0 if mask is None else mask.numel()
        while self._bytes > CACHE_BYTES and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= 0 if oldest is None else oldest.numel()


@dataclass(frozen=True, eq=False)
class Before:
    """What must be kept of the rows as they were: drawings of them come after the edit."""

    number: int
    inputs: RenderInputs
    old: Tensor  # [N] bool, rows that go or change
    new: Tensor  # [M] bool
    gone: Tensor  # [G,3] places that are empty now, but for what else is there


class EditShield:
    """Makes the protection of edits by number and ends it; the state holds it."""

    def __init__(
        self, state: TrainState, cameras: Sequence[Camera], rasterizer: Rasterizer, drawn: Callable[[], RenderInputs]
    ) -> None:
        """``drawn`` gives what training draws of the rows as they are."""
        self._state, self._cameras, self._rasterizer, self._drawn = state, cameras, rasterizer, drawn
        self._waiting: list[Before] = []
        self._changed = False
        """Since it was last seen which rows rest."""
        self._told = 0.0

    def before(self, number: int, edit: RowEdit) -> Before:
        """What to remember of the rows before ``edit`` is applied."""
        old, new = changed_rows(edit)
        if edit.is_identity and edit.values.keys() <= COLOURS:
            new = torch.zeros_like(new)  # they cover what they covered
        means = self._state.model.rows["means"].detach()
        return Before(number, self._inputs(), old, new, means[_emptied(edit, old)])

    def applied(self, before: Before | None) -> None:
        """It was; ``looks`` follows before the next step. None needs no protection."""
        if before is not None:
            self._waiting.append(before)

    def end(self, number: int) -> None:
        """The edit was undone."""
        self._state.protection = self._state.protection.without(number)
        self._changed = True

    def looks(self) -> Iterator[Event]:
        """Look at all training views for what the edits just applied changed in them, and protect that."""
        state, self._told = self._state, time.monotonic()
        try:
            while self._waiting:
                yield from self._look(self._waiting.pop(0))
            if self._changed:
                yield from self._find_resting()
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            free_caches(state.model.device)
            yield Warned(state, "out of memory: the photographs may pull the last edit back")

    def _look(self, before: Before) -> Iterator[Event]:
        state, masks = self._state, {}
        self._changed = True
        watched = [Watched.of(self._sight(inputs), rows) for inputs, rows in
                   ((before.inputs, before.old), (self._inputs(), before.new)) if bool(rows.any())]  # fmt: skip
        for view, camera in enumerate(self._cameras if watched else ()):
            mask = contradicted(each.counts(camera) for each in watched)
            if mask is not None:
                masks[view] = packed_mask(mask)
            yield from self._beat()
        left = state.model.rows["means"].detach()
        stones = Tombstones.of(before.gone, left, state.labels.next_id)
        state.protection = state.protection.with_shield(before.number, Shield(masks, stones))
        state.version += 1

    def _find_resting(self) -> Iterator[Event]:
        """Which rows show in training views, but hardly where those count."""
        state = self._state
        self._changed, state.resting = False, None
        if state.protection:
            resting = yield from self._unheard(self._sight(self._inputs()))
            state.resting = resting if bool(resting.any()) else None
        state.compress.held = state.held  # files that are written before the next step ask for it, too
        state.version += 1

    def _unheard(self, sight: Sight) -> Generator[Event, None, Tensor]:  # [N] bool
        """First around the contradicted pixels: what shows enough beside them there need not be looked for elsewhere,
        and that is nearly everything. Then what could be heard elsewhere, were nothing before it; that is few."""
        state, beside = self._state, {}
        shown = unheard = torch.zeros(sight.inputs.count, device=sight.inputs.means.device)
        count = len(self._cameras)
        few = min(count, HEARD_IN)
        for view in (number * count // few for number in range(few)):
            camera = self._cameras[view]
            kept = state.protection.kept(view, camera, *mask_size(camera))
            beside[camera] = torch.ones(mask_size(camera)[::-1])
            part = None if kept is None else part_of(~kept)
            if part is None:
                continue
            part = part.wider(AROUND_PX, kept.shape)
            beside[camera][part.pixels] = 0
            against = (~kept)[part.pixels]
            weights = sight.weights(camera, part, torch.stack([torch.ones_like(against), against]))
            if weights is None:
                return torch.zeros_like(shown, dtype=torch.bool)
            shown, unheard = shown + weights[0], unheard + weights[1]
            yield from self._beat()
        rows = _hardly_heard(shown, unheard) & ~state.labels.having(HELD)
        most, alone = shown.clone(), sight.only(rows)
        for camera, pixels in beside.items() if bool(rows.any()) else ():
            most[rows] += alone.weights(camera, None, pixels[None])[0]
            yield from self._beat()
        unsure = rows & ~_hardly_heard(most, unheard)
        for camera, pixels in beside.items():
            if not bool(unsure.any()):
                break
            part = part_of((sight.only(unsure).alpha(camera).cpu() > 0) & (pixels > 0))
            if part is not None:
                shown = shown + sight.weights(camera, part, pixels[part.pixels][None])[0]
                unsure = unsure & _hardly_heard(shown, unheard)
            yield from self._beat()
        return rows & _hardly_heard(shown, unheard)

    def _inputs(self) -> RenderInputs:
        with torch.no_grad():
            return self._drawn()

    def _sight(self, inputs: RenderInputs) -> Sight:
        return Sight(inputs, self._rasterizer, self._state.model.filter2d)

    def _beat(self) -> Iterator[Event]:
        """Whoever waits for pictures is served now and then."""
        if time.monotonic() - self._told > BEAT_SECS:
            yield Shielding(self._state)
            self._told = time.monotonic()

    def burial(self) -> RowEdit | None:
        """The edit that removes what came to lie where an edit allows nothing; None when there is none."""
        state = self._state
        if not state.protection:
            return None
        buried = state.protection.buried(state.model.rows["means"].detach(), state.labels.ids)
        if buried is not None and state.held is not None:
            buried = buried & ~state.held
        return None if buried is None or not bool(buried.any()) else RowEdit.keep(~buried, reason="tombstone")


def _hardly_heard(shown: Tensor, unheard: Tensor) -> Tensor:  # [N] twice -> [N] bool
    return (shown > 0) & (shown - unheard < LEAST_HEARD * shown)


def _emptied(edit: RowEdit, old: Tensor) -> Tensor:  # [N] bool
    """Old rows that left their place: removed ones, and those that have another now."""
    present = torch.zeros_like(old).index_fill_(0, edit.source, True)
    emptied = ~present
    for name in ("means", "vertices"):
        if name in edit.values:
            emptied[edit.source[edit.values[name][0]]] = True
    return emptied
