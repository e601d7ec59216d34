"""Writing a model in one or many formats, reading every file back, and the table of what became of it.

``splat export``, ``splat convert`` and the end of a training share this.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from splat.cli.conversion import Say, Stage, scene_views
from splat.cli.parsing import Parser, UsageError
from splat.config.assemble import Parts, background_now
from splat.errors import UserError
from splat.evaluate.decoded import PictureScore, picture_score, require_drawable, seen_importance
from splat.io.atomic import write_text
from splat.io.format_names import file_name, format_names, stored_bytes
from splat.io.formats import FORMATS, LoadedModel, in_capture_frame, model_file, read_model, sniff, write_model
from splat.io.placement import FILE as PLACEMENT
from splat.io.placement import Placement, placed_header, placement_text, read_placement
from splat.io.selection import Selection, inverse_of, opacity_importance, parse_box, selected, turned_to_up, up_vector
from splat.model.splat_model import SplatModel


@dataclass(frozen=True)
class FileRow:
    """One line of the table. None: not known, because nothing was written, read back or drawn."""

    format: str
    path: str | None
    splats: int | None = None
    size_bytes: int | None = None
    bits_per_splat: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    encode_secs: float | None = None
    decode_secs: float | None = None
    lost: tuple[str, ...] = ()
    """A few words each: what the file does not keep, or why a number is missing."""


@dataclass(frozen=True, eq=False)
class Source:
    """A model about to be written: its copy, its header, and where it came from."""

    model: SplatModel
    header: dict[str, Any]
    files: tuple[Path, ...]
    """Never to be written onto."""
    left_out: tuple[str, ...] = ()
    """What a selection took away, in sentences."""
    whole: SplatModel | None = None
    """The model before a selection took something away."""


ALWAYS_WRITTEN = ("native", "ply")
"""By every training, under names of their own."""
KEPT_FACTS = ("world_from_input", "up_axis", "start_view", "provenance")
"""What a header says of the model, whatever the format; the rest is about the file it came from."""


def source_of(model: SplatModel, header: dict[str, Any], files: Sequence[Path]) -> Source:
    """A source with the part of ``header`` that other formats take over; UserError where that makes no sense."""
    facts = {key: header[key] for key in KEPT_FACTS if header.get(key) is not None}
    for key, shape in (("world_from_input", (4, 4)), ("up_axis", (3,))):
        if key in facts and not _is_array(facts[key], shape):
            raise UserError(f"{files[0]}: its {key} is not {' x '.join(map(str, shape))} numbers: {facts[key]!r:.80}")
    view = facts.get("start_view")
    if view is not None and not _is_view(view):
        raise UserError(f"{files[0]}: its start_view is no position, target, up and fov: {view!r:.80}")
    if not np.any(facts.get("up_axis", 1)):
        raise UserError(f"{files[0]}: its up_axis {facts['up_axis']} points nowhere")
    if not isinstance(facts.get("provenance", {}), dict):
        raise UserError(f"{files[0]}: its provenance is no object: {facts['provenance']!r:.80}")
    return Source(model, facts, tuple(files))


def _is_view(value: Any) -> bool:
    if not isinstance(value, dict) or not all(_is_array(value.get(key), (3,)) for key in ("position", "target", "up")):
        return False
    return _is_array(value.get("fov"), ()) and 0 < float(value["fov"]) < 180


def _is_array(value: Any, shape: tuple[int, ...]) -> bool:
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return False
    return array.shape == shape and bool(np.isfinite(array).all())


# --- options -----------------------------------------------------------------------------------------------------


def add_options(parser: Parser) -> None:
    """The flags that choose what is written."""
    parser.add_argument("--up")
    parser.add_argument("--crop")
    parser.add_argument("--min-opacity", type=float, default=0.0)
    parser.add_argument("--sh-degree", type=int)
    parser.add_argument("--max-splats", type=int)
    parser.add_argument("--json")
    parser.add_argument("--no-measure", action="store_true")
    parser.add_argument("--quiet", "-q", action="store_true")


def with_values_joined(argv: Sequence[str]) -> list[str]:
    """``--up -y`` as ``--up=-y``: argparse takes values with a leading dash for flags."""
    joined: list[str] = []
    for token in argv:
        if joined and joined[-1] in ("--up", "--crop") and token[:1] == "-" and token[:2] != "--":
            joined[-1] += f"={token}"
        else:
            joined.append(token)
    return joined


def selection_of(args: argparse.Namespace) -> Selection:
    """What the flags keep; UserError for values that do not fit."""
    if args.up is not None:
        up_vector(args.up)
    crop = None if args.crop is None else parse_box(args.crop)
    return Selection(crop, args.min_opacity, args.max_splats, args.sh_degree)


def set_by_hand(run_dir: Path, say: Say) -> Placement:
    """Scale and up that were set in the viewer of a run, with a line that says so; nothing for what is no run."""
    placement = read_placement(run_dir / PLACEMENT)
    if known := placement_text(placement):
        say(f"{known}, as set in the viewer ({run_dir / PLACEMENT})")
    return placement


def prepared(
    source: Source, args: argparse.Namespace, stage: Stage | None, say: Say, placement: Placement | None = None
) -> Source:
    """The source with what the flags leave of it, placed as ``placement`` and turned as the flags say."""
    wanted, input_from_world = selection_of(args), inverse_of(source.header.get("world_from_input"))
    judge = _importance(stage, say) if wanted.max_splats is not None else None
    model, told = selected(source.model, wanted, input_from_world=input_from_world, importance=judge)
    for line in told:
        say(line)
    header = placed_header(source.header, placement or Placement())
    if args.up is not None:
        if not header.get("up_axis"):
            say("what is up is not known of this model; -y is taken, as in COLMAP's captures")
        header = turned_to_up(header, args.up)
    whole = source.model if told else None
    return replace(source, model=model, header=header, left_out=tuple(told), whole=whole)


def _importance(stage: Stage | None, say: Say) -> Callable[[SplatModel], Any]:
    def judged(model: SplatModel) -> Any:
        if stage is None or not stage.known:
            return opacity_importance(model)
        try:
            seen = seen_importance(stage.rasterizer, stage.known, background=stage.background)
            return seen(stage.placed(model))
        except UserError as error:
            say(f"warning: which splats matter is judged by opacity and size alone: {error}")
            return opacity_importance(model)

    return judged


def refuse_own_source(path: Path, source: Source) -> None:
    """UsageError when writing ``path`` would destroy what is read."""
    if any(path.resolve() in (file.resolve(), model_file(file).resolve()) for file in source.files):
        raise UsageError(f"{path} is the source itself; choose another -o")


# --- writing -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Table:
    """What was written."""

    rows: tuple[FileRow, ...]
    drawn: dict[str, PictureScore]
    """Of models that no file changed: ``model`` as it was read, ``selection`` of it that was written."""
    views: str
    """What was looked at; empty where nothing was drawn."""

    def text(self) -> str:
        """For a terminal, a line per format."""
        heads = ("format", "bytes", "bits/splat", "PSNR", "SSIM", "encode s", "decode s", "not kept")
        lines = [heads]
        for name, score in self.drawn.items():
            lines.append((f"({name})", "", "", _text(score.psnr, ".2f"), _text(score.ssim, ".4f"), "", "", ""))
        patterns = {"size_bytes": ",", "bits_per_splat": ".1f", "psnr": ".2f", "ssim": ".4f", "encode_secs": ".2f",
                    "decode_secs": ".2f"}  # fmt: skip
        for row in self.rows:
            numbers = (_text(getattr(row, name), pattern) for name, pattern in patterns.items())
            lines.append((row.format, *numbers, "; ".join(row.lost)))
        widths = [max(len(line[i]) for line in lines) for i in range(len(heads) - 1)]
        printed = []
        for name, *numbers, lost in lines:
            cells = [f"{cell:>{width}}" for cell, width in zip(numbers, widths[1:], strict=True)]
            printed.append("  ".join([f"{name:<{widths[0]}}", *cells, lost]).rstrip())
        return "\n".join(printed) + (f"\nPSNR and SSIM: {self.views}" if self.views else "")

    def to_json(self) -> dict[str, Any]:
        drawn = {name: {key: _number(value) for key, value in asdict(score).items()}
                 for name, score in self.drawn.items()}  # fmt: skip
        rows = [{key: _number(value) for key, value in asdict(row).items()} for row in self.rows]
        return {"drawn": drawn, "views": self.views, "formats": rows}


def write_all(
    source: Source, targets: Sequence[tuple[str, Path]], stage: Stage | None, say: Say, *,
    wrote: Callable[[Path], None], go_on: bool = False,
) -> Table:  # fmt: skip
    """Write every (format, path), read each back and draw it on ``stage`` (None: nothing is drawn).

    ``wrote`` is told each path at once. ``go_on``: a format that cannot hold the model becomes a line of the table
    instead of an error.
    """
    drawn: dict[str, PictureScore] = {}
    try:
        if stage is not None:
            drawn = _drawn(source, stage)
    except UserError as error:
        say(f"warning: the files were not drawn: {error}")
        stage = None
    rows = []
    for name, path in targets:
        try:
            row = _written(source, name, path)
        except UserError as error:
            if not go_on:
                raise
            rows.append(FileRow(name, None, lost=(f"not written: {error}",)))
            continue
        wrote(path)
        rows.append(_read_back(source, row, stage))
    return Table(tuple(rows), drawn, "" if stage is None else _views_text(stage))


def _drawn(source: Source, stage: Stage) -> dict[str, PictureScore]:
    """Scores of what goes into the files, so that theirs can be told from it. UserError when it cannot be drawn."""
    models = {"model": source.whole or source.model, "selection": source.model if source.whole else None}
    require_drawable(stage.placed(source.model), stage.rasterizer)
    with_photos = stage.views.frame_of is not None
    return {name: _score(model, models["model"], stage) for name, model in models.items()
            if model is not None and (with_photos or name != "model")}  # fmt: skip


def _score(model: SplatModel, reference: SplatModel, stage: Stage) -> PictureScore:
    return picture_score(stage.placed(model), stage.rasterizer, stage.views,
                         reference=stage.placed(reference), background=stage.background)  # fmt: skip


def _written(source: Source, name: str, path: Path) -> FileRow:
    start = time.perf_counter()
    write_model(source.model, path, format=name, header=source.header)
    seconds = time.perf_counter() - start
    size = stored_bytes(path)
    bits = 8 * size / source.model.count if source.model.count else None
    return FileRow(name, str(path), source.model.count, size, bits, encode_secs=seconds)


def _read_back(source: Source, row: FileRow, stage: Stage | None) -> FileRow:
    start = time.perf_counter()
    try:
        frame = sniff(Path(row.path)).frame
        loaded = read_model(row.path)
    except UserError as error:
        told = "only written" if FORMATS[row.format].read is None else f"cannot be read back: {error}"
        return replace(row, lost=(told,))
    row = replace(row, splats=loaded.model.count, decode_secs=time.perf_counter() - start,
                  lost=tuple(what_is_not_kept(source, loaded, row.format)))  # fmt: skip
    if stage is None:
        return row
    world_from_input = source.header.get("world_from_input")
    model = loaded.model
    if frame == "capture" and world_from_input is not None:
        model = in_capture_frame(model, np.asarray(world_from_input, np.float64))  # back to the source's frame
    try:
        score = _score(model, source.model, stage)
    except UserError as error:
        return replace(row, lost=(*row.lost, f"not drawn: {error}"))
    return replace(row, psnr=score.psnr, ssim=score.ssim)


def what_is_not_kept(source: Source, loaded: LoadedModel, format_name: str) -> list[str]:
    """What reading the file back did not give again, in a few words each; what can be drawn is told by the scores."""
    before, after = source.model, loaded.model
    lost = []
    if before.primitive.kind != after.primitive.kind:
        how = "exactly" if before.primitive.export == "exact" else "approximately"
        lost.append(f"{before.primitive.kind} as {after.primitive.kind}, {how}")
    if FORMATS[format_name].fidelity == "lossy":
        lost.append("rounded")
    if after.count != before.count:
        lost.append(f"{before.count - after.count:,} of {before.count:,} splats")
    if after.sh_degree != before.sh_degree:
        lost.append(f"SH degree {before.sh_degree} as {after.sh_degree}")
    if after.filter2d != before.filter2d:
        lost.append(f"filter2d {before.filter2d} as {after.filter2d}")
    if before.filter3d is not None and after.filter3d is None:
        lost.append("3D filter folded in")
    for key, words in (("up_axis", "up axis"), ("provenance", "provenance")):
        if source.header.get(key) and not loaded.header.get(key):
            lost.append(words)
    return lost


def export_finished(parts: Parts, run_dir: Path, say: Say) -> None:
    """After a training: the formats of ``output.export`` beside ``model.safetensors`` and the PLY, and their table.

    What is written is the file just written, so that whatever the training did to the model is in it.
    """
    names = [name for name in format_names(parts.config.output.export) if name not in ALWAYS_WRITTEN]
    if not names:
        return
    file = run_dir / "model.safetensors"
    loaded = read_model(file)
    stage = Stage(parts.device, parts.rasterizer, scene_views(parts.scene, parts.store), parts.scene.train_cameras,
                  background_now(parts.config, parts.state.changes), None, parts.scene)  # fmt: skip
    targets = [(name, run_dir / file_name("export", name)) for name in names]
    source = source_of(loaded.model, loaded.header, [file])
    source = replace(source, header=placed_header(source.header, set_by_hand(run_dir, say)))
    say(write_all(source, targets, stage, say, wrote=lambda path: say(f"wrote {path}"), go_on=True).text())


def write_json(path: str, source: Source, table: Table) -> None:
    """The table, and what went into it."""
    model = source.model
    record = {
        "source": [str(file) for file in source.files], "splats": model.count, "primitive": model.primitive.kind,
        "sh_degree": model.sh_degree, "filter2d": model.filter2d, "up_axis": source.header.get("up_axis"),
        "left_out": list(source.left_out), **table.to_json(),
    }  # fmt: skip
    write_text(path, json.dumps(record, indent=1) + "\n")


def _views_text(stage: Stage) -> str:
    against = "the photographs" if stage.views.frame_of is not None else "the model's own pictures"
    return f"{stage.views.source} ({len(stage.views.cameras)}), against {against}"


def _text(value: float | None, pattern: str) -> str:
    return "-" if value is None or not math.isfinite(value) else format(value, pattern)


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
