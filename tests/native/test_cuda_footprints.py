"""The footprints besides the Gaussian through the CUDA kernels, run on the host, against their CPU twins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import helpers_gpu
import numpy as np
import pytest
from helpers_cuda import ROWS, SHAPES, AdamRows, Twin, View, capacity_for, draw
from helpers_cuda_compare import PLAIN, binned, close, defined_bytes, same_bins
from helpers_cuda_scene import Case, build
from helpers_native import host_library

from splat.native.backend import emulated_cuda
from splat.native.library import NativeLibraryError, cpu_library, open_library

FOOTPRINTS = ("analytic", "gef", "convex")
SEEDS = (0, 1, 2)
HIDDEN = 0xFFFFFFFF
SMALL, MIDDLE = (33, 40), (70, 50)


def cases(footprint: str) -> tuple[Case, ...]:
    """Everything at once, with extremes; the picture alone, over many tiles; statistics and many chunks of a tile."""
    filters = {"analytic": ("analytic",) * 3, "convex": ("classic",) * 3}.get(footprint, ("aa", "mip", "classic"))
    wide = footprint != "convex"
    common = {"footprint": footprint}
    return (
        Case(size=SMALL, degree=3, hostile=True, features=2, filter2d=filters[0], accumulate=True, seed=31, **common),
        Case(size=MIDDLE, count=150, degree=1, near=0.5, filter2d=filters[1], off_center=True, filter3d=wide,
             vertices=8, seed=32, **common, **PLAIN),
        Case(size=(20, 17), count=900, degree=2, stored=3, opaque=-3.0, near=1.0, filter2d=filters[2], depth=(),
             stats=13, backward_stats=23, vertices=4, published=True, seed=33, **common),
    )  # fmt: skip


CASES = tuple(case for footprint in FOOTPRINTS for case in cases(footprint))
every_case = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(scope="module")
def cpu() -> Iterator[Twin]:
    """The portable instruction set: the same rounding on every machine."""
    try:
        native = cpu_library()
    except NativeLibraryError as error:
        pytest.skip(str(error))
    before = native.lib.splat_cpu_isa()
    for name in (b"baseline", b"neon"):
        native.lib.splat_cpu_set_isa(name)
    yield Twin(native, cuda=False)
    native.lib.splat_cpu_set_isa(before)


@pytest.fixture(scope="module")
def cuda() -> Iterator[Twin]:
    twin = Twin.open(host_library("plain"), cuda=True)
    twin.seed(0)
    yield twin
    twin.seed(0)


def test_both_libraries_have_the_same_footprints(cuda: Twin, cpu: Twin) -> None:
    names = [twin.ffi.string(twin.lib.splat_footprints()).decode().split() for twin in (cuda, cpu)]
    assert names[0] == names[1] and set(FOOTPRINTS) | {"gaussian"} == set(names[0])
    for index, name in enumerate(names[0]):
        for twin in (cuda, cpu):
            assert twin.lib.splat_footprint(name.encode()) == index
        for ask in ("splat_record_reals", "splat_footprint_sums"):
            assert getattr(cuda.lib, ask)(index) == getattr(cpu.lib, ask)(index) > 0
        assert cuda.lib.splat_backward_slot_stride(index, 31, 4) == cpu.lib.splat_backward_slot_stride(index, 31, 4)
    for twin in (cuda, cpu):
        assert twin.lib.splat_footprint(b"none") == -1 and twin.lib.splat_record_reals(len(names[0])) == 0


@every_case
def test_project(cuda: Twin, cpu: Twin, case: Case) -> None:
    scene = build(case)
    actual, expected = (View(twin, scene).project().out.projected for twin in (cuda, cpu))
    drawn = expected["depth_keys"] != HIDDEN
    assert ((actual["depth_keys"] != HIDDEN) == drawn).all()
    assert (actual["rect_tiles"] == expected["rect_tiles"]).all()
    assert drawn.sum() > case.count / 4, "too few splats in view to test anything"
    for column in range(actual["records"].shape[1]):
        close(actual["records"][drawn, column], expected["records"][drawn, column], f"record column {column}")


@every_case
def test_pictures_gradients_and_statistics(cuda: Twin, cpu: Twin, case: Case) -> None:
    theirs, ours = binned(cuda, cpu, build(case))
    same_bins(theirs, ours)
    a, b = theirs.out, ours.out
    for view in (theirs, ours):
        view.blend().forward_stats().blend_backward().backward_stats().project_backward()
    for part in ("images", "forward", "backward", "grads"):
        actual, expected = getattr(a, part), getattr(b, part)
        assert actual.keys() == expected.keys()
        for name, values in expected.items():
            if name == "top_id":
                assert (actual[name] == values).all()
            else:
                close(actual[name], values, f"{part} {name}")
    for name in SHAPES.get(case.footprint, ()):
        assert np.abs(a.grads[name]).max() > 0


@pytest.mark.parametrize("footprint", FOOTPRINTS)
def test_tiles_of_many_chunks_are_met(cuda: Twin, cpu: Twin, footprint: str) -> None:
    tile_begin = binned(cuda, cpu, build(cases(footprint)[2]))[1].out.bins["tile_begin"]
    assert np.diff(tile_begin.astype(np.int64)).max() > 2 * 256


@pytest.mark.parametrize("footprint", ["analytic", "convex"])
def test_splats_of_many_tiles(cuda: Twin, cpu: Twin, footprint: str) -> None:
    """Walked and emitted by a whole warp, with more slots than a group of lanes sums."""
    case = Case(size=(180, 230), count=24, degree=0, near=1.0, footprint=footprint, seed=35, **PLAIN)
    theirs, ours = binned(cuda, cpu, build(replace(case, filter2d=cases(footprint)[0].filter2d)))
    rect, records = theirs.out.projected["rect_tiles"], theirs.out.projected["records"]
    assert rect.max() > 96 and 2 * records[rect > 0, 11].max() > 13 * 16
    assert 0 < ((rect > 0) & (rect <= 32)).sum()
    same_bins(theirs, ours)
    for view in (theirs, ours):
        view.blend().blend_backward().project_backward()
    for name, values in ours.out.grads.items():
        # float32 loses three digits of a convex that fills the picture, on either side, against float64.
        close(theirs.out.grads[name], values, name, 5e-3 if footprint == "convex" else 1e-4)


@pytest.mark.parametrize("footprint", FOOTPRINTS)
def test_the_same_bits_under_every_schedule_and_after_an_overflow(cuda: Twin, footprint: str) -> None:
    scene = build(replace(cases(footprint)[0], backward_stats=31, stats=63))
    capacity, runs = capacity_for(scene, cuda), []
    for seed in SEEDS:
        cuda.seed(seed)
        runs.append(defined_bytes(draw(cuda, scene, capacity)))
    cuda.seed(0)
    view = View(cuda, scene).project().bin(capacity // 2)
    assert view.out.counts["overflow"] == 1
    images = view.blend().out.images
    assert (images["color"] == scene.background[:, None, None]).all() and (images["final_T"] == 1).all()
    view.bin(capacity).blend().forward_stats().blend_backward().backward_stats().project_backward()
    runs.append(defined_bytes(view.out))
    for run in runs[1:]:
        for name, expected in runs[0].items():
            assert run[name] == expected, name


@pytest.mark.parametrize("footprint", FOOTPRINTS)
def test_rows_that_are_not_drawn_get_zero_gradients(cuda: Twin, footprint: str) -> None:
    scene = build(replace(cases(footprint)[0], accumulate=False))
    drawn = draw(cuda, scene, capacity_for(scene, cuda))
    absent = drawn.bins["slot_count"] == 0
    assert absent.sum() >= 8
    for name, values in drawn.grads.items():
        if name not in ("background", "camera"):
            assert (values[absent] == 0).all() and np.isfinite(values).all(), name


def test_adam_within_the_backward_pass(cuda: Twin) -> None:
    """As gradients and then Adam for the footprint without tables of its own; the others are refused."""
    results = []
    for fused in (False, True):
        scene = build(replace(cases("analytic")[0], accumulate=False))
        view = View(cuda, scene).project()
        view.bin(int(view.out.projected["rect_tiles"].sum())).blend().blend_backward()
        state = AdamRows.start(scene.rows)
        if fused:
            view.project_backward_adam(state)
        else:
            view.project_backward()
            state.apply(cuda, view.out.grads)
        results.append(state)
    for table in ("param", "m", "v"):
        for name in ROWS:
            actual, expected = getattr(results[1], table)[name], getattr(results[0], table)[name]
            finite = np.isfinite(expected)
            assert (np.isfinite(actual) == finite).all()
            close(np.where(finite, actual, 0), np.where(finite, expected, 0), f"{table} {name}", 1e-6)
    scene = build(cases("gef")[1])
    view = View(cuda, scene).project()
    view.bin(int(view.out.projected["rect_tiles"].sum())).blend().blend_backward()
    with pytest.raises(RuntimeError, match="'gef' splats have tables"):
        view.project_backward_adam(AdamRows.start(scene.rows))


def test_a_footprint_that_is_not_there_is_refused(cuda: Twin) -> None:
    scene = build(Case(count=5))
    for index in (-1, 99):
        view = View(cuda, scene)
        view.rows.footprint = index
        with pytest.raises(RuntimeError, match="footprint"):
            view.project()


@pytest.mark.parametrize("case", helpers_gpu.FOOTPRINT_CASES, ids=str)
def test_through_the_public_api_they_equal_the_reference(cuda: Twin, case: helpers_gpu.Case) -> None:
    with emulated_cuda(open_library(Path(cuda.path))):
        helpers_gpu.check_case(case, "cpu")
