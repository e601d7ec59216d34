"""The blend where tiles hold many chunks of 256 instances: checkpoints, work units, chunks that nobody reaches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from helpers_cuda import Twin, View, capacity_for, draw
from helpers_cuda_scene import Case, build
from helpers_native import host_library

from splat.native.library import NativeLibraryError, cpu_library

CHUNK = 256


def case(size: tuple[int, int], count: int, seed: int, opaque: float, **asked) -> Case:
    """Large splats, nothing asked for but the picture and its gradients unless said."""
    plain = {"stats": 0, "backward_stats": 0, "depth": (), "top_id": False, "degree": 0, "near": 0.5}
    return Case(size=size, count=count, seed=seed, opaque=opaque, **(plain | asked))


CASES = {
    "transparent": case((36, 20), 2000, 2, -4.0),
    "finished early": case((36, 20), 2000, 3, 1.0),
    "absolute gradients, strongest": case((36, 20), 1200, 5, 0.0, stats=8, backward_stats=1),
    "all statistics": case((20, 20), 1200, 4, -1.0, stats=63, backward_stats=31),
    "depth and 64 features": case(
        (16, 16), 700, 1, -3.0, stats=63, backward_stats=31, depth=("expected", "median"), features=64, maps=4
    ),
    "some statistics, median": case((20, 20), 1000, 6, -4.0, stats=37, backward_stats=20, depth=("median",)),
}


@pytest.fixture(scope="module")
def cpu() -> Iterator[Twin]:
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
def cuda() -> Twin:
    twin = Twin.open(host_library("plain"), cuda=True)
    twin.seed(0)
    return twin


def error(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the value plus the root mean square of all."""
    if not expected.size:
        return 0.0
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    size = np.maximum(np.abs(expected) + np.sqrt(np.mean(expected**2)), 1e-300)
    return float(np.nan_to_num(np.abs(actual - expected) / size, nan=np.inf).max())


@pytest.mark.parametrize("name", CASES)
def test_tiles_of_many_chunks_equal_the_cpu(cuda: Twin, cpu: Twin, name: str) -> None:
    scene = build(CASES[name])
    theirs = View(cuda, scene).project()
    ours = View(cpu, scene).take_projected(**{key: array.copy() for key, array in theirs.out.projected.items()})
    capacity = int(theirs.out.projected["rect_tiles"].sum()) + 100
    for view in (theirs.bin(capacity), ours.bin(capacity)):
        view.blend().forward_stats().blend_backward().backward_stats().project_backward()
    sizes = np.diff(ours.out.bins["tile_begin"].astype(np.int64))
    assert sizes.max() > 2 * CHUNK, "no tile of three chunks: nothing is tested"
    if name == "finished early":
        assert (ours.out.images["final_T"] < 2e-4).mean() > 0.5
    for part, rtol in (("images", 5e-6), ("forward", 5e-6), ("backward", 1e-4), ("grads", 2e-4)):
        actual, expected = getattr(theirs.out, part), getattr(ours.out, part)
        assert actual.keys() == expected.keys()
        for key in expected:
            assert error(actual[key], expected[key]) <= rtol, f"{part} {key}"


def test_the_same_bits_under_other_schedules(cuda: Twin) -> None:
    scene, found = build(CASES["finished early"]), set()
    for seed in range(3):
        cuda.seed(seed)
        drawn = draw(cuda, scene, capacity_for(scene, cuda))
        found.add(b"".join(array.tobytes() for part in (drawn.images, drawn.grads) for array in part.values()))
    cuda.seed(0)
    assert len(found) == 1
