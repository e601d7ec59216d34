"""Telling what a model loses as plain Gaussians: at the end of a training and of an export."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from splat.cli.opening import OpenedModel, background_behind, moved_to, run_config, run_scene
from splat.config.assemble import Parts, background_now, image_store
from splat.config.build import build_config
from splat.config.devices import choose_device
from splat.config.schema import RenderConfig
from splat.errors import UserError
from splat.evaluate.conversion import Views, conversion_loss, ring_views, what_is_lost
from splat.geometry.camera import Camera
from splat.io.atomic import write_error
from splat.io.cameras_json import read_cameras_json
from splat.io.formats import in_capture_frame, model_file, sniff
from splat.io.selection import CAPTURE_UP, inverse_of
from splat.model.splat_model import SplatModel
from splat.render.types import Rasterizer
from splat.scene.images import ImageStore
from splat.scene.types import Scene
from splat.train.sinks import METRICS, json_safe

Say = Callable[[str], None]
MOST_VIEWS = 16
"""Of the views that are not held out: an estimate needs no more."""


def tell_training(parts: Parts, run_dir: Path, say: Say) -> None:
    """After a training: what its PLY lost, as a line for the user and one in ``metrics.jsonl``."""
    state = parts.shown(parts.state)
    if what_is_lost(state.model) is None:
        return
    views, background = scene_views(parts.scene, parts.store), background_now(parts.config, state.changes)
    try:
        loss = conversion_loss(state.model, parts.rasterizer, views, background=background)
    except UserError as error:
        say(f"warning: what the PLY lost was not measured: {error}")
        return
    if loss is not None:
        say(f"PLY: {loss.text()}")
        _record(run_dir, step=state.step, **loss.to_json())


def tell_loss(model: SplatModel, stage: Stage, say: Say) -> None:
    """After ``splat export``: what the Gaussians of ``model`` lose on the views of ``stage``."""
    if what_is_lost(model) is None:
        return
    try:
        loss = conversion_loss(stage.placed(model), stage.rasterizer, stage.views, background=stage.background)
    except UserError as error:
        say(f"warning: what was lost was not measured: {error}")
        return
    if loss is not None:
        say(loss.text())


@dataclass(frozen=True, eq=False)
class Stage:
    """Where models are drawn to be compared, and from where."""

    device: Any
    rasterizer: Rasterizer
    views: Views
    known: Sequence[Camera] = ()
    """Cameras that see what matters of the model: those it was trained from."""
    background: Sequence[float] | None = None
    views_from_model: np.ndarray | None = None  # [4,4]
    """The frame of the views from that of the opened model; None: the same."""
    scene: Scene | None = None

    def placed(self, model: SplatModel) -> SplatModel:
        """A model in the opened one's frame, moved to where it is drawn."""
        return moved_to(in_capture_frame(model, self.views_from_model), self.device)


@contextmanager
def open_stage(source: Path, opened: OpenedModel, say: Say, *, scene: Path | None = None) -> Iterator[Stage]:
    """Views of the capture (``scene``, or that of the run around ``source``), of its cameras.json, or a ring."""
    run_dir = run_folder_of(source)
    config = None if run_dir is None else run_config(run_dir, _moved_capture(scene))
    if config is None and scene is not None:
        config = build_config([("command line", _moved_capture(scene))])
    device, rasterizer = choose_device(RenderConfig() if config is None else config.render, say)
    with ExitStack() as stack:
        if config is None or (scene is None and not Path(config.capture).exists()):
            yield stage_without_capture(opened, device, rasterizer, run_dir)
            return
        capture = run_scene(config, say)
        store = stack.enter_context(image_store(config, capture))
        from_model = capture.world_from_input if frame_of(opened) == "capture" else None
        yield Stage(device, rasterizer, scene_views(capture, store), capture.train_cameras,
                    background_behind(opened, config), from_model, capture)  # fmt: skip


def stage_without_capture(opened: OpenedModel, device: Any, rasterizer: Rasterizer, run_dir: Path | None) -> Stage:
    """Cameras of cameras.json, else a ring, in the capture's own frame."""
    from_model = inverse_of(opened.header.get("world_from_input"))
    file = None if run_dir is None else run_dir / "cameras.json"
    if file is not None and file.is_file():
        cameras = read_cameras_json(file)
        views = Views(some(cameras), "views of cameras.json")
        return Stage(device, rasterizer, views, cameras, views_from_model=from_model)
    ring = ring_views(in_capture_frame(opened.model, from_model), up=opened.header.get("up_axis") or CAPTURE_UP)
    return Stage(device, rasterizer, ring, views_from_model=from_model)


def run_folder_of(source: Path) -> Path | None:
    """The run a model file belongs to: its PLY lies two folders down."""
    around = (source.resolve(), *source.resolve().parents[:3])
    return next((folder for folder in around if (folder / "config.toml").is_file()), None)


def frame_of(opened: OpenedModel) -> str:
    """``training`` or ``capture``: what the rows of an opened file are in."""
    return sniff(model_file(opened.source)).frame


def scene_views(scene: Scene, store: ImageStore) -> Views:
    """The held-out views with their photographs; where none is held out, some of the others."""
    indices, source = scene.test_indices, "held-out views"
    if not indices:
        indices, source = some(scene.train_indices), "training views"
    return Views([scene.cameras[i] for i in indices], source, lambda view: store.frame(indices[view]))


def _moved_capture(scene: Path | None) -> dict[str, Any]:
    return {} if scene is None else {"capture": str(scene.expanduser().resolve())}


def some(items: Sequence[Any]) -> list[Any]:
    """At most ``MOST_VIEWS``, evenly chosen."""
    chosen = np.linspace(0, len(items) - 1, min(MOST_VIEWS, len(items))).round().astype(int)
    return [items[i] for i in chosen]


def _record(run_dir: Path, **record: Any) -> None:
    path = run_dir / METRICS
    try:
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(json_safe({"kind": "export", **record}), allow_nan=False) + "\n")
    except OSError as error:
        raise write_error(error, path) from error
