"""A run that starts from a model instead of points: read, moved into the training frame, fitted to the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from splat.config.goals import limiting_flag
from splat.config.schema import TrainConfig
from splat.errors import UserError
from splat.geometry.sh import coefficients_of_degree
from splat.io.formats import FORMATS, LoadedModel, read_model
from splat.model.splat_model import SplatModel
from splat.model.transform import transformed
from splat.scene.types import Scene
from splat.train.checkpoint import Checkpoint
from splat.train.memory import faintest_dropped

Say = Callable[[str], None]


def start_layer(path: str | Path) -> dict[str, Any]:
    """What the model in ``path`` says of itself, as the lowest layer of a configuration: its primitive and filters."""
    model = read_model(path).model
    return {"primitive": primitive_table(model), "render": _filters(model)}


def primitive_table(model: SplatModel) -> dict[str, Any]:
    """Kind and those settings of the model's primitive that are not the defaults."""
    primitive = model.primitive
    own = {item.name: getattr(primitive, item.name) for item in fields(primitive)}
    default = type(primitive)()
    return {"kind": primitive.kind} | {
        name: value for name, value in own.items() if value is not None and value != getattr(default, name)
    }


def model_to_start_from(
    config: TrainConfig, scene: Scene, device: torch.device, say: Say, loaded: LoadedModel | None = None
) -> SplatModel:
    """The model of ``config.start_from`` (or ``loaded``) as an effective configuration trains it; UserError when it is
    of another primitive."""
    name = config.start_from or "the model"
    loaded = loaded or read_model(config.start_from)
    for warning in loaded.header.get("warnings", ()):
        say(f"warning: {warning}")
    model = loaded.model
    if model.count == 0:
        raise UserError(f"{name}: holds no splats to start from")
    if model.primitive.kind != config.primitive.kind:
        raise UserError(
            f"{name} holds {model.primitive.kind} splats, which cannot start a run of primitive "
            f"'{config.primitive.kind}'; choose --primitive {model.primitive.kind}, or a model of the other kind"
        )
    if model.filter2d != config.render.filter2d or (model.filter3d is not None) != config.render.filter3d:
        say(f"warning: {name} was made for {_filter_text(_filters(model))}, and is trained with "
            f"{_filter_text({'filter2d': config.render.filter2d, 'filter3d': config.render.filter3d})}")  # fmt: skip
    model = with_sh_degree(in_training_frame(loaded, scene), config.optim.sh_degree)
    filter3d = model.filter3d if config.render.filter3d else None
    model = replace(model, primitive=config.primitive, filter2d=config.render.filter2d, filter3d=filter3d)
    _require_fields(name, model)
    if config.max_splats is not None and model.count > config.max_splats:
        flag = limiting_flag(config)
        say(f"starting from the {config.max_splats:,} most opaque of {model.count:,} splats ({flag})")
        model.apply(faintest_dropped(model, config.max_splats))
    return replace(
        model, rows={name: table.detach().float().to(device) for name, table in model.rows.items()},
        filter3d=None if model.filter3d is None else model.filter3d.to(device),
    )  # fmt: skip


def model_of_checkpoint(config: TrainConfig, checkpoint: Checkpoint, device: torch.device | None = None) -> SplatModel:
    """The model as the checkpoint holds it; ``config`` is the run's, with what was fitted to the capture."""
    names = [spec.name for spec in config.primitive.fields(config.optim.sh_degree)]
    missing = sorted(set(names) ^ set(checkpoint.rows))
    if missing:
        raise UserError(f"{checkpoint.path}: its fields differ from the configuration's: {', '.join(missing)}")
    rows = {name: checkpoint.rows[name].to(device) for name in names}
    filter3d = None if checkpoint.filter3d is None else checkpoint.filter3d.to(device)
    return SplatModel(config.primitive, rows, config.optim.sh_degree, config.render.filter2d, filter3d)


def in_training_frame(loaded: LoadedModel, scene: Scene) -> SplatModel:
    """The model moved to the frame ``scene`` is trained in. A native file of another run knows that run's frame."""
    row = FORMATS.get(str(loaded.header.get("format")))
    world_from_input = np.asarray(scene.world_from_input, np.float64)
    if row is not None and row.frame == "capture":
        world_from_file = world_from_input
    elif loaded.header.get("world_from_input") is not None:
        theirs = np.asarray(loaded.header["world_from_input"], np.float64)
        world_from_file = np.eye(4) if np.array_equal(theirs, world_from_input) else _from(world_from_input, theirs)
    else:
        world_from_file = np.eye(4)
    if np.array_equal(world_from_file, np.eye(4)):
        return loaded.model
    return transformed(loaded.model, torch.as_tensor(world_from_file))


def with_sh_degree(model: SplatModel, degree: int) -> SplatModel:
    """The model with bands up to ``degree``: higher ones go, missing ones are zero."""
    if degree == model.sh_degree:
        return model
    old = model.rows["sh_rest"].detach()
    bands = old.new_zeros(old.shape[0], coefficients_of_degree(degree) - 1, 3)
    kept = min(bands.shape[1], old.shape[1])
    bands[:, :kept] = old[:, :kept]
    return replace(model, rows=model.rows | {"sh_rest": bands}, sh_degree=degree)


def _from(world_from_input: np.ndarray, theirs: np.ndarray) -> np.ndarray:  # [4,4]
    both = world_from_input @ np.linalg.inv(theirs)
    both[3] = (0, 0, 0, 1)
    return both


def _require_fields(name: str, model: SplatModel) -> None:
    """UserError where settings given for the run want other rows than the file has."""
    expected = {spec.name: tuple(spec.shape) for spec in model.primitive.fields(model.sh_degree)}
    found = {field: tuple(table.shape[1:]) for field, table in model.rows.items()}
    for field in [*expected, *found]:
        if expected.get(field) != found.get(field):
            raise UserError(
                f"{name}: field '{field}' is {found.get(field, 'absent')}, where these settings of primitive "
                f"'{model.primitive.kind}' need {expected.get(field, 'none')}"
            )
    model.rows = {field: model.rows[field] for field in expected}


def _filters(model: SplatModel) -> dict[str, Any]:
    return {"filter2d": model.filter2d, "filter3d": model.filter3d is not None}


def _filter_text(filters: dict[str, Any]) -> str:
    return f"filter2d {filters['filter2d']}" + (" with the Mip 3D filter" if filters["filter3d"] else "")
