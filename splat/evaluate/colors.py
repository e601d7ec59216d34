"""Colour ramps for depth and error pictures."""

from __future__ import annotations

import numpy as np

# sRGB anchors chosen so that lightness rises evenly from end to end: the order survives a grey print.
_ANCHORS = {
    "depth": ["#0d0b2b", "#2a2470", "#29549b", "#1f839c", "#33ab84", "#83c95b", "#d6dd4f", "#fdf5b0"],
    "error": ["#000000", "#1d1147", "#51127c", "#832681", "#b73779", "#e75263", "#fc8961", "#fec488", "#fcfdbf"],
}


def color_table(name: str = "depth") -> np.ndarray:  # [256,3] uint8
    """256 colours of a ramp, ``depth`` (blue to yellow) or ``error`` (black to white through red)."""
    anchors = np.array([[int(code[i : i + 2], 16) for i in (1, 3, 5)] for code in _ANCHORS[name]], float)
    at = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(at, np.arange(len(anchors)), anchors[:, k]) for k in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def colored(values: np.ndarray, low: float, high: float, name: str = "depth") -> np.ndarray:  # [H,W] -> [H,W,3] uint8
    """Values between ``low`` and ``high`` as colours; what lies outside takes the end colour, NaN the first."""
    share = (np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low) - low) / max(high - low, 1e-12)
    return color_table(name)[(np.clip(share, 0, 1) * 255).round().astype(np.uint8)]
