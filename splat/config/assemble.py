"""Where the concrete parts meet: a configuration becomes a scene, a model, a trainer and its sinks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from splat.config.build import build_config, config_text, differences, effective, preset_config
from splat.config.compressing import Shown, check_compressor, drawn_model, pack_export
from splat.config.devices import choose_device, machine_name, prepare_process
from splat.config.goals import limiting_flag, size_text, within_views
from splat.config.outputs import Outputs
from splat.config.schema import TrainConfig
from splat.config.starting import model_of_checkpoint, model_to_start_from
from splat.config.toml_io import parse_toml
from splat.densify.protocol import RefineContext
from splat.errors import UserError
from splat.evaluate.views import Evaluation
from splat.geometry.rng import keyed_generator
from splat.io.formats import LoadedModel
from splat.live.commands import CommandQueue
from splat.live.link import Link
from splat.model.splat_model import SplatModel
from splat.optim.adam import SplatAdam
from splat.render.types import Rasterizer, RenderOptions
from splat.scene.depth_prior import DepthSource, open_depth_source
from splat.scene.images import ImageStore
from splat.scene.open import open_scene
from splat.scene.types import Scene
from splat.train.checkpoint import Checkpoint, CheckpointSink, restore
from splat.train.events import Event, Sink, Started
from splat.train.frames import FrameSource
from splat.train.news import NewsSink
from splat.train.progress import ProgressSink
from splat.train.settings import LoopSettings, ResolutionSchedule
from splat.train.sinks import ExportSink, MailboxSink, MetricsSink
from splat.train.state import TrainState
from splat.train.trainer import Trainer

BACKGROUNDS = {"auto": (0.0, 0.0, 0.0), "black": (0.0, 0.0, 0.0), "white": (1.0, 1.0, 1.0), "random": None}

Say = Callable[[str], None]


@dataclass(eq=False)
class Parts:
    """What a configuration needs before anything is trained or written."""

    config: TrainConfig
    """As the user meant it; ``effective(config)`` is what the loop follows."""
    scene: Scene
    store: ImageStore
    device: torch.device
    rasterizer: Rasterizer
    state: TrainState

    @cached_property
    def shown(self) -> Shown:
        """States as their files decode, where a compressor packs them."""
        return Shown(effective(self.config).compressor)

    def close(self) -> None:
        self.store.close()


@dataclass(eq=False)
class Run:
    """A training ready to be driven."""

    trainer: Trainer
    sinks: Sequence[Sink]
    progress: ProgressSink
    checkpoints: CheckpointSink
    outputs: Outputs
    link: Link
    """What a viewer joins."""


def check_parts(config: TrainConfig) -> None:
    """Say before any work if two parts do not fit."""
    reason = config.densifier.blocked(config.primitive)
    if reason is not None:
        raise UserError(reason)
    check_compressor(config.compressor, config.primitive)
    if config.render.filter3d and "filter3d" not in config.primitive.can:
        raise UserError(
            f"render.filter3d does not fit primitive '{config.primitive.kind}', which has no such filter; "
            "turn one of them off"
        )
    if not 0 <= config.optim.sh_degree <= 3:
        raise UserError(f"optim.sh_degree = {config.optim.sh_degree} does not fit: use 0, 1, 2 or 3")
    densifier = effective(config).densifier
    if config.render.filter2d == "analytic" and any(densifier.plan(s + 1).stride > 1 for s in range(config.steps)):
        raise UserError(
            f"densifier '{densifier.kind}' draws strided pictures, which filter2d 'analytic' has no exact form for; "
            "use classic, aa or mip, or a stride of 1"
        )


def open_capture(config: TrainConfig, say: Say, *, allow_sfm: bool = True) -> Scene:
    """The scene of a configuration; its warnings are told."""
    if not config.capture:
        raise UserError("no capture named; give a folder: splat train SCENE")
    options = replace(config.scene, seed=config.seed, allow_sfm=allow_sfm, on_message=say)
    scene = open_scene(Path(config.capture), options)
    for warning in scene.warnings:
        say(f"warning: {warning}")
    return scene


def gather(
    config: TrainConfig, say: Say, *, checkpoint: Checkpoint | None = None, start: LoadedModel | None = None
) -> Parts:
    """Scene, rasterizer and the state to begin from: fresh, or that of ``checkpoint``. Fresh rows come from ``start``,
    else from the file the configuration names, else from the capture's points."""
    check_parts(config)
    prepare_process(config.render.threads)
    device, rasterizer = choose_device(config.render, say)
    scene = open_capture(config, say)
    if not scene.train_indices:
        raise UserError(f"{scene.root}: no image is left to train on; loosen scene.test_every or the list files")
    asked = config.steps
    config = within_views(config, len(scene.train_indices))
    if config.steps < asked:
        say(f"few views: {config.steps:,} steps instead of {asked:,} (more would overfit; --steps N has the last word)")
    # In the configuration too: who rebuilds the model from a checkpoint must draw the same splats.
    config = replace(config, primitive=config.primitive.fitted(typical_focal_px(scene)))
    if (size := size_text(config)) is not None:
        say(size)
    model = _first_model(effective(config), scene, device, say, checkpoint=checkpoint, start=start)
    options = RenderOptions(filter2d=model.filter2d, stats=stats_needed(effective(config)))
    reason = rasterizer.supports(model.render_inputs(), options, device)
    if reason is not None:
        raise UserError(f"rasterizer '{rasterizer.name}' cannot draw primitive '{config.primitive.kind}': {reason}")
    specs = model.primitive.fields(model.sh_degree)
    adam = SplatAdam(specs, betas=(config.optim.beta1, config.optim.beta2))
    adam.start(model)
    state = TrainState(model, adam, effective(config).densifier.start(model))
    if checkpoint is not None:
        restore(state, checkpoint)
        state.changes = _not_overruled(state.changes, config, checkpoint)
    else:
        state.compress = effective(config).compressor.start(model, seed=config.seed)
    return Parts(config, scene, image_store(config, scene), device, rasterizer, state)


