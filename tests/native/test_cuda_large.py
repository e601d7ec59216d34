"""What small pictures never reach: splats walked by a whole warp, sums of many slots, several blocks of rows, 32-bit
tile keys. Run on the host, against the CPU twin."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from helpers_cuda import Twin, View
from helpers_cuda_compare import binned, same_bins
from helpers_cuda_scene import Case, build
from helpers_native import host_library

from splat.native.library import NativeLibraryError, cpu_library

LARGE = (
    # More than 12 rows of tiles, more than 32 tiles, more than 96 slots per splat.
    Case(size=(330, 260), count=60, degree=3, near=0.5, seed=21),
    Case(size=(250, 420), count=20, degree=1, features=20, near=2.2, opaque=1.0, stats=0, depth=("expected",), seed=22),
    # Several blocks of 2048 rows, partial sums of the pose gradient.
    Case(size=(90, 70), count=5003, degree=2, near=-1.5, opaque=-2.0, depth=(), stats=0, backward_stats=0, seed=23),
)


@pytest.fixture(scope="module")
def cuda() -> Iterator[Twin]:
    twin = Twin.open(host_library("plain"), cuda=True)
    twin.seed(5)
    yield twin
    twin.seed(0)


@pytest.fixture(scope="module")
def cpu() -> Twin:
    try:
        return Twin(cpu_library(), cuda=False)
    except NativeLibraryError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_bins_and_gradients(cuda: Twin, cpu: Twin, case: Case) -> None:
    theirs, ours = binned(cuda, cpu, build(case))
    same_bins(theirs, ours)
    for view in (theirs, ours):
        view.blend().blend_backward().project_backward()
    for name, expected in ours.out.grads.items():
        actual = theirs.out.grads[name]
        size = np.sqrt(np.mean(expected.astype(np.float64) ** 2)) + np.abs(expected)
        assert (np.abs(actual - expected) <= 1e-4 * size).all(), name


def test_these_cases_reach_what_they_are_for(cuda: Twin) -> None:
    for case in LARGE[:2]:
        view = View(cuda, build(case)).project()
        rect, records = view.out.projected["rect_tiles"], view.out.projected["records"]
        assert rect.max() > 96 and 2 * records[rect > 0, 11].max() > 13 * 16
    rect = View(cuda, build(LARGE[0])).project().out.projected["rect_tiles"]
    assert ((rect > 0) & (rect <= 32)).sum() > 2, "small and large ones in one warp"


@pytest.mark.parametrize("size", [(4096, 4096), (4096, 4112)], ids=["2^16", "more"])
def test_more_tiles_than_16_bits_can_name(cuda: Twin, cpu: Twin, size: tuple[int, int]) -> None:
    theirs, ours = binned(cuda, cpu, build(Case(size=size, count=60, degree=0, near=-1.0, seed=24)))
    assert theirs.tiles > 65535 and ours.out.bins["tile_begin"][-1] > 1000
    same_bins(theirs, ours)


def test_slots_beyond_32_bits_are_an_overflow(cuda: Twin) -> None:
    scene = build(Case(size=(33, 40), count=5003, degree=0))
    view = View(cuda, scene).project()
    view.out.projected["rect_tiles"][:] = 0xD1A00  # every splat on 858,624 tiles: 728,576 past 2^32, which would fit
    view.bin(1 << 22)
    assert (view.out.counts["overflow"], view.out.counts["slots"]) == (1, 0xFFFFFFFF)
    assert (view.out.bins["tile_begin"] == 0).all() and (view.out.bins["slot_count"] == 0).all()
