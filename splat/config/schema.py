"""Every setting of a training, in one tree of frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from splat.scene.depth_options import DepthOptions
from splat.scene.options import SceneOptions

DEFAULT_STEPS = 30_000
"""The number of steps for which the defaults of step-valued settings are written."""


@dataclass(frozen=True)
class OptimConfig:
    """Loss and schedule. Learning rates belong to the primitive."""

    ssim_weight: float = 0.2
    """Weight of 1-SSIM in the loss; the rest is L1."""
    detail_weight: float = 0.0
    """Part of the L1 weight that counts only in smooth areas early and at edges late (GES: 0.5); 0 is off."""
    detail_levels: int = 20
    """Steps in which those areas change over the run; few are computed less often."""
    sh_degree: int = 3
    """Highest band of view-dependent colour, 0 to 3."""
    sh_every: int = 1000
    """Steps between two bands of view-dependent colour; 0 starts with all."""
    background: Literal["auto", "black", "white", "random"] = "auto"
    """Colour behind the splats; auto is the capture's own, else black."""
    beta1: float = 0.9
    """Adam's memory of gradients."""
    beta2: float = 0.999
    """Adam's memory of squared gradients."""
    lr_scale: float = 1.0
    """Factor on all learning rates but those of opacities; short runs gain by 2, few views lose."""
    lr_start: float = 0.0
    """Part of the learning rates' way that is gone before the first step, 0 to 1; 1 keeps the last rates throughout."""

    def __post_init__(self) -> None:
        rest = 1 - self.ssim_weight
        if not 0 <= self.detail_weight <= max(rest, 0):
            raise ValueError(f"detail_weight = {self.detail_weight:g} does not fit: L1 has 0 to {rest:g} to give away")
        if self.detail_levels < 2:
            raise ValueError(f"detail_levels = {self.detail_levels} does not fit: early and late are 2 at least")
        if not self.lr_scale > 0:
            raise ValueError(f"lr_scale = {self.lr_scale:g} does not fit: it must be above 0")
        if not 0 <= self.lr_start <= 1:
            raise ValueError(f"lr_start = {self.lr_start:g} does not fit: it is a part, 0 to 1")


@dataclass(frozen=True)
class ResolutionConfig:
    """Coarse to fine."""

    factor: Literal[1, 2, 4, 8] = 1
    """Divide the sides of training pictures by this at first, halving it at equal intervals."""
    until: int = 0
    """First step at full size."""


@dataclass(frozen=True)
class RenderConfig:
    """How splats are drawn."""

    rasterizer: Literal["auto", "native", "gsplat", "reference"] = "auto"
    """Which implementation draws."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU when the rasterizer can use it."""
    threads: int = 0
    """CPU threads; 0 is one per core. Any number gives the same bits."""
    filter2d: Literal["classic", "aa", "mip", "analytic"] = "classic"
    """Screen-space filter: classic (reference), aa (opacity compensated), mip (smaller and compensated), analytic
    (Gaussians integrated over each pixel; about half as fast)."""
    filter3d: bool = False
    """Mip 3D filter: no splat finer than the photographs could sample."""
    filter3d_every: int = 100
    """Steps between two updates of the Mip 3D filter."""


@dataclass(frozen=True)
class OutputConfig:
    """What is written, and when. The last step is always evaluated, exported and checkpointed."""

    eval_at: tuple[int, ...] = (7000,)
    """Steps after which held-out views are measured (never stretched)."""
    export_at: tuple[int, ...] = (7000,)
    """Steps after which model and PLY are written (never stretched)."""
    export: str = "ply"
    """Formats written at the end, such as sog,spz or all; model.safetensors and the PLY always are."""
    checkpoint_every: int = 1000
    """Steps between checkpoints (never stretched); 0 writes one only at the end."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay."""
    keep_checkpoints_at: tuple[int, ...] = ()
    """Steps whose checkpoints stay as well (never stretched)."""
    first_render: bool = True
    """Write renders/first.png before the first step."""
    report: bool = True
    """Write report.html at the end."""

    def __post_init__(self) -> None:
        if self.export != "ply":
            from splat.io.format_names import format_names

            format_names(self.export)  # raises with the choices


@dataclass(frozen=True)
class TrainConfig:
    """A whole run. ``primitive``, ``densifier`` and ``compressor`` are the plug-ins themselves: their fields are their
    settings."""

    primitive: Any  # splat.model.primitive.Primitive
    densifier: Any  # splat.densify.protocol.Densifier
    compressor: Any  # splat.compress.protocol.Compressor
    capture: str = ""
    """Folder of the capture."""
    start_from: str = ""
    """Model file or run whose splats this begins with, instead of the capture's points; all SH bands from the start."""
    preset: str = "default"
    """Preset this began from (a record; the values below stand for themselves)."""
    steps: int = DEFAULT_STEPS
    """Optimizer steps."""
    steps_per_view: float | None = None
    """Where a preset chose the steps: no more than this per training view, as long runs overfit few views."""
    schedule_steps: int = DEFAULT_STEPS
    """Steps for which the step-valued settings are written; they are stretched by steps / schedule_steps."""
    seed: int = 0
    """Seed of everything drawn at random; one seed, one result."""
    max_splats: int | None = None
    """Never more splats than this."""
    max_minutes: float | None = None
    """Finish cleanly after this wall time, parts before a resume included."""
    target_psnr: float | None = None
    """Finish cleanly once the last visits of all training views reach this mean, dB (training views, full size)."""
    target_mb: float | None = None
    """Never more splats than model.safetensors can hold within so many MB (10^6 bytes); with a compressor that can aim
    at a size, that of its file instead."""
    scene: SceneOptions = field(default_factory=SceneOptions)
    depth: DepthOptions = field(default_factory=DepthOptions)
    optim: OptimConfig = field(default_factory=OptimConfig)
    resolution: ResolutionConfig = field(default_factory=ResolutionConfig)
    render: RenderConfig = field(default_factory=RenderConfig)
    output: OutputConfig = field(default_factory=OutputConfig)


SECTIONS: dict[str, type] = {
    "scene": SceneOptions, "depth": DepthOptions, "optim": OptimConfig, "resolution": ResolutionConfig,
    "render": RenderConfig, "output": OutputConfig,
}  # fmt: skip
FAMILIES = ("primitive", "densifier", "compressor")
"""Sections whose settings depend on their ``kind``."""
DERIVED = {"scene": frozenset({"seed", "allow_sfm", "on_message"})}
"""Fields that are not settings: filled in from elsewhere."""
STEP_VALUED = ("optim.sh_every", "resolution.until")
"""Settings that count steps and stretch with the run; plug-ins stretch their own."""
