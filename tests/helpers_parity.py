"""One comparison for every backend of the native rasterizer: scenes with everything asked for, and the reference."""

from __future__ import annotations

from dataclasses import fields

import torch
from helpers_render import (
    Case,
    Drawn,
    assert_close,
    assert_same_backward_stats,
    assert_same_forward_stats,
    assert_same_images,
    build,
    doubts,
    draw,
    random_cotangents,
)

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
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
STRAY = {torch.float64: 0.0, torch.float32: 0.005}
"""Fraction of gradient elements that may miss the tolerance by a factor of five."""
MARGIN = {torch.float64: 1e-9, torch.float32: 1e-4}
"""How near to a threshold a value of this precision may fall to either side."""


def compare(rasterizer, case: Case, dtype: torch.dtype, *, device: str = "cpu", tolerance: float | None = None) -> None:
    """Every picture, gradient and statistic of ``rasterizer`` on ``device`` against the float64 reference."""
    scene = build(case)
    doubt = doubts(scene, margin=MARGIN[dtype])
    assert doubt.pixels.double().mean() < 0.5, "nearly every pixel of this scene is at a threshold; it tests nothing"
    cotangents = random_cotangents(scene, doubt=doubt)
    expected = draw(ReferenceRasterizer(), scene, torch.float64, cotangents)
    actual = draw(rasterizer, scene, dtype, cotangents, device=device)
    rtol, stray = TOLERANCE[dtype] if tolerance is None else tolerance, STRAY[dtype]
    assert actual.output.color.dtype == dtype
    assert_same_images(actual.output, expected.output, doubt, rtol)
    assert_same_forward_stats(actual.output.stats, expected.output.stats, doubt, 3 * rtol, max(case.size))
    assert set(actual.gradients) == set(expected.gradients)
    # Deep in a ray, dL/dalpha is a small difference of sums of the size of a pixel: a few roundings of that are free.
    floor = 4 * torch.finfo(dtype).eps * max(float(c.abs().max()) for c in cotangents.values())
    for name, gradient in expected.gradients.items():
        assert_close(actual.gradients[name], gradient, rtol, f"gradient of {name}", stray=stray, floor=floor)
    in_ndc = floor * max(case.size)
    assert_same_backward_stats(actual.output.stats, expected.output.stats, rtol, stray=stray, floor=in_ndc)


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
