"""The optimiser: a drag, a geometric energy, a prior that looks at renders (specs: viewer_editing 4.1, 4.4).

First stage: places only. Second stage: places move a tenth as fast, and colour, opacity, size and orientation of the
same rows learn too, the shell's at 0.3 of the rate. The paper also grows and removes splats in the second stage; here
the rows of a drag stay as many as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from splat.edit.drag.drag import drag_values
from splat.edit.moving import deformed_values
from splat.edit.ops import Drag
from splat.edit.prior.adam import Adam
from splat.edit.prior.appearance import Appearance
from splat.edit.prior.nodes import node_graph
from splat.edit.prior.offsets import Offsets
from splat.edit.prior.pins import pins_of
from splat.edit.prior.protocol import EditPrior, EditView, Guidance
from splat.edit.prior.regions import split_regions
from splat.edit.prior.registry import prior_named
from splat.edit.prior.schedule import stage_switch
from splat.edit.prior.triplane import TriplaneField
from splat.edit.prior.views import ENOUGH_PX, choose_views, drawn
from splat.edit.prior.weights import require_weights
from splat.errors import UserError
from splat.geometry.camera import Camera
from splat.geometry.rng import keyed_generator, keyed_seed
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel
from splat.render.types import Rasterizer

Progress = Callable[[int, int, Mapping[str, float]], None]
"""Called after each step: number (from 1), how many there are, figures."""
_STEPS, _STEPS_BLIND = 1500, 150
"""Of the paper; and enough for the energy alone, which begins next to its least."""


@dataclass(frozen=True)
class RefineSettings:
    """How a drag is refined. Numbers of the paper where it gives them."""

    steps: int | None = None
    """None = 1500 with a prior that looks (the paper's), 150 with geometry alone."""
    batch: int = 4
    """Views a step."""
    views: int = 24
    """Most views used."""
    longest_px: int = 512
    """Longer side of the pictures the prior sees."""
    shell: int = 20
    """Unmasked neighbours of a masked splat that move softly with it."""
    nodes: int | None = None
    """Most nodes of the graph that carries the geometric energy; None = as many as the drag's."""
    energy: float = 100.0
    """Weight of that energy (mean over its edges, in spacings squared)."""
    shell_weight: float = 2500.0
    """Weight of the mean size of the shell's offsets (in half diagonals of what moves)."""
    prior_weight: float = 1.0
    """Weight of the prior."""
    field: Literal["auto", "on", "off"] = "auto"
    """Offsets from a field on three planes; auto = with a prior that looks."""
    resolutions: tuple[int, ...] = (64, 128, 256, 512)
    """Of the planes."""
    channels: int = 32
    """Of a plane."""
    lr_grid: float = 1e-3
    lr_heads: float = 5e-4
    lr_nodes: float = 0.02
    """In spacings of the graph; ours."""
    second_stage: float = 0.1
    """Factor on the rates of places in the second stage."""
    appearance: float = 0.25
    """Factor on the rates of colour, opacity, size and orientation there."""
    soft: float = 0.3
    """Factor on those for the shell."""


def refine_drag(  # noqa: PLR0917
    model: SplatModel, mask: Tensor, drag: Drag, views: Sequence[Camera], prior: EditPrior, rasterizer: Rasterizer, *,
    settings: RefineSettings | None = None, seed: int = 0, progress: Progress | None = None, folder: Path | None = None,
    device: torch.device | None = None,
) -> RowEdit:  # fmt: skip
    """The rows ``mask [N]`` bool dragged, as the geometric energy and ``prior`` want it.

    Only masked rows and their shell change; handles reach their targets, anchors stay. ``views`` are cameras to choose
    from (none are needed where the prior does not look), ``folder`` is where its weights are, ``device`` where its
    networks run (None = where the model is). A function of its arguments alone (on a GPU up to the order of additions).
    UserError when nothing is masked, no camera shows enough of it, or weights are missing.
    """
    settings = settings or RefineSettings()
    if not bool(mask.any()):
        raise UserError("nothing is selected: a drag needs splats to move")
    if not drag.handles:
        raise UserError("a drag needs at least one handle")
    plain = model.detached()
    run = _Run(plain, mask, drag, prior=prior, rasterizer=rasterizer, settings=settings, seed=seed)
    run.look(views, folder, device or plain.device)
    for number in range(1, run.steps + 1):
        figures = run.step(number)
        if progress is not None:
            progress(number, run.steps, figures)
    return run.edit()


def refined_values(
    model: SplatModel, mask: Tensor, drag: Drag, *, prior: str, path: Path | None, cameras: Sequence[Camera],
    rasterizer: Rasterizer, say: Callable[[str], None] = lambda text: None, steps: int | None = None, seed: int = 0,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """As ``drag_values``, by the prior of that name: rows [R] and raw values [R,...] of the fields that change.
    Networks run on a GPU where there is one."""

    def tell(number: int, total: int, figures: Mapping[str, float]) -> None:
        if number == total or number % max(1, total // 10) == 0:
            say(f"drag, step {number} of {total}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()))

    edit = refine_drag(
        model, mask, drag, cameras, prior_named(prior), rasterizer, settings=RefineSettings(steps=steps), seed=seed,
        progress=tell, folder=path, device=torch.device("cuda") if torch.cuda.is_available() else None,
    )  # fmt: skip
    rows = next(iter(edit.values.values()))[0]
    return rows, {name: new for name, (_, new) in edit.values.items()}


class _Run:
    """One refinement; what it learns lives here."""

    def __init__(
        self, model: SplatModel, mask: Tensor, drag: Drag, *, prior: EditPrior, rasterizer: Rasterizer,
        settings: RefineSettings, seed: int,
    ) -> None:  # fmt: skip
        self.model, self.mask, self.drag, self.prior = model, mask, drag, prior
        self.rasterizer, self.settings, self.seed = rasterizer, settings, seed
        dragged, values = drag_values(model, mask, drag)
        self.regions = split_regions(model.rows["means"], mask, neighbours=settings.shell, also=dragged)
        self.rows = self.regions.rows
        started = {name: table.clone() for name, table in model.rows.items()}
        for name, table in values.items():
            started[name][dragged] = table
        self.base = {name: table[self.rows] for name, table in started.items()}
        """Raw fields of the rows that move, at the places where they were last turned."""
        self.settled = False

    def look(self, cameras: Sequence[Camera], folder: Path | None, device: torch.device) -> None:
        """Open the prior, choose its views, set up what learns."""
        settings, drag, means = self.settings, self.drag, self.model.rows["means"]
        handles, targets = (
            means.new_tensor([getattr(handle, name) for handle in drag.handles]) for name in ("at", "to")
        )
        told = {"folder": folder, "device": device, "seed": keyed_seed(self.seed, "edit prior", 0)}
        self.views: list[EditView] = []
        if self.prior.looks:
            require_weights(self.prior.kind, self.prior.needs(), folder)  # before anything is drawn
            self.views = choose_views(
                self.model, self.mask, drag, cameras, self.rasterizer, most=settings.views,
                longest_px=settings.longest_px,
            )  # fmt: skip
        if self.prior.looks and not self.views:
            raise UserError(
                f"edit prior '{self.prior.kind}' looks at renders: none of {len(cameras)} cameras shows the selection "
                f"in {ENOUGH_PX} pixels (name the capture with --scene)"
            )
        self.guidance: Guidance = self.prior.prepare(self.views, handles, targets, **told)
        self.steps = settings.steps or (_STEPS if self.prior.looks else _STEPS_BLIND)
        self.switch = stage_switch(self.steps)
        self._learn()

    def _learn(self) -> None:
        settings, rest = self.settings, self.model.rows["means"][self.rows]
        moving = torch.zeros_like(self.mask).index_fill_(0, self.rows, True)
        graph = node_graph(self.model, moving, settings.nodes or self.drag.nodes)
        field = None
        if settings.field == "on" or (settings.field == "auto" and self.prior.looks):
            field = TriplaneField(
                rest.amin(0), rest.amax(0), resolutions=settings.resolutions, channels=settings.channels,
                seed=keyed_seed(self.seed, "edit prior field", 0),
            )  # fmt: skip
        pins = pins_of(self.drag, rest, self.base["means"], falloff=2 * graph.spacing)
        start = self.base["means"] + pins.closing
        self.offsets = Offsets.of(rest, start, self.regions, graph=graph, firm=pins.firm, field=field)
        self.optimizer = Adam(
            self.offsets.groups(nodes=settings.lr_nodes, grid=settings.lr_grid, heads=settings.lr_heads)
        )
        self.rates = [group.lr for group in self.optimizer.groups]
        self.appearance: Appearance | None = None

    def step(self, number: int) -> dict[str, float]:
        """Step ``number`` of ``steps``, from 1; its figures."""
        settings, progress = self.settings, (number - 1) / max(self.steps - 1, 1)
        if number == self.switch + 1:
            self._second_stage()
        learned = self.offsets.learned()
        places = self.offsets.start + learned
        energy = self.offsets.graph.energy(self.offsets.graph.gathered(places))
        loss = settings.energy * energy
        figures = {"energy": float(energy.detach())}
        shell = self.regions.shell
        if bool(shell.any()):
            moved = learned[shell].abs().mean() / self.offsets.unit
            loss = loss + settings.shell_weight * moved
            figures["shell"] = float(moved.detach())
        if self.prior.looks:
            judged, told = self._judged(places, number, progress)
            loss = loss + settings.prior_weight * judged
            figures |= told
        self._rates(progress)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return figures | {"loss": float(loss.detach())}

    def _rates(self, progress: float) -> None:
        """Blind, the rates fall to zero, so that the last steps settle; with a prior, stages set them."""
        if not self.prior.looks:
            for group, rate in zip(self.optimizer.groups, self.rates, strict=True):
                group.lr = rate * (1 - progress)

    def _judged(self, places: Tensor, number: int, progress: float) -> tuple[Tensor, Mapping[str, float]]:
        """The prior's opinion of a few views, drawn at random of the seed and the step."""
        draw = keyed_generator(self.seed, "edit prior views", number)
        chosen = torch.randperm(len(self.views), generator=draw)[: self.settings.batch].tolist()
        moved = self._moved(places)
        total, figures = places.new_zeros(()), {}

        def size(view: int) -> tuple[int, ...]:
            return tuple(self.views[view].picture.shape)

        for _, group in groupby(sorted(chosen, key=lambda view: (size(view), view)), key=size):
            ids = list(group)
            pictures = torch.stack([drawn(moved, self.views[view].camera, self.rasterizer) for view in ids])
            judged, figures = self.guidance.loss(pictures, ids, progress)
            total = total + judged * (len(ids) / len(chosen))
        return total, figures

    def _values(self, places: Tensor) -> dict[str, Tensor]:
        """Raw fields of the rows that move."""
        learned = {} if self.appearance is None else self.appearance.applied(self.base)
        return self.base | learned | {"means": places}

    def _moved(self, places: Tensor) -> SplatModel:
        values = self._values(places)
        rows = {name: table.index_copy(0, self.rows, values[name]) for name, table in self.model.rows.items()}
        return replace(self.model, rows=rows)

    def _second_stage(self) -> None:
        for group in self.optimizer.groups:
            group.lr *= self.settings.second_stage
        if not self.prior.looks:
            return
        self._settle()
        soft = torch.where(self.regions.shell, self.settings.soft, 1.0).to(self.base["means"])
        self.appearance = Appearance(self.base, soft)
        self.optimizer.groups += self.appearance.groups(self.settings.appearance)

    def _settle(self) -> None:
        """Turn the rows as their surroundings turned since the geometric drag."""
        graph = self.offsets.graph
        with torch.no_grad():
            places = self.offsets.start + self.offsets.learned()
            turns = graph.turned(graph.gathered(self.base["means"]), graph.gathered(places))
        started = replace(self.model, rows=self.base, filter3d=None)
        every = torch.arange(len(self.rows), device=self.rows.device)
        self.base = self.base | deformed_values(started, every, places, turns)
        self.settled = True

    def edit(self) -> RowEdit:
        """What changed; fields and rows that are as they were are left out."""
        if not self.settled:
            self._settle()
        with torch.no_grad():
            values = self._values(self.offsets.start + self.offsets.learned())
        before = {name: table[self.rows] for name, table in self.model.rows.items()}
        changed = {name: new.detach() for name, new in values.items() if not torch.equal(new, before[name])}
        if any(not bool(torch.isfinite(table).all()) for table in changed.values()):
            raise UserError(f"edit prior '{self.prior.kind}': the drag diverged (not finite); lower its weight")
        whole = {name: (self.rows, table) for name, table in changed.items()}
        return RowEdit.overwrite(self.model.count, whole or {"means": (self.rows, values["means"])}, reason="drag")