def _not_overruled(changes: dict[str, Any], config: TrainConfig, checkpoint: Checkpoint) -> dict[str, Any]:
    """Changes made by hand, without those whose setting got another value since the checkpoint was written: the
    command line of a resumed run has the last word."""
    if not changes:
        return changes
    stored = build_config([(str(checkpoint.path), parse_toml(checkpoint.config_toml, str(checkpoint.path)))])

    def told(settings: TrainConfig) -> dict[str, Any]:
        optim = settings.optim
        return {"lr_scale": optim.lr_scale, "max_splats": settings.max_splats, "sh_degree": optim.sh_degree,
                "background": optim.background}  # fmt: skip

    before, now = told(stored), told(config)
    return {name: value for name, value in changes.items() if before.get(name) == now.get(name)}


def _first_model(
    config: TrainConfig, scene: Scene, device: torch.device, say: Say, *,
    checkpoint: Checkpoint | None, start: LoadedModel | None,
) -> SplatModel:  # fmt: skip
    if not config.start_from and start is None:
        return start_model(config, scene, device, say)
    if checkpoint is not None:  # the file may be gone or changed; the run goes on with its own rows
        return model_of_checkpoint(config, checkpoint, device)
    return model_to_start_from(config, scene, device, say, start)


def typical_focal_px(scene: Scene) -> float:
    """Median over the training cameras, at the size they are trained at; fx and fy by their geometric mean."""
    return float(np.median([np.sqrt(camera.K[0, 0] * camera.K[1, 1]) for camera in scene.train_cameras]))


def stats_needed(config: TrainConfig) -> frozenset[str]:
    """Every statistic that the densifier of an effective configuration observes at some step."""
    return frozenset().union(*{config.densifier.needs(step + 1) for step in range(config.steps)})


def start_model(config: TrainConfig, scene: Scene, device: torch.device, say: Say) -> SplatModel:
    """One splat per point that the densifier makes of the capture's, at most ``max_splats``; ``config`` is an
    effective one, its primitive fitted."""
    points = scene.points
    xyz, rgb = config.densifier.prepared(
        torch.from_numpy(points.xyz).float(), torch.from_numpy(points.rgb).float() / 255
    )
    if xyz.shape[0] != len(points):
        say(f"densifier {config.densifier.kind} makes {xyz.shape[0]:,} start points of {len(points):,}")
    if config.max_splats is not None and xyz.shape[0] > config.max_splats:
        flag = limiting_flag(config)
        say(f"starting from {config.max_splats:,} of {xyz.shape[0]:,} points, drawn at random ({flag})")
        chosen = _drawn(xyz.shape[0], config.max_splats, config.seed)
        xyz, rgb = xyz[chosen], rgb[chosen]
    rows = config.primitive.start(
        xyz, rgb, sh_degree=config.optim.sh_degree, generator=keyed_generator(config.seed, "start", 0),
    )  # fmt: skip
    rows = {name: table.to(device) for name, table in rows.items()}
    return SplatModel(config.primitive, rows, config.optim.sh_degree, config.render.filter2d)


def image_store(config: TrainConfig, scene: Scene) -> ImageStore:
    if config.scene.cache_gib is None:
        return ImageStore(scene.cameras)
    return ImageStore(scene.cameras, budget_bytes=int(config.scene.cache_gib * 2**30))


