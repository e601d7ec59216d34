"""What a mode draws with: one model, one camera, one look, and the one call of the rasterizer that a frame takes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from splat.geometry.camera import Camera
from splat.live.snapshot import Snapshot
from splat.model.labels import HIDDEN, SELECTED
from splat.model.render_inputs import RenderInputs
from splat.model.splat_model import SplatModel
from splat.render.types import CameraBatch, Rasterizer, RenderOptions, RenderOutput
from splat.viewer.picture.look import CropBox, Look

Preview = tuple[Tensor, dict[str, Tensor]]
"""Splats by ``Labels.ids [R]``, and raw values ``[R,...]`` to draw instead of theirs."""
OUT_OF_SIGHT_LOGIT = -30.0
"""Opacity of what is left out: far below the 1/255 where a rasterizer begins. Rows keep their numbers this way, and
nothing of the model is copied but one number per row."""
SELECTION_RGB = (255, 214, 10)
MIN_ALPHA, SOLID_ALPHA = 0.05, 0.5
"""Thinner pixels have no depth or number worth a colour; from half covered on, the colour is that of the number alone,
or the texture of the alpha would show in every picture."""

T = TypeVar("T")
_remembered: WeakKeyDictionary[Snapshot, dict[Any, Any]] = WeakKeyDictionary()
_lock = threading.Lock()


def remembered(snapshot: Snapshot, key: Any, make: Callable[[], T]) -> T:
    """``make()``, once per snapshot and key: what several frames need and no page can change."""
    with _lock:
        kept = _remembered.setdefault(snapshot, {})
    if key not in kept:
        kept[key] = make()
    return kept[key]


def remembered_for(snapshot: Snapshot, name: str, owner: Any, make: Callable[[], T]) -> T:
    """As ``remembered`` while the same object ``owner`` comes again; another one takes its place: what a drag or a box
    changes many times a second is worth its memory only once. Pages with different owners do not mix."""
    slot = remembered(snapshot, name, dict)
    kept = slot.get("last")
    if kept is None or kept[0] is not owner:
        kept = slot["last"] = (owner, make())
    return kept[1]


@dataclass(eq=False)
class Painted:
    """A picture as a mode leaves it."""

    rgb: Tensor  # [H,W,3] uint8
    values: tuple[float, float] | None = None
    """Ends of the ramp."""


@dataclass(eq=False)
class View:
    """One frame to draw. A mode calls ``render`` once."""

    snapshot: Snapshot
    camera: Camera
    look: Look
    rasterizer: Rasterizer
    preview: Preview | None = None
    desk: Any = None
    want_depth: bool = False
    output: RenderOutput | None = None
    """Of ``render``: without the channel that marks the selection."""
    marked: Tensor | None = None  # [H,W] share of a pixel's light that comes from selected splats
    _model: SplatModel | None = field(default=None, repr=False)

    @property
    def device(self) -> torch.device:
        return self.snapshot.model.device

    @property
    def model(self) -> SplatModel:
        """The snapshot's, with the values of the preview."""
        if self._model is None:
            self._model = self.snapshot.model if self.preview is None else _previewed(self.snapshot, self.preview)
        return self._model

    @property
    def background(self) -> Tensor:  # [3]
        return torch.tensor(self.look.background, dtype=torch.float32, device=self.device)

    @property
    def left_out(self) -> Tensor | None:  # [N] bool
        """Rows that are not drawn: hidden ones and those outside the crop box; None = all are drawn."""
        snapshot, look = self.snapshot, self.look
        out = None
        if not look.show_hidden:
            out = remembered(snapshot, "hidden", lambda: _if_any(snapshot.labels.having(HIDDEN)))
        if (crop := look.crop) is not None:
            if self.preview is None:
                beyond = remembered_for(snapshot, "crop", crop, lambda: outside(snapshot.model.rows["means"], crop))
            else:
                beyond = outside(self.model.rows["means"], crop)
            out = beyond if out is None else out | beyond
        return out

    @property
    def selected(self) -> Tensor | None:  # [N] bool
        """Rows to be tinted; None = none."""
        if not self.look.show_selection:
            return None
        snapshot = self.snapshot
        return remembered(snapshot, "selected", lambda: _if_any(snapshot.labels.having(SELECTED)))

    def inputs(self) -> RenderInputs:
        """Rows as they are drawn, without what is left out."""
        inputs, out = self.model.render_inputs(), self.left_out
        if out is None:
            return inputs
        return replace(inputs, logit_opacities=inputs.logit_opacities.masked_fill(out, OUT_OF_SIGHT_LOGIT))

    def options(self, **more: Any) -> RenderOptions:
        look, model = self.look, self.snapshot.model
        degree = model.sh_degree if look.sh_degree is None else min(look.sh_degree, model.sh_degree)
        filter2d = model.filter2d if look.filter2d is None else look.filter2d
        return RenderOptions(
            sh_degree=degree, filter2d=filter2d, background=self.background, near=look.near, far=look.far, **more
        )

    def render(
        self, features: Tensor | None = None, *, depth: frozenset[str] = frozenset(), **more: Any
    ) -> RenderOutput:  # features: [N,F]
        """The frame's one picture. What the page wants besides (depth, the selection) is drawn along with it."""
        inputs, selected = self.inputs(), self.selected
        channels = [] if features is None else [features]
        if selected is not None:
            channels.append(selected[:, None].to(inputs.means.dtype))
        if channels:
            table = channels[0] if len(channels) == 1 else torch.cat(channels, dim=1)
            inputs = replace(inputs, features=table.to(inputs.means.dtype).contiguous())
        if self.want_depth:
            depth = depth | {"median"}
        options = self.options(depth=frozenset(depth), **more)
        cameras = CameraBatch.of(self.camera, dtype=inputs.means.dtype, device=self.device)
        drawn = self.rasterizer.render(inputs, cameras, options)
        if selected is not None:
            self.marked = drawn.features[0, ..., -1]
            drawn = replace(drawn, features=drawn.features[..., :-1] if features is not None else None)
        self.output = drawn
        return drawn

    def pixels(self, points: Tensor) -> tuple[Tensor, Tensor]:  # [R,3] world -> [R,2] px, [R]
        """Where the camera sees points, and their z. Points at or behind the camera land far outside."""
        pose = torch.tensor(self.camera.camera_from_world, dtype=points.dtype, device=points.device)
        K = torch.tensor(self.camera.K, dtype=points.dtype, device=points.device)
        local = points @ pose[:3, :3].T + pose[:3, 3]
        z = local[:, 2]
        flat = local[:, :2] / z.clamp_min(1e-6)[:, None]
        return flat @ K[:2, :2].T + K[:2, 2], z

    def over_background(self, rgb: Tensor, alpha: Tensor) -> Tensor:  # [H,W,3] uint8, [H,W] -> [H,W,3] uint8
        """Fade to the background where little or nothing is."""
        alpha = torch.where(alpha >= MIN_ALPHA, (alpha / SOLID_ALPHA).clamp(0, 1), 0.0)[..., None]
        behind = self.background * 255
        return (behind + (rgb - behind) * alpha + 0.5).to(torch.uint8)

    def named_rows(self, table: Tensor, top_id: Tensor) -> Tensor:  # [N,...], [H,W] -> [H,W,...]
        """Of every pixel, the row of ``table`` of the splat on top; where there is none, row 0 (or zeros)."""
        if not table.shape[0]:
            return table.new_zeros(*top_id.shape, *table.shape[1:])
        chosen = table.index_select(0, top_id.reshape(-1).clamp_min(0).to(torch.int64))
        return chosen.reshape(*top_id.shape, *table.shape[1:])


