"""What ``splat compress`` does, step by step: model, compressor, goal, a short training, the file, its scores."""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from splat.cli.conversion import Stage, open_stage, run_folder_of, scene_views, some
from splat.cli.opening import OpenedModel, background_behind, moved_to, open_model
from splat.cli.parsing import UsageError
from splat.cli.signals import GracefulStop
from splat.compress.none import NoCompression
from splat.compress.protocol import Compressor, CompressState, Goal
from splat.compress.registry import COMPRESSORS
from splat.config.assemble import Parts, gather, trainer_of
from splat.config.build import build_config, nested
from splat.config.compressing import bytes_text, check_compressor, write_compressed
from splat.config.schema import TrainConfig
from splat.config.starting import primitive_table
from splat.config.toml_io import read_toml
from splat.edit.json_ops import op_line, read_log
from splat.edit.marks import EDIT_LOG, mark_of_header
from splat.edit.session import CHANGES_PICTURE
from splat.errors import UserError
from splat.evaluate.conversion import Views
from splat.evaluate.decoded import PictureScore, picture_score
from splat.geometry.sh import coefficients_of_degree
from splat.io.atomic import write_text
from splat.io.format_names import file_name, stem_of, stored_bytes
from splat.io.formats import FORMATS, LoadedModel, format_for, in_capture_frame, read_model, write_model
from splat.io.header import scene_header
from splat.live.commands import CommandQueue
from splat.model.splat_model import SplatModel
from splat.train.progress import ProgressSink
from splat.train.sinks import json_safe
from splat.train.trainer import drive

Say = Callable[[str], None]
DEFAULT_STEPS = 500
"""Training steps through the compressor, where there is a capture and nothing was said."""
OWN_FORMAT = "spack"
BYTES_PER_MB = 1_000_000
PLY_FLOATS = 17
"""Of one splat in a PLY, without the bands of view-dependent colour: place, normal, colour, opacity, sizes, turn."""


@dataclass(eq=False)
class Bench:
    """The model where it is packed and measured."""

    model: SplatModel
    stage: Stage
    header: dict[str, Any]
    """For the file."""
    tuning: Views
    """Views that a goal may be searched on: never the held-out ones."""
    parts: Parts | None
    """What training needs; None without a capture."""

    edited: bool = False
    """Photographs contradict the model: it holds edits by hand, and not selections alone."""


def _was_edited(opened: OpenedModel) -> bool:
    """Where the log beside does not tell what was done to the model, anything may have been."""
    mark, run_dir = mark_of_header(opened.header), run_folder_of(opened.source)
    if not mark.count or run_dir is None:
        return mark.count > 0
    try:
        ops = read_log(run_dir / EDIT_LOG)
    except UserError:
        return True
    told = mark.held_of([op_line(op) for op in ops]) > 0
    return not told or any(op.kind in CHANGES_PICTURE for op in ops[: mark.count])


