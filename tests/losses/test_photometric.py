"""The fused loss against a plain torch one: values, gradients, masks, L1 factors, instruction sets, threads."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from splat.losses.photometric import PhotometricLoss, photometric_loss
from splat.native import ops

SIZES = ((1, 1), (3, 7), (16, 16), (33, 40), (70, 129))  # height, width
MASKS = ("none", "zeros", "half", "random")
PATHS = (*((torch.float32, isa) for isa in ops.info()["isas"].split()), (torch.float64, None))
"""Float64 has one generic path, float32 one per instruction set of this machine."""
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
GRADIENT_TOLERANCE = {torch.float32: 5e-4, torch.float64: 1e-10}
"""SSIM divides by variances that are small differences of squares: float32 loses digits where a picture is flat."""
WINDOW, SIGMA, C1, C2 = 11, 1.5, 0.01**2, 0.03**2

paths = pytest.mark.parametrize(("dtype", "isa"), PATHS, ids=[isa or "float64" for _, isa in PATHS])
sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    isa, threads, torch_threads = ops.info()["isa"], ops.info()["threads"], torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(torch_threads)
    ops.set_isa(isa)
    ops.set_threads(threads)


def oracle(
    color: Tensor, target: Tensor, mask: Tensor | None, ssim_weight: float, factors: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(total, l1, ssim) of float64 ``color [C,H,W,3]``, by the book: Wang et al. 2004 with zero padding. ``factors``
    [C,H,W] weigh the L1 within the total."""
    y = target.double() / 255
    w = torch.ones(color.shape[:3], dtype=torch.float64) if mask is None else mask.double() / 255
    totals, l1s, ssims = [], [], []
    factors = torch.ones_like(w) if factors is None else factors.double()
    for xc, yc, wc, fc in zip(color, y, w[..., None], factors[..., None], strict=True):
        norm = 3 * wc.sum()
        seen = norm > 0
        norm = norm if seen else torch.ones_like(norm)
        l1 = (wc * (xc - yc).abs()).sum() / norm
        weighted_l1 = (wc * fc * (xc - yc).abs()).sum() / norm
        ssim = (wc * _ssim_map(wc * xc + (1 - wc) * yc, yc)).sum() / norm if seen else torch.ones_like(l1)
        l1s.append(l1), ssims.append(ssim), totals.append((1 - ssim_weight) * weighted_l1 + ssim_weight * (1 - ssim))
    return torch.stack(totals).mean(), torch.stack(l1s).mean(), torch.stack(ssims).mean()


