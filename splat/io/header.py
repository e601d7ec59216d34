"""What a model file should remember about where it came from."""

from __future__ import annotations

from typing import Any

import numpy as np

from splat.geometry.paths import up_direction
from splat.scene.types import Scene


def scene_header(scene: Scene, **provenance: Any) -> dict[str, Any]:
    """The header for ``write_model``: frame, up axis (in the capture's own frame), and ``provenance`` as given.

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
    return header
