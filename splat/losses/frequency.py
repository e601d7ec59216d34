"""The frequency-modulated L1 of GES: smooth areas count more early in training, edges and detail late.

Hamdi et al. 2024, section 4.3 (specs: primitives 2.3): a difference of two Gaussian blurs of the true picture, its
band moving with the progress of training, is cut to a mask; inside it the L1 weighs more. As the paper says and
unlike its released code, the mask comes from the true picture and not from the rendered one, so that it depends on
nothing that is trained and can be kept.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from math import exp

import torch
from torch import Tensor
from torch.nn.functional import interpolate

STRIDE = 5
"""The blurs work on a fifth of the picture's width and height."""
NARROWEST_PX, WIDEST_PX = 0.1, 5.1
"""Standard deviation of the narrower blur at both ends and in the middle of training, in pixels of the small picture.
The other blur is twice as wide."""
THRESHOLD = 0.5
"""Of the difference stretched to 0..1."""
CACHE_BYTES = 256 * 2**20
"""Masks to keep: a byte per pixel, so 600 pictures of 800 x 540."""


def frequency_mask(pixels: Tensor, omega: float) -> Tensor:  # [H,W,3] uint8 -> [H,W] bool
    """Where the picture has what training looks at when the share ``omega`` (0 to 1) of its steps is done.

    Only additions and multiplications pixel by pixel in float64: the same bits on any number of threads.
    """
    height, width = pixels.shape[:2]
    grey = _small_grey(pixels)
    sigma_px = NARROWEST_PX + 2 * (WIDEST_PX - NARROWEST_PX) * min(omega, 1 - omega)
    band = _blurred(grey, sigma_px) - _blurred(grey, 2 * sigma_px)
    band = interpolate(band[None, None], size=(height, width), mode="bilinear", align_corners=False)[0, 0]
    low, high = torch.aminmax(band)
    middle = low + THRESHOLD * (high - low)
    # Early on it is the complement that counts; a threshold of one half is its own complement.
    return band <= middle if omega < 0.5 else (band >= middle) & (high > low)


def _small_grey(pixels: Tensor) -> Tensor:  # [H,W,3] uint8 -> [H/5,W/5] float64
    """Bilinear reduction by 5 meets the middle pixel of each 5x5 block exactly."""
    rows, columns = (
        torch.arange(max(1, side // STRIDE), device=pixels.device).mul_(STRIDE).add_(STRIDE // 2).clamp_(max=side - 1)
        for side in pixels.shape[:2]
    )
    return pixels[rows[:, None], columns].double().sum(dim=2) * (1 / (3 * 255))


def _blurred(plane: Tensor, sigma_px: float) -> Tensor:  # [h,w]
    """Gaussian blur with zeros around the picture, along one axis after the other."""
    radius = int(3 * sigma_px + 0.5)
    taps = [exp(-0.5 * (offset / sigma_px) ** 2) for offset in range(radius + 1)]
    total = taps[0] + 2 * sum(taps[1:])
    for axis in (0, 1):
        length, out = plane.shape[axis], plane * (taps[0] / total)
        for offset in range(1, min(radius, length - 1) + 1):
            rest = length - offset
            for to, source in ((offset, 0), (0, offset)):
                out.narrow(axis, to, rest).add_(plane.narrow(axis, source, rest) * (taps[offset] / total))
        plane = out
    return plane


@dataclass(eq=False)
class DetailWeights:
    """Factors on the L1 of training views: total = (1-s-d) L1 + s (1-SSIM) + d mean(M |error|), for the mask M.

    Progress is cut into ``levels`` equal steps (symmetric about one half, as the bands are), so that a view's mask
    can serve many times; the newest masks are kept while they fit. Nothing here belongs into a checkpoint: masks
    are made again, to the same bits.
    """

    weight: float
    """d; 0.5 in GES. The rest of the L1 keeps 1 - s - d."""
    ssim_weight: float
    """s, as the loss has it."""
    levels: int
    limit_bytes: int = CACHE_BYTES
    _masks: OrderedDict[tuple[int, int, int, int], Tensor] = field(default_factory=OrderedDict, init=False)
    _bytes: int = field(default=0, init=False)

    def factors(self, view: int, pixels: Tensor, progress: float) -> Tensor:  # [1,H,W,3] uint8 -> [1,H,W] float32
        """``l1_weights`` of the photometric loss for training view ``view``, ``pixels`` being its picture at the
        size of the step, after the share ``progress`` of the steps."""
        l1_weight = 1 - self.ssim_weight
        outside = (l1_weight - self.weight) / l1_weight
        inside = self.weight / l1_weight
        return self.mask(view, pixels, progress).to(torch.float32).mul_(inside).add_(outside)[None]

    def mask(self, view: int, pixels: Tensor, progress: float) -> Tensor:  # [1,H,W,3] uint8 -> [H,W] bool
        """The mask at the level of ``progress``."""
        level = min(max(int(progress * self.levels), 0), self.levels - 1)
        key = (view, pixels.shape[1], pixels.shape[2], level)
        if key not in self._masks:
            self._remember(key, frequency_mask(pixels[0], (level + 0.5) / self.levels))
        self._masks.move_to_end(key)
        return self._masks[key]

    def release(self) -> None:
        """Forget all masks, and keep no more."""
        self._masks.clear()
        self._bytes = self.limit_bytes = 0

    def _remember(self, key: tuple[int, int, int, int], mask: Tensor) -> None:
        self._masks[key] = mask
        self._bytes += mask.numel()
        while self._bytes > self.limit_bytes and len(self._masks) > 1:
            self._bytes -= self._masks.popitem(last=False)[1].numel()
