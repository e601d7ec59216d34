"""Checkpoints: one file holds all that a run is, written whole or not at all."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splat.compress.protocol import CompressState
from splat.densify.protocol import DensifyState
from splat.edit.json_ops import log_lines
from splat.edit.marks import EDIT_LOG
from splat.edit.protection import Protection
from splat.errors import UserError
from splat.io.tensors import load_tensors, save_tensors
from splat.model.labels import Labels
from splat.train.events import Event, Finished, SaveAsked, Stepped
from splat.train.state import TrainState

FORMAT = "splat-checkpoint"
VERSION = 2
"""Raised whenever an older reader would misread the file."""
FOLDER = "checkpoints"
_NAME = re.compile(r"step_(\d+)\.safetensors")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint as read: tables by name, and the run's configuration as TOML text."""

    path: Path
    step: int
    views_taken: int
    views_pending: int
    elapsed_secs: float
    config_toml: str
    rows: dict[str, Tensor]
    filter3d: Tensor | None
    adam: dict[str, Tensor]
    tables: dict[str, Tensor]
    grads: dict[str, Tensor]
    """Gradients that wait for an optimizer step; mostly none."""
    scalars: dict[str, float]
    view_mse: list[float | None] | None = None
    """As ``TrainState`` has it; None for NaN."""
    compress: dict[str, Tensor] = field(default_factory=dict)
    """As ``CompressState.tensors`` names them; none in files from before there were compressors."""
    compress_grads: dict[str, Tensor] = field(default_factory=dict)
    """By the same names, like ``grads``."""
    compress_scalars: dict[str, float] = field(default_factory=dict)
    learnable: frozenset[str] = frozenset()
    """Which of ``compress`` require gradients."""
    labels: dict[str, Tensor] = field(default_factory=dict)
    """None in files of version 1, nor any of those below."""
    label_scalars: dict[str, Any] = field(default_factory=dict)
    protection: dict[str, Tensor] = field(default_factory=dict)
    """As ``Protection.tensors`` names them."""
    changes: dict[str, Any] = field(default_factory=dict)
    edits_done: int = 0
    resting: Tensor | None = None  # [N] uint8
    edit_log: tuple[str, ...] | None = None
    """What was done to the rows by hand, ``edits_done`` lines; the log beside may have gone on, or back, since then.
    None where no log was kept."""

    @property
    def count(self) -> int:
        return next(iter(self.rows.values())).shape[0]


def write_checkpoint(run_dir: Path, state: TrainState, config_toml: str) -> Path:
    """Write ``checkpoints/step_N.safetensors``; returns its path."""
    pending = {name: table.grad for name, table in state.model.rows.items() if table.grad is not None}
    compress = state.compress.tensors()
    waiting = {name: table.grad for name, table in compress.items() if table.grad is not None}
    groups = {
        "rows": state.model.rows, "adam": state.adam.state_tensors(), "tables": state.densify.tables, "grads": pending,
        "compress": compress, "compress_grads": waiting, "labels": state.labels.tensors(),
        "protection": state.protection.tensors(),
    }  # fmt: skip
    tensors = {f"{group}.{name}": table for group, tables in groups.items() for name, table in tables.items()}
    if state.model.filter3d is not None:
        tensors["filter3d"] = state.model.filter3d
    if state.resting is not None:
        tensors["resting"] = state.resting.to(torch.uint8)
    header = {
        "format": FORMAT, "version": VERSION, "step": state.step, "views_taken": state.views_taken,
        "views_pending": state.views_pending, "elapsed_secs": state.elapsed_secs, "config": config_toml,
        "scalars": dict(state.densify.scalars), "compress_scalars": dict(state.compress.scalars),
        "learnable": sorted(name for name, table in compress.items() if table.requires_grad),
        "labels": state.labels.scalars(), "changes": dict(state.changes),
        "edits_done": state.edits_done, "edit_log": log_lines(run_dir / EDIT_LOG, state.edits_done),
        **state.model.metadata(),
    }  # fmt: skip
    if state.view_mse is not None:  # the shortest text that reads back as the same bits
        header["view_mse"] = [None if math.isnan(value) else value for value in state.view_mse.tolist()]
    path = run_dir / FOLDER / f"step_{state.step}.safetensors"
    save_tensors(path, tensors, header)
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint; UserError when it is damaged, foreign or from a newer version."""
    tensors, header = load_tensors(path)
    if header.get("format") != FORMAT:
        raise UserError(f"{path}: a safetensors file, but not a checkpoint of a training")
    if header.get("version", 0) > VERSION:
        raise UserError(
            f"{path}: written by a newer splat (format {header['version']}, this one reads up to {VERSION})"
        )
    names = ("rows", "adam", "tables", "grads", "compress", "compress_grads", "labels", "protection")
    groups: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    filter3d, resting = tensors.pop("filter3d", None), tensors.pop("resting", None)
    for name, table in tensors.items():
        group, _, rest = name.partition(".")
        if group not in groups:
            raise UserError(f"{path}: unknown table {name!r} in a checkpoint")
        groups[group][rest] = table
    if not groups["rows"]:
        raise UserError(f"{path}: a checkpoint without rows")
    lines = header.get("edit_log")
    return Checkpoint(
        Path(path), header["step"], header["views_taken"], header["views_pending"], header["elapsed_secs"],
        header["config"], groups["rows"], filter3d, groups["adam"], groups["tables"], groups["grads"],
        header["scalars"], header.get("view_mse"), groups["compress"], groups["compress_grads"],
        header.get("compress_scalars", {}), frozenset(header.get("learnable", ())), groups["labels"],
        header.get("labels", {}), groups["protection"], header.get("changes", {}),
        header.get("edits_done", 0), resting, None if lines is None else tuple(lines),
    )  # fmt: skip


def restore(state: TrainState, checkpoint: Checkpoint) -> None:
    """Put ``checkpoint`` into a freshly built ``state`` of the same configuration."""
    device = state.model.device
    missing = sorted(set(state.model.rows) ^ set(checkpoint.rows))
    if missing:
        raise UserError(f"{checkpoint.path}: its fields differ from the configuration's: {', '.join(missing)}")
    # The model's own order of fields is kept: a file may list them otherwise.
    state.model.rows = {name: checkpoint.rows[name].to(device) for name in state.model.rows}
    for name, grad in checkpoint.grads.items():
        state.model.rows[name].requires_grad_(True).grad = grad.to(device)
    state.model.filter3d = None if checkpoint.filter3d is None else checkpoint.filter3d.to(device)
    state.adam.start(state.model)
    state.adam.load_state_tensors({name: table.to(device) for name, table in checkpoint.adam.items()})
    tables = {name: table.to(device) for name, table in checkpoint.tables.items()}
    state.densify = DensifyState(tables, dict(checkpoint.scalars))
    state.compress = restored_compress(checkpoint, device)
    if checkpoint.labels:
        labels = {name: table.to(device) for name, table in checkpoint.labels.items()}
        state.labels = Labels.of(labels, checkpoint.label_scalars)
    else:
        state.labels = Labels.start(state.model.count, device)
    state.resting = None if checkpoint.resting is None else checkpoint.resting.to(device) > 0
    state.compress.held = state.held
    state.protection = Protection.of_tensors(checkpoint.protection, device)
    state.changes, state.edits_done = dict(checkpoint.changes), checkpoint.edits_done
    state.step, state.views_taken = checkpoint.step, checkpoint.views_taken
    state.views_pending = checkpoint.views_pending
    state.elapsed_secs = checkpoint.elapsed_secs
    if checkpoint.view_mse is not None:
        errors = [math.nan if value is None else value for value in checkpoint.view_mse]
        state.view_mse = torch.tensor(errors, dtype=torch.float64, device=device)


def restored_compress(checkpoint: Checkpoint, device: torch.device) -> CompressState:
    """The compressor's state as the checkpoint holds it, gradients that wait included."""
    moved = {name: table.to(device) for name, table in checkpoint.compress.items()}
    state = CompressState.of_tensors(moved, checkpoint.compress_scalars)
    for name, table in state.tensors().items():
        table.requires_grad_(name in checkpoint.learnable)
        if name in checkpoint.compress_grads:
            table.grad = checkpoint.compress_grads[name].to(device)
    return state


