"""The mask of GES: which areas it picks when, against the recipe written plainly; and what the cache keeps."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from splat.losses import frequency
from splat.losses.frequency import DetailWeights, frequency_mask
from splat.losses.photometric import photometric_loss


def picture(height: int = 150, width: int = 200, *, seed: int = 0) -> Tensor:  # [H,W,3] uint8
    """Grey with blocks that are finely striped, and slow waves."""
    random = torch.Generator().manual_seed(seed)
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = 120 + 40 * torch.sin(0.03 * u + 0.05 * v)
    noise = torch.randn(height, width, 3, generator=random) * 50 * ((u // 50 + v // 50) % 2)[..., None]
    return (waves[..., None] + noise).clamp(0, 255).to(torch.uint8)


def recipe(pixels: Tensor, omega: float) -> Tensor:  # [H,W]
    """Specs, primitives 2.3, by torch's own operations; before the cut."""
    grey = pixels.double().mean(dim=2)[None, None] / 255
    small = F.interpolate(grey, scale_factor=0.2, mode="bilinear", align_corners=False)

    def blurred(sigma: float) -> Tensor:
        radius = round(3 * sigma)
        taps = torch.exp(-((torch.arange(-radius, radius + 1).double() / sigma) ** 2) / 2)
        window = torch.outer(taps, taps)
        return F.conv2d(small, (window / window.sum())[None, None], padding=radius)

    sigma = 0.1 + 10 * (omega if omega < 0.5 else 1 - omega)
    band = blurred(sigma) - blurred(2 * sigma)
    band = F.interpolate(band, size=pixels.shape[:2], mode="bilinear", align_corners=False)[0, 0]
    band = band - band.min()
    band = band / band.max()
    return 1 - band if omega < 0.5 else band


@pytest.mark.parametrize("omega", [0.0, 0.02, 0.13, 0.3, 0.499, 0.5, 0.77, 0.97, 1.0])
@pytest.mark.parametrize("size", [(150, 200), (37, 61), (54, 23)])
def test_the_mask_is_that_of_the_recipe(size: tuple[int, int], omega: float) -> None:
    pixels = picture(*size)
    value = recipe(pixels, omega)
    mask = frequency_mask(pixels, omega)
    assert mask.dtype == torch.bool and mask.shape == size
    clear = (value - 0.5).abs() > 1e-6  # elsewhere rounding decides
    assert clear.float().mean() > 0.99 and 0 < mask.float().mean() < 1
    assert torch.equal(mask[clear], (value >= 0.5)[clear])


def bright_bar() -> Tensor:  # [H,W,3] uint8
    """Black, with a bright vertical bar in the middle: a band-pass answers at the bar, nowhere else."""
    pixels = torch.zeros(200, 300, 3, dtype=torch.uint8)
    pixels[:, 140:160] = 255
    return pixels


def test_early_masks_leave_edges_out_and_late_ones_pick_them() -> None:
    pixels = bright_bar()
    for omega in (0.03, 0.1, 0.25):
        early, late = frequency_mask(pixels, omega), frequency_mask(pixels, 1 - omega)
        at_the_bar = slice(120, 180)
        assert late[100, at_the_bar].any() and not early[100, at_the_bar].all()
        for smooth in (slice(0, 120), slice(180, 300)):
            assert early[100, smooth].all() and not late[100, smooth].any()
        assert early.float().mean() > 0.8 and late.float().mean() < 0.2
        # One half is its own complement, but for ties.
        assert (early ^ late).float().mean() > 0.999


def test_the_middle_of_training_looks_at_the_coarsest_band() -> None:
    """A bar is answered over a width that grows with the blurs."""
    widths = [int((~frequency_mask(bright_bar(), omega))[100].sum()) for omega in (0.02, 0.2, 0.45)]
    assert widths[0] < widths[1] < widths[2]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (4, 3), (5, 5), (9, 2)])
