"""The footprints of the reference: against finite differences, quadrature, and formulas written out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers_footprints import rows_of, with_rows
from helpers_render import Case, SceneTensors, build, draw, random_cotangents
from torch import Tensor

from splat.errors import UserError
from splat.render.reference import ReferenceRasterizer
from splat.render.reference_convex import hull_edges, polygon_box
from splat.render.reference_footprints import REFERENCE_FOOTPRINTS, footprint_of
from splat.render.reference_projection import View
from splat.render.types import RenderOptions

EWA = [("gef", "classic"), ("gef", "aa"), ("gef", "mip"), ("gaussian", "analytic")]
EVERY = [*EWA, ("convex", "classic")]


def tiny_scene(kind: str, filter2d: str) -> SceneTensors:
    """Six splats that reach the branches with a gradient."""
    scene = build(Case(size=(6, 5), count=6, degree=0, kind=kind, filter2d=filter2d, filter3d=filter2d == "mip",
                       features=1, off_center=True, focal=9.0, seed=32))  # fmt: skip
    rows = rows_of(scene.inputs)
    rows["means"][:, :2] *= 0.5
    if kind == "convex":
        rows["vertices"] *= 2.5
        rows["vertices"][1, 3] = rows["vertices"][1].mean(0)  # no edge ends here
    else:
        rows["log_scales"] += 0.8
        rows["means"][0, 0], rows["log_scales"][0] = 5.5, 0.4  # Jacobian clamped in x
        rows["log_scales"][2] = -8.0  # compensation or variances at their floor
    if kind == "gef":
        rows["shapes"][:] = torch.tensor([-1.5, -0.7, 0.0, 0.5, 1.0, 1.6])
    return replace(scene, options=replace(scene.options, stats=frozenset()))


@pytest.mark.parametrize(("kind", "filter2d"), EVERY)
def test_gradients_equal_finite_differences_without_thresholds(kind: str, filter2d: str) -> None:
    scene = tiny_scene(kind, filter2d)
    cotangents = random_cotangents(scene)
    names = [name for name in rows_of(scene.inputs) if name not in ("filter3d", "sh_rest")]

    def loss(poses: Tensor, background: Tensor, *values: Tensor) -> Tensor:
        output = ReferenceRasterizer(smooth=True).render(
            with_rows(scene.inputs, **dict(zip(names, values, strict=True))),
            replace(scene.cameras, camera_from_world=poses), replace(scene.options, background=background),
        )  # fmt: skip
        return sum((getattr(output, n) * cotangents[n]).sum() for n in ("color", "alpha", "depth_expected", "features"))

    tensors = [scene.cameras.camera_from_world, scene.options.background, *(rows_of(scene.inputs)[n] for n in names)]
    tensors = [t.clone().requires_grad_() for t in tensors]
    assert torch.autograd.gradcheck(loss, tensors, eps=1e-6, atol=2e-6, rtol=1e-6, nondet_tol=0)
    gradients = dict(zip(["pose", "background", *names], torch.autograd.grad(loss(*tensors), tensors), strict=True))
    assert all(gradient.abs().max() > 1e-6 for gradient in gradients.values()), "a gradient of zeros tests nothing"


def test_a_gef_of_shape_zero_is_the_gaussian() -> None:
    scene = build(Case(kind="gef", filter2d="aa", seed=3))
    scene.inputs.shape[0][:] = 0.0
    gaussian = replace(scene.inputs, kind="gaussian", shape=())
    options = replace(scene.options, stats=scene.options.stats - {"shape_grad"})
    mine, theirs = (draw(ReferenceRasterizer(), s, torch.float64) for s in (
        scene, replace(scene, inputs=gaussian, options=options),
    ))  # fmt: skip
    torch.testing.assert_close(mine.output.color, theirs.output.color, rtol=0, atol=2e-5)  # flat at the very centre
    torch.testing.assert_close(mine.output.stats.radii_px, theirs.output.stats.radii_px, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [-30.0, -1.0, 0.0, 0.7, 30.0])
def test_a_gef_by_hand(shape: float) -> None:
    """exp(-4.5 (q/9)^h), and exp(-4.5) at three deviations whatever the shape."""
    scene = build(Case(kind="gef", count=1, seed=8))
    scene.inputs.shape[0][:] = shape
    view = View(scene.cameras.camera_from_world[0], scene.cameras.K[0], 33, 40)
    splats = REFERENCE_FOOTPRINTS["gef"].project(scene.inputs, view, scene.options)
    covariance = torch.linalg.inv(splats.conics[0][[0, 1, 1, 2]].reshape(2, 2))
    offsets = torch.randn(40, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 4
    found = REFERENCE_FOOTPRINTS["gef"].response(splats, offsets[:, :1], offsets[:, 1:])[:, 0]
    power = 4 ** math.tanh(shape)
    for d, response in zip(offsets, found, strict=True):
        q = (d @ torch.linalg.inv(covariance) @ d).item()
        assert response.item() == pytest.approx(math.exp(-4.5 * max(q / 9, 1e-6) ** power), rel=1e-9)
    three = 3 * covariance[0, 0].sqrt()
    edge = REFERENCE_FOOTPRINTS["gef"].response(
        splats, three.reshape(1, 1), (three * covariance[0, 1] / covariance[0, 0])[None, None]
    )
    assert edge.item() == pytest.approx(math.exp(-4.5), rel=1e-9)


@pytest.mark.parametrize(("minor", "aspect"), [(0.1, 1.0), (0.3, 1.0), (0.3, 4.0), (1.0, 2.0), (0.2, 10.0)])
def test_the_analytic_footprint_is_the_integral_over_a_pixel(minor: float, aspect: float) -> None:
    """Against a midpoint rule with 200 x 200 points, where the ellipse's axes are the picture's."""
    splats, response = on_axis_splat(minor * aspect, minor)
    steps = (torch.arange(200, dtype=torch.float64) + 0.5) / 200 - 0.5
    random = torch.Generator().manual_seed(2)
    for d in torch.randn(20, 2, generator=random, dtype=torch.float64) * torch.tensor([1 + minor * aspect, 1 + minor]):
        gauss_x = torch.exp(-0.5 * ((d[0] + steps) / (minor * aspect)) ** 2).mean()
        gauss_y = torch.exp(-0.5 * ((d[1] + steps) / minor) ** 2).mean()
        found = response(splats, d[0].reshape(1, 1), d[1].reshape(1, 1)).item()
        assert found == pytest.approx((gauss_x * gauss_y).item(), abs=2.5e-3)


def on_axis_splat(sigma_x: float, sigma_y: float):
    """One splat in front of a camera, its deviations along the picture's axes given in px, and its response."""
    scene = build(Case(size=(20, 20), count=1, degree=0, filter2d="analytic"))
    fx, fy = scene.cameras.K[0, 0, 0].item(), scene.cameras.K[0, 1, 1].item()
    inputs = with_rows(
        scene.inputs, means=torch.tensor([[0.0, 0.0, 2.0]]).double(), quats=torch.tensor([[1.0, 0, 0, 0]]).double(),
        log_scales=torch.tensor([[math.log(2 * sigma_x / fx), math.log(2 * sigma_y / fy), -9.0]]).double(),
    )  # fmt: skip
    view = View(torch.eye(4, dtype=torch.float64), scene.cameras.K[0], 20, 20)
    return REFERENCE_FOOTPRINTS["analytic"].project(inputs, view, scene.options), REFERENCE_FOOTPRINTS[
        "analytic"
    ].response


