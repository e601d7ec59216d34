"""The native footprints against the reference: every picture, the gradient of every table, every statistic."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers_footprints import rows_of, with_rows
from helpers_parity import FOOTPRINT_CASES as CASES
from helpers_parity import compare_footprint as check
from helpers_parity import everything, same_bits
from helpers_render import Case, build, draw, native_rasterizer, random_cotangents

from splat.model.render_inputs import RenderInputs
from splat.render.reference import ReferenceRasterizer
from splat.render.types import CameraBatch, RenderOptions, RenderOutput

HOSTILE = tuple(case for case in CASES if case.hostile)
precisions = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])


@precisions
@pytest.mark.parametrize("case", CASES, ids=str)
def test_pictures_gradients_and_statistics_equal_the_reference(case: Case, dtype: torch.dtype) -> None:
    check(native_rasterizer(), case, dtype)


@pytest.mark.parametrize("case", HOSTILE, ids=str)
def test_every_instruction_set_of_this_machine(case: Case) -> None:
    rasterizer = native_rasterizer()
    from splat.native import ops

    before = ops.info()["isa"]
    try:
        for isa in str(ops.info()["isas"]).split():
            ops.set_isa(isa)
            check(rasterizer, case, torch.float32)
    finally:
        ops.set_isa(before)


@pytest.mark.parametrize("case", HOSTILE, ids=str)
def test_the_comparison_itself_passes_for_the_reference_in_float32(case: Case) -> None:
    check(ReferenceRasterizer(), case, torch.float32)


@pytest.mark.parametrize(("case", "table"), [
    (CASES[2], "shapes"), (CASES[8], "log_scales"), (CASES[17], "vertices"), (CASES[17], "log_deltas"),
    (CASES[17], "log_sigmas"),
], ids=str)  # fmt: skip
def test_a_slightly_different_shape_fails_the_comparison(case: Case, table: str) -> None:
    """The comparison is worth something: an error of 1e-3 of any table is found."""
    with pytest.raises(AssertionError, match="expected"):
        check(_Moved(table), case, torch.float32)


class _Moved:
    """The reference, a hair off."""

    def __init__(self, table: str) -> None:
        self.table = table

    def render(self, inputs: RenderInputs, cameras: CameraBatch, options: RenderOptions) -> RenderOutput:
        moved = with_rows(inputs, **{self.table: rows_of(inputs)[self.table] * 1.001})
        return ReferenceRasterizer().render(moved, cameras, options)


@pytest.mark.parametrize("case", HOSTILE, ids=str)
def test_the_same_bits_from_one_and_four_threads(case: Case) -> None:
    rasterizer = native_rasterizer()
    from splat.native import ops

    scene = build(case)
    cotangents = random_cotangents(scene)
    before = ops.info()["threads"]
    runs = []
    try:
        for threads in (1, 4):
            ops.set_threads(threads)
            runs.append(everything(draw(rasterizer, scene, torch.float32, cotangents)))
    finally:
        ops.set_threads(before)
    assert runs[0].keys() == runs[1].keys()
    for key, value in runs[1].items():
        assert same_bits(value, runs[0][key]), f"{key} depends on the number of threads"


def test_the_published_convex_gradients_draw_the_same_picture_and_lack_the_picture_size() -> None:
    """3DCS leaves the factor between NDC and px out of the vertices' gradients, and the depth inside the exponents."""
    scene = build(Case(kind="convex", size=(40, 20), count=30, degree=0, seed=31))
    cotangents = random_cotangents(scene)
    cotangents = {k: v if k == "color" else torch.zeros_like(v) for k, v in cotangents.items()}
    published = replace(scene, inputs=replace(scene.inputs, constants=(0.0, 1.0)))
    true, theirs = (draw(native_rasterizer(), s, torch.float64, cotangents) for s in (scene, published))
    assert same_bits(true.output.color, theirs.output.color)
    for name in ("log_deltas", "log_sigmas", "logit_opacities", "sh0"):
        assert same_bits(true.gradients[name], theirs.gradients[name]), name
    # Without depth, the gradients of offsets along the camera's x and y axes are those over W/2 and H/2.
    world_from_camera = torch.linalg.inv(scene.cameras.camera_from_world[0, :3, :3])
    mine, other = (d.gradients["vertices"] @ world_from_camera for d in (true, theirs))
    torch.testing.assert_close(other[..., 0], mine[..., 0] / 20, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(other[..., 1], mine[..., 1] / 10, rtol=1e-9, atol=1e-12)
    assert mine.abs().max() > 1e-3
