"""A training in memory, small enough for dozens of runs per second of test time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from splat.densify.protocol import DensifyState, RefineContext, StepPlan
from splat.geometry.camera import Camera
from splat.geometry.rng import keyed_generator
from splat.model.gaussian import GaussianPrimitive
from splat.model.row_edit import RowEdit
from splat.model.splat_model import SplatModel
from splat.optim.adam import SplatAdam
from splat.render.registry import rasterizer
from splat.scene.types import Frame
from splat.train.frames import FrameSource
from splat.train.settings import LoopSettings, ResolutionSchedule
from splat.train.state import TrainState
from splat.train.trainer import Trainer

SETTINGS = LoopSettings(steps=12, seed=3, sh_degree=1, sh_every=4, resolution=ResolutionSchedule(2, 5))


@dataclass(frozen=True)
class Restless:
    """Grows, prunes, resets, shakes and keeps statistics: everything a checkpoint must carry."""

    kind: ClassVar[str] = "restless"
    needs_abilities: ClassVar[frozenset[str]] = frozenset()
    start_settings: ClassVar[Mapping[str, float]] = {}

    views: int = 1
    accumulate: int = 1
    """Steps per optimizer step."""

    def needs(self, step: int) -> frozenset[str]:
        return frozenset({"visible"})

    def plan(self, step: int) -> StepPlan:
        return StepPlan(views=self.views, optimize=step % self.accumulate == 0)

    def rescaled(self, factor: float) -> Restless:
        return self

    def blocked(self, primitive: object) -> str | None:
        return None

    def start(self, model: SplatModel) -> DensifyState:
        return DensifyState({"seen": torch.zeros(model.count)}, {"rounds": 0.0})

    def regularizer(self, model: SplatModel) -> torch.Tensor:
        return 1e-3 * model.opacities.mean()

    def observe(
        self, state: DensifyState, step: int, stats: object, *, width: int, height: int, view: int, loss: float
    ) -> None:
        state.tables["seen"] = state.tables["seen"] + stats.visible[0].float()

    def refine(self, state: DensifyState, step: int, model: SplatModel, ctx: RefineContext) -> Iterator[RowEdit]:
        if step % 3 or step % self.accumulate:
            return
        state.scalars["rounds"] += 1
        most_seen = state.tables["seen"].argsort(descending=True, stable=True)[:2]
        shifted = model.rows["means"].detach()[most_seen] + 0.05 * state.scalars["rounds"]
        yield RowEdit.append(model.count, most_seen, {"means": shifted}, reason="clone")
        keep = torch.ones(model.count, dtype=torch.bool)
        keep[int(model.opacities.detach().argmin())] = False
        yield RowEdit.keep(keep)

    def maps(self, pixels: torch.Tensor) -> torch.Tensor | None:
        return None

    def prepared(self, xyz: torch.Tensor, rgb: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return xyz, rgb

    def perturb(
        self, state: DensifyState, step: int, model: SplatModel, *, lr_means: float, generator: torch.Generator
    ) -> torch.Tensor:
        return 1e-3 * torch.randn(model.count, 3, generator=generator)


def cameras(count: int = 5, width: int = 12, height: int = 10) -> tuple[Camera, ...]:
    made = []
    for number in range(count):
        pose = np.eye(4)
        pose[:3, 3] = (0.2 * number - 0.4, 0, 3)
        intrinsics = np.array([[12.0, 0, width / 2], [0, 12.0, height / 2], [0, 0, 1]])
        made.append(Camera(f"{number}.png", pose, intrinsics, width, height))
    return tuple(made)


def frame_of(index: int, width: int = 12, height: int = 10) -> Frame:
    pixels = np.random.default_rng(index).integers(0, 255, (height, width, 3), dtype=np.uint8)
    mask = np.full((height, width), 255, np.uint8) if index == 1 else None
    return Frame(pixels, mask)


def fresh_state(densifier: Restless, count: int = 12) -> TrainState:
    generator = keyed_generator(0, "test", 0)
    xyz = torch.randn(count, 3, generator=generator) * 0.4
    primitive = GaussianPrimitive()
    rows = primitive.start(xyz, torch.rand(count, 3, generator=generator), sh_degree=1, generator=generator)
    model = SplatModel(primitive, rows, 1)
    adam = SplatAdam(primitive.fields(1))
    adam.start(model)
    return TrainState(model, adam, densifier.start(model))


def make_trainer(state: TrainState | None = None, densifier: Restless | None = None, **changes) -> Trainer:
    """A trainer on the native rasterizer; ``changes`` go to the trainer, or to its settings by name."""
    densifier = densifier or Restless()
    names = set(SETTINGS.__dataclass_fields__)
    settings = replace(SETTINGS, **{key: changes.pop(key) for key in list(changes) if key in names})
    arguments = {
        "settings": settings,
        "densifier": densifier,
        "context": RefineContext(extent_world=1.0, seed=settings.seed, total_steps=settings.steps),
        "rasterizer": rasterizer("native"),
        "frames": FrameSource(cameras(), frame_of),
    }
    return Trainer(state or fresh_state(densifier), **(arguments | changes))


def all_bits(state: TrainState) -> dict[str, bytes]:
    """Every number a run ends with."""
    tables = {
        **state.model.rows, **state.adam.state_tensors(), **{f"t.{k}": v for k, v in state.densify.tables.items()}
    }  # fmt: skip
    bits = {name: table.detach().numpy().tobytes() for name, table in tables.items()}
    return bits | {f"s.{name}": repr(value).encode() for name, value in state.densify.scalars.items()}