class Compression:
    """One invocation."""

    def __init__(self, args: argparse.Namespace, settings: dict[str, Any], say: Say) -> None:
        self._args, self._settings, self._say = args, settings, say
        self._goal = _goal(args)
        self._secs: dict[str, float] = {}

    def run(self) -> int:
        source = Path(self._args.source)
        opened = open_model(source, self._say)
        out, format_name = self._target(source, opened)
        config = self._config(source, opened)
        compressor = config.compressor
        check_compressor(compressor, opened.model.primitive)
        with self._bench(source, opened, config) as bench:
            steps = self._steps(bench, compressor)
            before = self._score(bench, bench.model)
            compressor = self._tuned(compressor.afterwards(steps), bench)
            with self._timed("train"):
                state, model, code = self._trained(bench, compressor, steps)
            if code is not None:
                return code
            with self._timed("encode"):
                self._write(compressor, state, steps, model, out, format_name=format_name, header=bench.header)
            with self._timed("decode"):
                loaded = read_model(out)
            decoded = _back(loaded, bench.header, format_name)
            after = self._score(bench, decoded)
            record = self._record(bench, compressor, steps, before=before, decoded=decoded, after=after, out=out)
        return self._tell(record, out)

    # what is to be done -------------------------------------------------------------------------------------

    def _target(self, source: Path, opened: OpenedModel) -> tuple[Path, str]:
        """The file to write and its format, before anything is computed."""
        args = self._args
        named = None if args.format is None else format_for(Path(), args.format).name
        if args.output is not None:
            out = Path(args.output)
            name = named or format_for(out, None).name
        else:
            name = named or OWN_FORMAT
            folder, stem = (source, "compressed") if source.is_dir() else (source.parent, stem_of(source))
            out = folder / file_name(stem, name)
        if out.resolve() in (opened.source.resolve(), source.resolve()):
            raise UsageError(f"{out} is the source itself; choose another -o")
        return out, name

    def _config(self, source: Path, opened: OpenedModel) -> TrainConfig:
        """The run's configuration as a short training of this model, with the compressor chosen."""
        model, run_dir = opened.model, run_folder_of(source)
        layers: list[tuple[str, dict[str, Any]]] = []
        if run_dir is not None:
            tables = read_toml(run_dir / "config.toml")
            tables.pop("densifier", None)  # it has no part in this, whatever its settings were called then
            layers.append((str(run_dir / "config.toml"), tables))
        layers.append(("the model", {
            "primitive": primitive_table(model), "densifier": {"kind": "none"}, "start_from": str(opened.source),
            "max_splats": None, "max_minutes": None, "target_psnr": None, "target_mb": None,
            "optim": {"lr_start": 1.0, "sh_degree": model.sh_degree}, "resolution": {"factor": 1, "until": 0},
            "render": {"filter2d": model.filter2d, "filter3d": model.filter3d is not None},
            "output": {"eval_at": []},
        }))  # fmt: skip
        settings = dict(self._settings)
        own = build_config(layers).compressor.kind
        settings.setdefault("compressor.kind", own if own != "none" and self._goal is None else self._best_kind(own))
        config = build_config([*layers, ("command line", nested(settings))])
        config = replace(config, primitive=model.primitive)
        wanted = self._goal_name()
        if wanted is not None and wanted not in config.compressor.aims:
            able = [kind for kind, cls in COMPRESSORS.items() if wanted in cls.aims]
            raise UserError(
                f"compressor '{config.compressor.kind}' cannot search for a {wanted}; "
                + (f"choose --compressor {' or '.join(able)}" if able else "none of this version can")
            )
        return config

    def _best_kind(self, own: str) -> str:
        """Where nobody named one: one that reaches the goal, the run's own first; else the last of the table."""
        wanted = self._goal_name()
        if wanted is not None:
            able = [kind for kind, cls in COMPRESSORS.items() if wanted in cls.aims]
            return own if own in able or not able else able[-1]
        return list(COMPRESSORS)[-1]

    def _goal_name(self) -> str | None:
        if self._goal is None:
            return None
        return "size" if self._goal.size_bytes is not None else "quality"

    def _steps(self, bench: Bench, compressor: Compressor) -> int:
        asked = self._args.steps
        if bench.parts is None:
            if asked:
                raise UserError(f"--steps {asked} wants photographs; name the capture with --scene, or use --steps 0")
            if self._goal is not None and self._goal.psnr_drop is not None:
                raise UserError("--max-psnr-drop wants photographs; name the capture with --scene, or use --target-mb")
            return 0
        if compressor.kind == "none":  # nothing to train through
            return 0
        if bench.edited and asked != 0:
            contradiction = "the photographs contradict what was edited by hand"
            if asked is None:
                self._say(f"{contradiction}: it is packed as it is; --steps {DEFAULT_STEPS} trains it all the same")
                return 0
            self._say(f"warning: {contradiction}, and training pulls them back")
        return DEFAULT_STEPS if asked is None else asked

    # the work -----------------------------------------------------------------------------------------------

    @contextmanager
    def _bench(self, source: Path, opened: OpenedModel, config: TrainConfig) -> Iterator[Bench]:
        if config.capture and Path(config.capture).exists():
            plain = replace(config, compressor=NoCompression())  # the real one starts when it is tuned
            parts = gather(plain, self._say, start=LoadedModel(opened.model, opened.header))
            try:
                yield self._bench_of_run(parts, opened)
            finally:
                parts.close()
            return
        if config.capture:
            self._say(f"warning: the capture is gone ({config.capture}); --scene names where it is now")
        with open_stage(source, opened, self._say) as stage:
            header = {key: opened.header[key] for key in ("world_from_input", "up_axis", "provenance")
                      if opened.header.get(key) is not None}  # fmt: skip
            if FORMATS.get(str(opened.header.get("format")), FORMATS["native"]).frame == "capture":
                header["world_from_input"] = np.eye(4).tolist()
            yield Bench(moved_to(opened.model, stage.device), stage, header, stage.views, None)

    def _bench_of_run(self, parts: Parts, opened: OpenedModel) -> Bench:
        scene, store = parts.scene, parts.store
        facts = {**(opened.header.get("provenance") or {}), "scene": scene.name, "step": opened.step}
        stage = Stage(parts.device, parts.rasterizer, scene_views(scene, store), scene.train_cameras,
                      background_behind(opened, parts.config, self._settings), None, scene)  # fmt: skip
        if "optim.background" in self._settings:
            facts.pop("background", None)
            parts.state.changes = {k: v for k, v in parts.state.changes.items() if k != "background"}
        elif opened.background is not None:
            parts.state.changes = {"background": list(opened.background)}
        indices = some(scene.train_indices)
        tuning = Views([scene.cameras[i] for i in indices], "training views", lambda view: store.frame(indices[view]))
        model = replace(parts.state.model, rows=dict(parts.state.model.rows)).detached()
        return Bench(model, stage, {**scene_header(scene), "provenance": facts}, tuning, parts, _was_edited(opened))

    def _tuned(self, compressor: Compressor, bench: Bench) -> Compressor:
        if self._goal is None:
            return compressor
        views, stage = bench.tuning, bench.stage

        def measure(model: SplatModel) -> float:
            return picture_score(
                stage.placed(model), stage.rasterizer, views, reference=stage.placed(bench.model),
                background=stage.background,
            ).psnr  # fmt: skip

        self._say(f"searching settings of '{compressor.kind}' on {len(views.cameras)} {views.source}")
        with self._timed("search"):
            return compressor.tuned(bench.model, self._goal, measure)

    def _trained(
        self, bench: Bench, compressor: Compressor, steps: int
    ) -> tuple[CompressState, SplatModel, int | None]:
        """What is to be packed; the last is an exit code when the training was interrupted."""
        parts = bench.parts
        if parts is None or steps == 0:
            seed = 0 if parts is None else parts.config.seed
            return compressor.start(bench.model, seed=seed), bench.model, None
        parts.config = replace(parts.config, compressor=compressor, steps=steps, schedule_steps=steps)
        parts.state.compress = compressor.start(parts.state.model, seed=parts.config.seed)
        self._say(f"training {steps:,} steps through '{compressor.kind}' on {parts.device}")
        commands = CommandQueue()
        progress = ProgressSink(io.StringIO() if self._args.quiet else sys.stderr)
        with GracefulStop(commands) as stop:
            try:
                finished = drive(trainer_of(parts, commands), [progress])
            finally:
                progress.close()
        parts.state.model.requires_grad_(False)
        code = None
        if finished.reason == "interrupted":
            self._say("interrupted; nothing was written")
            code = stop.exit_code or 130
        return parts.state.compress, parts.state.model, code

    def _write(
        self, compressor: Compressor, state: CompressState, steps: int, model: SplatModel, out: Path, *,
        format_name: str, header: dict[str, Any],
    ) -> None:  # fmt: skip
        if format_name == OWN_FORMAT and write_compressed(compressor, state, model, out, header) is not None:
            return
        write_model(compressor.finished(state, steps, model), out, format=format_name, header=header)

    def _score(self, bench: Bench, model: SplatModel) -> PictureScore | None:
        """None where there is nothing to compare: no views, or the model with itself."""
        stage = bench.stage
        if not stage.views.cameras or (stage.views.frame_of is None and model is bench.model):
            return None
        return picture_score(
            stage.placed(model), stage.rasterizer, stage.views, reference=stage.placed(bench.model),
            background=stage.background,
        )  # fmt: skip

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._secs[name] = time.perf_counter() - start

    # what is told -------------------------------------------------------------------------------------------

    def _record(
        self, bench: Bench, compressor: Compressor, steps: int, *, before: PictureScore | None,
        decoded: SplatModel, after: PictureScore | None, out: Path,
    ) -> dict[str, Any]:  # fmt: skip
        """What ``--json`` writes."""
        size, ply = stored_bytes(out), ply_bytes(bench.model)
        stage = bench.stage
        against = "the photographs" if stage.views.frame_of is not None else "the model's own pictures"
        return {
            "source": str(self._args.source), "file": str(out), "size_bytes": size, "splats": decoded.count,
            "bits_per_splat": 8 * size / decoded.count if decoded.count else None,
            "compressor": {"kind": compressor.kind, **asdict(compressor)}, "steps": steps,
            "goal": None if self._goal is None else asdict(self._goal),
            "ply_bytes": ply, "times_smaller": ply / size,
            "model": {"splats": bench.model.count, **_scores(before)}, "decoded": _scores(after),
            "psnr_drop": None if before is None or after is None else before.psnr - after.psnr,
            "views": f"{stage.views.source} ({len(stage.views.cameras)}), against {against}", "secs": self._secs,
        }  # fmt: skip

    def _tell(self, record: dict[str, Any], out: Path) -> int:
        own, file = record["model"], record["decoded"]
        lines = [
            ("PLY", record["ply_bytes"], own["splats"], own),
            (out.name, record["size_bytes"], record["splats"], file),
        ]
        for name, size, splats, scores in lines:
            quality = "" if scores["psnr"] is None else f", PSNR {scores['psnr']:.2f}, SSIM {scores['ssim']:.4f}"
            self._say(f"{name}: {bytes_text(size, splats)}{quality}")
        drop = record["psnr_drop"]
        lost = "" if drop is None else f", PSNR {-drop:+.2f} dB"
        self._say(f"{record['times_smaller']:.1f} times smaller than the PLY{lost}; {record['views']}")
        if self._args.json:
            write_text(self._args.json, json.dumps(json_safe(record), indent=1) + "\n")
        print(out)
        missed = self._missed(record)
        if missed is not None:
            self._say(f"warning: {missed}")
        return 0 if missed is None else 1

    def _missed(self, record: dict[str, Any]) -> str | None:
        """How the file falls short of the goal; None when it does not."""
        goal = self._goal
        if goal is None:
            return None
        if goal.size_bytes is not None and record["size_bytes"] > goal.size_bytes:
            return f"the file has {record['size_bytes']:,} bytes, the goal was {goal.size_bytes:,}"
        if goal.psnr_drop is not None and record["psnr_drop"] > goal.psnr_drop:
            return f"the file loses {record['psnr_drop']:.3f} dB, the goal was {goal.psnr_drop:g}"
        return None


def ply_bytes(model: SplatModel) -> int:
    """What the model takes as a PLY in Inria's layout, header apart."""
    return 4 * model.count * (PLY_FLOATS + 3 * (coefficients_of_degree(model.sh_degree) - 1))


def _goal(args: argparse.Namespace) -> Goal | None:
    if args.target_mb is not None:
        return Goal(size_bytes=int(args.target_mb * BYTES_PER_MB))
    return None if args.max_psnr_drop is None else Goal(psnr_drop=args.max_psnr_drop)


def _back(loaded: LoadedModel, header: dict[str, Any], format_name: str) -> SplatModel:
    """What was read again, in the frame of the model it was written from."""
    if FORMATS[format_name].frame == "capture" and header.get("world_from_input") is not None:
        return in_capture_frame(loaded.model, np.asarray(header["world_from_input"], np.float64))
    return loaded.model


def _scores(score: PictureScore | None) -> dict[str, float | None]:
    return {"psnr": None, "ssim": None} if score is None else {"psnr": score.psnr, "ssim": score.ssim}
