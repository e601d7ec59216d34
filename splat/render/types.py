"""What goes into a rasterizer and what comes out: dataclasses, never dicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from splat.geometry.camera import Camera
from splat.model.filter2d import FILTERS_2D, Filter2d
from splat.model.render_inputs import RenderInputs

FILTER2D_VARIANCE_PX = {name: row.variance_px for name, row in FILTERS_2D.items()}
"""Variance in px^2 added to both axes of the projected covariance."""
FILTER2D_COMPENSATES = frozenset(name for name, row in FILTERS_2D.items() if row.compensates)
"""Filters that lower the opacity of what they widen."""


@dataclass(frozen=True, eq=False)
class CameraBatch:
    """C pinhole cameras of one size, as tensors, so that poses can carry a gradient."""

    camera_from_world: Tensor  # [C,4,4]
    K: Tensor  # [C,3,3] px
    width: int
    height: int
    made_from: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]] | None = field(default=None, repr=False)
    """Poses and intrinsics on the CPU, and the very tensors they were copied to; see ``on_host``."""

    @staticmethod
    def of(
        cameras: Camera | Sequence[Camera],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> CameraBatch:
        """Stack cameras; raises ValueError when their sizes differ."""
        cameras = [cameras] if isinstance(cameras, Camera) else list(cameras)
        sizes = {(c.width, c.height) for c in cameras}
        if len(sizes) != 1:
            raise ValueError(f"cameras of one batch must share a size, got {sorted(sizes)}")
        ((width, height),) = sizes
        poses = np.stack([c.camera_from_world for c in cameras])
        intrinsics = np.stack([c.K for c in cameras])
        home = torch.as_tensor(poses, dtype=dtype), torch.as_tensor(intrinsics, dtype=dtype)
        there = home[0].to(device, non_blocking=True), home[1].to(device, non_blocking=True)
        return CameraBatch(*there, width, height, (home, there))

    def on_host(self) -> tuple[Tensor, Tensor]:  # [C,4,4], [C,3,3]
        """Poses and intrinsics on the CPU, without waiting for a device that only holds copies of them."""
        if self.made_from is not None:
            home, (poses, K) = self.made_from
            # In-place changes count up _version: then only the device knows.
            if poses is self.camera_from_world and K is self.K and poses._version == K._version == 0:
                return home
        return self.camera_from_world.detach().cpu(), self.K.detach().cpu()

    def __len__(self) -> int:
        return self.camera_from_world.shape[0]


@dataclass(frozen=True, eq=False)
class RenderOptions:
    """How to draw. What is not asked for costs nothing."""

    sh_degree: int = 3
    """Highest band used; at most what the inputs carry."""
    filter2d: Filter2d = "classic"
    background: Tensor | None = None  # [3] or [C,3]; None = black
    near: float = 0.01
    far: float = 1e10
    depth: frozenset[Literal["expected", "median"]] = frozenset()
    top_id: bool = False
    """Per pixel, the row with the largest blend weight (-1 where nothing is seen)."""
    stats: frozenset[str] = frozenset()
    """Names of ``SplatStats`` fields wanted; see there."""
    pixel_weights: Tensor | None = None  # [C,M,H,W], M <= 4: maps for the ``weighted_*``/``texgrad`` statistics
    blur_scale: float = 1.0
    """Factor on the variance of ``filter2d``: 1/d^2 for a camera that draws every d-th pixel, whose own pixels are d
    times as wide. An analytic filter has no variance to scale: its window is one pixel, so this must be 1."""
    tan_limits: tuple[float, float, float, float] | None = None
    """How far off axis the projection is linearised: x/z low and high, y/z low and high. None = 15 % beyond the
    picture; a strided camera needs those of the full one, or splats beyond its border would have other shapes."""

    def __post_init__(self) -> None:
        if not self.blur_scale > 0 or (self.blur_scale != 1 and self.filter2d == "analytic"):
            raise ValueError(f"blur_scale = {self.blur_scale:g} does not fit filter2d '{self.filter2d}'")

    @property
    def filter2d_variance_px(self) -> float:
        """What is added to both axes of the projected covariance, px^2."""
        return FILTER2D_VARIANCE_PX[self.filter2d] * self.blur_scale


@dataclass(eq=False)
class SplatStats:
    """Per splat and view, shape [C,N] unless said. Sums and counts, never means.

    A *contributing fragment* is a pixel where alpha >= 1/255 before saturation. Fields that come from
    the backward pass are filled in once ``backward`` has run. Gradients are those of the loss given to
    backward, in NDC-scaled units: pixel gradient x (W/2, H/2).
    """

    radii_px: Tensor | None = None  # [C,N,2] half sizes of the footprint; 0 = not drawn
    visible: Tensor | None = None  # bool: footprint meets the image
    fragments: Tensor | None = None  # contributing fragments
    blend_sum: Tensor | None = None  # sum over pixels of alpha * T
    blend_max: Tensor | None = None  # largest alpha * T of any pixel
    max_contrib: Tensor | None = None  # pixels where this splat has the largest alpha * T
    center_dist: Tensor | None = None  # sum over contributing pixels of |p - mean2d|, px
    depths: Tensor | None = None  # camera z of the centre
    weighted_count: Tensor | None = None  # [C,M,N] sum of w(p) over contributing fragments
    weighted_blend: Tensor | None = None  # [C,M,N] sum of w(p) * alpha * T
    # from the backward pass
    grad2d: Tensor | None = None  # norm of the NDC-scaled gradient of the projected mean
    abs_grad2d: Tensor | None = None  # norm of the component-wise sums of absolute values
    abs_grad2d_l2: Tensor | None = None  # sum_p |(W du, H dv)| / max(final alpha, 1e-5)
    color_grad: Tensor | None = None  # norm of dL/drgb before the SH chain
    opacity_grad_sum: Tensor | None = None  # sum_p (dL/do)_p
    opacity_grad_sq: Tensor | None = None  # sum_p (dL/do)_p^2
    texgrad: Tensor | None = None  # sum_p w0(p) |(W/2 du, H/2 dv)|
    shape_grad: Tensor | None = None  # gradient of the last shape table, raw, of one number per row; not NDC-scaled
    sensitivity: Tensor | None = None  # sum_p sum_channels (dI_p/dG_i)^2, G = the splat's response


FORWARD_STATS = frozenset(
    "radii_px visible fragments blend_sum blend_max max_contrib center_dist depths "
    "weighted_count weighted_blend".split()
)
BACKWARD_STATS = frozenset(
    "grad2d abs_grad2d abs_grad2d_l2 color_grad opacity_grad_sum opacity_grad_sq texgrad "
    "shape_grad sensitivity".split()
)


@dataclass(eq=False)
class RowUpdate:
    """An Adam step that the backward pass takes in place, instead of leaving gradients: dense semantics, so rows that
    were not drawn take a step with zero gradient. By names of row fields."""

    first: dict[str, Tensor]  # shaped like the field
    second: dict[str, Tensor]
    lrs: dict[str, float]
    steps: dict[str, int]
    """Counting from 1, this step included."""
    betas: tuple[float, float]
    eps: float
    taken: frozenset[str] | None = None
    """Fields that were stepped, once ``backward`` has run; a field without a gradient rests."""


@dataclass(frozen=True, eq=False)
class RenderOutput:
    """Pictures of C cameras. ``color`` includes the background; it is not clamped."""

    color: Tensor  # [C,H,W,3]
    alpha: Tensor  # [C,H,W]
    depth_expected: Tensor | None = None  # [C,H,W] sum of alpha*T*z (divide by alpha for a mean)
    depth_median: Tensor | None = None  # [C,H,W] z of the splat where T crosses 0.5; 0 where it never does
    features: Tensor | None = None  # [C,H,W,F]
    top_id: Tensor | None = None  # [C,H,W] int32
    stats: SplatStats = field(default_factory=SplatStats)


class Rasterizer(Protocol):
    """Draws splats. Implementations: ``native`` (ours), ``reference`` (torch, slow), ``gsplat``."""

    name: str

    def supports(self, inputs: RenderInputs, options: RenderOptions, device: torch.device) -> str | None:
        """None when it can draw this, else one sentence saying why not."""
        ...

    def can_update(self, inputs: RenderInputs) -> bool:
        """Whether ``render`` takes an ``update`` for these rows; where not, backward leaves gradients."""
        ...

    def render(
        self, inputs: RenderInputs, cameras: CameraBatch, options: RenderOptions, *, update: RowUpdate | None = None
    ) -> RenderOutput:
        """Differentiable with respect to inputs, background and camera poses.

        With ``update`` (one camera, ``can_update``), backward steps the rows of ``inputs`` in place and leaves no
        gradient of theirs.
        """
        ...
