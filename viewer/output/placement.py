"""Where exported files stand: their frame, what is up there, and how long a unit is.

What is measured by hand is kept beside the model and put into files when they are written; the rows, which may be in
training, stay where they are.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from splat.errors import UserError
from splat.io.atomic import write_text
from splat.io.header import scene_header
from splat.io.selection import turned_to_up

if TYPE_CHECKING:
    from splat.viewer.serving.desk import Desk

FILE = "placement.json"
_LARGEST_BYTES = 100_000
_FACTS = ("world_from_input", "up_axis", "start_view", "provenance")


@dataclass(frozen=True)
class Placement:
    """Known by hand."""

    up: tuple[float, float, float] | None = None
    """Unit vector in the capture's own frame; None leaves it to the photographs."""
    scale: float = 1.0
    """Units of exported files per unit of the capture."""
    why: str = ""
    """Where ``scale`` comes from, in words."""


def placement_of(desk: Desk) -> Placement:
    """What is known for this desk; first what its run folder remembers."""
    if desk.placement is None:
        desk.placement = Placement() if desk.run_dir is None else read_placement(desk.run_dir / FILE)
    return desk.placement


def place(desk: Desk, placement: Placement) -> None:
    """Take ``placement`` for all pages, and remember it in the run folder where there is one."""
    desk.placement = placement
    if desk.run_dir is not None:
        text = json.dumps({"format": "splat-placement", "version": 1, **asdict(placement)}, indent=1)
        write_text(desk.run_dir / FILE, text + "\n")


def read_placement(file: Path) -> Placement:
    """What ``place`` wrote; nothing known without a file. UserError for a file of another kind."""
    if not file.exists():
        return Placement()
    try:
        data = json.loads(file.read_bytes()[:_LARGEST_BYTES])
        up, scale, why = data["up"], float(data["scale"]), str(data["why"])[:200]
        up = None if up is None else tuple(map(float, up))
        known = data["format"] == "splat-placement" and data["version"] == 1
        whole = (up is None or (len(up) == 3 and 0.99 < math.hypot(*up) < 1.01)) and 0 < scale < math.inf
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: cannot be read as a placement ({error})") from error
    if not known or not whole:
        raise UserError(f'{file}: no placement: it needs "format": "splat-placement", a unit vector "up" and a "scale"')
    return Placement(up, scale, why)


def world_from_input(desk: Desk) -> np.ndarray:  # [4,4]
    """From the capture's own frame to that of the rows; the same for a file of which nothing else is known."""
    found = desk.header.get("world_from_input")
    if found is None and desk.scene is not None:
        found = desk.scene.world_from_input
    return np.eye(4) if found is None else np.asarray(found, np.float64)


def header_of(desk: Desk, *, step: int) -> dict[str, Any]:
    """What a file written from here says of itself, as ``splat export`` would; without what was measured."""
    header = {} if desk.scene is None else scene_header(desk.scene, step=step)
    header |= {name: desk.header[name] for name in _FACTS if desk.header.get(name) is not None}
    return header if desk.session is None else desk.session.mark.in_header(header)


def placed_header(header: dict[str, Any], placement: Placement, up: str | None = None) -> dict[str, Any]:
    """``header`` of a file with what is known by hand: its up axis, and its unit.

    ``up`` (a word of ``UP_AXES``) names the axis of the file that shall be up; None leaves the file as the capture
    stands. Rows stay: everything goes into ``world_from_input``, as ``splat export --up`` does it.
    """
    placed = dict(header)
    if placement.up is not None:
        placed["up_axis"] = list(placement.up)
    if placement.scale != 1:
        shrink = np.diag([1 / placement.scale] * 3 + [1.0])
        placed["world_from_input"] = (np.asarray(header.get("world_from_input", np.eye(4))) @ shrink).tolist()
        view = header.get("start_view")
        if view is not None:
            grown = {key: (placement.scale * np.asarray(view[key])).tolist() for key in ("position", "target")}
            placed["start_view"] = {**view, **grown}
    return placed if up is None else turned_to_up(placed, up)


def direction_in_input(desk: Desk, direction_world: np.ndarray) -> tuple[float, float, float]:
    """A unit vector of the rows' frame in the capture's own."""
    linear = world_from_input(desk)[:3, :3]
    direction = linear.T @ np.asarray(direction_world, np.float64)  # the linear part is a rotation times a number
    return tuple((direction / np.linalg.norm(direction)).tolist())


def direction_in_world(desk: Desk, direction_input: tuple[float, float, float]) -> np.ndarray:  # [3]
    linear = world_from_input(desk)[:3, :3]
    direction = linear @ np.asarray(direction_input, np.float64)
    return direction / np.linalg.norm(direction)


def length_in_input(desk: Desk, length_world: float) -> float:
    """A length of the rows' frame in units of the capture."""
    return float(length_world / np.cbrt(np.linalg.det(world_from_input(desk)[:3, :3])))
