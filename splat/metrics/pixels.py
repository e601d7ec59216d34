"""Per-pixel scores, and the conversions all scores share."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

PSNR_CAP_DB = 100.0
"""Scores stop here: a mean squared error below 1e-10 is float32 rounding, and files cannot hold infinity."""


def psnr(image: Tensor | np.ndarray, truth: Tensor | np.ndarray, mask: Tensor | np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB for pictures [H,W,3] in [0,1]; NaN when ``mask`` [H,W] leaves no pixel."""
    image, truth, weights = checked(image, truth, mask)
    squared = (image.double() - truth.double()).square().sum(-1)  # [H,W]
    if weights is None:
        mse = float(squared.mean()) / 3
    else:
        total = float(weights.sum())
        if total == 0:
            return math.nan
        mse = float((weights * squared).sum()) / (3 * total)
    return min(PSNR_CAP_DB, -10 * math.log10(max(mse, 1e-12)))


def rounded_8bit(image: Tensor | np.ndarray) -> Tensor:
    """The picture as an 8-bit file keeps it: round(clamp(x) * 255) / 255."""
    image = as_picture(image)
    return (image.clamp(0, 1) * 255).round() / 255


def checked(
    image: Tensor | np.ndarray, truth: Tensor | np.ndarray, mask: Tensor | np.ndarray | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Tensors of one shape and device, and weights [H,W] in [0,1] in float64 (None: every pixel counts)."""
    image, truth = as_picture(image), as_picture(truth)
    if image.ndim != 3 or image.shape[2] != 3 or image.shape != truth.shape:
        raise ValueError(f"pictures must both be [H,W,3], got {list(image.shape)} and {list(truth.shape)}")
    truth = truth.to(image)
    if mask is None:
        return image, truth, None
    weights = as_tensor(mask).to(image.device)
    if weights.shape != image.shape[:2]:
        raise ValueError(f"the mask must be [H,W] = {list(image.shape[:2])}, got {list(weights.shape)}")
    return image, truth, weights.double() / (1.0 if weights.is_floating_point() else 255.0)


def as_picture(pixels: Tensor | np.ndarray) -> Tensor:
    """Float pixels without a graph; uint8 becomes [0,1]."""
    pixels = as_tensor(pixels).detach()
    return pixels if pixels.is_floating_point() else pixels.float() / 255


def as_tensor(values: Tensor | np.ndarray) -> Tensor:
    """A tensor of ``values``; read-only arrays (an image cache hands them out) are copied."""
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        values = values.copy()
    return torch.as_tensor(values)