def outside(means: Tensor, crop: CropBox) -> Tensor:  # [N,3] -> [N] bool
    """Whose centre lies outside the box."""
    pose = torch.tensor(crop.world_from_box, dtype=means.dtype, device=means.device)
    local = (means - pose[:3, 3]) @ pose[:3, :3]
    half = torch.tensor(crop.size, dtype=means.dtype, device=means.device) / 2
    return (local.abs() > half).any(dim=1)


def _if_any(mask: Tensor) -> Tensor | None:
    return mask if bool(mask.any()) else None


def _previewed(snapshot: Snapshot, preview: Preview) -> SplatModel:
    """The model with some raw values replaced; tables that keep theirs are shared. Splats that are gone are passed
    over. ValueError for a field the model does not have."""
    ids, values = preview
    model = snapshot.model
    unknown = sorted(set(values) - set(model.rows))
    if unknown:
        raise ValueError(f"a preview sets {unknown}, the model has {sorted(model.rows)}")
    rows = remembered_for(snapshot, "preview", ids, lambda: snapshot.labels.rows_of(ids.to(model.device)))
    there = rows >= 0
    whole = bool(there.all())
    tables = dict(model.rows)
    for name, given in values.items():
        new = given.to(tables[name])
        tables[name] = tables[name].index_copy(0, rows if whole else rows[there], new if whole else new[there])
    return replace(model, rows=tables)
