"""Texture maps of pictures: where detail is, in 0..1 per pixel (specs: densifiers 2, 5.6).

A smoothed gradient of the grey picture, squashed by tanh(G / g0). The published fragment of GeoTexDensifier gives the
tanh and the range; the smoothing, the Scharr operator and the choice of g0 are reconstruction.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

_GREY = (0.299, 0.587, 0.114)
"""Luma of BT.601."""
_SMOOTH = (0.25, 0.5, 0.25)
"""Binomial, before the gradient: single noisy pixels are no texture."""
_SCHARR = (3 / 16, 10 / 16, 3 / 16)
"""Across the derivative (Scharr's weights: close to the same answer in every direction)."""
_FLATTEST = 2 / 255
"""Least g0, in grey levels per pixel: what a picture without detail has is noise."""


def texture_map(pixels: Tensor, *, quantile: float = 0.75, smooth: int = 1) -> Tensor:  # [H,W,3] -> [1,H,W]
    """``pixels`` uint8 0..255 or float 0..1. ``quantile`` of the picture's own gradients is g0 (which becomes 0.76);
    ``smooth`` is how often the picture is smoothed first."""
    gradient = gradient_size(pixels, smooth=smooth)
    if gradient.numel() == 0:
        return gradient[None]
    ranked = gradient.flatten().sort().values  # torch.quantile stops at 2^24 pixels
    middle = float(ranked[min(int(quantile * ranked.shape[0]), ranked.shape[0] - 1)])
    return torch.tanh(gradient / max(middle, _FLATTEST))[None]


def gradient_size(pixels: Tensor, *, smooth: int = 1) -> Tensor:  # [H,W,3] -> [H,W] grey levels (of 1) per pixel
    """Length of the Scharr gradient of the smoothed grey picture; borders repeat."""
    values = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
    grey = values[..., 0] * _GREY[0] + values[..., 1] * _GREY[1] + values[..., 2] * _GREY[2]
    if grey.numel() == 0:
        return grey
    for _ in range(smooth):
        grey = _filtered(_filtered(grey, _SMOOTH, down=True), _SMOOTH, down=False)
    slope = (-0.5, 0.0, 0.5)
    across = _filtered(_filtered(grey, slope, down=False), _SCHARR, down=True)
    along = _filtered(_filtered(grey, slope, down=True), _SCHARR, down=False)
    return (across.square() + along.square()).sqrt()


def _filtered(grey: Tensor, taps: tuple[float, ...], *, down: bool) -> Tensor:  # [H,W] -> [H,W]
    """Three taps along the rows' or the columns' direction."""
    around = pad(grey[None, None], (0, 0, 1, 1) if down else (1, 1, 0, 0), mode="replicate")
    kernel = torch.tensor(taps, dtype=grey.dtype, device=grey.device)
    return conv2d(around, kernel.view(1, 1, 3, 1) if down else kernel.view(1, 1, 1, 3))[0, 0]