def prepare(parts: Parts, run_dir: Path, *, stream: TextIO, say: Say, version: str, link: Link | None = None) -> Run:
    """The trainer and everything that listens to it."""
    config = effective(parts.config)
    link = link or Link()
    mailbox = MailboxSink(link.snapshots, lambda state: drawn_model(config.compressor, state))

    def between_views() -> bool:
        mailbox.serve(parts.state)
        return link.commands.interrupted

    outputs = Outputs(
        run_dir, parts.scene, parts.store, parts.rasterizer,
        background=lambda: background_now(config, parts.state.changes), abandon=between_views,
    )  # fmt: skip
    trainer = trainer_of(
        parts, link.commands,
        (lambda state: outputs.evaluate(parts.shown(state))) if parts.scene.test_indices else None,
    )  # fmt: skip
    progress = ProgressSink(stream, test_views=len(parts.scene.test_indices))
    checkpoints = CheckpointSink(
        run_dir, config_text(parts.config), every=config.output.checkpoint_every,
        keep_last=config.output.keep_checkpoints, keep_steps=config.output.keep_checkpoints_at,
    )  # fmt: skip
    sinks: list[Sink] = [
        MetricsSink(run_dir, start_record(parts, version)), progress,
        parts.shown.forget, NewsSink(link.news), mailbox, checkpoints,
        ExportSink(lambda state: outputs.export(parts.shown(state)), frozenset(config.output.export_at)),
        ExportSink(pack_export(run_dir, parts.scene, config.compressor, say), frozenset()),
    ]  # fmt: skip
    if config.output.first_render:
        sinks.insert(0, _first_render(outputs, say))
    return Run(trainer, sinks, progress, checkpoints, outputs, link)


def trainer_of(
    parts: Parts, commands: CommandQueue, evaluate: Callable[[TrainState], Evaluation] | None = None
) -> Trainer:
    """The loop over ``parts``, which writes nothing by itself."""
    config = effective(parts.config)
    return Trainer(
        parts.state,
        settings=loop_settings(config),
        densifier=config.densifier,
        context=replace(refine_context(config, parts.scene), priors=depth_priors(parts)),
        rasterizer=parts.rasterizer,
        frames=train_frames(parts),
        compressor=config.compressor,
        evaluate=evaluate,
        commands=commands,
    )


def loop_settings(config: TrainConfig) -> LoopSettings:
    """From an effective configuration."""
    return LoopSettings(
        steps=config.steps, seed=config.seed, ssim_weight=config.optim.ssim_weight,
        detail_weight=config.optim.detail_weight, detail_levels=config.optim.detail_levels,
        sh_degree=config.optim.sh_degree, sh_every=0 if config.start_from else config.optim.sh_every,
        lr_scale=config.optim.lr_scale, lr_start=config.optim.lr_start,
        background=BACKGROUNDS[config.optim.background], filter2d=config.render.filter2d,
        filter3d_every=config.render.filter3d_every if config.render.filter3d else 0,
        resolution=ResolutionSchedule(config.resolution.factor, config.resolution.until),
        eval_at=frozenset(config.output.eval_at),
        max_secs=None if config.max_minutes is None else config.max_minutes * 60,
        target_psnr=config.target_psnr,
    )  # fmt: skip


def refine_context(config: TrainConfig, scene: Scene) -> RefineContext:
    return RefineContext(
        extent_world=scene.extent_world, max_splats=config.max_splats, seed=config.seed, total_steps=config.steps,
        background_is_white=_behind(config, scene) == (1.0, 1.0, 1.0),
    )  # fmt: skip


def depth_priors(parts: Parts) -> DepthSource | None:
    """Depth believed about the training views, made when it is asked for."""
    indices = parts.scene.train_indices
    return open_depth_source(parts.scene, parts.config.depth, lambda view: parts.store.frame(indices[view]))


def fixed_background(config: TrainConfig) -> tuple[float, float, float]:
    """The colour behind evaluated pictures whose camera names none."""
    return BACKGROUNDS[config.optim.background] or (0.0, 0.0, 0.0)


def background_now(config: TrainConfig, changes: Mapping[str, Any]) -> tuple[float, float, float]:
    """The same with what was changed by hand."""
    changed = changes.get("background")
    return fixed_background(config) if changed is None else tuple(changed)


def train_frames(parts: Parts) -> FrameSource:
    """Training views by their place among the training views."""
    indices = parts.scene.train_indices
    return FrameSource(
        parts.scene.train_cameras,
        lambda view: parts.store.frame(indices[view]),
        prefetch=lambda views: parts.store.prefetch([indices[view] for view in views]),
        device=parts.device,
    )


def start_record(parts: Parts, version: str) -> dict[str, object]:
    """What ``metrics.jsonl`` says first."""
    return {
        "scene": parts.scene.name, "protocol": dict(parts.scene.protocol), "device": str(parts.device),
        "rasterizer": parts.rasterizer.name, "seed": parts.config.seed, "version": version,
        "views_train": len(parts.scene.train_indices), "views_test": len(parts.scene.test_indices),
        "total_steps": parts.config.steps, "machine": machine_name(parts.device),
        "changed": {key: was if isinstance(was, int | float | str | None) else str(was)
                    for key, (_, was) in differences(parts.config, preset_config("default")).items()},
    }  # fmt: skip


def _behind(config: TrainConfig, scene: Scene) -> tuple[float, ...] | None:
    return scene.train_cameras[0].background or BACKGROUNDS[config.optim.background]


def _drawn(points: int, count: int, seed: int) -> torch.Tensor:  # [count]
    generator = keyed_generator(seed, "start points", 0)
    return torch.randperm(points, generator=generator)[:count].sort().values


def _first_render(outputs: Outputs, say: Say) -> Sink:
    def sink(event: Event) -> None:
        if isinstance(event, Started) and event.step == 0:
            say(f"first render: {outputs.first_render(event.state)}")

    return sink
