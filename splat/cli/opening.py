"""Opening a finished or stopped run: its configuration, its newest model, its scene."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from splat.config.assemble import fixed_background, open_capture
from splat.config.build import build_config, effective, nested
from splat.config.schema import TrainConfig
from splat.config.starting import model_of_checkpoint
from splat.config.toml_io import parse_toml, read_toml
from splat.edit.marks import EDIT_LOG, EditMark, mark_of_log
from splat.edit.protection import Protection
from splat.errors import UserError
from splat.io.formats import model_file, read_model, sniff
from splat.io.header import background_of_header, background_text
from splat.model.labels import Labels
from splat.model.splat_model import SplatModel
from splat.render.types import Rasterizer, RenderOptions
from splat.scene.types import Scene
from splat.train.checkpoint import Checkpoint, checkpoint_paths, latest, read_checkpoint, restored_compress

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class OpenedModel:
    """A model with what is known of its origin."""

    model: SplatModel
    header: dict[str, Any]
    step: int | None
    source: Path

    @property
    def background(self) -> tuple[float, float, float] | None:
        """The colour behind the splats that was set by hand while they were trained; None where none was."""
        return background_of_header(self.header)


def run_config(run_dir: Path, settings: dict[str, Any] | None = None) -> TrainConfig:
    """The configuration of a run, with command-line settings over it."""
    path = run_dir / "config.toml"
    if not path.exists():
        raise UserError(f"{run_dir} is no run folder (it has no config.toml)")
    return build_config([(str(path), read_toml(path)), ("command line", nested(settings or {}))])


def run_scene(config: TrainConfig, say: Say) -> Scene:
    """The capture a run was trained on."""
    if not Path(config.capture).exists():
        raise UserError(f"the capture of this run is gone ({config.capture}); name where it is now with --scene")
    return open_capture(config, say, allow_sfm=True)


def run_model(run_dir: Path, say: Say) -> OpenedModel:
    """``model.safetensors``, or a newer checkpoint when the run was stopped after it."""
    path = run_dir / "model.safetensors"
    newest = checkpoint_paths(run_dir)
    loaded = read_model(path) if path.exists() else None
    step = None if loaded is None else (loaded.header.get("provenance") or {}).get("step")
    if newest and (loaded is None or (step is not None and _step(newest[-1]) > step)):
        return _from_checkpoint(run_dir, say)
    if loaded is None:
        raise UserError(f"{run_dir}: no model yet (neither model.safetensors nor a checkpoint)")
    return OpenedModel(loaded.model, loaded.header, step, path)


def open_model(path: Path, say: Say, *, scene: Scene | None = None) -> OpenedModel:
    """A run folder's model or a model file; files in the capture's frame are moved to that of ``scene``."""
    if path.is_dir() and ((path / "config.toml").exists() or checkpoint_paths(path)):
        return run_model(path, say)
    loaded = read_model(path)
    model = loaded.model
    if scene is not None and sniff(model_file(path)).frame == "capture":
        import torch

        from splat.model.transform import transformed

        model = transformed(model, torch.as_tensor(scene.world_from_input))
    return OpenedModel(model, loaded.header, (loaded.header.get("provenance") or {}).get("step"), path)


def _from_checkpoint(run_dir: Path, say: Say) -> OpenedModel:
    checkpoint = latest(run_dir, lambda message: say(f"warning: {message}"))
    config = build_config([(str(checkpoint.path), parse_toml(checkpoint.config_toml, str(checkpoint.path)))])
    model = model_of_checkpoint(config, checkpoint)
    compress = restored_compress(checkpoint, model.device)
    model = effective(config).compressor.finished(compress, checkpoint.step, model)
    facts: dict[str, Any] = {"step": checkpoint.step}
    if "background" in checkpoint.changes:
        facts["background"] = background_text(checkpoint.changes["background"])
    lines = checkpoint.edit_log
    done = mark_of_log(run_dir / EDIT_LOG, checkpoint.edits_done) if lines is None else EditMark().after(lines)
    header = done.in_header({"provenance": facts})
    return OpenedModel(model, header, checkpoint.step, checkpoint.path)


def background_behind(
    opened: OpenedModel, config: TrainConfig, settings: Mapping[str, Any] | None = None
) -> tuple[float, float, float]:
    """The colour behind pictures whose camera names none: what the command line says (``settings``), else what was set
    by hand while the model was trained, else what the run's configuration says."""
    asked = fixed_background(config)
    return asked if opened.background is None or "optim.background" in (settings or {}) else opened.background


def past_of(run_dir: Path, opened: OpenedModel) -> tuple[Labels, Protection]:
    """What a checkpoint of the same step tells of a run's model besides its rows: when and why splats were made, where
    they are the same rows, and what its photographs leave out for edits by hand. Marks and numbers start anew, as they
    do for any opened file."""
    labels = Labels.start(opened.model.count)
    same = [path for path in checkpoint_paths(run_dir) if _step(path) == opened.step]
    try:
        checkpoint = read_checkpoint(same[-1]) if same else None
    except UserError:  # what is drawn does not need it
        checkpoint = None
    if checkpoint is None:
        return labels, Protection()
    return _labels_of(checkpoint, opened, labels), Protection.of_tensors(checkpoint.protection)


def _labels_of(checkpoint: Checkpoint, opened: OpenedModel, labels: Labels) -> Labels:
    """``labels`` with births and reasons; as they are where those are not known."""
    if not checkpoint.labels:
        return labels
    means, known = opened.model.rows["means"], checkpoint.rows.get("means")
    if known is None or means.shape != known.shape or not bool((means.cpu() == known.cpu()).all()):
        return labels  # compressed or edited since
    kept = Labels.of(checkpoint.labels, checkpoint.label_scalars)
    return replace(labels, born=kept.born, reasons=kept.reasons, names=kept.names)


def moved_to(model: SplatModel, device: Any) -> SplatModel:
    """The model on another device."""
    filter3d = None if model.filter3d is None else model.filter3d.to(device)
    return replace(model, rows={name: table.to(device) for name, table in model.rows.items()}, filter3d=filter3d)


def require_drawable(model: SplatModel, rasterizer: Rasterizer) -> None:
    """UserError when ``rasterizer`` cannot draw this primitive with this filter."""
    reason = rasterizer.supports(model.render_inputs(), RenderOptions(filter2d=model.filter2d), model.device)
    if reason is not None:
        raise UserError(f"rasterizer '{rasterizer.name}' cannot draw this {model.primitive.kind} model: {reason}")


def _step(path: Path) -> int:
    return int(path.stem.partition("_")[2])
