"""Factors on the L1 in the CUDA loss, run on the host, against its CPU twin."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers_cuda import Twin, photometric
from helpers_cuda_compare import close
from helpers_native import host_library

from splat.losses.photometric import photometric_loss
from splat.native.backend import emulated_cuda
from splat.native.library import NativeLibraryError, cpu_library, open_library


@pytest.fixture(scope="module")
def cpu() -> Twin:
    try:
        return Twin(cpu_library(), cuda=False)
    except NativeLibraryError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def cuda() -> Iterator[Twin]:
    twin = Twin.open(host_library("plain"), cuda=True)
    yield twin
    twin.seed(0)


def pictures(width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rendered, true, a mask, and factors between 0 and 3."""
    random = np.random.default_rng(width)
    color = (random.random((3, height, width), dtype=np.float32) - np.float32(0.1)) * np.float32(1.2)
    target = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = random.integers(0, 256, (height, width), dtype=np.uint8)
    return color, target, mask, random.random((height, width), dtype=np.float32) * np.float32(3)


@pytest.mark.parametrize("size", [(1, 1), (17, 9), (33, 40), (70, 50)], ids=str)
@pytest.mark.parametrize("masked", ["whole", "masked", "hidden"])
def test_factors(cuda: Twin, cpu: Twin, size: tuple[int, int], masked: str) -> None:
    color, target, mask, factors = pictures(*size)
    mask = {"whole": None, "masked": mask, "hidden": np.zeros_like(mask)}[masked]
    for ssim_weight in (0.0, 0.2, 1.0):
        settings = {"l1_weights": factors, "ssim_weight": ssim_weight}
        expected, expected_grad = photometric(cpu, color, target, mask, **settings)
        found = set()
        for seed in (0, 1, 2):
            cuda.seed(seed)
            sums, grad = photometric(cuda, color, target, mask, **settings)
            np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-6)
            close(grad, expected_grad, "gradient")
            without, _ = photometric(cuda, color, target, mask, **settings, grad=False)
            # With a mask, both kinds of L1 pass through float32 on their way.
            np.testing.assert_allclose(without, sums, rtol=1e-12 if mask is None else 2e-7)
            found.add(sums.tobytes() + grad.tobytes())
        assert len(found) == 1, "depends on the schedule"


def test_factors_of_one_give_the_gradient_of_none(cuda: Twin) -> None:
    color, target, mask, factors = pictures(70, 50)
    for chosen in (None, mask):
        plain, grad = photometric(cuda, color, target, chosen, ssim_weight=0.2)
        ones, same = photometric(cuda, color, target, chosen, ssim_weight=0.2, l1_weights=np.ones_like(factors))
        assert grad.tobytes() == same.tobytes()
        np.testing.assert_allclose(ones, plain, rtol=2e-7)


def test_the_loss_passes_them_on() -> None:
    color, target, mask, factors = (torch.from_numpy(array)[None] for array in pictures(33, 40))
    runs = []
    for native in (None, open_library(host_library("plain"))):
        leaf = color.permute(0, 2, 3, 1).clone().requires_grad_()
        with emulated_cuda(native):
            loss = photometric_loss(leaf, target, mask, l1_weights=factors)
            loss.total.backward()
        runs.append((loss.total.item(), float(loss.l1), float(loss.ssim), leaf.grad))
    assert runs[1][:3] == pytest.approx(runs[0][:3], rel=1e-5)
    close(runs[1][3].numpy(), runs[0][3].numpy(), "gradient")
