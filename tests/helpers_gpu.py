"""Checks of the CUDA backend through the public API, for pytest and for ``scripts/gpu_check.py`` alike.

Each is a function of the device: ``cuda`` on a GPU, or ``cpu`` inside ``emulated_cuda`` with the kernels built for the
host. They raise AssertionError. Torch and numpy are all they need.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import torch
from helpers_parity import compare, everything, same_bits
from helpers_render import Case, SceneTensors, build, draw, random_cotangents
from helpers_small_training import fitted_psnr
from torch import Tensor

from splat.losses.photometric import photometric_loss
from splat.model.gaussian import GaussianPrimitive
from splat.model.splat_model import SplatModel
from splat.native import ops
from splat.native.backend import backend_of, emulated_cuda
from splat.optim.adam import SplatAdam
from splat.optim.reference import adam_step
from splat.render.native_cuda import LEAST_SLOTS
from splat.render.native_rasterizer import NativeRasterizer
from splat.render.types import CameraBatch, RenderOptions

TOLERANCE = 1e-4
"""Relative, away from thresholds: what is asked of CUDA."""
CROWDED = Case(size=(64, 48), count=400, degree=3, hostile=True, features=3, views=2, seed=21)
_MANY = Case(size=(33, 40), count=200_000, degree=0, seed=33)
FOOTPRINT_CASES = (
    Case(filter2d="analytic", size=(64, 48), count=200, degree=2, hostile=True, features=2, seed=41),
    Case(kind="gef", size=(64, 48), count=200, degree=1, filter2d="mip", filter3d=True, hostile=True, views=2, seed=42),
    Case(kind="convex", size=(64, 48), count=120, degree=3, hostile=True, focal=50.0, seed=43),
)
"""One of each footprint besides the Gaussian."""
CONVEX_GRADIENTS = 3e-4
"""A convex's centre is pulled to many sides by its edges, which nearly cancels."""
FEWER = Case(size=(96, 80), count=300, degree=1, hostile=True, seed=21)
"""For the host build, which needs a second for a million threads."""


def check_case(case: Case, device: str) -> None:
    """Pictures, gradients, statistics against the float64 reference."""
    gradients = CONVEX_GRADIENTS if case.kind == "convex" else None
    compare(NativeRasterizer(), case, torch.float32, device=device, tolerance=TOLERANCE, gradients=gradients)


def check_same_bits(device: str) -> None:
    for case in (CROWDED, *FOOTPRINT_CASES) if device == "cuda" else (FEWER,):
        first, *others = (_drawn(build(case), device) for _ in range(3))
        for other in others:
            assert_same_bits(other, first)


def check_replay(device: str) -> None:
    """A first guess far too small is replayed to the same bits; the next visit of the view fits at once."""
    scene = _crowded(device)
    plain = _drawn(scene, device)
    stingy = NativeRasterizer()
    stingy._capacities.hint = lambda view: LEAST_SLOTS
    assert_same_bits(_drawn(scene, device, stingy), plain)
    needed = max(stingy._capacities._by_view.values()) * scene.inputs.count
    assert needed > LEAST_SLOTS, "nothing overflowed: this checks nothing"
    usual = NativeRasterizer()
    _drawn(scene, device, usual)
    book = usual._capacities
    known = dict(book._by_view)
    assert len(known) == len(scene.cameras)
    _drawn(scene, device, usual)
    assert dict(book._by_view) == known