def _ssim_map(x: Tensor, y: Tensor) -> Tensor:  # [H,W,3] -> [H,W,3]
    taps = torch.exp(-((torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    window = torch.outer(taps, taps) / taps.sum() ** 2

    def blur(image: Tensor) -> Tensor:
        planes = image.permute(2, 0, 1)[:, None]
        return F.conv2d(planes, window[None, None], padding=WINDOW // 2)[:, 0].permute(1, 2, 0)

    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    return (2 * mx * my + C1) * (2 * vxy + C2) / ((mx * mx + my * my + C1) * (vx + vy + C2))


@functools.cache
def pictures(cameras: int, size: tuple[int, int], mask: str, seed: int = 0) -> tuple[Tensor, Tensor, Tensor | None]:
    """A target with structure and a rendering near it that overshoots [0, 1]; float64 with values of float32."""
    random = torch.Generator().manual_seed(seed)
    height, width = size
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = torch.stack([torch.sin(0.3 * u + 0.2 * c * v + c) for c in range(3)], -1)
    noise = torch.randn(cameras, height, width, 3, generator=random)
    target = (127 + 90 * waves + 30 * noise).clamp(0, 255).to(torch.uint8)
    color = target / 255 + 0.2 * torch.randn(cameras, height, width, 3, generator=random)
    shape = (cameras, height, width)
    half = torch.zeros(shape, dtype=torch.uint8)
    half[..., : (width + 1) // 2] = 255
    masks = {
        "none": None, "zeros": torch.zeros(shape, dtype=torch.uint8), "half": half,
        "random": torch.randint(0, 256, shape, generator=random, dtype=torch.uint8),
    }  # fmt: skip
    return color.double(), target, masks[mask]


@functools.cache  # pictures are cached as well, so that every instruction set meets the same tensors
def expected(
    color: Tensor, target: Tensor, mask: Tensor | None, ssim_weight: float, factors: Tensor | None
) -> tuple[float, float, float, Tensor]:
    """The oracle's (total, l1, ssim) and the gradient of total."""
    leaf = color.clone().requires_grad_()
    total, l1, ssim = oracle(leaf, target, mask, ssim_weight, factors)
    total.backward()
    return total.item(), l1.item(), ssim.item(), leaf.grad


@functools.cache
def factors_of(cameras: int, size: tuple[int, int]) -> Tensor:  # [C,H,W]
    """Between 0 and 3, with zeros; float64 with values of float32."""
    random = torch.Generator().manual_seed(cameras)
    return (torch.rand(cameras, *size, generator=random) * 4 - 1).clamp_min(0).double()


def assert_same(
    dtype: torch.dtype, color: Tensor, target: Tensor, mask: Tensor | None, ssim_weight: float, *,
    factors: Tensor | None = None,
) -> None:  # fmt: skip
    total, l1, ssim, gradient = expected(color, target, mask, ssim_weight, factors)
    mine = color.to(dtype, copy=True).requires_grad_()
    l1_weights = None if factors is None else factors.to(dtype)
    loss = photometric_loss(mine, target, mask, l1_weights=l1_weights, ssim_weight=ssim_weight)
    loss.total.backward()
    rtol = TOLERANCE[dtype]
    assert loss.total.dtype == dtype
    assert loss.total.item() == pytest.approx(total, rel=rtol, abs=rtol)
    assert loss.l1 == pytest.approx(l1, rel=rtol, abs=rtol)
    assert loss.ssim == pytest.approx(ssim, rel=rtol, abs=rtol)
    assert mine.grad.dtype == dtype and mine.grad.shape == color.shape
    size, rtol = float(gradient.square().mean().sqrt()), GRADIENT_TOLERANCE[dtype]
    torch.testing.assert_close(mine.grad.double(), gradient, rtol=rtol, atol=rtol * size)


@paths
@sizes
@pytest.mark.parametrize("mask", MASKS)
def test_value_and_gradient_equal_the_plain_loss(
    size: tuple[int, int], mask: str, dtype: torch.dtype, isa: str | None
) -> None:
    if isa:
        ops.set_isa(isa)
    for ssim_weight in (0.0, 0.2, 1.0):
        assert_same(dtype, *pictures(1, size, mask), ssim_weight)


@paths
@pytest.mark.parametrize("mask", ["none", "random"])
def test_several_cameras_are_averaged(mask: str, dtype: torch.dtype, isa: str | None) -> None:
    if isa:
        ops.set_isa(isa)
    assert_same(dtype, *pictures(3, (20, 17), mask), 0.2)


@paths
@sizes
@pytest.mark.parametrize("mask", MASKS)
def test_factors_on_the_l1_count_in_total_and_gradient_alone(
    size: tuple[int, int], mask: str, dtype: torch.dtype, isa: str | None
) -> None:
    if isa:
        ops.set_isa(isa)
    for ssim_weight in (0.0, 0.2, 1.0):
        assert_same(dtype, *pictures(1, size, mask), ssim_weight, factors=factors_of(1, size))


@paths
def test_every_camera_has_its_own_factors(dtype: torch.dtype, isa: str | None) -> None:
    if isa:
        ops.set_isa(isa)
    assert_same(dtype, *pictures(3, (20, 17), "random"), 0.2, factors=factors_of(3, (20, 17)))


@pytest.mark.parametrize("mask", ["none", "random"])
def test_the_gradient_with_factors_is_that_of_finite_differences(mask: str) -> None:
    color, target, mask = pictures(1, (6, 7), mask)
    factors = factors_of(1, (6, 7))
    leaf = color.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: photometric_loss(x, target, mask, l1_weights=factors, ssim_weight=0.2).total, leaf, eps=1e-7,
        atol=1e-7, rtol=1e-4,
    )  # fmt: skip


@paths
@pytest.mark.parametrize("mask", ["none", "random"])
def test_factors_of_one_give_the_bits_of_none(mask: str, dtype: torch.dtype, isa: str | None) -> None:
    if isa:
        ops.set_isa(isa)
    color, target, mask = pictures(2, (70, 129), mask)
    runs = []
    for factors in (None, torch.ones(2, 70, 129, dtype=dtype)):
        leaf = color.to(dtype, copy=True).requires_grad_()
        loss = photometric_loss(leaf, target, mask, l1_weights=factors)
        loss.total.backward()
        runs.append((loss.total.detach(), loss.l1, loss.ssim, leaf.grad))
    assert torch.equal(runs[0][0], runs[1][0]) and runs[0][1:3] == runs[1][1:3]
    assert torch.equal(runs[0][3], runs[1][3])


def test_cameras_count_alike_however_much_their_masks_hide() -> None:
    color, target, _ = pictures(2, (12, 14), "none")
    mask = torch.full(color.shape[:3], 255, dtype=torch.uint8)
    mask[1, :, 3:] = 0
    assert_same(torch.float64, color, target, mask, 0.2)
    each = [photometric_loss(color[i : i + 1], target[i : i + 1], mask[i : i + 1]).total for i in (0, 1)]
    both = photometric_loss(color, target, mask).total
    assert both.item() == pytest.approx((each[0] + each[1]).item() / 2, rel=1e-12)


@paths
def test_an_image_that_is_masked_away_gives_no_loss_and_no_gradient(dtype: torch.dtype, isa: str | None) -> None:
    if isa:
        ops.set_isa(isa)
    color, target, mask = pictures(1, (9, 21), "zeros")
    color = color.to(dtype, copy=True).requires_grad_()
    loss = photometric_loss(color, target, mask)
    loss.total.backward()
    assert (loss.total.item(), loss.l1, loss.ssim) == (0.0, 0.0, 1.0)
    assert torch.equal(color.grad, torch.zeros_like(color))


def test_a_full_mask_is_no_mask() -> None:
    color, target, _ = pictures(1, (19, 23), "none")
    full = torch.full(color.shape[:3], 255, dtype=torch.uint8)
    assert photometric_loss(color, target, full).total.item() == pytest.approx(
        photometric_loss(color, target).total.item(), rel=1e-12
    )


def test_what_the_mask_hides_does_not_matter() -> None:
    color, target, mask = pictures(1, (24, 30), "half")
    elsewhere = color + 5 * (mask == 0)[..., None]
    assert photometric_loss(elsewhere, target, mask).total == photometric_loss(color, target, mask).total


def test_a_perfect_picture_has_no_loss() -> None:
    _, target, _ = pictures(1, (18, 20), "none")
    color = (target.double() * (1 / 255)).requires_grad_()  # the kernel's own rounding
    loss = photometric_loss(color, target)
    loss.total.backward()
    assert loss.total.item() == pytest.approx(0, abs=1e-12) and loss.ssim == pytest.approx(1, abs=1e-12)
    assert color.grad.abs().max() < 1e-12


def test_the_gradient_follows_what_comes_from_above() -> None:
    color, target, mask = pictures(2, (10, 11), "random")
    plain, scaled = color.clone().requires_grad_(), color.clone().requires_grad_()
    photometric_loss(plain, target, mask).total.backward()
    (-3 * photometric_loss(scaled, target, mask).total).backward()
    torch.testing.assert_close(scaled.grad, -3 * plain.grad, rtol=1e-12, atol=0)


def test_backward_twice_gives_the_same() -> None:
    """A second pass through a kept graph: the kernel's gradient must not have been used up."""
    color, target, _ = pictures(2, (10, 11), "none")
    color = color.clone().requires_grad_()
    total = photometric_loss(color, target).total
    first, second = (torch.autograd.grad(total, color, retain_graph=True)[0].clone() for _ in range(2))
    assert torch.equal(first, second)


def test_without_a_gradient_the_value_is_the_same() -> None:
    color, target, mask = pictures(1, (10, 11), "random")
    with_grad = photometric_loss(color.clone().requires_grad_(), target, mask)
    without = photometric_loss(color, target, mask)
    assert isinstance(without, PhotometricLoss) and not without.total.requires_grad
    assert without.total.item() == with_grad.total.item()


def test_any_memory_layout_is_read_right() -> None:
    color, target, mask = pictures(1, (12, 18), "random")
    planar = color.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    turned = target.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3)
    turned_mask = mask.permute(0, 2, 1).contiguous().permute(0, 2, 1)
    assert photometric_loss(planar, turned, turned_mask).total == photometric_loss(color, target, mask).total


@paths
def test_the_same_bits_from_one_two_and_four_threads(dtype: torch.dtype, isa: str | None) -> None:
    if isa:
        ops.set_isa(isa)
    color, target, mask = pictures(2, (130, 70), "random")
    factors = factors_of(2, (130, 70)).to(dtype)
    runs = []
    for threads in (1, 2, 4, 4):
        ops.set_threads(threads)
        leaf = color.to(dtype, copy=True).requires_grad_()
        total = photometric_loss(leaf, target, mask, l1_weights=factors).total
        total.backward()
        runs.append((total.detach(), leaf.grad))
    for total, grad in runs[1:]:
        assert torch.equal(total, runs[0][0]) and torch.equal(grad, runs[0][1])


def _bad(**change) -> dict:
    color, target, mask = pictures(1, (4, 5), "random")
    return {"color": color, "target": target, "mask": mask, "l1_weights": None} | change


@pytest.mark.parametrize(
    "arguments",
    [
        _bad(color=torch.zeros(4, 5, 3)),
        _bad(color=torch.zeros(1, 4, 5, 4), target=torch.zeros(1, 4, 5, 4, dtype=torch.uint8)),
        _bad(color=torch.zeros(1, 5, 4, 3)),
        _bad(color=torch.zeros(1, 4, 5, 3, dtype=torch.float16)),
        _bad(color=torch.zeros(1, 4, 5, 3, dtype=torch.int32)),
        _bad(target=torch.zeros(1, 4, 5, 3)),
        _bad(target=torch.zeros(2, 4, 5, 3, dtype=torch.uint8)),
        _bad(mask=torch.zeros(1, 5, 4, dtype=torch.uint8)),
        _bad(mask=torch.ones(1, 4, 5, dtype=torch.bool)),
        _bad(mask=torch.zeros(2, 4, 5, dtype=torch.uint8)),
        _bad(mask=torch.zeros(1, 4, 5, 1, dtype=torch.uint8)),
        _bad(l1_weights=torch.ones(1, 5, 4, dtype=torch.float64)),
        _bad(l1_weights=torch.ones(1, 4, 5)),
        _bad(l1_weights=torch.ones(1, 4, 5, 3, dtype=torch.float64)),
        _bad(color=torch.zeros(0, 4, 5, 3), target=torch.zeros(0, 4, 5, 3, dtype=torch.uint8), mask=None),
        _bad(color=torch.zeros(1, 0, 5, 3), target=torch.zeros(1, 0, 5, 3, dtype=torch.uint8), mask=None),
    ],
    ids=["3d", "4-channels", "sizes-differ", "float16", "int", "float-target", "more-targets", "mask-turned",
         "bool-mask", "more-masks", "4d-mask", "factors-turned", "float-factors", "4d-factors", "no-camera",
         "no-pixel"],
)  # fmt: skip
def test_what_does_not_fit_is_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match=r"color|target|mask|l1_weights|dtype"):
        photometric_loss(**arguments)
