"""One comparison for every backend of the native rasterizer: scenes with everything asked for, and the reference."""

from __future__ import annotations

from dataclasses import fields

import torch
from helpers_compare import (
    assert_close,
    assert_same_backward_stats,
    assert_same_forward_stats,
    assert_same_images,
    doubts,
)
from helpers_render import Case, Drawn, build, draw, random_cotangents

from splat.render.reference import ReferenceRasterizer

CASES = (
    Case(size=(1, 1), count=1, degree=0),
    Case(size=(1, 1), count=60, degree=1, features=1, seed=1),
    Case(size=(17, 9), count=0, degree=2, background="none"),
    Case(size=(17, 9), count=0, degree=3, features=2, background="each", views=2),
    Case(size=(17, 9), count=5, degree=0, filter2d="aa", background="none", seed=2),
    Case(size=(17, 9), count=5, degree=1, filter2d="mip", filter3d=True, views=3, background="each", seed=3),
    Case(size=(17, 9), count=60, degree=2, off_center=True, features=3, seed=4),
    Case(size=(33, 40), count=1, degree=3, filter2d="mip", background="none", seed=5),
    Case(size=(33, 40), count=5, degree=3, filter2d="classic", filter3d=True, off_center=True, seed=6),
    Case(size=(33, 40), count=60, degree=0, filter2d="classic", features=5, views=2, background="each", seed=7),
    Case(size=(33, 40), count=60, degree=1, filter2d="aa", filter3d=True, off_center=True, seed=8),
    Case(size=(33, 40), count=60, degree=2, filter2d="mip", filter3d=True, background="none", opaque=3.0, seed=9),
    Case(size=(33, 40), count=60, degree=3, filter2d="classic", hostile=True, features=2, seed=10),
    Case(size=(33, 40), count=60, degree=3, filter2d="aa", hostile=True, off_center=True, views=2, seed=11),
    Case(size=(33, 40), count=60, degree=2, filter2d="mip", hostile=True, filter3d=True, background="none", seed=12),
    Case(size=(64, 48), count=60, degree=3, filter2d="aa", filter3d=True, features=17, seed=13),
    Case(size=(64, 48), count=400, degree=3, filter2d="classic", opaque=2.0, seed=14),
    Case(size=(64, 48), count=400, degree=1, filter2d="mip", hostile=True, filter3d=True, off_center=True, seed=15),
)
FOOTPRINT_CASES = (
    Case(kind="gef", size=(17, 9), count=0, degree=1, features=2, views=2, background="each"),
    Case(kind="gef", size=(1, 1), count=40, degree=0, filter2d="mip", seed=1),
    Case(kind="gef", size=(33, 40), count=60, degree=2, filter3d=True, views=2, background="each", seed=2),
    Case(kind="gef", size=(33, 40), count=60, degree=1, filter2d="aa", hostile=True, features=3, seed=3),
    Case(kind="gef", size=(33, 40), count=60, degree=3, filter2d="mip", filter3d=True, hostile=True, seed=4),
    Case(kind="gef", size=(64, 48), count=200, degree=0, filter2d="aa", opaque=2.0, off_center=True, seed=5),
    Case(filter2d="analytic", size=(17, 9), count=0, degree=1, views=2, background="none"),
    Case(filter2d="analytic", size=(1, 1), count=40, degree=0, seed=1),
    Case(filter2d="analytic", size=(33, 40), count=60, degree=2, filter3d=True, views=2, background="each", seed=12),
    Case(filter2d="analytic", size=(33, 40), count=60, degree=1, hostile=True, features=3, off_center=True, seed=13),
    Case(filter2d="analytic", size=(33, 40), degree=3, hostile=True, filter3d=True, background="none", seed=14),
    Case(filter2d="analytic", size=(64, 48), count=200, degree=0, opaque=2.0, seed=15),
    Case(kind="convex", size=(17, 9), count=0, degree=1, features=2, views=2, background="each"),
    Case(kind="convex", size=(1, 1), count=40, degree=0, vertices=5, seed=1),
    Case(kind="convex", size=(33, 40), count=60, degree=2, vertices=3, views=2, background="each", seed=22),
    Case(kind="convex", size=(33, 40), count=60, degree=1, hostile=True, features=3, focal=50.0, seed=23),
    Case(kind="convex", size=(33, 40), count=60, degree=3, hostile=True, vertices=8, background="none", seed=24),
    Case(kind="convex", size=(33, 40), count=60, degree=0, vertices=4, focal=25.0, off_center=True, seed=26),
    Case(kind="convex", size=(49, 33), count=130, degree=0, opaque=2.0, focal=30.0, seed=25),
)
"""Those of footprints other than the plain Gaussian."""
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
STRAY = {torch.float64: 0.0, torch.float32: 0.005}
"""Fraction of gradient elements that may miss the tolerance by a factor of five."""
MARGIN = {torch.float64: 1e-9, torch.float32: 1e-4}
"""How near to a threshold a value of this precision may fall to either side."""
FOOTPRINT_TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-5}
FOOTPRINT_GRADIENTS = {torch.float64: 1e-7, torch.float32: 1e-4}
CONVEX_GRADIENTS = {torch.float64: 1e-7, torch.float32: 2e-4}
"""A convex's centre is pulled to many sides by its edges, which nearly cancels."""


