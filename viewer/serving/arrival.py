"""How a page begins: the scale and up direction of its frame, and where its camera stands first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from splat.geometry.camera import Camera
from splat.model.splat_model import SplatModel
from splat.scene.types import Scene
from splat.viewer.picture.space import Space

COMFORTABLE_UNITS = 4.0
"""Radius of what matters, in the page's frame: its controls are made for scenes of a few units, and it stores depth up
to 167."""
MOST_SAMPLED = 20_000
CORE_PERCENT = (5.0, 95.0)
"""Floaters lie outside."""


def chosen_space(scene: Scene | None, model: SplatModel | None, header: Mapping[str, Any] | None = None) -> Space:
    """Scaled by the cameras' extent, else by where most splats are; up as the photographer held the camera."""
    if scene is not None and scene.train_indices:
        radius = float(scene.extent_world)
        up = _unit(-np.mean([camera.camera_from_world[1, :3] for camera in scene.train_cameras], axis=0))
    else:
        radius = 0.0 if model is None else _core(model)[1]
        up = _up_of(header or {})
    scale = COMFORTABLE_UNITS / radius if np.isfinite(radius) and radius > 0 else 1.0
    return Space(float(scale), tuple(float(x) for x in up))


def start_pose(
    scene: Scene | None, model: SplatModel | None, space: Space, header: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Values of viser's ``initial_camera``, page frame: the first training view, else the view that the file names,
    else from outside onto where most splats are."""
    if scene is not None and scene.train_indices:
        camera = scene.train_cameras[0]
        position, target = camera.center_world, _ahead_of(camera, scene)
        fov = float(2 * np.arctan(camera.height / camera.focal_px[1] / 2))
    elif (view := _view_of(header or {})) is not None:
        position, target, fov = view
    else:
        target, radius = (np.zeros(3), 1.0) if model is None else _core(model)
        position = target + 2.5 * radius * _unit(np.asarray(space.up) * 0.35 + _sideways(space.up))
        fov = float(np.radians(50))
    return {
        "position": tuple(space.page(position)), "look_at": tuple(space.page(target)), "up": space.up, "fov": fov,
    }  # fmt: skip


def _ahead_of(camera: Camera, scene: Scene) -> np.ndarray:  # [3]
    """On the middle ray, as far as the points in sight are."""
    axis = camera.camera_from_world[2, :3]
    seen = _depths_in_sight(camera, scene.points.xyz)
    distance = float(np.median(seen)) if len(seen) else float(scene.extent_world)
    return camera.center_world + axis * distance


def _depths_in_sight(camera: Camera, xyz: np.ndarray) -> np.ndarray:
    points = np.asarray(xyz, np.float64)[:: max(len(xyz) // MOST_SAMPLED, 1)]
    local = points @ camera.camera_from_world[:3, :3].T + camera.camera_from_world[:3, 3]
    ahead = local[local[:, 2] > 1e-6]
    pixels = ahead @ camera.K.T
    x, y = pixels[:, 0] / pixels[:, 2], pixels[:, 1] / pixels[:, 2]
    return ahead[(x >= 0) & (x <= camera.width) & (y >= 0) & (y <= camera.height), 2]


def _core(model: SplatModel) -> tuple[np.ndarray, float]:
    """Middle [3] and radius of the box that holds most splats."""
    means = model.rows["means"].detach()[:: max(model.count // MOST_SAMPLED, 1)].cpu().to(torch.float64).numpy()
    means = means[np.isfinite(means).all(axis=1)]
    if not len(means):
        return np.zeros(3), 1.0
    low, high = np.percentile(means, CORE_PERCENT, axis=0)
    return (low + high) / 2, float(np.linalg.norm(high - low) / 2) or 1.0


def _up_of(header: Mapping[str, Any]) -> np.ndarray:  # [3]
    """As the file says, else as captures have it: y down."""
    up = np.asarray(header.get("up_axis") or (0.0, -1.0, 0.0), np.float64)
    if up.shape != (3,) or not np.isfinite(up).all():
        return np.array([0.0, -1.0, 0.0])
    return _unit(_frame_of(header)[:3, :3] @ up)


def _view_of(header: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Position and target [3] in the frame of the rows and vertical fov, radians, where the file tells them."""
    try:
        view, frame = header["start_view"], _frame_of(header)
        places = [frame[:3, :3] @ np.asarray(view[name], np.float64) + frame[:3, 3] for name in ("position", "target")]
        fov = float(np.radians(view["fov"]))
    except (KeyError, TypeError, ValueError):
        return None
    apart = float(np.linalg.norm(places[1] - places[0]))
    return (*places, fov) if np.isfinite(apart) and apart > 0 and 0 < fov < 3 else None


def _frame_of(header: Mapping[str, Any]) -> np.ndarray:  # [4,4]
    """Frame of the rows <- that of the capture, in which headers speak. Files in the capture's frame name none."""
    frame = np.asarray(header.get("world_from_input", np.eye(4)), np.float64)
    return frame if frame.shape == (4, 4) and np.isfinite(frame).all() else np.eye(4)


def _unit(vector: np.ndarray) -> np.ndarray:
    length = float(np.linalg.norm(vector))
    return np.asarray(vector, np.float64) / length if length > 1e-9 else np.array([0.0, -1.0, 0.0])


def _sideways(up: tuple[float, float, float]) -> np.ndarray:  # [3]
    """Some direction across ``up``, the same every time."""
    other = np.eye(3)[int(np.argmin(np.abs(up)))]
    return _unit(np.cross(np.asarray(up), other))
