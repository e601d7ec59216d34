"""Telling what a model loses as plain Gaussians: at the end of a training and of an export."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from splat.cli.opening import OpenedModel, moved_to, run_config, run_scene
from splat.config.assemble import Parts, fixed_background, image_store
from splat.config.devices import choose_device
from splat.config.schema import RenderConfig
from splat.errors import UserError
from splat.evaluate.conversion import ConversionLoss, Views, conversion_loss, ring_views, what_is_lost
from splat.io.atomic import write_error
from splat.io.cameras_json import read_cameras_json
from splat.io.formats import in_capture_frame
from splat.model.splat_model import SplatModel
from splat.scene.images import ImageStore
from splat.scene.types import Scene
from splat.train.sinks import METRICS, json_safe

Say = Callable[[str], None]
MOST_VIEWS = 16
"""Of the views that are not held out: an estimate needs no more."""


def tell_training(parts: Parts, run_dir: Path, say: Say) -> None:
    """After a training: what its PLY lost, as a line for the user and one in ``metrics.jsonl``."""
    state = parts.state
    if what_is_lost(state.model) is None:
        return
    views = scene_views(parts.scene, parts.store)
    try:
        loss = conversion_loss(state.model, parts.rasterizer, views, background=fixed_background(parts.config))
    except UserError as error:
        say(f"warning: what the PLY lost was not measured: {error}")
        return
    if loss is not None:
        say(f"PLY: {loss.text()}")
        _record(run_dir, step=state.step, **loss.to_json())


def tell_export(source: Path, opened: OpenedModel, say: Say) -> None:
    """After ``splat export``: what the file lost. Views of the run's capture, of its cameras.json, or a ring."""
    if what_is_lost(opened.model) is None:
        return
    try:
        loss = _measured(source, opened, say)
    except UserError as error:
        say(f"warning: what was lost was not measured: {error}")
        return
    if loss is not None:
        say(loss.text())


def scene_views(scene: Scene, store: ImageStore) -> Views:
    """The held-out views with their photographs; where none is held out, some of the others."""
    indices, source = scene.test_indices, "held-out views"
    if not indices:
        indices, source = _some(scene.train_indices), "training views"
    return Views([scene.cameras[i] for i in indices], source, lambda view: store.frame(indices[view]))


def _measured(source: Path, opened: OpenedModel, say: Say) -> ConversionLoss | None:
    around = (source.resolve(), *source.resolve().parents[:3])  # a run's PLY lies two folders down
    run_dir = next((folder for folder in around if (folder / "config.toml").is_file()), None)
    config = None if run_dir is None else run_config(run_dir)
    device, rasterizer = choose_device(RenderConfig() if config is None else config.render, say)
    model = moved_to(opened.model, device)
    with ExitStack() as stack:
        if config is None or not Path(config.capture).exists():
            model, views = _views_without_capture(model, opened.header, run_dir)
            return conversion_loss(model, rasterizer, views)
        scene = run_scene(config, say)
        store = stack.enter_context(image_store(config, scene))
        if opened.header.get("format") == "ply":  # in the capture's frame
            model = in_capture_frame(model, scene.world_from_input)
        return conversion_loss(model, rasterizer, scene_views(scene, store), background=fixed_background(config))


def _views_without_capture(model: SplatModel, header: dict[str, Any], run_dir: Path | None) -> tuple[SplatModel, Views]:
    """The model in the capture's own frame, and cameras there."""
    world_from_input = header.get("world_from_input")
    if world_from_input is not None:
        model = in_capture_frame(model, np.linalg.inv(np.asarray(world_from_input, np.float64)))
    file = None if run_dir is None else run_dir / "cameras.json"
    if file is not None and file.is_file():
        return model, Views(_some(read_cameras_json(file)), "views of cameras.json")
    return model, ring_views(model, up=header.get("up_axis") or (0.0, -1.0, 0.0))


def _some(items: Sequence[Any]) -> list[Any]:
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
