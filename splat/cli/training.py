"""What ``splat train`` does, step by step: configuration, folder, parts, loop, last words."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from splat.cli.commands.train import layers_of, resumed_config
from splat.cli.conversion import tell_training
from splat.cli.exporting import export_finished
from splat.cli.main import version
from splat.cli.parsing import UsageError
from splat.cli.signals import GracefulStop
from splat.cli.viewer_flags import viewer_options, wants_viewer
from splat.cli.viewing import TrainingViewer, cut_log
from splat.config.assemble import Parts, Run, fixed_background, gather, prepare
from splat.config.build import build_config, config_text, differences, effective, preset_config
from splat.config.memory import estimate_memory
from splat.config.outputs import Outputs
from splat.config.run_folder import check_folder, claim_folder, find_run, fresh_folder, require_writable
from splat.config.schema import TrainConfig
from splat.config.toml_io import parse_toml, read_toml
from splat.edit.marks import EDIT_LOG
from splat.errors import UserError
from splat.io.atomic import write_text
from splat.live.link import Link
from splat.scene.types import SceneError
from splat.train.checkpoint import Checkpoint, checkpoint_paths, latest
from splat.train.errors import TrainingError
from splat.train.sinks import drop_metrics_after
from splat.train.trainer import drive


class TrainCommand:
    """One invocation."""

    def __init__(self, args: argparse.Namespace, settings: dict[str, Any], say: Callable[[str], None]) -> None:
        self._args, self._settings, self._say = args, settings, say

    def run(self) -> int:
        if self._args.resume is not None:
            return self._resume()
        _, layers = layers_of(self._args, self._settings)
        config = build_config(layers)
        if not config.capture:
            raise UsageError("no capture named: splat train SCENE ('splat train --help' shows how)")
        # A folder that cannot be used is worth knowing before the scene is read.
        if self._args.output is not None and not self._args.dry_run:
            check_folder(Path(self._args.output), overwrite=self._args.overwrite)
        parts = gather(config, self._say)
        try:
            if self._args.dry_run:
                return self._dry_run(parts)
            self._describe(parts)
            return self._train(parts, self._run_folder(parts))
        finally:
            parts.close()

    def _resume(self) -> int:
        for name in ("preset", "config", "output"):
            if getattr(self._args, name) is not None:
                raise UsageError(f"--resume goes on with a run as it is; --{name} has no place there")
        scene = self._settings.get("capture")
        named = Path(self._args.resume) if self._args.resume else None
        run_dir = find_run(named, Path(scene) if scene and named is None else None)
        require_writable(run_dir)
        checkpoint = latest(run_dir, self._warn) if checkpoint_paths(run_dir) else None
        stored = _stored_config(run_dir, checkpoint)
        config = resumed_config(stored, self._settings)
        parts = gather(config, self._say, checkpoint=checkpoint)
        try:
            if self._args.dry_run:
                return self._dry_run(parts)
            self._describe_resume(run_dir, parts, stored)
            drop_metrics_after(run_dir, parts.state.step)
            return self._train(parts, run_dir, None if checkpoint is None else checkpoint.edit_log)
        finally:
            parts.close()

    # ------------------------------------------------------------------------------------------------------

    def _run_folder(self, parts: Parts) -> Path:
        if self._args.output is not None:
            return claim_folder(Path(self._args.output))
        return fresh_folder(parts.scene.name, parts.config.preset)

    def _train(self, parts: Parts, run_dir: Path, held: Sequence[str] | None = None) -> int:
        """``held``: lines of the edits that the checkpoint this goes on from holds."""
        comment = f"splat {version()}: repeats this run with\nsplat train --config {run_dir / 'config.toml'}"
        write_text(run_dir / "config.toml", config_text(parts.config, comment=comment))
        self._say(f"run folder: {run_dir}")
        cut_log(run_dir / EDIT_LOG, parts.state.edits_done, self._say, held)
        link = Link()
        stream = _Silent() if self._args.quiet else sys.stderr
        run = prepare(parts, run_dir, stream=stream, say=self._say, version=version(), link=link)
        options = viewer_options(self._args) if wants_viewer(self._args) else None
        with TrainingViewer(options, parts, run_dir, link, run.progress.say) as viewer:
            with GracefulStop(link.commands) as stop:
                finished = self._drive(run, run_dir)
                if finished.reason != "interrupted":
                    tell_training(parts, run_dir, self._say)
                    export_finished(parts, run_dir, self._say)
                if parts.config.output.report and finished.reason != "interrupted":
                    self._report(run_dir)
            if finished.reason == "interrupted":
                self._say(f"checkpoint: {run.checkpoints.last}; go on with: splat train --resume {run_dir}")
                return stop.exit_code or 0
            print(run_dir, flush=True)
            return viewer.keep() if self._args.keep_viewer else 0

    def _drive(self, run: Run, run_dir: Path) -> Any:
        """Drive to the end; a failure names the last checkpoint."""
        try:
            return drive(run.trainer, run.sinks)
        except SceneError as error:  # a picture that cannot be read: the state is whole, so keep it
            path = run.checkpoints.write(run.trainer.state)
            raise SceneError(f"{error}; the state was saved, go on after mending it: splat train --resume {run_dir} "
                             f"({path.name})") from error  # fmt: skip
        except TrainingError as error:
            kept = checkpoint_paths(run_dir)
            last = f"last checkpoint: {kept[-1]}" if kept else "no checkpoint was written yet"
            raise TrainingError(f"{error}; {last}") from error
        finally:
            run.progress.close()

    def _report(self, run_dir: Path) -> None:
        from splat.report.html import write_report

        self._say(f"report: {write_report(run_dir)}")

    def _dry_run(self, parts: Parts) -> int:
        self._describe(parts)
        estimate = estimate_memory(parts.config, parts.scene, cache_bytes=_cache_bytes(parts.config), state=parts.state)
        self._say(f"memory: {estimate.text()}")
        outputs = Outputs(
            Path(), parts.scene, parts.store, parts.rasterizer, background=lambda: fixed_background(parts.config)
        )
        folder = Path(self._args.output) if self._args.output else Path("runs") / parts.scene.name / "dry-run"
        self._say("nothing was trained; first render:")
        print(outputs.first_render(parts.state, folder / "renders" / "first.png"))
        return 0

    # what is said before the first step ------------------------------------------------------------------

    def _describe(self, parts: Parts) -> None:
        config, scene, say = parts.config, parts.scene, self._say
        sizes = scene.protocol.get("sizes", "")
        views = f"{len(scene.train_indices)} views to train on, {len(scene.test_indices)} held out"
        say(f"scene: {scene.name}, {views}" + (f", {sizes}" if sizes else ""))
        if not scene.test_indices:
            say("warning: no view is held out, so nothing will be measured (--test-every 8 holds out every 8th)")
        limit = f", at most {config.max_splats:,}" if config.max_splats else ""
        budget = f", at most {config.max_minutes:g} min" if config.max_minutes else ""
        origin = config.start_from or f"{scene.points.source} points"
        splats = f"{parts.state.model.count:,} {config.primitive.kind} splats from {origin}"
        compressor = "" if config.compressor.kind == "none" else f", compressor {config.compressor.kind}"
        say(f"model: {splats}{limit}, densifier {config.densifier.kind}{compressor}")
        machine = f"{parts.rasterizer.name} on {parts.device}"
        say(f"training: preset {config.preset}, {config.steps:,} steps{budget}, {machine}, seed {config.seed}")
        changed = differences(config, preset_config(config.preset))
        if changed:
            listed = ", ".join(f"{key} = {_text(new)} (was {_text(old)})" for key, (new, old) in changed.items())
            say(f"differs from the preset: {listed}")
        if config.steps != config.schedule_steps:
            factor = config.steps / config.schedule_steps
            say(f"schedules stretched by {factor:.3g}: {_schedule_text(effective(config))}")

    def _describe_resume(self, run_dir: Path, parts: Parts, stored: TrainConfig) -> None:
        config, step = parts.config, parts.state.step
        self._say(f"resuming {run_dir} at step {step:,} of {config.steps:,}, {parts.state.model.count:,} splats")
        changed = differences(config, stored)
        if changed:
            listed = ", ".join(f"{key} = {_text(new)} (was {_text(old)})" for key, (new, old) in changed.items())
            self._say(f"changed for the rest of the run: {listed}")
        if config.steps != stored.steps:
            self._say(
                f"schedules re-derived for {config.steps:,} steps: {_schedule_text(effective(config))}; the result "
                f"differs from a run that had {config.steps:,} steps from the start"
            )
        if config.max_minutes is not None and parts.state.elapsed_secs >= config.max_minutes * 60:
            self._say(f"the time budget of {config.max_minutes:g} min is used up; --max-minutes gives more")

    def _warn(self, message: str) -> None:
        self._say(f"warning: {message}")


class _Silent:
    """A stream nobody reads."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        return None

    def isatty(self) -> bool:
        return False


def _stored_config(run_dir: Path, checkpoint: Checkpoint | None) -> TrainConfig:
    """What the run was configured with: the checkpoint's own copy, else config.toml."""
    if checkpoint is not None:
        return build_config([(str(checkpoint.path), parse_toml(checkpoint.config_toml, str(checkpoint.path)))])
    path = run_dir / "config.toml"
    if not path.exists():
        raise UserError(f"{run_dir}: neither a checkpoint nor a config.toml to resume from")
    return build_config([(str(path), read_toml(path))])


def _schedule_text(config: TrainConfig) -> str:
    """The step-valued settings of an effective configuration."""
    parts = [f"{name} {value}" for name, value in vars(config.densifier).items()
             if name.startswith("refine_") or name.endswith("_every")]  # fmt: skip
    parts.append(f"sh_every {config.optim.sh_every}")
    if config.resolution.factor > 1:
        parts.append(f"full size from {config.resolution.until}")
    return ", ".join(parts)


def _cache_bytes(config: TrainConfig) -> int:
    from splat.scene.images import default_budget_bytes

    return default_budget_bytes() if config.scene.cache_gib is None else int(config.scene.cache_gib * 2**30)


def _text(value: Any) -> str:
    return "none" if value is None else str(value)
