"""PSNR and SSIM against plain loops, and the mask rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from splat.metrics import PSNR_CAP_DB, lpips_metric, psnr, rounded_8bit, ssim
from splat.metrics import lpips as lpips_module


def pictures(height=17, width=15, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random((height, width, 3))
    return np.clip(truth + rng.normal(0, 0.1, truth.shape), 0, 1), truth


def brute_force_ssim(x, y, weights, padding):
    """The definition, one window at a time."""
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    height, width, _ = x.shape
    x = weights[..., None] * x + (1 - weights[..., None]) * y
    total, norm = 0.0, 0.0
    rows, columns = range(height), range(width)
    if padding == "valid":
        rows, columns = range(5, height - 5), range(5, width - 5)
    padded_x, padded_y = (np.pad(p, ((5, 5), (5, 5), (0, 0))) for p in (x, y))
    for v in rows:
        for u in columns:
            for c in range(3):
                a, b = padded_x[v : v + 11, u : u + 11, c], padded_y[v : v + 11, u : u + 11, c]
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a, var_b = (window * a * a).sum() - mean_a**2, (window * b * b).sum() - mean_b**2
                covariance = (window * a * b).sum() - mean_a * mean_b
                value = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
                value /= (mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)
                total += weights[v, u] * value
                norm += weights[v, u]
    return total / norm


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("masked", [False, True])
def test_ssim_is_its_definition(padding, masked):
    x, y = pictures()
    mask = np.random.default_rng(5).integers(0, 256, x.shape[:2], np.uint8) if masked else None
    weights = np.ones(x.shape[:2]) if mask is None else mask / 255
    expected = brute_force_ssim(x, y, weights, padding)
    assert ssim(x, y, mask, padding) == pytest.approx(expected, abs=1e-10)
    single = ssim(x.astype(np.float32), y.astype(np.float32), mask, padding)
    assert single == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_psnr_is_its_definition(masked):
    x, y = pictures()
    mask = np.random.default_rng(5).integers(0, 256, x.shape[:2], np.uint8) if masked else None
    total, norm = 0.0, 0.0
    for v in range(x.shape[0]):
        for u in range(x.shape[1]):
            weight = 1.0 if mask is None else mask[v, u] / 255
            for c in range(3):
                total += weight * (x[v, u, c] - y[v, u, c]) ** 2
                norm += weight
    assert psnr(x, y, mask) == pytest.approx(-10 * math.log10(total / norm), abs=1e-9)


def test_known_values():
    black, grey = np.zeros((20, 20, 3)), np.full((20, 20, 3), 0.1)
    assert psnr(black, grey) == pytest.approx(20.0)
    assert psnr(black, black) == PSNR_CAP_DB
    assert ssim(grey, grey) == pytest.approx(1.0)
    # Constant pictures: only the luminance term is left inside.
    assert ssim(black, grey, padding="valid") == pytest.approx(1e-4 / (0.01 + 1e-4))


def test_what_the_mask_hides_does_not_count():
    x, y = pictures(40, 40)
    mask = np.full((40, 40), 255, np.uint8)
    mask[:, :20] = 0
    spoiled = x.copy()
    spoiled[:, :20] = 1 - y[:, :20]
    assert psnr(spoiled, y, mask) == psnr(x, y, mask) == pytest.approx(psnr(x[:, 20:], y[:, 20:]))
    assert ssim(spoiled, y, mask) == ssim(x, y, mask)
    assert math.isnan(psnr(x, y, np.zeros((40, 40), np.uint8)))
    assert math.isnan(ssim(x, y, np.zeros((40, 40), np.uint8)))


def test_inputs_of_any_kind_give_the_same_score():
    x, y = pictures()
    y8 = (y * 255).round().astype(np.uint8)
    y8.flags.writeable = False  # as an image cache hands them out
    expected = psnr(x, y8 / 255.0)
    assert psnr(torch.from_numpy(x), y8) == pytest.approx(expected, abs=1e-4)
    assert psnr(torch.from_numpy(x).requires_grad_(), torch.from_numpy(y8 / 255.0)) == pytest.approx(expected)


def test_rounding_is_that_of_an_8_bit_file():
    values = torch.tensor([-0.2, 0.0, 0.4999 / 255, 0.5001 / 255, 0.7, 1.3]).view(1, 2, 3)
    expected = np.rint(np.clip(values.numpy(), 0, 1) * 255) / 255
    np.testing.assert_allclose(rounded_8bit(values).numpy(), expected, atol=1e-7)


def test_wrong_shapes_are_refused_and_pictures_below_the_window_have_no_valid_ssim():
    with pytest.raises(ValueError, match=r"\[H,W,3\]"):
        psnr(np.zeros((4, 4)), np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"\[4, 5, 3\] and \[4, 4, 3\]"):
        ssim(np.zeros((4, 5, 3)), np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match="mask must be"):
        psnr(np.zeros((4, 4, 3)), np.zeros((4, 4, 3)), np.zeros((4, 5), np.uint8))
    with pytest.raises(ValueError, match="padding"):
        ssim(np.zeros((4, 4, 3)), np.zeros((4, 4, 3)), padding="reflect")
    assert math.isnan(ssim(np.zeros((10, 30, 3)), np.zeros((10, 30, 3)), padding="valid"))
    assert ssim(np.ones((1, 1, 3)), np.ones((1, 1, 3))) == pytest.approx(1)


def test_lpips_is_said_to_be_absent_and_never_downloaded(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("downloads"))
    metric = lpips_metric()
    assert metric.absent and metric(np.zeros((8, 8, 3)), np.zeros((8, 8, 3))) is None
    assert metric.protocol.startswith("absent: ")
    monkeypatch.setattr(lpips_module.importlib.util, "find_spec", lambda name: object())
    assert "no weights vgg16" in lpips_metric().absent
