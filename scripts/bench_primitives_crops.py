"""Which parts of which views ``bench_primitives.py`` shows: chosen by numbers, the same for every capture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench_primitives_measure import steepness

from splat.io.png import write_png
from splat.metrics import psnr

SIDE_PX = 64
ROOM_PX, GAP_PX = 1094, 10
"""Width of the page for one row of crops, and what lies between two."""
STRIDE_PX = 8
MIN_GREY, MAX_GREY = 0.08, 0.92
"""The smoothest part is looked for where the photograph is neither black nor blown out."""

Pictures = Mapping[str, Mapping[str, np.ndarray]]
"""View -> {"photo": [H,W,3] uint8, label: [H,W,3] uint8 ...}."""


@dataclass(frozen=True)
class Window:
    """A square part of a view."""

    title: str
    view: str
    x: int
    y: int
    side: int

    def cut(self, picture: np.ndarray) -> np.ndarray:
        return picture[self.y : self.y + self.side, self.x : self.x + self.side]


def choose(pictures: Pictures, *, edges: int = 2, smooth: int = 1, disagreement: int = 2) -> list[Window]:
    """The hardest edges, the smoothest part and the largest disagreement between models, each from another view."""
    wanted: list[tuple[str, Callable[[Mapping[str, np.ndarray]], np.ndarray], int]] = [
        ("hardest edges", _edges, edges), ("smoothest", _smoothness, smooth),
        ("largest disagreement", _disagreement, disagreement),
    ]  # fmt: skip
    chosen: list[Window] = []
    for title, value_of, count in wanted:
        best = [_best(title, view, shots, value_of) for view, shots in pictures.items()]
        ranked = sorted((b for b in best if b[0] > -np.inf), key=lambda b: -b[0])
        fresh = [w for _, w in ranked if not any(_overlap(w, other) for other in chosen)]
        chosen += fresh[:count]
    return chosen


def side_for(shape: Sequence[int]) -> int:
    """Side of the crops of a picture [H,W,...]: small pictures are shown whole as far as they are square."""
    return max(1, min(SIDE_PX, shape[0], shape[1]))


def zoom_for(side: int, count: int) -> int:
    """Whole magnification, 2 to 4, at which ``count`` crops stand side by side on the page."""
    return min(4, max(2, ((ROOM_PX + GAP_PX) // count - GAP_PX) // side))


def write_crops(windows: Sequence[Window], pictures: Pictures, folder: Path, prefix: str = "") -> list[dict[str, Any]]:
    """Write every crop as a PNG in ``folder``; returns what the page needs to show them, with the PSNR of each."""
    rows = []
    for number, window in enumerate(windows):
        shots = pictures[window.view]
        photo, cells = window.cut(shots["photo"]), []
        for k, (label, picture) in enumerate(shots.items()):
            cut = window.cut(picture)
            path = write_png(folder / f"{prefix}{number}-{k}.png", cut)
            score = None if label == "photo" else psnr(cut, photo)
            cells.append({"label": label, "file": path.name, "psnr": score})
        rows.append({
            "title": window.title, "view": window.view, "x": window.x, "y": window.y, "side": window.side,
            "zoom": zoom_for(window.side, len(cells)), "cells": cells,
        })  # fmt: skip
    return rows


def window_means(values: np.ndarray, side: int, stride: int = STRIDE_PX) -> np.ndarray:
    """Means of ``values`` [H,W] over squares of ``side``, every ``stride`` pixels: [(H-side)//stride+1, ...]."""
    sums = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    sums[1:, 1:] = values.astype(np.float64).cumsum(0).cumsum(1)
    whole = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return whole[::stride, ::stride] / side**2


def _best(
    title: str, view: str, shots: Mapping[str, np.ndarray], value_of: Callable[[Mapping[str, np.ndarray]], np.ndarray]
) -> tuple[float, Window]:
    side = side_for(shots["photo"].shape)
    values = value_of(shots)
    y, x = np.unravel_index(int(np.argmax(values)), values.shape)
    return float(values[y, x]), Window(title, view, int(x) * STRIDE_PX, int(y) * STRIDE_PX, side)


def _edges(shots: Mapping[str, np.ndarray]) -> np.ndarray:
    photo = shots["photo"]
    return window_means(steepness(photo), side_for(photo.shape))


def _smoothness(shots: Mapping[str, np.ndarray]) -> np.ndarray:
    photo = shots["photo"]
    grey = window_means(photo.mean(axis=2) / 255, side_for(photo.shape))
    usable = (grey > MIN_GREY) & (grey < MAX_GREY)
    return np.where(usable, -_edges(shots), -np.inf)


def _disagreement(shots: Mapping[str, np.ndarray]) -> np.ndarray:
    """Variance between the models' renders; -inf where there is none."""
    renders = [picture for label, picture in shots.items() if label != "photo"]
    side = side_for(shots["photo"].shape)
    spread = window_means(np.stack(renders).astype(np.float32).var(axis=0).mean(axis=2), side)
    return np.where(spread > 0, spread, -np.inf)


def _overlap(a: Window, b: Window) -> bool:
    """Nearly the same part is not shown twice."""
    return a.view == b.view and max(abs(a.x - b.x), abs(a.y - b.y)) < min(a.side, b.side) // 4
