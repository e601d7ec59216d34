"""The loss of 3DGS: (1 - w) L1 + w (1 - SSIM), fused, on 8-bit targets, with masks and factors on the L1."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splat.native import ops


@dataclass(frozen=True, eq=False)
class PhotometricLoss:
    """The loss with its terms; ``l1`` (without factors) and ``ssim`` are for logs: plain numbers, on a GPU 0-dim
    tensors there."""

    total: Tensor
    """Scalar, differentiable."""
    l1: float | Tensor
    ssim: float | Tensor


class _Photometric(torch.autograd.Function):
    """Loss and gradient in one native pass; the gradient is scaled when backward asks for it."""

    @staticmethod
    def forward(ctx, color, target, mask, l1_weights, ssim_weight, terms):  # noqa: PLR0917 - autograd passes by position
        cameras, height, width = color.shape[0], color.shape[1], color.shape[2]
        planar = color.detach().permute(0, 3, 1, 2).contiguous()  # no copy for our rasterizer's output
        grad = torch.empty_like(planar) if color.requires_grad else None
        scratch = planar.new_empty(9 * height * width)
        for c in range(cameras):
            found = ops.photometric(
                planar[c], target[c], None if mask is None else mask[c],
                l1_weights=None if l1_weights is None else l1_weights[c], ssim_weight=ssim_weight,
                grad=None if grad is None else grad[c], scratch=scratch,
            )  # fmt: skip
            terms.append(found)
        ctx.save_for_backward(grad)
        ctx.cameras = cameras
        total = sum(t[0] for t in terms) / cameras
        return total.to(color.dtype) if isinstance(total, Tensor) else color.new_tensor(total)

    @staticmethod
    def backward(ctx, upstream):
        (grad,) = ctx.saved_tensors
        if upstream.device.type != "cpu":  # its value stays where it is
            grad = grad * (upstream / ctx.cameras)
        elif (scale := float(upstream) / ctx.cameras) != 1.0:
            grad = grad * scale
        return grad.permute(0, 2, 3, 1), None, None, None, None, None


def photometric_loss(
    color: Tensor, target: Tensor, mask: Tensor | None = None, *, l1_weights: Tensor | None = None,
    ssim_weight: float = 0.2,
) -> PhotometricLoss:  # fmt: skip
    """Mean over cameras of (1-w) L1 + w (1 - SSIM).

    Args:
        color: [C,H,W,3] rendered, float32 or float64, not clamped.
        target: [C,H,W,3] uint8.
        mask: [C,H,W] uint8 or None. Pixels weigh mask/255; SSIM sees the target where the mask is 0, its window
            (11x11, sigma 1.5) is padded with zeros, and the map is averaged with the same weights.
        l1_weights: [C,H,W] of the dtype of ``color``, or None. Factors on each pixel's L1 in ``total`` (mask times
            factor where there are both; the sum is still divided by that of the mask alone). No gradient.
        ssim_weight: w; 0.2 in Kerbl et al. 2023.

    Raises:
        ValueError: when shapes or dtypes do not fit.
    """
    if color.ndim != 4 or color.shape[3] != 3 or tuple(target.shape) != tuple(color.shape):
        raise ValueError(f"color must be [C,H,W,3] and target alike, got {tuple(color.shape)}, {tuple(target.shape)}")
    if color.numel() == 0:
        raise ValueError(f"color must hold a camera and a pixel at least, got {tuple(color.shape)}")
    if target.dtype != torch.uint8 or (mask is not None and mask.dtype != torch.uint8):
        raise ValueError("target and mask must be uint8")
    if mask is not None and tuple(mask.shape) != tuple(color.shape[:3]):
        raise ValueError(f"mask must be [C,H,W] = {tuple(color.shape[:3])}, got {tuple(mask.shape)}")
    if l1_weights is not None and (l1_weights.dtype != color.dtype or l1_weights.shape != color.shape[:3]):
        found = f"{tuple(l1_weights.shape)} {l1_weights.dtype}"
        raise ValueError(f"l1_weights must be [C,H,W] = {tuple(color.shape[:3])} {color.dtype}, got {found}")
    terms: list[tuple[float | Tensor, ...]] = []
    target, mask = target.contiguous(), None if mask is None else mask.contiguous()
    l1_weights = None if l1_weights is None else l1_weights.detach().contiguous()
    total = _Photometric.apply(color, target, mask, l1_weights, ssim_weight, terms)
    return PhotometricLoss(total, sum(t[1] for t in terms) / len(terms), sum(t[2] for t in terms) / len(terms))