@pytest.mark.parametrize("sigma", [0.1, 0.3, 1.0])
def test_the_analytic_footprint_keeps_the_energy(sigma: float) -> None:
    splats, response = on_axis_splat(sigma, sigma)
    grid = torch.arange(-30, 30, dtype=torch.float64) + 0.3
    x, y = torch.meshgrid(grid, grid, indexing="xy")
    total = response(splats, x.reshape(-1, 1), y.reshape(-1, 1)).sum().item()
    assert total == pytest.approx(2 * math.pi * sigma**2, rel=1e-6)


@pytest.mark.parametrize(("kind", "filter2d"), [*EVERY, ("gaussian", "mip")])
def test_no_point_outside_the_box_is_bright_and_the_box_is_not_much_too_large(kind: str, filter2d: str) -> None:
    scene = build(Case(size=(33, 40), count=40, kind=kind, filter2d=filter2d, opaque=1.0, focal=50.0, seed=17))
    scene.inputs.logit_opacities[:4] = torch.tensor([-5.2, -4.9, -4.4, 9.0])
    footprint = footprint_of(scene.inputs, scene.options)
    view = View(scene.cameras.camera_from_world[0], scene.cameras.K[0], 33, 40)
    _, _, splats = ReferenceRasterizer(smooth=True).screen_splats(scene.inputs, view, scene.options)
    count = len(splats.depths)
    assert count > 30
    steps = torch.linspace(-1.5, 1.5, 121, dtype=torch.float64)  # of the box
    x, y = torch.meshgrid(steps, steps, indexing="xy")
    dx, dy = x.reshape(-1, 1) * splats.radii_px[:, 0], y.reshape(-1, 1) * splats.radii_px[:, 1]
    bright = splats.opacities * footprint.response(splats, dx, dy) >= 1 / 255
    outside = ((x.abs() > 1) | (y.abs() > 1)).reshape(-1, 1)
    assert not (bright & (outside | (splats.radii_px < 0).any(1))).any()
    reached = torch.where(bright, torch.maximum(x.abs(), y.abs()).reshape(-1, 1), 0.0).amax(0)
    enough = splats.opacities > 0.03
    assert enough.sum() > 20
    # A turned pixel's box is that of the pixel that it may be, and two borders dim a corner.
    loose = filter2d == "analytic" or kind == "convex"
    assert (reached[enough] > (0.6 if loose else 0.9)).all() and reached[enough].median() >= (0.85 if loose else 0.95)


