"""A light copy of a model that a browser can draw by itself: viser's splat node, which is a preview and no more.

It has no view-dependent colour, 8 bits of colour and opacity, half-precision sizes, and leaves out splats that are
smaller than about half a pixel; so few and not too small ones are sent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from splat.geometry.rotations import matrix_from_quat
from splat.geometry.sh import rgb_from_sh0
from splat.io.html import robust_ball
from splat.io.plain import plain_of
from splat.live.snapshot import Snapshot
from splat.model.labels import HIDDEN
from splat.model.row_edit import RowEdit

LEAST_OPACITY = 0.02
"""Fainter ones are discarded by the browser anyway, for the most part."""
FAR_RADII = 12.0
"""Splats farther out than this many radii of what matters spoil the browser's sorting, which has 65,536 steps."""
LARGEST_SHARE = 0.5
"""Of that radius: no splat is larger."""
MOST_GROWTH = 2.0
"""Where few stand for many they are made larger, by this at most."""
NODE_UNITS = 10.0
"""Copies are sent this much larger, and shown as much smaller: half precision ends at about 0.008."""


@dataclass(frozen=True, eq=False)
class LightCopy:
    """In the page's frame, times ``NODE_UNITS``."""

    centers: np.ndarray  # [K,3] float32
    covariances: np.ndarray  # [K,3,3] float32
    rgbs: np.ndarray  # [K,3] uint8
    opacities: np.ndarray  # [K,1] uint8
    of: int
    """Splats there are."""


def light_copy(snapshot: Snapshot, *, most: int, scale: float, eye: np.ndarray, focal_px: float) -> LightCopy:
    """At most ``most`` splats, those that show most. ``scale`` makes world units those of the page; ``eye [3]`` (world)
    and ``focal_px`` are the view for which none is smaller than it can be drawn."""
    model = snapshot.model.detached()
    hidden = snapshot.labels.having(HIDDEN)
    if bool(hidden.any()):
        model.apply(RowEdit.keep(~hidden, "select"))
    plain = plain_of(model)
    count = plain.count
    if count:
        middle, radius = robust_ball(plain)
        near = np.linalg.norm(plain.means - middle, axis=1) < FAR_RADII * radius
        plain = plain.taken(near & (plain.opacities > LEAST_OPACITY))
    sizes = np.exp(plain.log_scales.astype(np.float64))
    worth = plain.opacities * np.sqrt(sizes.max(axis=1, initial=0))
    chosen = np.sort(np.argsort(-worth, kind="stable")[:most])
    if not len(chosen):
        return LightCopy(np.zeros((0, 3), np.float32), np.zeros((0, 3, 3), np.float32), np.zeros((0, 3), np.uint8),
                         np.zeros((0, 1), np.uint8), count)  # fmt: skip
    growth = min((len(worth) / len(chosen)) ** (1 / 3), MOST_GROWTH)
    sizes, means = sizes[chosen] * growth, plain.means[chosen].astype(np.float64)
    # A Gaussian of 0.7 px with the browser's own 0.3 px^2 is above what it throws away from an opacity of 0.4 on.
    least = 0.7 * np.linalg.norm(means - eye, axis=1) / focal_px
    sizes = np.clip(sizes, np.minimum(least, LARGEST_SHARE * radius)[:, None], LARGEST_SHARE * radius)
    turn = matrix_from_quat(torch.from_numpy(plain.quats[chosen].astype(np.float64))).numpy()
    axes = turn * (sizes * scale * NODE_UNITS)[:, None, :]
    rgb = rgb_from_sh0(torch.from_numpy(plain.sh0[chosen])).clamp(0, 1).numpy()
    return LightCopy(
        (means * scale * NODE_UNITS).astype(np.float32), (axes @ axes.transpose(0, 2, 1)).astype(np.float32),
        (rgb * 255).round().astype(np.uint8), (plain.opacities[chosen, None] * 255).round().astype(np.uint8), count,
    )  # fmt: skip
