"""The reference against finite differences and against loops written out by hand."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from helpers_render import ALL_STATS, Case, build, draw, random_cotangents
from torch import Tensor

from splat.errors import UserError
from splat.model.render_inputs import RenderInputs
from splat.render.reference import ReferenceRasterizer
from splat.render.reference_footprints import REFERENCE_FOOTPRINTS
from splat.render.reference_projection import View
from splat.render.types import RenderOptions


def tiny_scene(filter2d: str, *, filter3d: bool, opaque: float = 0.0, grow: float = 0.8):
    """Six splats that reach every branch that has a gradient."""
    scene = build(Case(size=(7, 6), count=6, filter2d=filter2d, filter3d=filter3d, features=2, off_center=True,
                       opaque=opaque, seed=31))  # fmt: skip
    rows = {f.name: getattr(scene.inputs, f.name) for f in fields(scene.inputs)}
    rows["means"][:, :2] *= 0.5
    rows["log_scales"] += grow
    rows["means"][0, 0], rows["log_scales"][0] = 5.5, 0.4  # Jacobian clamped in x
    rows["means"][1, 1], rows["log_scales"][1] = -5.0, 0.4  # and in y
    rows["log_scales"][2] = -8.0  # compensation at its floor
    rows["sh0"][3] = torch.tensor([-9.0, 0.3, 0.2])  # colour clamped at 0
    return replace(scene, options=replace(scene.options, stats=frozenset()))


def weighted_pictures(scene, rasterizer: ReferenceRasterizer, names: tuple[str, ...]):
    """A scalar function of all differentiable tensors, and those tensors."""
    cotangents = random_cotangents(scene)
    pictures = [n for n in ("color", "alpha", "depth_expected", "features") if n in names]
    keys = [f.name for f in fields(scene.inputs) if isinstance(getattr(scene.inputs, f.name), Tensor)]
    keys.remove("filter3d") if "filter3d" in keys else None

    def loss(poses: Tensor, background: Tensor, *values: Tensor) -> Tensor:
        output = rasterizer.render(
            replace(scene.inputs, **dict(zip(keys, values, strict=True))),
            replace(scene.cameras, camera_from_world=poses), replace(scene.options, background=background),
        )  # fmt: skip
        return sum((getattr(output, name) * cotangents[name]).sum() for name in pictures)

    tensors = [scene.cameras.camera_from_world, scene.options.background, *(getattr(scene.inputs, k) for k in keys)]
    return loss, [t.clone().requires_grad_() for t in tensors]


@pytest.mark.parametrize(
    ("filter2d", "filter3d"), [("classic", False), ("classic", True), ("aa", False), ("mip", True)]
)
def test_gradients_equal_finite_differences_without_thresholds(filter2d: str, filter3d: bool) -> None:
    scene = tiny_scene(filter2d, filter3d=filter3d)
    loss, tensors = weighted_pictures(
        scene, ReferenceRasterizer(smooth=True), ("color", "alpha", "depth_expected", "features")
    )
    assert torch.autograd.gradcheck(loss, tensors, eps=1e-6, atol=1e-6, rtol=1e-6, nondet_tol=0)
    gradients = torch.autograd.grad(loss(*tensors), tensors)
    assert all(gradient.abs().max() > 1e-6 for gradient in gradients), "a gradient of zeros tests nothing"


def test_gradients_equal_finite_differences_with_thresholds() -> None:
    """Between thresholds the real picture is smooth too; here with clamped fragments and rays that end early."""
    scene = tiny_scene("classic", filter3d=False, opaque=8.0, grow=2.0)
    scene.inputs.log_scales[3:] += torch.tensor([[0.0], [1.0], [2.0]])
    exact = ReferenceRasterizer()
    view = View(scene.cameras.camera_from_world[0], scene.cameras.K[0], 7, 6)
    _, _, splats = exact.screen_splats(scene.inputs, view, scene.options)
    pixels = torch.tensor([[x + 0.5, y + 0.5] for y in range(6) for x in range(7)]).double()
    chunk = exact.fragments(REFERENCE_FOOTPRINTS["gaussian"], splats, pixels)
    stopped = ~chunk.live & (chunk.opacities * chunk.response >= 1 / 255)
    assert chunk.clamped.any() and stopped.any() and (~chunk.live & ~stopped).any()
    loss, tensors = weighted_pictures(scene, exact, ("color", "alpha", "depth_expected", "features"))
    assert torch.autograd.gradcheck(loss, tensors, eps=1e-7, atol=1e-5, rtol=1e-5)


def test_one_pixel_by_hand() -> None:
    """Compositing as a loop over scalars, straight from the definition."""
    scene = build(Case(size=(9, 8), count=40, hostile=True, opaque=4.0, features=2, seed=5))
    scene.inputs.log_scales[24:] += 1.0
    drawn = draw(ReferenceRasterizer(), scene, torch.float64)
    out = drawn.output
    view = View(scene.cameras.camera_from_world[0], scene.cameras.K[0], 9, 8)
    rows, _, splats = ReferenceRasterizer().screen_splats(scene.inputs, view, scene.options)
    assert len(rows) > 20
    ended = 0
    for row, column in [(0, 0), (3, 4), (5, 2), (7, 8), (4, 5), (2, 7)]:
        light, blended = [0.0] * 3, [0.0] * 2
        left, depth, median, best, best_id = 1.0, 0.0, 0.0, 0.0, -1
        for i in range(len(rows)):
            dx, dy = column + 0.5 - splats.means2d[i, 0].item(), row + 0.5 - splats.means2d[i, 1].item()
            a, b, c = splats.conics[i].tolist()
            alpha = min(0.99, splats.opacities[i].item() * math.exp(-(a * dx * dx + 2 * b * dx * dy + c * dy * dy) / 2))
            if alpha < 1 / 255:
                continue
            after = left * (1 - alpha)
            if after < 1e-4:
                ended += 1
                break
            light = [s + alpha * left * v for s, v in zip(light, splats.colors[i].tolist(), strict=True)]
            feature = scene.inputs.features[rows[i]].tolist()
            blended = [s + alpha * left * v for s, v in zip(blended, feature, strict=True)]
            depth += alpha * left * splats.depths[i].item()
            if left > 0.5 >= after:
                median = splats.depths[i].item()
            if alpha * left > best:
                best, best_id = alpha * left, int(rows[i])
            left = after
        light = [s + left * v for s, v in zip(light, scene.options.background.tolist(), strict=True)]
        at = (0, row, column)
        assert out.color[at].tolist() == pytest.approx(light, rel=1e-12)
        assert out.features[at].tolist() == pytest.approx(blended, rel=1e-12)
        assert out.alpha[at].item() == pytest.approx(1 - left, rel=1e-12)
        assert out.depth_expected[at].item() == pytest.approx(depth, rel=1e-12)
        assert out.depth_median[at].item() == median
        assert out.top_id[at].item() == best_id
    assert ended, "no ray of this scene ends early; choose another"


def test_statistics_by_hand() -> None:
    """Every statistic from the closed-form gradients of 3DGS, with loops over views, pixels and splats."""
    scene = build(Case(size=(8, 7), count=30, hostile=True, views=2, opaque=1.0, background="each", seed=9))
    cotangents = random_cotangents(scene)
    cotangents = {k: v if k == "color" else torch.zeros_like(v) for k, v in cotangents.items()}
    stats = draw(ReferenceRasterizer(), scene, torch.float64, cotangents).output.stats
    expected = {name: torch.zeros_like(getattr(stats, name), dtype=torch.float64) for name in ALL_STATS}
    for view in range(2):
        _add_view_by_hand(expected, scene, view, cotangents["color"][view])
    for name in sorted(ALL_STATS):
        torch.testing.assert_close(
            getattr(stats, name).double(), expected[name], rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert stats.fragments.sum() > 100 and stats.abs_grad2d_l2.max() > 0


def _add_view_by_hand(expected: dict[str, Tensor], scene, index: int, cotangent: Tensor) -> None:
    width, height = scene.cameras.width, scene.cameras.height
    view = View(scene.cameras.camera_from_world[index], scene.cameras.K[index], width, height)
    rows, visible, splats = ReferenceRasterizer().screen_splats(scene.inputs, view, scene.options)
    background, weights = scene.options.background[index], scene.options.pixel_weights[index]
    expected["visible"][index] = visible.double()
    expected["radii_px"][index, rows], expected["depths"][index, rows] = splats.radii_px, splats.depths
    count = scene.inputs.count
    center, absolute, color = (torch.zeros(count, k, dtype=torch.float64) for k in (2, 2, 3))
    for y in range(height):
        for x in range(width):
            hits = _ray_by_hand(splats, rows, x + 0.5, y + 0.5)
            left = math.prod(1 - h["alpha"] for h in hits)
            behind = left * background
            best = max((h["alpha"] * h["T"] for h in hits), default=0.0)
            taken = False
            for h in reversed(hits):  # back to front: ``behind`` is what the splat hides
                h["by_alpha"] = h["T"] * h["color"] - behind / (1 - h["alpha"])
                behind = behind + h["alpha"] * h["T"] * h["color"]
            for h in hits:
                at, blend, w = (index, h["row"]), h["alpha"] * h["T"], weights[:, y, x]
                opacity_grad = (h["by_alpha"] @ cotangent[y, x]).item() * h["G"] * h["free"]
                # alpha = o exp(-q/2), so dL/d mean = (dL/do o) Q d; then NDC units.
                by_mean = opacity_grad * h["o"] * (h["Q"] @ h["d"]) * torch.tensor([width / 2, height / 2]).double()
                center[h["row"]] += by_mean
                absolute[h["row"]] += by_mean.abs()
                color[h["row"]] += blend * cotangent[y, x]
                sums = {
                    "fragments": 1, "blend_sum": blend, "center_dist": h["d"].norm(), "opacity_grad_sum": opacity_grad,
                    "opacity_grad_sq": opacity_grad**2, "texgrad": w[0] * by_mean.norm(),
                    "abs_grad2d_l2": 2 * by_mean.norm() / max(1 - left, 1e-5),
                    "sensitivity": (h["by_alpha"] * h["o"] * h["free"]).square().sum(),
                    "max_contrib": float(blend == best and not taken),
                }  # fmt: skip
                taken = taken or blend == best
                for name, value in sums.items():
                    expected[name][at] += value
                expected["blend_max"][at] = max(expected["blend_max"][at].item(), blend)
                expected["weighted_count"][index, :, h["row"]] += w
                expected["weighted_blend"][index, :, h["row"]] += w * blend
    expected["grad2d"][index], expected["abs_grad2d"][index] = center.norm(dim=1), absolute.norm(dim=1)
    expected["color_grad"][index] = color.norm(dim=1)


def _ray_by_hand(splats, rows: Tensor, x: float, y: float) -> list[dict]:
    hits, left = [], 1.0
    for i, row in enumerate(rows.tolist()):
        d = torch.tensor([x, y]).double() - splats.means2d[i]
        a, b, c = splats.conics[i].tolist()
        Q = torch.tensor([[a, b], [b, c]], dtype=torch.float64)
        o, G = splats.opacities[i].item(), math.exp(-0.5 * (d @ Q @ d).item())
        alpha = min(0.99, o * G)
        if alpha < 1 / 255:
            continue
        if left * (1 - alpha) < 1e-4:
            break
        hits.append({"row": row, "alpha": alpha, "T": left, "d": d, "Q": Q, "o": o, "G": G,
                     "free": float(o * G <= 0.99), "color": splats.colors[i]})  # fmt: skip
        left *= 1 - alpha
    return hits


def test_median_depth_follows_its_splat() -> None:
    scene = build(Case(size=(9, 8), count=12, opaque=4.0, seed=3))
    scene = replace(scene, inputs=replace(scene.inputs, log_scales=scene.inputs.log_scales + 1.0))
    means = scene.inputs.means.clone().requires_grad_()
    output = ReferenceRasterizer().render(replace(scene.inputs, means=means), scene.cameras, scene.options)
    output.depth_median.sum().backward()
    rotation = scene.cameras.camera_from_world[0, :3, :3]
    uses = means.grad @ rotation[2]  # how many pixels each splat is the median of
    assert uses.sum().item() == pytest.approx(int((output.depth_median > 0).sum()))
    torch.testing.assert_close(means.grad, uses.round()[:, None] * rotation[2], rtol=1e-12, atol=1e-12)


def test_statistics_that_nobody_asks_for_stay_empty() -> None:
    scene = build(Case(size=(9, 8), count=5))
    scene = replace(scene, options=RenderOptions(stats=frozenset({"visible", "grad2d"})))
    means = scene.inputs.means.clone().requires_grad_()
    output = ReferenceRasterizer().render(replace(scene.inputs, means=means), scene.cameras, scene.options)
    assert [f.name for f in fields(output.stats) if getattr(output.stats, f.name) is not None] == ["visible"]
    assert (output.depth_expected, output.depth_median, output.top_id, output.features) == (None,) * 4
    output.color.sum().backward()
    assert output.stats.grad2d.shape == (1, 5)
    assert output.stats.abs_grad2d is None


@pytest.mark.parametrize(("change", "words"), [
    ({"stats": frozenset({"grad3d"})}, "grad3d"), ({"filter2d": "box"}, "classic"),
    ({"stats": frozenset({"texgrad"})}, "pixel_weights"),
])  # fmt: skip
def test_what_it_cannot_draw_is_refused_by_name(change: dict, words: str) -> None:
    scene = build(Case(size=(4, 4), count=1))
    with pytest.raises(UserError, match=words):
        ReferenceRasterizer().render(scene.inputs, scene.cameras, RenderOptions(**change))
    odd: RenderInputs = replace(scene.inputs, kind="surfel")
    assert "surfel" in ReferenceRasterizer().supports(odd, RenderOptions(), torch.device("cpu"))