@pytest.mark.parametrize("count", [3, 4, 6, 8])
def test_hulls_of_points_are_those_of_a_walk_around_them(count: int) -> None:
    random = torch.Generator().manual_seed(count)
    points = torch.randint(0, 6, (200, count, 2), generator=random).double()  # collinear and repeated points abound
    points[100:] = torch.randn(100, count, 2, generator=random, dtype=torch.float64)
    lines, is_edge, doubled_area = hull_edges(points)
    flat = 0
    for row in range(200):
        corners = hull_by_walking(points[row].tolist())
        if len(corners) < 3:
            flat += 1
            assert int(is_edge[row].sum()) < 3 or doubled_area[row] == 0
            continue
        ring = list(zip(corners, corners[1:] + corners[:1], strict=True))
        expected = sorted((b[1] - a[1], a[0] - b[0], a[1] * b[0] - a[0] * b[1]) for a, b in ring)
        found = sorted(map(tuple, lines[row][is_edge[row]].tolist()))
        assert len(found) == len(expected)
        for mine, theirs in zip(found, expected, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-12)
        area = sum(a[0] * b[1] - a[1] * b[0] for a, b in ring)
        assert doubled_area[row].item() == pytest.approx(area) and area > 0
    assert flat < 100 and (flat > 0 or count > 4)


def hull_by_walking(points: list[list[float]]) -> list[tuple[float, float]]:
    """Corners counterclockwise from the lowest, by always turning least; collinear points are left out."""
    points = sorted({tuple(p) for p in points})
    corners = [points[0]]
    while len(points) > 1:
        a, best = corners[-1], None
        for p in points:
            if p == a:
                continue
            if best is not None:
                turn = (best[0] - a[0]) * (p[1] - a[1]) - (best[1] - a[1]) * (p[0] - a[0])
                farther = math.dist(a, p) > math.dist(a, best)
                if turn > 0 or (turn == 0 and not farther):
                    continue
            best = p
        if best == corners[0]:
            break
        corners.append(best)
    return corners


def test_the_box_of_a_shrunk_and_a_grown_square() -> None:
    square = torch.tensor([[[-2.0, -2.0], [2.0, -2.0], [2.0, 2.0], [-2.0, 2.0]]]).double().expand(4, -1, -1)
    lines, is_edge, _ = hull_edges(square)
    levels = torch.tensor([0.0, 4.0, -4.0, -9.0]).double()  # edges of length 4: by 1 px per 4
    boxes = polygon_box(lines, is_edge, levels)
    torch.testing.assert_close(boxes[:, 0], torch.tensor([2.0, 3.0, 1.0, -1.0]).double())
    torch.testing.assert_close(boxes[:, 1], boxes[:, 0])