def checkpoint_paths(run_dir: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first; temporary files of killed writers do not count."""
    folder = Path(run_dir) / FOLDER
    found = [(int(match[1]), path) for path in folder.glob("step_*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def latest(run_dir: Path, warn: Callable[[str], None]) -> Checkpoint:
    """The newest readable checkpoint; a damaged one is named through ``warn`` and the one before it is taken."""
    paths = checkpoint_paths(run_dir)
    if not paths:
        raise UserError(f"{run_dir}: no checkpoint to resume from (looked for {FOLDER}/step_N.safetensors)")
    for path in reversed(paths):
        try:
            return read_checkpoint(path)
        except UserError as error:
            warn(f"{error}; trying the checkpoint before it")
    raise UserError(f"{run_dir}: none of its {len(paths)} checkpoints can be read")


def prune_checkpoints(run_dir: Path, *, keep_last: int, keep_steps: Iterable[int] = ()) -> None:
    """Delete all but the newest ``keep_last`` and the steps asked for."""
    kept = set(keep_steps)
    for path in checkpoint_paths(run_dir)[: -max(keep_last, 1)]:
        if int(_NAME.fullmatch(path.name)[1]) not in kept:
            path.unlink(missing_ok=True)


class CheckpointSink:
    """Writes a checkpoint every ``every`` steps, when asked, and at the end."""

    def __init__(
        self, run_dir: Path, config_toml: str, *, every: int, keep_last: int = 2, keep_steps: Iterable[int] = ()
    ) -> None:
        self._run_dir, self._config = Path(run_dir), config_toml
        self._every, self._keep_last, self._keep_steps = every, keep_last, frozenset(keep_steps)
        self._written: tuple[int, int] | None = None
        """Step and version: an edit after the checkpoint of a step asks for another one."""
        self.last: Path | None = None
        """The newest checkpoint this process wrote."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, Stepped):
            due = (self._every and event.step % self._every == 0) or event.step in self._keep_steps
        else:
            due = isinstance(event, SaveAsked | Finished)
        if due and self._written != _mark(event.state):
            self.write(event.state)

    def write(self, state: TrainState) -> Path:
        self._written = _mark(state)
        self.last = write_checkpoint(self._run_dir, state, self._config)
        prune_checkpoints(self._run_dir, keep_last=self._keep_last, keep_steps=self._keep_steps)
        return self.last


def _mark(state: TrainState) -> tuple[int, int]:
    return state.step, state.version
