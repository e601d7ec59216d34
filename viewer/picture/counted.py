"""What counts of a photograph: not those that a mask of the capture takes out, nor those that contradict an edit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from splat.geometry.camera import Camera
from splat.live.snapshot import Snapshot
from splat.scene.types import Scene


def counted(desk: Any, snapshot: Snapshot, camera: Camera, width: int, height: int) -> Tensor | None:
    """How much every pixel of ``camera``'s photograph counts at a size: [height,width] uint8, 255 = all of it, 0 = not
    at all; None = all do. As training has it: a photograph that is held out from it is whole but for its own mask.

    ``camera`` is a view of the capture, at its full size. SceneError for a picture that cannot be read.
    """
    mask = desk.mask(camera)
    kept = _kept_by_edits(desk.scene, snapshot, camera, width, height)
    if mask is None:
        return None if kept is None else kept.to(torch.uint8) * 255
    own = torch.from_numpy(mask)
    if own.shape != (height, width):
        own = interpolate(own[None, None].float(), (height, width), mode="area")[0, 0].round().to(torch.uint8)
    return own if kept is None else own * kept


def _kept_by_edits(
    scene: Scene, snapshot: Snapshot, camera: Camera, width: int, height: int
) -> Tensor | None:  # [height,width] bool
    if snapshot.protection is None:
        return None
    views = (place for place, index in enumerate(scene.train_indices) if scene.cameras[index] is camera)
    view = next(views, None)
    return None if view is None else snapshot.protection.kept(view, camera, width, height)
