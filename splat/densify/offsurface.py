"""Splats off every surface that depth priors know: floaters in front of it, and what hides behind it.

Photographs cannot tell such splats from good ones: seen from the training views, they draw what belongs there. A depth
prior in world units can, wherever several views agree (in the units of what is drawn it cannot: drawn depth is biased
by a percent or two). Reflections lie behind their mirror, so what draws them goes, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from splat.densify.geosplit import Surface


def off_surfaces(
    surfaces: Sequence[Surface], means: Tensor, *, tolerance: float, least: int
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Which splats at ``means [N,3]`` are framed by ``least`` surfaces or more, and by none of them at its prior's
    depth, give or take the relative ``tolerance``: flags [N]. Where a prior says nothing, it does not count.

    With them: the nearest places [N,3] on those surfaces, along the rays of their views, and the factors [N] by which
    sizes change so that the picture in that view stays.
    """
    framed = torch.zeros(means.shape[0], dtype=torch.int32, device=means.device)
    factors = torch.ones(means.shape[0], dtype=means.dtype, device=means.device)
    nearest = torch.full_like(factors, torch.inf)
    places = means.clone()
    for surface in surfaces:
        spots, z = surface.seen(means)
        depth = surface.prior_at(spots)
        known = (depth > 0) & (z > 0)
        gap = torch.where(known, (z - depth).abs() / depth.clamp_min(1e-12), torch.inf)
        closer = gap < nearest
        moved = surface.snapped(means, z, torch.where(known, z, 1.0))
        places = torch.where(closer[:, None], moved, places)
        factors = torch.where(closer, depth / z, factors)
        nearest = torch.minimum(nearest, gap)
        framed += known.to(torch.int32)
    return (framed >= least) & (nearest > tolerance), places, factors
