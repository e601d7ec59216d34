"""Structural similarity (Wang et al. 2004) with the 11x11 Gaussian window that the field compares by."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from splat.metrics.pixels import as_tensor, checked
from splat.native import ops

WINDOW_PX = 11
SIGMA_PX = 1.5
C1, C2 = 0.01**2, 0.03**2  # stabilisers for a value range of 1


def ssim(
    image: Tensor | np.ndarray,
    truth: Tensor | np.ndarray,
    mask: Tensor | np.ndarray | None = None,
    padding: Literal["same", "valid"] = "same",
) -> float:
    """Mean SSIM of two pictures [H,W,3] in [0,1]; NaN when ``mask`` [H,W] leaves no pixel.

    ``same`` pads with zeros (Inria's and gsplat's training code), ``valid`` keeps only whole windows
    (scikit-image and torchmetrics come close to that).
    """
    if padding == "same" and _native_takes(image, truth, mask):
        return _native_ssim(as_tensor(image), as_tensor(truth), None if mask is None else as_tensor(mask))
    image, truth, weights = checked(image, truth, mask)
    if padding not in ("same", "valid"):
        raise ValueError(f"SSIM padding must be 'same' or 'valid', got {padding!r}")
    if padding == "valid" and min(image.shape[:2]) < WINDOW_PX:
        return math.nan
    if weights is not None:
        blend = weights.to(image.dtype)[..., None]
        image = blend * image + (1 - blend) * truth
    values = ssim_map(image, truth, padding).mean(0).double()
    if weights is None:
        return min(1.0, float(values.mean()))  # float32 sums stray past 1 by 1e-9
    if padding == "valid":
        border = WINDOW_PX // 2
        weights = weights[border:-border, border:-border]
    total = float(weights.sum())
    return min(1.0, float((weights * values).sum()) / total) if total else math.nan


def _native_takes(image: Tensor | np.ndarray, truth: Tensor | np.ndarray, mask: Tensor | np.ndarray | None) -> bool:
    """Float32 on the CPU against an 8-bit photograph: the loss's own kernel, thirty times faster than convolutions."""
    image, truth = as_tensor(image), as_tensor(truth)
    return (
        (image.dtype, truth.dtype) == (torch.float32, torch.uint8)
        and image.device.type == truth.device.type == "cpu"
        and image.ndim == 3
        and image.shape[2] == 3
        and image.shape == truth.shape
        and (mask is None or (as_tensor(mask).dtype == torch.uint8 and as_tensor(mask).shape == image.shape[:2]))
    )


def _native_ssim(image: Tensor, truth: Tensor, mask: Tensor | None) -> float:
    if mask is not None and not mask.any():
        return math.nan
    planar = image.detach().permute(2, 0, 1).contiguous()
    mask = None if mask is None else mask.contiguous()
    _, _, value = ops.photometric(
        planar, truth.contiguous(), mask, ssim_weight=1.0, grad=None, scratch=torch.empty(0)
    )
    return min(1.0, value)


def ssim_map(image: Tensor, truth: Tensor, padding: Literal["same", "valid"]) -> Tensor:  # [H,W,3] x2 -> [3,H',W']
    """SSIM around every pixel and channel."""
    x, y = image.permute(2, 0, 1), truth.permute(2, 0, 1)
    moments = _blurred(torch.cat([x, y, x * x, y * y, x * y]), padding)
    mean_x, mean_y, square_x, square_y, product = moments.split(3)
    variances = square_x - mean_x.square() + square_y - mean_y.square()
    covariance = product - mean_x * mean_y
    means = 2 * mean_x * mean_y + C1, mean_x.square() + mean_y.square() + C1
    return means[0] * (2 * covariance + C2) / (means[1] * (variances + C2))


def _blurred(planes: Tensor, padding: Literal["same", "valid"]) -> Tensor:  # [P,H,W] -> [P,H',W']
    offsets = torch.arange(WINDOW_PX, dtype=planes.dtype, device=planes.device) - WINDOW_PX // 2
    window = torch.exp(-offsets.square() / (2 * SIGMA_PX**2))
    window = window / window.sum()
    margin = WINDOW_PX // 2 if padding == "same" else 0
    planes = F.conv2d(planes[:, None], window.view(1, 1, -1, 1), padding=(margin, 0))
    return F.conv2d(planes, window.view(1, 1, 1, -1), padding=(0, margin))[:, 0]
