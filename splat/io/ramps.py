"""Colour ramps for pictures that show a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ramp:
    """A way from one colour to another."""

    purpose: str
    anchors: tuple[str, ...]
    """sRGB colours at equal distances."""


# Anchors of all but "spectrum" are chosen so that lightness rises evenly from end to end: the order survives a grey
# print. "spectrum" gives that up for more colours that can be told apart.
RAMPS: Mapping[str, Ramp] = {
    "depth": Ramp(
        "blue to yellow", ("#0d0b2b", "#2a2470", "#29549b", "#1f839c", "#33ab84", "#83c95b", "#d6dd4f", "#fdf5b0")
    ),
    "error": Ramp(
        "black to white through red",
        ("#000000", "#1d1147", "#51127c", "#832681", "#b73779", "#e75263", "#fc8961", "#fec488", "#fcfdbf"),
    ),
    "leaf": Ramp(
        "violet to lime through green", ("#3b0b52", "#41417f", "#2f6a8c", "#219089", "#44b36c", "#a4d13f", "#f7e631")
    ),
    "spectrum": Ramp(
        "dark blue to dark red through every colour",
        ("#2f1e52", "#4458cb", "#3e9bf5", "#1fd0c5", "#5cf27b", "#b6f035", "#f0c535", "#f9842b", "#d63a10", "#7f0d07"),
    ),
    "grey": Ramp("black to white", ("#000000", "#ffffff")),
}
"""Name -> colours. Nothing else lists them."""


def color_table(name: str = "depth") -> np.ndarray:  # [256,3] uint8
    """256 colours of a ramp."""
    anchors = np.array([[int(code[i : i + 2], 16) for i in (1, 3, 5)] for code in RAMPS[name].anchors], float)
    at = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(at, np.arange(len(anchors)), anchors[:, k]) for k in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def colored(values: np.ndarray, low: float, high: float, name: str = "depth") -> np.ndarray:  # [H,W] -> [H,W,3] uint8
    """Values between ``low`` and ``high`` as colours; what lies outside takes the end colour, NaN the first."""
    share = (np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low) - low) / max(high - low, 1e-12)
    return color_table(name)[(np.clip(share, 0, 1) * 255).round().astype(np.uint8)]
