"""Inria's ``cameras.json``: where the photographs were taken, in the capture's own frame.

One object per view: id, img_name, width, height, position, rotation (rows of the camera-to-world rotation), fy,
fx. We add cx and cy, which readers of the original ignore, because a principal point can be off-centre.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from splat.errors import UserError
from splat.geometry.camera import Camera, invert_rigid
from splat.io.atomic import write_text
from splat.scene.types import Scene


def write_cameras_json(path: str | Path, scene: Scene) -> Path:
    """Write every camera of ``scene``, train and test, in the scene's order."""
    return write_text(path, json.dumps(camera_entries(scene.cameras, scene.world_from_input), indent=1) + "\n")


def camera_entries(cameras: Sequence[Camera], world_from_input: np.ndarray) -> list[dict]:
    """The JSON objects of ``cameras`` whose poses are in the training frame."""
    input_from_world = np.linalg.inv(np.asarray(world_from_input, np.float64))
    # A similarity is scale * rotation: only the rotation turns the camera's axes.
    rotation = input_from_world[:3, :3] / np.cbrt(np.linalg.det(input_from_world[:3, :3]))
    entries = []
    for index, camera in enumerate(cameras):
        position = (input_from_world @ np.append(camera.center_world, 1.0))[:3]
        axes = rotation @ camera.world_from_camera[:3, :3]
        entries.append(
            {
                "id": index,
                "img_name": camera.name,
                "width": int(camera.width),
                "height": int(camera.height),
                "position": position.tolist(),
                "rotation": axes.tolist(),
                "fy": float(camera.K[1, 1]),
                "fx": float(camera.K[0, 0]),
                "cx": float(camera.K[0, 2]),
                "cy": float(camera.K[1, 2]),
            }
        )
    return entries


def read_cameras_json(path: str | Path) -> tuple[Camera, ...]:
    """Cameras in the capture's own frame, from our file or Inria's (centred lens where cx, cy are absent)."""
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
        return tuple(_camera(entry) for entry in entries)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise UserError(f"{path}: not an Inria cameras.json ({type(error).__name__}: {error})") from error


def _camera(entry: dict) -> Camera:
    world_from_camera = np.eye(4)
    world_from_camera[:3, :3] = entry["rotation"]
    world_from_camera[:3, 3] = entry["position"]
    width, height = int(entry["width"]), int(entry["height"])
    intrinsics = np.array(
        [[entry["fx"], 0, entry.get("cx", width / 2)], [0, entry["fy"], entry.get("cy", height / 2)], [0, 0, 1]], float
    )
    with np.errstate(over="ignore", invalid="ignore"):
        camera_from_world = invert_rigid(world_from_camera)
    if not (np.isfinite(camera_from_world).all() and np.isfinite(intrinsics).all()):
        raise ValueError(f"view {str(entry['img_name'])[:80]!r} has numbers that are not finite")
    return Camera(str(entry["img_name"]), camera_from_world, intrinsics, width, height)
