"""Scenes for rasterizer tests, and a comparison that knows where a picture may jump.

A picture is smooth in its parameters except where a fragment meets a threshold: alpha = 1/255, alpha = 0.99,
T = 1e-4, T = 0.5 (median depth), equal blend weights (top id), equal depths (order). ``doubts`` finds those places
with the float64 reference. Away from them another precision must agree tightly; at them it may flip, but only
there, seldom, and to both sides alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from splat.model.render_inputs import RenderInputs
from splat.render.reference import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN, ReferenceRasterizer
from splat.render.reference_projection import View
from splat.render.types import (
    BACKWARD_STATS,
    FORWARD_STATS,
    CameraBatch,
    RenderOptions,
    RenderOutput,
    SplatStats,
)

NEAR = 0.2
IMAGES = ("color", "alpha", "depth_expected", "depth_median", "features")
ALL_STATS = FORWARD_STATS | BACKWARD_STATS


@dataclass(frozen=True)
class Case:
    """What a scene has in it; ``str`` is its name in the test list."""

    size: tuple[int, int] = (33, 40)  # width, height
    count: int = 60
    degree: int = 3
    filter2d: str = "classic"
    filter3d: bool = False
    views: int = 1
    background: str = "one"  # none, one, each
    features: int = 0
    off_center: bool = False
    hostile: bool = False
    """With rows behind the camera, at the near plane, off screen, huge, tiny, NaN, tied, and at the alpha limits."""
    opaque: float = 0.0
    """Added to the logits of the opacities: large values end rays early."""
    seed: int = 0

    def __str__(self) -> str:
        parts = [f"{self.size[0]}x{self.size[1]}", f"n{self.count}", f"sh{self.degree}", self.filter2d]
        parts += [word for word in ("filter3d", "off_center", "hostile") if getattr(self, word)]
        parts += [f"{self.views}views", f"bg-{self.background}", f"f{self.features}"]
        return "-".join(parts + (["opaque"] if self.opaque else []))


@dataclass(frozen=True, eq=False)
class SceneTensors:
    """Float64 tensors whose values float32 can hold, so that both precisions draw the same scene."""

    inputs: RenderInputs
    cameras: CameraBatch
    options: RenderOptions


@dataclass(frozen=True, eq=False)
class Drawn:
    """A rendering with everything asked for, and the gradients of a random linear loss."""

    output: RenderOutput
    gradients: dict[str, Tensor] = field(default_factory=dict)


def native_rasterizer():
    """The native rasterizer, which loads its library."""
    from splat.render.native_rasterizer import NativeRasterizer

    return NativeRasterizer()


def rounded(tensor: Tensor) -> Tensor:
    """Float64 with the values of float32."""
    return tensor.float().double()


def build(case: Case) -> SceneTensors:
    random = torch.Generator().manual_seed(1000 + case.seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    n, (width, height) = case.count, case.size
    rows = {
        "means": normal(n, 3) * torch.tensor([1.2, 1.2, 0.7], dtype=torch.float64) + torch.tensor([0.0, 0.0, 4.0]),
        "quats": normal(n, 4),
        "log_scales": normal(n, 3) * 0.5 - 2.0,
        "logit_opacities": normal(n) + case.opaque,
        "sh0": normal(n, 3),
        "sh_rest": normal(n, (case.degree + 1) ** 2 - 1, 3) * 0.2,
    }
    if case.features:
        rows["features"] = normal(n, case.features)
    if case.filter3d:
        rows["filter3d"] = torch.rand(n, generator=random, dtype=torch.float64) * 0.15
    if case.hostile:
        _make_hostile(rows)
    poses = torch.eye(4, dtype=torch.float64).repeat(case.views, 1, 1)
    poses[:, :3, :3] = torch.linalg.matrix_exp(_skew(normal(case.views, 3) * 0.1))
    poses[:, :3, 3] = normal(case.views, 3) * 0.2
    focal = 0.9 * max(width, height)
    center = (0.31 * width, 0.62 * height) if case.off_center else (width / 2, height / 2)
    K = torch.tensor([[focal, 0, center[0]], [0, 1.1 * focal, center[1]], [0, 0, 1]], dtype=torch.float64)
    cameras = CameraBatch(rounded(poses), rounded(K.repeat(case.views, 1, 1)), width, height)
    background = {"none": None, "one": normal(3), "each": normal(case.views, 3)}[case.background]
    options = RenderOptions(
        sh_degree=case.degree, filter2d=case.filter2d, near=NEAR, top_id=True,
        background=None if background is None else rounded(background.sigmoid()),
        depth=frozenset({"expected", "median"}), stats=ALL_STATS,
        pixel_weights=rounded(torch.rand(case.views, 3, height, width, generator=random, dtype=torch.float64)),
    )
    return SceneTensors(RenderInputs(**{k: rounded(v) for k, v in rows.items()}), cameras, options)


def _make_hostile(rows: dict[str, Tensor]) -> None:
    """Overwrite the first rows with what must not hurt the others. Needs at least 24 rows."""
    means, scales, logits = rows["means"], rows["log_scales"], rows["logit_opacities"]
    means[0, 2] = -3.0  # behind
    means[1, 2] = 0.0  # in the plane of the camera
    means[2] = torch.tensor([0.02, 0.01, 0.75])  # near, with poses that move up to 0.4
    means[3, :2] = torch.tensor([40.0, -3.0])  # far off screen: the Jacobian is clamped
    means[4, :2] = torch.tensor([4.5, 0.5])  # off screen but wide enough to reach in
    scales[4] = 0.3
    scales[5] = 2.0  # fills the screen
    means[5, 2] = 6.0
    scales[6] = -9.0  # far below a pixel
    scales[7] = torch.tensor([-9.0, -9.0, -0.5])  # a needle
    scales[8] = torch.tensor([-0.5, -0.7, -12.0])  # a flake
    means[9, 0] = torch.nan
    rows["quats"][10] = 0.0
    scales[11, 1] = torch.inf
    logits[12] = torch.nan
    rows["sh0"][13, 2] = torch.nan
    rows["quats"][14] = torch.tensor([torch.inf, 0.0, 0.0, 0.0])
    logits[15] = 9.0  # alpha clamps at 0.99
    logits[16] = 12.0
    scales[15:17] = -1.0
    faint = -torch.log(torch.tensor(254.0, dtype=torch.float64))  # sigmoid(faint) = 1/255
    logits[17], logits[18] = faint + 0.01, faint - 0.01
    for values in rows.values():  # rows 19-21 are one splat thrice: ties resolve by row
        values[20:22] = values[19].clone()
    rows["sh0"][20] += 1.0
    rows["sh0"][22] = -9.0  # colour clamps at 0
    rows["quats"][23] *= 1e-3


def _skew(v: Tensor) -> Tensor:  # [C,3] -> [C,3,3]
    x, y, z = v.unbind(1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)


def random_cotangents(scene: SceneTensors, *, seed: int = 7, doubt: Doubt | None = None) -> dict[str, Tensor]:
    """One random weight per picture value; 0 at doubtful pixels, so that no gradient comes from there."""
    random = torch.Generator().manual_seed(seed)
    views, shape = len(scene.cameras), (scene.cameras.height, scene.cameras.width)
    channels = {"color": (3,), "features": () if scene.inputs.features is None else scene.inputs.features.shape[1:]}
    cotangents = {}
    for name in IMAGES:
        weights = rounded(torch.randn(views, *shape, *channels.get(name, ()), generator=random, dtype=torch.float64))
        if doubt is not None:
            skip = doubt.pixels | doubt.median if name == "depth_median" else doubt.pixels
            weights = weights * (~skip).reshape(views, *shape, *([1] * (weights.ndim - 3)))
        cotangents[name] = weights
    return cotangents


def draw(
    rasterizer, scene: SceneTensors, dtype: torch.dtype, cotangents: dict[str, Tensor] | None = None,
    *, device: str = "cpu",
) -> Drawn:  # fmt: skip
    """Render a copy of the scene in ``dtype`` on ``device`` and, with ``cotangents``, run backward. What comes back
    is on the CPU."""
    leaves: dict[str, Tensor] = {}
    learn = cotangents is not None
    for each in fields(scene.inputs):
        value = getattr(scene.inputs, each.name)
        if isinstance(value, Tensor):
            leaves[each.name] = value.to(device, dtype).clone().requires_grad_(learn and each.name != "filter3d")
    poses = scene.cameras.camera_from_world.to(device, dtype).clone().requires_grad_(learn)
    weights = scene.options.pixel_weights
    options = replace(scene.options, pixel_weights=None if weights is None else weights.to(device, dtype))
    if options.background is not None:
        options = replace(options, background=options.background.to(device, dtype).clone().requires_grad_(learn))
    cameras = replace(scene.cameras, camera_from_world=poses, K=scene.cameras.K.to(device, dtype))
    output = rasterizer.render(RenderInputs(**leaves), cameras, options)
    if not learn:
        return Drawn(_on_cpu(output))
    leaves["camera_from_world"] = poses
    if options.background is not None:
        leaves["background"] = options.background
    pictures = {name: getattr(output, name) for name in IMAGES if getattr(output, name) is not None}
    loss = sum((picture * cotangents[name].to(device, dtype)).sum() for name, picture in pictures.items())
    if loss.requires_grad:
        loss.backward()
    gradients = {k: torch.zeros_like(v) if v.grad is None else v.grad for k, v in leaves.items() if v.requires_grad}
    return Drawn(_on_cpu(output), {name: gradient.cpu() for name, gradient in gradients.items()})


def _on_cpu(part):
    """A dataclass of tensors (and of such dataclasses) moved to the CPU."""
    values = {each.name: getattr(part, each.name) for each in fields(part)}
    moved = {k: v.cpu() if isinstance(v, Tensor) else _on_cpu(v) for k, v in values.items() if v is not None}
    return replace(part, **moved)


@dataclass(frozen=True, eq=False)
class Doubt:
    """Where a comparison must not be tight."""

    pixels: Tensor  # [C,H,W] bool: a fragment is at a cut, at the clamp, at the stop, or its order is open
    median: Tensor  # [C,H,W] bool: T is at 0.5 somewhere
    top: Tensor  # [C,H,W] bool: the two largest blend weights are alike
    per_splat: Tensor  # [C,N] doubtful pixels (of ``pixels`` or ``top``) under the splat
    border: Tensor  # [C,N] bool: the footprint's box just touches, or its opacity is just enough


@torch.no_grad()
def doubts(scene: SceneTensors, *, margin: float) -> Doubt:
    """Every place where a threshold is nearer than ``margin`` (relative), by the float64 reference."""
    views, width, height = len(scene.cameras), scene.cameras.width, scene.cameras.height
    collected = {each.name: [] for each in fields(Doubt)}
    for index in range(views):
        view = View(scene.cameras.camera_from_world[index], scene.cameras.K[index], width, height)
        found = _view_doubts(scene, view, margin)
        for name, value in found.items():
            collected[name].append(value)
    return Doubt(**{name: torch.stack(values) for name, values in collected.items()})


def _view_doubts(scene: SceneTensors, view: View, margin: float) -> dict[str, Tensor]:
    exact = ReferenceRasterizer()
    # "smooth" keeps the rows that are just too faint as well.
    rows, _, splats = ReferenceRasterizer(smooth=True).screen_splats(scene.inputs, view, scene.options)
    x, y = torch.arange(view.width) + 0.5, torch.arange(view.height) + 0.5
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2).double()
    raw = exact.fragments(splats, pixels)
    peak = raw.opacities * raw.response  # [P,n]
    after = raw.transmittance * (1 - raw.alphas)

    def near(values: Tensor, threshold: float, times: float = 1.0) -> Tensor:
        return (values / threshold - 1).abs() < margin * times

    bright = peak >= ALPHA_MIN * (1 - margin)
    alphas = peak.clamp(max=ALPHA_MAX) * bright
    unstopped = (1 - alphas).cumprod(1)
    reached = torch.cat([unstopped.new_ones(len(pixels), 1), unstopped], 1)[:, :-1] >= 0.9 * TRANSMITTANCE_MIN
    stopping = near(unstopped, TRANSMITTANCE_MIN, 10) & bright
    open_ = (near(peak, ALPHA_MIN) | near(peak, ALPHA_MAX) | stopping) & reached
    gap = splats.depths.diff()
    unsure = (gap > 0) & (gap < 4e-7 * splats.depths[1:]) if margin > 1e-6 else torch.zeros_like(gap, dtype=torch.bool)
    swapped = (bright[:, 1:] & bright[:, :-1] & unsure & reached[:, 1:]).any(1)
    doubtful = open_.any(1) | swapped
    blend = torch.cat([raw.alphas * raw.transmittance, torch.zeros(len(pixels), 2)], 1).topk(2, dim=1).values
    top = (blend[:, 0] > 0) & (blend[:, 0] - blend[:, 1] < margin * blend[:, 0])
    count = torch.zeros(scene.inputs.count, dtype=torch.long)
    count[rows] = (bright & (doubtful | top)[:, None]).sum(0)
    border = torch.zeros(scene.inputs.count, dtype=torch.bool)
    low, high = splats.means2d - splats.radii_px, splats.means2d + splats.radii_px
    last = splats.means2d.new_tensor([view.width - 0.5, view.height - 0.5])
    slack = 2e-3 + 100 * margin * splats.radii_px.amax(1)
    at_edge = torch.minimum((high - 0.5).abs(), (low - last).abs()).amin(1) < slack
    border[rows] = at_edge | near(splats.opacities, ALPHA_MIN)
    shape = (view.height, view.width)
    return {
        "pixels": doubtful.reshape(shape), "median": near(after, 0.5).any(1).reshape(shape), "top": top.reshape(shape),
        "per_splat": count, "border": border,
    }


def assert_close(
    actual: Tensor, expected: Tensor, rtol: float, what: str, *, stray: float = 0.0, floor: float = 0.0
) -> None:
    """Every element within ``rtol`` of itself plus ``rtol`` of the tensor's typical (root mean square) size.

    Errors up to ``floor`` (absolute) do not count.

    One element, or the fraction ``stray`` of all, may be up to five times as far off when ``stray`` is given:
    float32 loses a digit where large terms cancel.
    """
    assert actual.shape == expected.shape, f"{what}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    actual, expected = actual.detach().double(), expected.detach().double()
    if not expected.numel():
        return
    size = expected.square().mean().sqrt()
    excess = ((actual - expected).abs() - floor).nan_to_num(nan=float("inf")).clamp(min=0)
    error = excess / (expected.abs() + size).clamp(min=1e-300)
    far = int((error > rtol).sum())
    worst = error.argmax()
    at = tuple(int(i) for i in torch.unravel_index(worst, expected.shape))
    allowed = max(1, stray * error.numel()) if stray else 0
    assert far <= allowed and error[at] <= (5 * rtol if stray else rtol), (
        f"{what}{list(at)}: {actual[at].item():.9g}, expected {expected[at].item():.9g} (relative error "
        f"{error[at].item():.2e}; {far} of {error.numel()} elements above {rtol:.0e})"
    )


def assert_same_images(actual: RenderOutput, expected: RenderOutput, doubt: Doubt, rtol: float) -> None:
    """Tight away from doubtful pixels; there at most what one flipped fragment can do."""
    for name in IMAGES:
        mine, theirs = getattr(actual, name), getattr(expected, name)
        assert (mine is None) == (theirs is None), name
        if mine is None:
            continue
        sure = ~(doubt.pixels | doubt.median) if name == "depth_median" else ~doubt.pixels
        assert mine.shape == theirs.shape, name
        assert_close(mine[sure], theirs[sure], rtol, name)
        if name != "depth_median":
            # One fragment at the cut adds 1/255 of its value; one at the stop at most alpha * T <= 0.0099.
            jump = (mine - theirs).detach().double().abs()[~sure]
            assert (jump <= 0.03 * (1 + theirs.detach().abs().max())).all(), f"{name} jumps by {jump.max():.3g}"
    sure = ~(doubt.pixels | doubt.top)
    wrong = (actual.top_id != expected.top_id) & sure
    assert not wrong.any(), f"top_id differs at {wrong.nonzero().tolist()[:5]}"


def assert_same_forward_stats(actual: SplatStats, expected: SplatStats, doubt: Doubt, rtol: float, size: int) -> None:
    """Sums may differ by what the doubtful pixels under a splat can hold; ``size`` is the picture's longest way."""
    sure = ~doubt.border
    assert torch.equal(actual.visible[sure], expected.visible[sure]), "visible"
    for name in ("radii_px", "depths"):
        assert_close(getattr(actual, name)[sure], getattr(expected, name)[sure], rtol, name)
    per_pixel = {
        "fragments": 1.0, "max_contrib": 1.0, "weighted_count": 1.0, "center_dist": 2.0 * size,
        "blend_sum": 0.02, "weighted_blend": 0.02,
    }
    for name, bound in per_pixel.items():
        mine, theirs = getattr(actual, name).double(), getattr(expected, name).double()
        slack = doubt.per_splat * bound
        slack = slack[:, None].expand(mine.shape) if mine.ndim == 3 else slack
        excess = (mine - theirs).abs() - slack
        tight = rtol * (theirs.abs() + theirs.square().mean().sqrt())
        assert (excess <= tight).all(), f"{name}: off by {excess.max():.3g} more than the thresholds explain"
    certain = doubt.per_splat == 0
    for name in ("blend_max", "sensitivity"):
        mine, theirs = getattr(actual, name), getattr(expected, name)
        assert_close(mine[certain], theirs[certain], 10 * rtol, name)
        assert_close(mine, theirs, max(0.1, rtol), f"{name} (doubtful splats)")


def assert_same_backward_stats(
    actual: SplatStats, expected: SplatStats, rtol: float, *, stray: float, floor: float
) -> None:
    """For cotangents that are 0 at doubtful pixels."""
    for name in sorted(BACKWARD_STATS - {"sensitivity"}):
        mine, theirs = getattr(actual, name), getattr(expected, name)
        assert mine is not None, f"{name} is missing after backward"
        assert_close(mine, theirs, rtol, name, stray=stray, floor=floor)
