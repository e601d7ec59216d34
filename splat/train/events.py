"""The stream a training yields. A sink is a plain function of one event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from splat.train.places import Place
from splat.train.state import TrainState


@dataclass(frozen=True, eq=False)
class Event:
    """``state`` is live: read it while the event is handled, copy what must outlast that."""

    state: TrainState

    @property
    def step(self) -> int:
        return self.state.step


@dataclass(frozen=True, eq=False)
class Started(Event):
    """Before the first step of this process."""

    total_steps: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Values of ``live.commands.SETTINGS`` in force."""


@dataclass(frozen=True, eq=False)
class Stepped(Event):
    """One optimizer step was taken."""

    loss: float | Tensor
    """On a GPU a 0-dim tensor, as are ``l1`` and ``ssim``: reading it waits for the step."""
    l1: float | Tensor
    ssim: float | Tensor
    lr_means: float
    stage_secs: Mapping[str, float]
    """load, render, loss, backward, optimizer, refine of this step."""
    mse: float | Tensor | None = None
    """Of some pixels of this step's last picture, now and then; see ``goal.sampled_mse``."""


@dataclass(frozen=True, eq=False)
class Edited(Event):
    """Rows were changed; counts are rows."""

    reason: str
    added: int
    removed: int
    splats: int
    """Rows after this edit."""
    added_at: Place | None = None
    removed_at: Place | None = None


@dataclass(frozen=True, eq=False)
class Changed(Event):
    """A setting has another value from the next step on."""

    name: str
    value: Any
    settings: Mapping[str, Any]
    """Values of ``live.commands.SETTINGS`` in force."""


@dataclass(frozen=True, eq=False)
class Shielding(Event):
    """Comes again and again while training views are looked at for what an edit changed in them."""


@dataclass(frozen=True, eq=False)
class Warned(Event):
    """Something the user should know; training goes on."""

    text: str


@dataclass(frozen=True, eq=False)
class Evaluated(Event):
    """Held-out views were measured; ``evaluation`` is what the evaluation function returned."""

    evaluation: Any


@dataclass(frozen=True, eq=False)
class SaveAsked(Event):
    """Somebody wants a checkpoint now."""


@dataclass(frozen=True, eq=False)
class Paused(Event):
    """Comes again and again while the run is paused, so that the mailbox keeps being served."""


@dataclass(frozen=True, eq=False)
class Finished(Event):
    """The last event. ``interrupted`` wants a checkpoint and nothing else."""

    reason: Literal["done", "time", "target", "stopped", "interrupted"]


Sink = Callable[[Event], None]
