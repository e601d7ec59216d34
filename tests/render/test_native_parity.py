"""The native rasterizer against the reference: every picture, every gradient, every statistic."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
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
    native_rasterizer,
    random_cotangents,
)

from splat.model.render_inputs import RenderInputs
from splat.render.reference import ReferenceRasterizer
from splat.render.types import CameraBatch, RenderOptions, RenderOutput

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

precisions = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


@precisions
@pytest.mark.parametrize("case", CASES, ids=str)
def test_pictures_gradients_and_statistics_equal_the_reference(case: Case, dtype: torch.dtype) -> None:
    compare(native_rasterizer(), case, dtype)


@precisions
@pytest.mark.parametrize("case", CASES[12:15], ids=str)
def test_every_instruction_set_of_this_machine(case: Case, dtype: torch.dtype) -> None:
    rasterizer = native_rasterizer()
    from splat.native import ops

    before = ops.info()["isa"]
    try:
        for isa in str(ops.info()["isas"]).split():
            ops.set_isa(isa)
            assert ops.info()["isa"] == isa
            compare(rasterizer, case, dtype)
    finally:
        ops.set_isa(before)


@pytest.mark.parametrize("case", CASES[12:15], ids=str)
def test_the_comparison_itself_passes_for_the_reference_in_float32(case: Case) -> None:
    """So the tolerances ask of the native float32 path what plain float32 arithmetic can do."""
    compare(ReferenceRasterizer(), case, torch.float32)


def compare(rasterizer, case: Case, dtype: torch.dtype) -> None:
    scene = build(case)
    doubt = doubts(scene, margin=MARGIN[dtype])
    assert doubt.pixels.double().mean() < 0.5, "nearly every pixel of this scene is at a threshold; it tests nothing"
    cotangents = random_cotangents(scene, doubt=doubt)
    expected = draw(ReferenceRasterizer(), scene, torch.float64, cotangents)
    actual = draw(rasterizer, scene, dtype, cotangents)
    rtol, stray = TOLERANCE[dtype], STRAY[dtype]
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


@pytest.mark.parametrize("case", CASES[12:15], ids=str)
def test_a_picture_from_slightly_moved_splats_fails_the_comparison(case: Case) -> None:
    """The comparison is worth something: an error of 1e-4 is found."""
    with pytest.raises(AssertionError, match="expected"):
        compare(_Moved(), case, torch.float32)


class _Moved:
    """The reference, a hair off."""

    def render(self, inputs: RenderInputs, cameras: CameraBatch, options: RenderOptions) -> RenderOutput:
        return ReferenceRasterizer().render(replace(inputs, means=inputs.means * 1.0001), cameras, options)


@pytest.mark.parametrize("name", ["native", "reference"])
def test_float32_flips_at_thresholds_are_few_and_to_both_sides(name: str) -> None:
    subject = native_rasterizer() if name == "native" else ReferenceRasterizer()
    total = flips = drift = 0
    for seed in range(6):
        scene = build(Case(size=(64, 48), count=200, degree=0, opaque=2.0, seed=100 + seed))
        scene = replace(scene, options=replace(scene.options, stats=frozenset({"fragments"})))
        exact = draw(ReferenceRasterizer(), scene, torch.float64).output.stats.fragments.long()
        found = draw(subject, scene, torch.float32).output.stats.fragments.long()
        total += int(exact.sum())
        flips += int((found - exact).abs().sum())
        drift += int((found - exact).sum())
    assert total > 100_000
    assert flips <= 1e-4 * total
    assert abs(drift) <= 3 * flips**0.5 + 1


@precisions
def test_the_same_bits_from_one_two_and_four_threads(dtype: torch.dtype) -> None:
    rasterizer = native_rasterizer()
    from splat.native import ops

    scene = build(Case(size=(64, 48), count=400, degree=3, hostile=True, features=3, views=2, seed=21))
    cotangents = random_cotangents(scene)
    before = ops.info()["threads"]
    runs = []
    try:
        for threads in (1, 2, 4, 4):
            ops.set_threads(threads)
            runs.append(everything(draw(rasterizer, scene, dtype, cotangents)))
    finally:
        ops.set_threads(before)
    for run in runs[1:]:
        assert run.keys() == runs[0].keys()
        for key, value in run.items():
            assert same_bits(value, runs[0][key]), f"{key} depends on the number of threads"


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
