"""Where a page's files stand: the frame of the capture, and what was set by hand for all pages of one desk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from splat.io.header import scene_header
from splat.io.placement import FILE, Placement, read_placement, write_placement

if TYPE_CHECKING:
    from splat.viewer.serving.desk import Desk

_FACTS = ("world_from_input", "up_axis", "start_view", "provenance")


def placement_of(desk: Desk) -> Placement:
    """What is known for this desk; first what its run folder remembers."""
    if desk.placement is None:
        desk.placement = Placement() if desk.run_dir is None else read_placement(desk.run_dir / FILE)
    return desk.placement


def place(desk: Desk, placement: Placement) -> None:
    """Take ``placement`` for all pages, and remember it in the run folder where there is one."""
    desk.placement = placement
    if desk.run_dir is not None:
        write_placement(desk.run_dir / FILE, placement)


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
