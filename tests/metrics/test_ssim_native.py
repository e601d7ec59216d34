"""SSIM by the native kernel equals SSIM by convolutions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from splat.metrics import ssim


@pytest.mark.parametrize("masked", [False, True])
def test_an_8bit_photograph_takes_the_native_kernel_to_the_same_value(masked: bool) -> None:
    random = np.random.default_rng(5)
    truth = random.integers(0, 256, (37, 45, 3), dtype=np.uint8)
    image = torch.from_numpy((truth / 255 + random.normal(0, 0.1, truth.shape)).clip(0, 1).astype(np.float32))
    mask = random.integers(0, 256, truth.shape[:2], dtype=np.uint8) if masked else None
    slow = ssim(image, torch.from_numpy(truth.astype(np.float32) / 255), mask)
    assert ssim(image, truth, mask) == pytest.approx(slow, abs=2e-6)
    if masked:
        assert np.isnan(ssim(image, truth, np.zeros_like(mask)))