def check_streams() -> None:
    """A stream of one's own gives the same bits as the default one (CUDA only)."""
    scene = build(CROWDED)
    plain = _drawn(scene, "cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)  # whatever does not wait for this stream now reads too early
        own = _drawn(scene, "cuda")
    torch.cuda.synchronize()
    assert_same_bits(own, plain)


def check_huge(device: str) -> None:
    """More splat-tile pairs than 2^31: one clear error, and the next picture is right."""
    scene = build(_MANY)
    tables = {"log_scales": torch.full_like(scene.inputs.log_scales, 6.0)}  # every splat covers every tile
    huge = replace(scene, inputs=replace(scene.inputs, **tables), cameras=_wide(scene.cameras))
    huge = replace(huge, options=replace(huge.options, stats=frozenset(), pixel_weights=None, background=None))
    try:
        draw(NativeRasterizer(), huge, torch.float32, device=device)
    except RuntimeError as error:
        assert "2^31" in str(error), str(error)
    else:
        raise AssertionError("2^31 pairs were drawn?")
    check_zero_splats(device)


def _wide(cameras: CameraBatch) -> CameraBatch:
    """The same view at 2048 x 2048: 16,384 tiles."""
    K = cameras.K.clone()
    K[:, 0, 2] = K[:, 1, 2] = 1024.0
    return CameraBatch(cameras.camera_from_world, K, 2048, 2048)


def check_zero_splats(device: str) -> None:
    scene = build(Case(size=(17, 9), count=0, degree=2, background="one"))
    drawn = draw(NativeRasterizer(), scene, torch.float32, random_cotangents(scene), device=device)
    expected = scene.options.background.float().expand_as(drawn.output.color)
    assert torch.equal(drawn.output.color, expected)
    assert drawn.gradients["means"].shape == (0, 3)


def check_refusals(device: str) -> None:
    """Tensors that do not fit are refused in one clear line, and nothing is drawn."""
    scene = build(Case(size=(17, 9), count=5, degree=1))
    rows = {name: getattr(scene.inputs, name) for name in ("means", "quats", "log_scales", "logit_opacities", "sh0")}
    inputs = replace(scene.inputs, **{k: v.float().to(device) for k, v in rows.items()})
    inputs = replace(inputs, sh_rest=scene.inputs.sh_rest.float().to(device))
    options = replace(scene.options, background=None, pixel_weights=None, stats=frozenset())
    NativeRasterizer().render(inputs, scene.cameras, options)  # cameras may stay on the CPU
    doubles = replace(inputs, **{k: v.to(device) for k, v in rows.items()}, sh_rest=scene.inputs.sh_rest.to(device))
    refused(lambda: NativeRasterizer().render(doubles, scene.cameras, options), "float32")
    elsewhere = replace(inputs, quats=inputs.quats.to("meta"))
    refused(lambda: NativeRasterizer().render(elsewhere, scene.cameras, options), "quats is on meta")
    strided = inputs.means.t().contiguous().t()
    loose = NativeRasterizer().render(replace(inputs, means=strided), scene.cameras, options)
    tight = NativeRasterizer().render(inputs, scene.cameras, options)
    assert torch.equal(loose.color, tight.color), "a strided table draws another picture"
    step = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-15, "step": 1}
    table = inputs.means.clone()
    refused(lambda: ops.adam_step(table, table.clone().t().contiguous().t(), table, table, **step), "contiguous")
    refused(lambda: ops.adam_step(table, table.to("meta"), table, table, **step), "grad is on meta")


def refused(action, words: str) -> None:
    try:
        action()
    except ValueError as error:
        assert words in str(error) and "\n" not in str(error), str(error)
    else:
        raise AssertionError(f"nothing refused it ({words})")


def check_photometric(device: str) -> None:
    random = torch.Generator().manual_seed(5)
    cases = ((1, 33, 40, False, False), (2, 64, 48, True, False), (1, 1, 1, False, False), (1, 50, 30, True, True))
    for cameras, width, height, masked, weighted in cases:
        color = torch.rand(cameras, height, width, 3, generator=random)
        target = (torch.rand(cameras, height, width, 3, generator=random) * 255).to(torch.uint8)
        mask = (torch.rand(cameras, height, width, generator=random) * 255).to(torch.uint8) if masked else None
        weights = torch.rand(cameras, height, width, generator=random) if weighted else None
        found = []
        for at in (torch.float64, device):
            here = color.double() if at is torch.float64 else color.to(device)
            here = here.detach().requires_grad_(True)
            place = "cpu" if at is torch.float64 else device
            extra = [None if t is None else t.to(place) for t in (mask, weights)]
            loss = _loss(here, target.to(place), *extra, exact=at is torch.float64)
            found.append([float(loss.total.detach()), float(loss.l1), float(loss.ssim), here.grad.cpu().double()])
        for exact, ours in zip(found[0][:3], found[1][:3], strict=True):
            assert abs(exact - ours) <= 1e-5 * max(abs(exact), 1e-3), (found[0][:3], found[1][:3])
        size = found[0][3].abs().max()
        assert (found[0][3] - found[1][3]).abs().max() <= TOLERANCE * size


def _loss(color: Tensor, target: Tensor, mask: Tensor | None, weights: Tensor | None, *, exact: bool):
    """With its gradient; the exact one by the CPU library even where the CUDA functions stand in for it."""
    with emulated_cuda(None) if exact else nullcontext():
        loss = photometric_loss(color, target, mask, l1_weights=None if weights is None else weights.to(color.dtype))
        loss.total.backward()
    return loss


def check_adam(device: str) -> None:
    random = torch.Generator().manual_seed(6)
    tables = [torch.randn(1001, 3, generator=random) * scale for scale in (1.0, 1e-4, 1e-5, 1e-9)]
    tables[3] = tables[3].square()
    ours = [table.clone().to(device) for table in tables]
    exact = [table.double() for table in tables]
    for step in (1, 2, 7):
        settings = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.999, "eps": 1e-15, "step": step}
        ops.adam_step(*ours, **settings)
        adam_step(*exact, **settings)
    for mine, theirs, what in zip(ours, exact, ("param", "grad", "m", "v"), strict=True):
        far = (mine.cpu().double() - theirs).abs() > 2e-6 * theirs.abs() + 2e-7 * theirs.abs().max()
        assert not far.any(), f"{what}: {int(far.sum())} of {far.numel()} differ"