def test_the_smallest_pictures_have_masks(size: tuple[int, int]) -> None:
    for value in (0, 255):
        for omega in (0.0, 0.3, 0.5, 1.0):
            assert frequency_mask(torch.full((*size, 3), value, dtype=torch.uint8), omega).shape == size
    black = torch.zeros(40, 40, 3, dtype=torch.uint8)  # no band at all: smooth everywhere
    assert frequency_mask(black, 0.2).all() and not frequency_mask(black, 0.8).any()


def test_the_same_bits_on_any_number_of_threads() -> None:
    pixels, before = picture(540, 800), torch.get_num_threads()
    try:
        masks = []
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            masks.append([frequency_mask(pixels, omega) for omega in (0.1, 0.5, 0.9)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for others in masks[1:] for a, b in zip(masks[0], others, strict=True))


@pytest.mark.parametrize(("weight", "ssim_weight"), [(0.5, 0.2), (0.3, 0.4), (0.8, 0.2)])
def test_factors_give_the_loss_of_the_paper(weight: float, ssim_weight: float) -> None:
    """(1 - s - d) L1 + s (1 - SSIM) + d mean(M |error|)."""
    pixels = picture(60, 80)[None]
    color = pixels / 255 + 0.1 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(1))
    factors = DetailWeights(weight, ssim_weight, 10).factors(0, pixels, 0.62)
    assert factors.shape == (1, 60, 80) and factors.dtype == torch.float32
    loss = photometric_loss(color, pixels, l1_weights=factors, ssim_weight=ssim_weight)
    errors = (color - pixels / 255).abs().double()
    inside = (errors * frequency_mask(pixels[0], 0.65)[None, ..., None]).mean()
    expected = (1 - ssim_weight - weight) * errors.mean() + weight * inside + ssim_weight * (1 - loss.ssim)
    assert loss.total.item() == pytest.approx(float(expected), rel=1e-5)
    assert loss.l1 == pytest.approx(float(errors.mean()), rel=1e-5)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The progress of every mask that is made."""
    asked: list[float] = []

    def counted(pixels: Tensor, omega: float) -> Tensor:
        asked.append(omega)
        return torch.zeros(pixels.shape[:2], dtype=torch.bool)

    monkeypatch.setattr(frequency, "frequency_mask", counted)
    return asked


def test_levels_are_even_and_symmetric(made: list[float]) -> None:
    weights, pixels = DetailWeights(0.5, 0.2, 20), torch.zeros(1, 4, 5, 3, dtype=torch.uint8)
    for step in range(1001):
        weights.mask(0, pixels, step / 1000)
    assert len(made) == 20 and made == sorted(made)
    assert all(math.isclose(a, 1 - b) for a, b in zip(made, reversed(made), strict=True))


def test_a_mask_is_kept_by_view_size_and_level(made: list[float]) -> None:
    weights = DetailWeights(0.5, 0.2, 4)
    full, half = torch.zeros(1, 4, 6, 3, dtype=torch.uint8), torch.zeros(1, 2, 3, 3, dtype=torch.uint8)
    for _ in range(2):
        for arguments in ((0, full, 0.1), (1, full, 0.1), (0, half, 0.1), (0, full, 0.3), (0, full, 0.2)):
            weights.mask(*arguments)
    assert made == [0.125, 0.125, 0.125, 0.375]
    assert weights.mask(0, half, 0.1).shape == (2, 3)


def test_what_was_not_used_for_longest_is_forgotten(made: list[float]) -> None:
    weights, pixels = DetailWeights(0.5, 0.2, 4, limit_bytes=3 * 20), torch.zeros(1, 4, 5, 3, dtype=torch.uint8)
    for view in (0, 1, 2, 0, 3, 0, 2, 3):  # 1 has to go for 3
        weights.mask(view, pixels, 0.0)
    assert len(made) == 4 and len(weights._masks) == 3 and weights._bytes == 60
    weights.mask(1, pixels, 0.0)
    assert len(made) == 5 and weights._bytes == 60
    weights.release()
    assert weights._bytes == 0
    for view in (0, 1):  # and then no more than the one at hand
        weights.mask(view, pixels, 0.0)
    assert len(made) == 7 and len(weights._masks) == 1 and weights._bytes == 20
