"""A comparison of pictures that knows where they may jump.

A picture is smooth in its parameters except where a fragment meets a threshold: alpha = 1/255, alpha = 0.99,
T = 1e-4, T = 0.5 (median depth), equal blend weights (top id), equal depths (order). ``doubts`` finds those places
with the float64 reference. Away from them another precision must agree tightly; at them it may flip, but only
there, seldom, and to both sides alike.
"""

from __future__ import annotations

from dataclasses import fields

import torch
from helpers_render import IMAGES, Doubt, SceneTensors
from torch import Tensor

from splat.render.reference import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN, ReferenceRasterizer
from splat.render.reference_convex import ConvexSplats, line_functions
from splat.render.reference_footprints import footprint_of
from splat.render.reference_projection import View
from splat.render.reference_stats import Fragments
from splat.render.types import BACKWARD_STATS, RenderOutput, SplatStats

HARD = 200.0
"""Relative change of alpha per relative change of a line function's terms."""
ROOM, ROOM_PX = 1e-3, 5e-3
"""What a box may be wider than need be, relative and in px."""


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
    footprint = footprint_of(scene.inputs, scene.options)
    raw = exact.fragments(footprint, splats, pixels)
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
    if scene.inputs.kind == "convex":
        open_ |= _convex_doubts(splats, raw, margin)
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
    # The exact box of what is as faint as that hangs on a difference, or is empty.
    faint = 2.5 * ALPHA_MIN if scene.inputs.kind == "convex" else 0.0
    border[rows] = at_edge | near(splats.opacities, ALPHA_MIN) | (splats.opacities < faint)
    shape = (view.height, view.width)
    return {
        "pixels": doubtful.reshape(shape), "median": near(after, 0.5).any(1).reshape(shape), "top": top.reshape(shape),
        "per_splat": count, "border": border,
    }  # fmt: skip


def _convex_doubts(splats: ConvexSplats, raw: Fragments, margin: float) -> Tensor:  # [P,n]
    """Where a hull has three corners nearly in line, a point is at the end of its skirt, or a border is so hard that
    the rounding of a line function (the terms' last digit) shows."""
    values = line_functions(splats, *raw.offsets).masked_fill(~splats.is_edge, -torch.inf)
    top, at = values.max(2, keepdim=True)
    n_x, n_y, e = splats.lines.abs().unbind(2)
    terms = n_x * raw.offsets[0][..., None].abs() + n_y * raw.offsets[1][..., None].abs() + e
    slope = splats.sharpness * splats.steepness * (1 - raw.response) * terms.gather(2, at)[..., 0]
    top = top[..., 0]
    start = splats.outline[:, :, None, None]
    u, v = splats.outline[:, None, :, None] - start, splats.outline[:, None, None] - start  # [n,K,K,K,2]
    left, right = u[..., 0] * v[..., 1], u[..., 1] * v[..., 0]
    sizes = left.abs() + right.abs()
    unsure = ((left - right).abs() < 0.1 * margin * sizes) & ((left - right).abs() > 1e-12 * sizes)
    hard = (slope > HARD) & (raw.response > 1e-4)
    return ((top / splats.reach - 1).abs() < 10 * margin) | (unsure.flatten(1).any(1) & (top < splats.reach)) | hard


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


def assert_same_boxes(actual: SplatStats, expected: SplatStats, sure: Tensor, rtol: float, boxes: str) -> None:
    """For ``boxes`` see ``Case``."""
    # A narrower box may leave out what has no fragment.
    unseen = expected.visible & ~actual.visible & (expected.fragments == 0)
    sure = sure & ~unseen if boxes == "within" else sure
    assert torch.equal(actual.visible[sure], expected.visible[sure]), "visible"
    assert_close(actual.depths[sure], expected.depths[sure], rtol, "depths")
    mine, theirs = actual.radii_px[sure].double(), expected.radii_px[sure].double()
    if boxes != "equal":
        fits = mine <= theirs * (1 + ROOM) + ROOM_PX
        fits &= (mine > 0) | (theirs == 0) if boxes == "within" else mine >= theirs
        mine = torch.where(fits, theirs, mine)
    assert_close(mine, theirs, rtol, "radii_px")


def assert_same_forward_stats(
    actual: SplatStats, expected: SplatStats, doubt: Doubt, rtol: float, size: int, *, boxes: str = "equal"
) -> None:
    """Sums may differ by what the doubtful pixels under a splat can hold; ``size`` is the picture's longest way."""
    assert_same_boxes(actual, expected, ~doubt.border, rtol, boxes)
    per_pixel = {
        "fragments": 1.0, "max_contrib": 1.0, "weighted_count": 1.0, "center_dist": 2.0 * size,
        "blend_sum": 0.02, "weighted_blend": 0.02,
    }  # fmt: skip
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
        if theirs is None:  # not asked for
            continue
        assert mine is not None, f"{name} is missing after backward"
        assert_close(mine, theirs, rtol, name, stray=stray, floor=floor)
