"""The native rasterizer against the reference: every picture, every gradient, every statistic."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers_parity import CASES, compare, everything, same_bits
from helpers_render import Case, build, draw, native_rasterizer, random_cotangents

from splat.model.render_inputs import RenderInputs
from splat.render.reference import ReferenceRasterizer
from splat.render.types import CameraBatch, RenderOptions, RenderOutput

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
