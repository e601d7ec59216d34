"""What a prior is: a judge of renders. Settings are the plug-in, what it learned of one drag is a ``Guidance``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from splat.edit.prior.weights import WeightSpec
from splat.geometry.camera import Camera


@dataclass(frozen=True, eq=False)
class EditView:
    """One camera that sees what is dragged, before the drag."""

    camera: Camera
    picture: Tensor  # [3,H,W] 0..1
    mask: Tensor  # [H,W] float, 1 where the picture may change
    handles: Tensor  # [K,2] px, NaN where a handle is behind the camera
    targets: Tensor  # [K,2] px, as above


class Guidance(Protocol):
    """A prior that knows the views of one drag. It may learn from what it is shown."""

    def loss(self, render: Tensor, view_ids: Sequence[int], progress: float) -> tuple[Tensor, Mapping[str, float]]:
        """How implausible ``render [B,3,H,W]`` (0..1) of views ``view_ids [B]`` is, and figures for a log.

        ``progress`` goes from 0 to 1 over the run. The gradient of the first value with respect to ``render`` is what
        counts; its size has a meaning only beside the weights of ``RefineSettings``.
        """
        ...


class EditPrior(Protocol):
    """A frozen dataclass of settings. Opening it reads weights, so that comes late."""

    kind: ClassVar[str]
    purpose: ClassVar[str]
    """One line for ``--help``."""
    looks: ClassVar[bool]
    """Whether it judges renders; one that does not is never asked, and nothing is drawn."""

    def needs(self) -> tuple[WeightSpec, ...]:
        """The files it reads; empty for one without weights."""
        ...

    def prepare(
        self, views: Sequence[EditView], handles: Tensor, targets: Tensor, *, folder: Path | None,
        device: torch.device, seed: int,
    ) -> Guidance:  # fmt: skip
        """Ready for one drag. handles, targets [K,3] world; ``folder`` holds the files of ``needs``.

        UserError that lists every missing file, or says which packages to install.
        """
        ...
