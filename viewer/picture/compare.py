"""A photograph, or how the picture differs from it, beside the picture."""

from __future__ import annotations

import threading
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from splat.errors import UserError
from splat.geometry.camera import Camera
from splat.live.snapshot import KeptPixels
from splat.scene.types import Scene
from splat.viewer.picture.counted import counted
from splat.viewer.picture.modes.plain import to_8bit
from splat.viewer.picture.modes.view import View
from splat.viewer.picture.ramps import as_colors, shares

ERROR_FULL_SCALE = 0.25
"""Mean absolute error shown in the brightest colour, as in the error maps of an evaluation."""
SAME_PLACE = 0.02
"""Of the capture's extent: a photograph lies over the picture only where it was taken, whatever way one looks."""
UNCOUNTED_GREYS = (70, 130)
"""What does not count is the photograph in these shades: no error has such a colour, and what it is can be seen."""
_LINE_RGB = (255, 255, 255)
_FITTED_KEPT = 4
_fitted: WeakKeyDictionary[Any, dict[Any, tuple[Tensor, Tensor]]] = WeakKeyDictionary()
_weighed: WeakKeyDictionary[Any, dict[Any, tuple[KeptPixels | None, Tensor | None]]] = WeakKeyDictionary()
_lock = threading.Lock()


def beside(rgb: Tensor, view: View) -> Tensor:  # [H,W,3] uint8
    """``rgb`` left of the swipe, and right of it the photograph ``look.compare`` or the error against it. Where the
    page's camera stands somewhere else, the picture stays whole. Pixels that do not count (masks, edits) have no error,
    they are grey. UserError when there is no such photograph."""
    look = view.look
    taken = scene_camera(view.desk, look.compare)
    if not covers(view.camera, taken, view.desk.scene):
        return rgb
    photo, there = _fitted_photo(view, taken)
    first = min(max(round(look.swipe * view.camera.width), 0), view.camera.width)
    other = photo
    if look.compare_with == "error":
        drawn = view.output if view.output is not None else view.render()
        error = (to_8bit(drawn.color[0]).float() - photo.float()).abs().mean(dim=-1) / 255
        other = _greyed(as_colors(shares(error, 0.0, ERROR_FULL_SCALE), "error"), photo, _fitted_counts(view, taken))
    elif look.compare_with != "photo":
        raise UserError(f"compare_with = '{look.compare_with}' is unknown; choices: photo, error")
    right = there & (torch.arange(view.camera.width, device=rgb.device) >= first)
    mixed = torch.where(right[..., None], other, rgb)
    if 0 < first < view.camera.width:
        mixed[:, max(first - 1, 0) : first + 1] = torch.tensor(_LINE_RGB, dtype=torch.uint8, device=rgb.device)
    return mixed


def _greyed(colors: Tensor, photo: Tensor, counts: Tensor | None) -> Tensor:  # [H,W,3] uint8 twice, [H,W] 0..1
    if counts is None:
        return colors
    low, high = UNCOUNTED_GREYS
    grey = low + photo.float().mean(dim=-1, keepdim=True) / 255 * (high - low)
    return (grey + (colors.float() - grey) * counts[..., None]).round().to(torch.uint8)


def shows_grey(desk: Any, name: str) -> bool:
    """Whether pixels did not count in the error against view ``name`` that was drawn last, by whatever page."""
    with _lock:
        newest = next((found for key, found in reversed(_weighed.get(desk, {}).items()) if key[0] == name), None)
    return newest is not None and newest[1] is not None


def covers(page: Camera, taken: Camera, scene: Scene) -> bool:
    """Whether the photograph of ``taken`` can lie over what ``page`` sees: only from the same place."""
    return bool(np.linalg.norm(taken.center_world - page.center_world) <= SAME_PLACE * scene.extent_world)


def scene_camera(desk: Any, name: str | None) -> Camera:
    """A view of the capture by name; UserError when there is none."""
    scene = getattr(desk, "scene", None)
    found = None if scene is None else next((camera for camera in scene.cameras if camera.name == name), None)
    if found is None:
        raise UserError(
            f"there is no view '{name}' to compare with" + (": no capture is open" if scene is None else "")
        )
    return found


def _fitted_photo(view: View, taken: Camera) -> tuple[Tensor, Tensor]:  # [H,W,3] uint8, [H,W] bool
    """The photograph as the page's camera would see it, and where it is."""
    with _lock:
        kept = _fitted.setdefault(view.desk, {})
        found = kept.get(_key(view.camera, taken))
    if found is not None:
        return found
    pixels = view.desk.photo(taken)
    if pixels is None:
        raise UserError(f"the photograph of view '{taken.name}' cannot be read")
    places, there = _places_in_photo(view.camera, taken)
    planes = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    fitted = to_8bit(_sampled(planes, places).permute(1, 2, 0)).to(view.device), there.to(view.device)
    _keep(kept, _key(view.camera, taken), fitted)
    return fitted


def _fitted_counts(view: View, taken: Camera) -> Tensor | None:  # [H,W] in 0..1
    """How much the photograph's pixels count, as the page's camera would see them; None = all of them."""
    protection = view.snapshot.protection
    with _lock:
        kept = _weighed.setdefault(view.desk, {})
        found = kept.get(_key(view.camera, taken))
    if found is not None and found[0] is protection:
        return found[1]
    counts = counted(view.desk, view.snapshot, taken, taken.width, taken.height)
    if counts is not None:
        places, _ = _places_in_photo(view.camera, taken)
        counts = _sampled(counts[None].float() / 255, places)[0].to(view.device)
    _keep(kept, _key(view.camera, taken), (protection, counts))
    return counts


def _key(page: Camera, taken: Camera) -> tuple[Any, ...]:
    return (taken.name, page.width, page.height, page.K.tobytes(), page.camera_from_world.tobytes())


def _keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
    with _lock:
        kept.pop(key, None)
        while len(kept) >= _FITTED_KEPT:
            del kept[next(iter(kept))]
        kept[key] = value


def _places_in_photo(page: Camera, taken: Camera) -> tuple[Tensor, Tensor]:  # [H,W,2] float32, [H,W] bool
    """Where in the photograph (-1..1) the pixels of the page lie, and which lie in it: a turn about one centre moves
    pixels by a homography, whatever is in the picture."""
    turn = taken.camera_from_world[:3, :3] @ page.camera_from_world[:3, :3].T
    photo_from_page = taken.K @ turn @ np.linalg.inv(page.K)
    v, u = np.mgrid[: page.height, : page.width] + 0.5
    x, y, w = np.einsum("ij,jhw->ihw", photo_from_page, np.stack([u, v, np.ones_like(u)]))
    with np.errstate(divide="ignore", invalid="ignore"):
        across = np.stack([x / w / taken.width, y / w / taken.height], axis=-1)
    there = (w > 0) & (across > 0).all(-1) & (across < 1).all(-1)
    places = torch.from_numpy(np.where(there[..., None], across * 2 - 1, 2)).float()
    return places, torch.from_numpy(there)


def _sampled(planes: Tensor, places: Tensor) -> Tensor:  # [D,h,w], [H,W,2] -> [D,H,W]
    """Their values at ``places``, the border going on beyond it."""
    return torch.nn.functional.grid_sample(planes[None], places[None], padding_mode="border", align_corners=False)[0]
