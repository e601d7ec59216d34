"""Everything that is known of one splat, as text and as lines. Pure functions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from splat.geometry.rotations import matrix_from_quat
from splat.geometry.sh import rgb_from_sh0
from splat.live.snapshot import Snapshot
from splat.model.labels import HELD, HIDDEN, LOCKED, SELECTED
from splat.model.splat_model import SplatModel

MARKS = {SELECTED: "selected", HIDDEN: "hidden", LOCKED: "locked", HELD: "edited by hand"}
RING_SIGMAS = 2.0
_RING_POINTS = 48
_MOST_NUMBERS = 8
"""Of one raw field; longer ones are told by their size."""


def table(snapshot: Snapshot, row: int, *, radii_px: Tensor, eye: np.ndarray) -> str:  # [2] ascending, [3] world
    """A table in Markdown. ``radii_px``: standard deviations of the footprint; ``eye``: where it is seen from."""
    model, labels = snapshot.model, snapshot.labels
    one = {name: values[row : row + 1].detach() for name, values in model.rows.items()}
    mean = one["means"][0].double().cpu().numpy()
    scales = model.primitive.scales(one)[0]
    color = rgb_from_sh0(one["sh0"][0]).clamp(0, 1)
    born, flags = int(labels.born[row]), int(labels.flags[row])
    marks = ", ".join(word for bit, word in MARKS.items() if flags & bit) or "none"
    lines = [
        ("id", f"{int(labels.ids[row])} (row {row:,})"),
        ("made by", f"{labels.names[int(labels.reasons[row])]}, step {born:,} ({max(snapshot.step - born, 0):,} ago)"),
        ("marks", marks),
        ("position", numbers(torch.from_numpy(mean))),
        ("distance", f"{np.linalg.norm(mean - eye):.4g}"),
        ("opacity", f"{float(model.primitive.opacities(one)[0]):.4f}"),
        ("sizes", numbers(scales)),
        ("longest / shortest", f"{float(scales.max() / scales.min().clamp_min(1e-20)):.3g}"),
        ("in the picture", f"{float(radii_px[1]):.1f} x {float(radii_px[0]):.1f} px"),
        ("colour", f"{numbers(color)} `{hex_code(color)}`"),
    ]
    if model.filter3d is not None:
        lines.append(("3D filter", f"{float(model.filter3d[row]):.4g}"))
    lines += [(f"*{name}*", raw(values[0])) for name, values in one.items()]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in lines)])


def numbers(values: Tensor) -> str:
    return ", ".join(f"{float(value):.4g}" for value in values.reshape(-1))


def raw(values: Tensor) -> str:
    """A raw field: all of it, or how long and how large it is."""
    if values.numel() <= _MOST_NUMBERS:
        return numbers(values)
    size = " x ".join(map(str, values.shape))
    return f"{size} numbers, root mean square {float(values.float().square().mean().sqrt()):.3g}"


def hex_code(color: Tensor) -> str:  # [3] in 0..1
    return "#" + "".join(f"{round(float(part) * 255):02x}" for part in color)


def rings(model: SplatModel, row: int) -> np.ndarray:  # [3*P,2,3] world
    """Three ellipses of the splat, in the planes of its axes, at two standard deviations of the Gaussian closest to
    it."""
    one = {name: values[row : row + 1].detach() for name, values in model.rows.items()}
    filter3d = None if model.filter3d is None else model.filter3d[row : row + 1]
    plain = model.primitive.gaussian_rows(one, filter3d=filter3d)
    axes = matrix_from_quat(plain["quats"])[0] * plain["log_scales"][0].exp() * RING_SIGMAS  # in columns
    turn = np.linspace(0, 2 * np.pi, _RING_POINTS + 1)
    circle = np.stack([np.cos(turn), np.sin(turn), np.zeros_like(turn)], axis=-1)
    lines = np.concatenate([np.roll(circle, axis, axis=1)[:, None] for axis in range(3)], axis=1)  # [P+1,3,3]
    placed = lines @ axes.double().cpu().numpy().T + plain["means"][0].double().cpu().numpy()
    return np.stack([placed[:-1], placed[1:]], axis=2).reshape(-1, 2, 3)