def compare(
    rasterizer, case: Case, dtype: torch.dtype,
    *, device: str = "cpu", tolerance: float | None = None, gradients: float | None = None,
) -> None:  # fmt: skip
    """Every picture, gradient and statistic of ``rasterizer`` on ``device`` against the float64 reference.

    ``tolerance`` replaces that of the precision; ``gradients`` is one for gradients and their statistics only.
    """
    scene = build(case)
    doubt = doubts(scene, margin=MARGIN[dtype])
    assert doubt.pixels.double().mean() < 0.5, "nearly every pixel of this scene is at a threshold; it tests nothing"
    cotangents = random_cotangents(scene, doubt=doubt)
    expected = draw(ReferenceRasterizer(), scene, torch.float64, cotangents)
    actual = draw(rasterizer, scene, dtype, cotangents, device=device)
    rtol, stray = TOLERANCE[dtype] if tolerance is None else tolerance, STRAY[dtype]
    assert actual.output.color.dtype == dtype
    assert_same_images(actual.output, expected.output, doubt, rtol)
    assert_same_forward_stats(
        actual.output.stats, expected.output.stats, doubt, 3 * rtol, max(case.size), boxes=case.boxes
    )
    assert set(actual.gradients) == set(expected.gradients)
    gradient_rtol = rtol if gradients is None else gradients
    # Deep in a ray, dL/dalpha is a small difference of sums of the size of a pixel: a few roundings of that are free.
    floor = 4 * torch.finfo(dtype).eps * max(float(c.abs().max()) for c in cotangents.values())
    for name, gradient in expected.gradients.items():
        assert_close(actual.gradients[name], gradient, gradient_rtol, f"gradient of {name}", stray=stray, floor=floor)
    in_ndc = floor * max(case.size)
    assert_same_backward_stats(actual.output.stats, expected.output.stats, gradient_rtol, stray=stray, floor=in_ndc)


def compare_footprint(rasterizer, case: Case, dtype: torch.dtype, *, device: str = "cpu") -> None:
    """As ``compare``, with the tolerances of ``FOOTPRINT_CASES``."""
    gradients = CONVEX_GRADIENTS if case.kind == "convex" else FOOTPRINT_GRADIENTS
    compare(rasterizer, case, dtype, device=device, tolerance=FOOTPRINT_TOLERANCE[dtype], gradients=gradients[dtype])


def everything(drawn: Drawn) -> dict[str, torch.Tensor]:
    """Every tensor of a drawing by name."""
    tensors = {f"gradient of {name}": value for name, value in drawn.gradients.items()}
    for part in (drawn.output, drawn.output.stats):
        for each in fields(part):
            value = getattr(part, each.name)
            if isinstance(value, torch.Tensor):
                tensors[each.name] = value.detach()
    return tensors


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
