"""Splats far from the true surface, for ``bench_densifiers.py`` on captures whose depth is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from bench_primitives_measure import HeldOut
from torch import Tensor

from splat.errors import UserError
from splat.geometry.camera import Camera

MIN_OPACITY = 0.05
"""Fainter splats hardly show, wherever they are."""
FAR_SHARE = 0.01
"""Farther from the surface than this share of the scene's extent is far."""

Depths = Sequence[tuple[Camera, Tensor]]
"""Cameras with their maps [H,W] of depth along the optical axis, in units of the training frame; 0 = nothing there."""


def read_depths(folder: Path, held_out: HeldOut) -> Depths:
    """``STEM.npy`` or ``STEM.npz`` [H,W] for as many views as there are; any size that covers the whole picture.

    Depth is measured along the optical axis in the capture's own units; 0 and what is not finite mean no surface.
    """
    scale = float(np.cbrt(np.linalg.det(held_out.scene.world_from_input[:3, :3])))
    found = []
    for camera in held_out.scene.cameras:
        values = _array(folder, Path(camera.name).stem)
        if values is None:
            continue
        if values.ndim != 2:
            raise UserError(f"{folder}: depth of {camera.name} has shape {values.shape}, not [H,W]")
        clean = np.where(np.isfinite(values) & (values > 0), values, 0.0) * scale
        found.append((camera, torch.from_numpy(clean.astype(np.float32))))
    if not found:
        raise UserError(f"{folder}: no depth there under the names of the views (such as "
                        f"{Path(held_out.scene.cameras[0].name).stem}.npy)")  # fmt: skip
    return found


def _array(folder: Path, stem: str) -> np.ndarray | None:
    path = folder / f"{stem}.npy"
    if path.exists():
        return np.load(path, allow_pickle=False)
    path = folder / f"{stem}.npz"
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return arrays[arrays.files[0]]


def far_splats(means: Tensor, opacities: Tensor, depths: Depths, limit_world: float) -> dict[str, float]:
    """How many visible splats are far from the surface, and which share (percent) of those that a view frames.

    A splat that some view draws at about the depth of the surface is near it: the gap along one ray is never smaller
    than the distance itself. So the smallest gap over the views is an upper bound, and a tight one with many views.

    ``means [N,3]`` in the training frame, ``opacities [N]``.
    """
    means = means[opacities > MIN_OPACITY].double().cpu()
    gaps = torch.full((len(means),), torch.inf, dtype=torch.float64)
    for camera, depth in depths:
        gaps = torch.minimum(gaps, _gaps(means, camera, depth))
    framed = torch.isfinite(gaps)
    far = int((gaps[framed] > limit_world).sum())
    return {"far": far, "far_percent": 100 * far / max(int(framed.sum()), 1)}


def _gaps(means: Tensor, camera: Camera, depth: Tensor) -> Tensor:  # [N,3], [H,W] -> [N]
    """|depth of the splat - depth of the surface| where the view frames both; infinite elsewhere."""
    transform = torch.from_numpy(np.asarray(camera.camera_from_world, dtype=np.float64))
    intrinsics = torch.from_numpy(np.asarray(camera.K, dtype=np.float64))
    local = means @ transform[:3, :3].T + transform[:3, 3]
    z = local[:, 2]
    in_front = z > 1e-6
    pixels = (local / torch.where(in_front, z, 1.0)[:, None]) @ intrinsics.T
    column = (pixels[:, 0] / camera.width * depth.shape[1]).floor()
    row = (pixels[:, 1] / camera.height * depth.shape[0]).floor()
    inside = in_front & (column >= 0) & (column < depth.shape[1]) & (row >= 0) & (row < depth.shape[0])
    at = torch.where(inside, row * depth.shape[1] + column, 0.0).long()
    surface = depth.reshape(-1).double()[at]
    gap = (z - surface).abs()
    return torch.where(inside & (surface > 0), gap, torch.inf)
