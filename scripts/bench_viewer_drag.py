"""Drags of a great many splats, without a page: for ``bench_viewer.py``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bench_viewer_hooks import spread

from splat.edit.drag.drag import DragSession
from splat.edit.ops import Drag, Handle
from splat.geometry.camera import Camera
from splat.io.formats import read_model
from splat.live.snapshot import Snapshot
from splat.model.gaussian import GaussianPrimitive
from splat.model.labels import Labels
from splat.model.splat_model import SplatModel
from splat.render.registry import choose
from splat.viewer.picture.draw import draw
from splat.viewer.picture.look import Look
from splat.viewer.picture.space import Space

DRAGGED = (10_000, 50_000, 200_000)
MOVES = 15
WARMING = 2
"""The first moves are not counted."""
AROUND = 5 / 4
"""Splats of a model against those that are selected: some lie around."""
JITTER = 0.5
"""Of doubled splats, in their own sizes."""


def drag_cost(size: tuple[int, int]) -> dict[str, Any]:
    """Milliseconds of one drag event on a bumpy ball, of which the selection is one half and more."""
    camera = Space().camera(wxyz=(1, 0, 0, 0), position=(0, 0, -4), fov=0.9, width=size[0], height=size[1])
    found = {}
    for count in DRAGGED:
        model, mask, labels = bumpy_ball(count)
        top = tuple(model.rows["means"][mask].amax(0).tolist())
        found[str(count)] = moved(Snapshot(model, labels, 0, 0), mask, Drag((Handle(top, top, 0.1),)), 0.02, camera)
    return found


def moved(snapshot: Snapshot, mask: torch.Tensor, drag: Drag, step: float, camera: Camera) -> dict[str, Any]:
    """What a drag of the rows ``mask`` takes, milliseconds, with its first handle moved by ``step`` (world units) each
    time: to begin, one event, one event with its picture for ``camera``."""
    rasterizer, handle = choose("cpu"), drag.handles[0]
    start = time.perf_counter()
    session = DragSession(snapshot.model, mask, drag)
    begun = time.perf_counter() - start
    ids, events, pictures = snapshot.labels.ids[session.rows], [], []
    for i in range(WARMING + MOVES):
        to = (handle.at[0] + step * i, handle.at[1] - step / 2 * i, handle.at[2])
        start = time.perf_counter()
        values = session.move((Handle(handle.at, to, handle.radius), *drag.handles[1:]))
        events.append(1000 * (time.perf_counter() - start))
        draw(snapshot, camera, Look(), rasterizer=rasterizer, preview=(ids, values))
        pictures.append(1000 * (time.perf_counter() - start))
    return {"rows": len(session.rows), "begin_ms": 1000 * begun, "event_ms": spread(events[WARMING:]),
            "event_and_picture_ms": spread(pictures[WARMING:])}  # fmt: skip


def bumpy_ball(selected: int) -> tuple[SplatModel, torch.Tensor, Labels]:
    """A shell of a quarter more splats than ``selected``, which lie on one side."""
    random = torch.Generator().manual_seed(0)
    count = int(selected * AROUND)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=random), dim=1)
    xyz = directions * (1 + 0.1 * torch.sin(9 * directions).prod(1, keepdim=True))
    rows = GaussianPrimitive().start(xyz, torch.rand(count, 3, generator=random), sh_degree=1, generator=random)
    mask = torch.zeros(count, dtype=torch.bool)
    mask[xyz[:, 0].argsort()[:selected]] = True
    return SplatModel(GaussianPrimitive(), rows, 1), mask, Labels.start(count)


def model_to_drag(paths: Sequence[Path], selected: int) -> SplatModel:
    """The smallest of these models with ``selected`` splats and more; where none has, the largest with its splats
    doubled, each beside itself; without any, a bumpy ball."""
    if not paths:
        return bumpy_ball(selected)[0]
    models = sorted((read_model(path).model for path in paths), key=lambda model: model.count)
    enough = next((model for model in models if model.count >= selected), None)
    return enough or thickened(models[-1], int(selected * AROUND))


def thickened(model: SplatModel, count: int) -> SplatModel:
    """``count`` splats: those of ``model`` again and again, from the second time on a little beside themselves."""
    random = torch.Generator().manual_seed(0)
    source = torch.arange(count) % model.count
    rows = {name: table[source].clone() for name, table in model.rows.items()}
    beside = torch.randn(count - model.count, 3, generator=random) * model.scales[source[model.count :]]
    rows["means"][model.count :] += JITTER * beside
    filter3d = None if model.filter3d is None else model.filter3d[source]
    return SplatModel(model.primitive, rows, model.sh_degree, model.filter2d, filter3d)