def check_update_in_place(device: str) -> None:
    """Adam inside the backward pass: as gradients followed by Adam, for drawn and undrawn rows; sh_rest rests at 0."""
    for degree, filter2d in ((0, "classic"), (1, "classic"), (1, "analytic")):
        scene = build(replace(_crowded_case(device), degree=1, features=0, views=1))
        names = ("means", "quats", "log_scales", "logit_opacities", "sh0", "sh_rest")
        camera = CameraBatch(scene.cameras.camera_from_world.float(), scene.cameras.K.float(), *_size(scene))
        options = RenderOptions(
            sh_degree=degree, near=scene.options.near, filter2d=filter2d, stats=frozenset({"grad2d", "visible"})
        )
        ends, stats = [], []
        for fused in (False, True):
            rows = {n: getattr(scene.inputs, n).float().to(device).clone().requires_grad_(True) for n in names}
            model = SplatModel(GaussianPrimitive(), rows, 1)
            adam = SplatAdam(model.primitive.fields(1))
            adam.start(model)
            rates = dict.fromkeys(names, 1e-2)
            for _ in range(3):
                update = adam.planned(rates) if fused else None
                output = NativeRasterizer().render(model.render_inputs(), camera, options, update=update)
                (output.color - 0.3).square().sum().backward()
                if fused:
                    assert all(table.grad is None for table in rows.values())
                    assert update.taken == frozenset(names) - (frozenset() if degree else {"sh_rest"})
                    adam.committed(update)
                adam.step(model, rates)
            stats.append(output.stats.grad2d.cpu())
            ends.append({n: t.detach().cpu() for n, t in rows.items()} | adam.state_tensors())
        for name in ends[0]:
            expected, found = (end[name].cpu().double().nan_to_num() for end in ends)
            far = (found - expected).abs() > 1e-5 * expected.abs() + 1e-5
            assert far.sum() <= 1e-3 * far.numel(), f"{name}, {filter2d}, degree {degree}: {int(far.sum())} differ"
        assert torch.allclose(stats[0], stats[1], rtol=1e-4, atol=1e-5 * float(stats[0].max()))


def check_knn(device: str) -> None:
    points = torch.randn(700, 3, generator=torch.Generator().manual_seed(7))
    squared = (points.double()[:, None] - points.double()).square().sum(2).fill_diagonal_(float("inf"))
    expected = squared.topk(3, dim=1, largest=False).values.mean(1)
    found = ops.knn_mean_sq_dist(points.to(device)).cpu().double()
    assert torch.allclose(found, expected, rtol=1e-5, atol=0)


def check_morton(device: str) -> None:
    """A permutation along which neighbours are near, equal to that of the CPU."""
    means = torch.randn(3000, 3, generator=torch.Generator().manual_seed(8))
    order = ops.morton_order(means.to(device)).cpu()
    with emulated_cuda(None):
        assert torch.equal(order, ops.morton_order(means))
    assert torch.equal(order.sort().values, torch.arange(len(means)))
    jumps = means[order].diff(dim=0).norm(dim=1).mean()
    assert jumps < 0.25 * means.diff(dim=0).norm(dim=1).mean()


def check_training(device: str, *, steps: int, count: int, size: tuple[int, int]) -> tuple[float, float]:
    """The same small training on the CPU and on ``device``: PSNR of both, which must be within 0.05 dB."""
    with emulated_cuda(None):
        on_cpu = fitted_psnr("cpu", steps=steps, count=count, size=size)
    on_gpu = fitted_psnr(device, steps=steps, count=count, size=size)
    assert abs(on_cpu - on_gpu) <= 0.05, f"PSNR {on_cpu:.3f} on the CPU, {on_gpu:.3f} on {device}"
    return on_cpu, on_gpu


def _crowded_case(device: str) -> Case:
    return CROWDED if device == "cuda" else FEWER


def _crowded(device: str) -> SceneTensors:
    return build(_crowded_case(device))


def _size(scene: SceneTensors) -> tuple[int, int]:
    return scene.cameras.width, scene.cameras.height


def _drawn(scene: SceneTensors, device: str, rasterizer: NativeRasterizer | None = None) -> dict[str, Tensor]:
    """Everything drawn and every gradient."""
    assert backend_of(device).is_cuda
    cotangents = random_cotangents(scene)
    return everything(draw(rasterizer or NativeRasterizer(), scene, torch.float32, cotangents, device=device))


def assert_same_bits(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for key, value in actual.items():
        assert same_bits(value, expected[key]), f"{key} differs"


CHECKS = (
    check_same_bits, check_replay, check_huge, check_zero_splats, check_refusals, check_photometric, check_adam,
    check_update_in_place, check_knn, check_morton,
)  # fmt: skip
"""Those that take nothing but a device."""
