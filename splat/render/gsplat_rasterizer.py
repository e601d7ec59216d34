"""gsplat behind our protocol: a second opinion on machines with an NVIDIA GPU. The only file that imports gsplat.

Activations and the Mip 3D filter are plain torch here; everything else is gsplat's own. It differs from ours
in details: boxes end at 3.33 standard deviations and whole pixels, and alpha may be clamped at 0.999 (before 2026).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field

import torch
from torch import Tensor

from splat.errors import UserError
from splat.model.render_inputs import RenderInputs
from splat.render.types import FILTER2D_VARIANCE_PX, CameraBatch, RenderOptions, RenderOutput, SplatStats

STATS = frozenset({"radii_px", "visible", "depths", "grad2d", "abs_grad2d"})


@dataclass(frozen=True)
class GsplatRasterizer:
    """``gsplat.rasterization``; it compiles its kernels on first use unless its wheel brings them."""

    name: str = field(default="gsplat", init=False)

    def supports(self, inputs: RenderInputs, options: RenderOptions, device: torch.device) -> str | None:
        if torch.device(device).type != "cuda":
            return f"gsplat draws on CUDA devices only, not on '{torch.device(device).type}'."
        if not torch.cuda.is_available():
            return "gsplat needs an NVIDIA GPU and a CUDA build of torch; torch sees none here."
        if importlib.util.find_spec("gsplat") is None:
            return "gsplat is not installed; run: pip install gsplat."
        return _unsupported_option(inputs, options)

    def can_update(self, inputs: RenderInputs) -> bool:
        return False

    def render(
        self, inputs: RenderInputs, cameras: CameraBatch, options: RenderOptions, *, update: None = None
    ) -> RenderOutput:
        reason = self.supports(inputs, options, inputs.means.device)
        if reason:
            raise UserError(reason)
        from gsplat import rasterization

        scales, opacities = _filtered(inputs)
        coefficients = torch.cat([inputs.sh0[:, None], inputs.sh_rest], 1)  # [N,K,3]
        degree = min(options.sh_degree, {1: 0, 4: 1, 9: 2, 16: 3}[coefficients.shape[1]])
        with_depth = "expected" in options.depth
        picture, alpha, meta = rasterization(
            inputs.means, inputs.quats, scales, opacities, coefficients,
            cameras.camera_from_world, cameras.K, cameras.width, cameras.height,
            near_plane=options.near, far_plane=options.far, sh_degree=degree, packed=False,
            eps2d=options.filter2d_variance_px,
            rasterize_mode="classic" if options.filter2d == "classic" else "antialiased",
            # "RGB+D" sums alpha T z; "RGB+ED" would divide by alpha, which RenderOutput leaves to the caller.
            render_mode="RGB+D" if with_depth else "RGB",
            absgrad="abs_grad2d" in options.stats,
        )
        # The background is added here, so that it has a gradient and depth is not blended with it.
        color = picture[..., :3]
        if options.background is not None:
            color = color + (1 - alpha) * options.background.reshape(-1, 1, 1, 3)
        return RenderOutput(
            color=color,
            alpha=alpha[..., 0],
            depth_expected=picture[..., 3] if with_depth else None,
            stats=_stats(meta, options.stats, cameras),
        )


def _unsupported_option(inputs: RenderInputs, options: RenderOptions) -> str | None:
    if inputs.kind != "gaussian":
        return f"gsplat draws 'gaussian' splats, not '{inputs.kind}'."
    if inputs.features is not None:
        return "gsplat is not wired up for extra feature channels here; use the native rasterizer."
    if options.filter2d not in FILTER2D_VARIANCE_PX:
        return f"filter2d '{options.filter2d}' is unknown; use one of {', '.join(sorted(FILTER2D_VARIANCE_PX))}."
    if "median" in options.depth or options.top_id:
        return "gsplat offers neither median depth nor per-pixel ids; use the native rasterizer."
    missing = sorted(options.stats - STATS)
    if missing:
        return f"gsplat does not measure {', '.join(missing)}; it has {', '.join(sorted(STATS))}."
    return None


def _filtered(inputs: RenderInputs) -> tuple[Tensor, Tensor]:  # -> [N,3], [N]
    """Activated scales and opacities with the Mip 3D filter folded in (Yu et al. 2024, eq. 7)."""
    scales, opacities = inputs.log_scales.exp(), inputs.logit_opacities.sigmoid()
    if inputs.filter3d is None:
        return scales, opacities
    filtered = (scales.square() + inputs.filter3d.detach().square()[:, None]).sqrt()
    return filtered, opacities * (scales.prod(1) / filtered.prod(1))


def _stats(meta: dict[str, Tensor], names: frozenset[str], cameras: CameraBatch) -> SplatStats:
    """Forward statistics at once; those of the backward pass by a hook on the projected means."""
    stats = SplatStats()
    visible = (meta["radii"] > 0).all(-1)  # [C,N]
    if "visible" in names:
        stats.visible = visible
    if "radii_px" in names:
        stats.radii_px = meta["radii"] * visible[..., None].to(meta["means2d"].dtype)
    if "depths" in names:
        stats.depths = meta["depths"].detach() * visible
    means2d = meta["means2d"]  # [C,N,2]
    if names & {"grad2d", "abs_grad2d"} and means2d.requires_grad:
        half = means2d.new_tensor([cameras.width / 2, cameras.height / 2])

        def fill(grad: Tensor) -> None:
            if "grad2d" in names:
                stats.grad2d = (grad.detach() * half).norm(dim=-1)
            if "abs_grad2d" in names:
                stats.abs_grad2d = (means2d.absgrad * half).norm(dim=-1)

        means2d.register_hook(fill)
    return stats
