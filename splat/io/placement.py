"""Up and scale that were set by hand, as a run folder remembers them, and files that stand as they say.

Rows, which may be in training, stay where they are: everything goes into the headers of files as they are written.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from splat.errors import UserError
from splat.io.atomic import write_text
from splat.io.selection import turned_to_up

FILE = "placement.json"
"""In a run folder."""
_LARGEST_BYTES = 100_000


@dataclass(frozen=True)
class Placement:
    """Known by hand."""

    up: tuple[float, float, float] | None = None
    """Unit vector in the capture's own frame; None leaves it to the photographs."""
    scale: float = 1.0
    """Units of exported files per unit of the capture."""
    why: str = ""
    """Where ``scale`` comes from, in words."""


def write_placement(file: Path, placement: Placement) -> Path:
    text = json.dumps({"format": "splat-placement", "version": 1, **asdict(placement)}, indent=1)
    return write_text(file, text + "\n")


def read_placement(file: Path) -> Placement:
    """What ``write_placement`` wrote; nothing known without a file. UserError for a file of another kind."""
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


def placement_text(placement: Placement) -> str:
    """What is known by hand, in words; empty when nothing is."""
    known = []
    if placement.scale != 1:
        known.append(f"scale {placement.scale:.5g}" + (f" ({placement.why})" if placement.why else ""))
    if placement.up is not None:
        known.append(f"up ({', '.join(f'{part:.3f}' for part in placement.up)})")
    return " and ".join(known)


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