def test_a_convex_by_hand() -> None:
    """A tetrahedron whose picture is a triangle, from the formulas of the paper written out."""
    scene = build(Case(size=(20, 20), count=1, degree=0, kind="convex", vertices=4, seed=1))
    offsets = torch.tensor([[[-1.0, -1, 0], [1, -1, 0], [0, 1.5, 0], [0, 0.1, 0.4]]], dtype=torch.float64)
    rows = {"means": torch.tensor([[0.1, 0.2, 4.0]], dtype=torch.float64), "vertices": offsets + 3.0,
            "log_deltas": torch.tensor([-4.0]).double(), "log_sigmas": torch.tensor([-1.5]).double()}  # fmt: skip
    inputs = replace(with_rows(scene.inputs, **rows), constants=(30.0, 0.0))
    cameras = replace(scene.cameras, camera_from_world=torch.eye(4, dtype=torch.float64)[None])
    K = cameras.K[0]
    fx, fy, cx, cy = (K[i].item() for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    pixels = []
    for offset in (offsets[0] - offsets[0].mean(0)).tolist():
        x, y, z = (m + o for m, o in zip((0.1, 0.2, 4.0), offset, strict=True))
        pixels.append((fx * x / z + cx, fy * y / z + cy))
    out = draw(ReferenceRasterizer(), replace(scene, inputs=inputs, cameras=cameras), torch.float64).output
    opacity = inputs.logit_opacities.sigmoid().item()
    for row, column in [(10, 10), (8, 12), (3, 10), (14, 8), (0, 19)]:
        values = []
        for a, b in ((0, 1), (1, 2), (2, 0)):  # counterclockwise with y up, as with y down in the formulas
            (ax, ay), (bx, by) = pixels[a], pixels[b]
            line = (by - ay) * (column + 0.5 - ax) - (bx - ax) * (row + 0.5 - ay)
            values.append(4.0 * math.exp(-4.0) * 30.0**2 / (fx * fy) * line)
        phi = math.log(sum(math.exp(v) for v in values))
        alpha = min(0.99, opacity / (1 + math.exp(4.0 * math.exp(-1.5) * phi)))
        assert out.alpha[0, row, column].item() == pytest.approx(alpha if alpha >= 1 / 255 else 0.0, rel=1e-9)
    assert out.alpha.max() > 0.2 and (out.alpha == 0).any()


def test_a_statistic_of_the_shape_is_its_gradient_per_view() -> None:
    for kind in ("gef", "convex"):
        scene = build(Case(size=(17, 9), count=20, degree=0, kind=kind, views=2, seed=5))
        cotangents = random_cotangents(scene)
        drawn = draw(ReferenceRasterizer(), scene, torch.float64, cotangents)
        last = {"gef": "shapes", "convex": "log_sigmas"}[kind]
        torch.testing.assert_close(drawn.output.stats.shape_grad.sum(0), drawn.gradients[last], rtol=1e-9, atol=1e-12)
        assert (drawn.output.stats.shape_grad.abs().amax(1) > 1e-4).all()


@pytest.mark.parametrize(("kind", "filter2d", "change", "words"), [
    ("convex", "mip", {}, "'convex' splats cannot be drawn with filter2d 'mip', only with: classic"),
    ("convex", "analytic", {}, "cannot be drawn with filter2d 'analytic'"),
    ("gef", "analytic", {}, "only with: classic, aa, mip"),
    ("convex", "classic", {"filter3d": torch.zeros(3)}, "3D filter"),
    ("convex", "classic", {"constants": (30.0, 1.0)}, "not the published ones"),
    ("gef", "classic", {"shape": ()}, "take 1 shape tables"),
    ("analytic", "analytic", {}, "no footprint 'analytic'"),
])  # fmt: skip
def test_what_it_cannot_draw_is_refused_with_a_sentence(kind: str, filter2d: str, change: dict, words: str) -> None:
    scene = build(Case(size=(4, 4), count=3, kind=kind if kind != "analytic" else "gaussian"))
    inputs = replace(scene.inputs, **{"kind": kind, **change})
    with pytest.raises((UserError, ValueError), match=words):
        ReferenceRasterizer().render(inputs, scene.cameras, RenderOptions(filter2d=filter2d))
