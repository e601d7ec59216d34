"""The hand-over from a primitive to a rasterizer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class RenderInputs:
    """Splats as the rasterizer takes them: *raw* rows, so that activations are fused into projection."""

    means: Tensor  # [N,3] world
    quats: Tensor | None  # [N,4] wxyz, any length; None for footprints without axes, as log_scales
    log_scales: Tensor | None  # [N,3] natural log of the standard deviations, world units
    logit_opacities: Tensor  # [N]
    sh0: Tensor  # [N,3] degree-0 coefficients
    sh_rest: Tensor  # [N,K-1,3] higher degrees, K in {1,4,9,16}
    features: Tensor | None = None  # [N,F] extra channels to blend
    filter3d: Tensor | None = None  # [N] standard deviation of the Mip 3D filter, world units; no gradient
    kind: str = "gaussian"
    """Footprint that draws them."""
    shape: tuple[Tensor, ...] = ()
    """Tables [N,...] that the footprint needs besides, raw, in the order its header in ``cuda/math`` names them."""
    constants: tuple[float, ...] = ()
    """Numbers all rows share, as that header says."""

    @property
    def count(self) -> int:
        return self.means.shape[0]
