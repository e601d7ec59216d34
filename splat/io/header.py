"""What a model file should remember about where it came from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from splat.geometry.paths import up_direction
from splat.scene.types import Scene


def scene_header(scene: Scene, **provenance: Any) -> dict[str, Any]:
    """The header for ``write_model``: frame, up axis and first view (in the capture's own frame), and ``provenance`` as
    given.

    The up axis is the mean up of the photographs: what the photographer held upright.
    """
    rotation = np.asarray(scene.world_from_input, np.float64)[:3, :3]
    rotation = rotation / np.cbrt(np.linalg.det(rotation))
    header: dict[str, Any] = {
        "world_from_input": np.asarray(scene.world_from_input, np.float64).tolist(),
        "provenance": {"scene": scene.name, **provenance},
    }
    if scene.cameras:
        header["up_axis"] = (rotation.T @ up_direction(scene.cameras)).tolist()
        header["start_view"] = _first_view(scene)
    return header


def background_text(colour: Sequence[float]) -> str:
    """A background [3] in 0..1, as ``provenance`` holds it under ``background``; ``background_of_header`` reads it."""
    return " ".join(repr(float(part) + 0.0) for part in colour)  # no -0.0


def background_of_header(header: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """The colour set by hand behind the splats of the training that a file comes from; None where it says none."""
    provenance = header.get("provenance")
    text = provenance.get("background") if isinstance(provenance, Mapping) else None
    parts = text.split() if isinstance(text, str) else []
    if len(parts) != 3 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    colour = tuple(float(part) for part in parts)
    return colour if all(part <= 1 for part in colour) else None


_NUMBER = re.compile(r"\d{1,20}(\.\d{1,20})?(e-\d{1,3})?")


def _first_view(scene: Scene) -> dict[str, Any]:
    """Where the first photograph was taken from, in the capture's own frame: ``position``, ``target`` (as far away as
    the middle of what it shows), ``up`` [3], and ``fov``, vertical degrees."""
    camera = scene.cameras[0]
    input_from_world = np.linalg.inv(np.asarray(scene.world_from_input, np.float64))
    world_from_camera = np.linalg.inv(np.asarray(camera.camera_from_world, np.float64))
    right_down_ahead, position = world_from_camera[:3, :3], world_from_camera[:3, 3]
    depths = (np.asarray(scene.points.xyz, np.float64) - position) @ right_down_ahead[:, 2]
    depths = depths[depths > 0]
    distance = float(np.median(depths)) if len(depths) else float(scene.extent_world)
    target, above = position + distance * right_down_ahead[:, 2], position - distance * right_down_ahead[:, 1]
    there = [input_from_world[:3, :3] @ point + input_from_world[:3, 3] for point in (position, target, above)]
    up = (there[2] - there[0]) / np.linalg.norm(there[2] - there[0])
    fov = 2 * np.degrees(np.arctan(camera.height / 2 / float(camera.K[1, 1])))
    return {"position": there[0].tolist(), "target": there[1].tolist(), "up": up.tolist(), "fov": float(fov)}
