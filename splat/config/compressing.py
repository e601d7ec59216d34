"""Where a compressor meets a run: what it shows of the model, and the file it leaves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splat.compress.protocol import Compressor, CompressState
from splat.config.outputs import run_header
from splat.errors import UserError
from splat.io.atomic import write_error
from splat.io.packed import Packed
from splat.model.splat_model import SplatModel
from splat.scene.types import Scene
from splat.train.events import Event, Stepped
from splat.train.sinks import METRICS
from splat.train.state import TrainState

PACKED_NAME = "model.spack"


class Shown:
    """States with the model as its file decodes in the place of their own: what is measured and exported.

    Decoding may take seconds, and evaluation, exports and last words ask for the same: it is done once for a state.
    """

    def __init__(self, compressor: Compressor) -> None:
        self._compressor = compressor
        self._of: tuple[int, list[Tensor]] | None = None
        self._model: SplatModel | None = None

    def __call__(self, state: TrainState) -> TrainState:
        """For readers: whoever trains goes on with ``state`` itself."""
        tables = list(state.model.rows.values())
        known = self._of is not None and self._of[0] == state.step
        if not known or any(ours is not theirs for ours, theirs in zip(self._of[1], tables, strict=True)):
            self._model = self._compressor.finished(state.compress, state.step, state.model)
            self._of = state.step, tables
        return replace(state, model=self._model)

    def forget(self, event: Event) -> None:
        """A sink: after a step what was shown is old, and only takes room."""
        if isinstance(event, Stepped) and self._of is not None and self._of[0] != event.step:
            self._of = self._model = None


@torch.no_grad()
def drawn_model(compressor: Compressor, state: TrainState) -> SplatModel:
    """The model as training draws it: what a viewer looks at, between two steps and at no more cost than a part of
    one."""
    rows = compressor.drawn(state.compress, state.step, state.model.rows)
    return replace(state.model, rows=dict(rows))


def write_compressed(
    compressor: Compressor, compress: CompressState, model: SplatModel, path: Path, header: dict[str, Any]
) -> Packed | None:
    """Pack and write ``path`` in the container of our own; None where the compressor has no such file."""
    packed = compressor.pack(compress, model)
    if packed is None:
        return None
    from splat.io.packed_file import write_packed

    write_packed(packed, path, header)
    return packed


def pack_export(
    run_dir: Path, scene: Scene, compressor: Compressor, say: Callable[[str], None]
) -> Callable[[TrainState], None]:
    """For an ``ExportSink``: writes the run's compressed file, says its size and notes it in the metrics."""

    def export(state: TrainState) -> None:
        path = run_dir / PACKED_NAME
        header = run_header(run_dir, scene, state)
        began = time.perf_counter()
        packed = write_compressed(compressor, state.compress, state.model, path, header)
        if packed is None:
            return
        size = path.stat().st_size
        say(f"compressed: {path}, {bytes_text(size, packed.count)}")
        _record(run_dir, step=state.step, compressor=compressor.kind, file=path.name, size_bytes=size,
                splats=packed.count, secs=time.perf_counter() - began)  # fmt: skip

    return export


def bytes_text(size_bytes: int, splats: int) -> str:
    bits = f", {8 * size_bytes / splats:.1f} bits per splat" if splats else ""
    return f"{size_bytes / 1e6:.3g} MB for {splats:,} splats{bits}"


def check_compressor(compressor: Compressor, primitive: Any) -> None:
    """UserError when the two do not fit."""
    reason = compressor.blocked(primitive)
    if reason is not None:
        raise UserError(reason)


def _record(run_dir: Path, **record: Any) -> None:
    path = run_dir / METRICS
    try:
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"kind": "pack", **record}) + "\n")
    except OSError as error:
        raise write_error(error, path) from error
