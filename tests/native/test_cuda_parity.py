"""Every CUDA operation, run on the host, against its CPU twin; and the same bits under every schedule.

Both sides start a stage from the same inputs, so that orders, counts and places must be equal to the last bit and
only the rounding of the arithmetic differs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import helpers_cuda_exercise
import numpy as np
import pytest
from helpers_cuda import ROWS, AdamRows, Twin, View, adam, capacity_for, draw, knn, morton, photometric
from helpers_cuda_compare import PLAIN, binned, close, defined_bytes, same_bins
from helpers_cuda_scene import Case, build, off_alignment
from helpers_native import ROOT, host_library, sanitizer_environment

from splat.native.library import NativeLibraryError, cpu_library

SEEDS = (0, 1, 2, 3)
TINY, SMALL, LARGE = (17, 9), (33, 40), (70, 50)
MANY_ROWS = Case(size=(40, 33), count=2600, degree=1, opaque=-3.0, features=1, depth=("expected",), stats=7, seed=17)
"""Several chunks of 256 instances in a tile."""
HOSTILE = Case(size=SMALL, count=60, degree=3, hostile=True, features=2, seed=10)
CASES = (
    Case(size=(1, 1), count=0, degree=0),
    Case(size=(1, 1), count=1, degree=0, seed=1),
    Case(size=(1, 1), count=60, degree=1, features=1, opaque=-1.0, seed=2),
    Case(size=TINY, count=0, degree=2, features=2),
    Case(size=TINY, count=5, degree=0, filter2d="aa", seed=3),
    Case(size=TINY, count=60, degree=2, off_center=True, features=3, seed=4),
    Case(size=TINY, count=9, degree=0, features=64, maps=4, seed=18),
    Case(size=SMALL, count=1, degree=3, filter2d="mip", near=1.5, seed=5),
    Case(size=SMALL, count=5, degree=3, filter3d=True, off_center=True, near=1.0, seed=6),
    Case(size=SMALL, count=60, degree=0, camera=False, seed=7, **PLAIN),
    Case(size=SMALL, count=60, degree=1, filter2d="aa", filter3d=True, depth=("expected",), stats=5, backward_stats=9),
    Case(size=SMALL, count=60, degree=2, filter2d="mip", opaque=3.0, depth=("median",), alpha_grad=False, seed=9),
    HOSTILE,
    Case(size=SMALL, count=60, degree=3, filter2d="aa", hostile=True, off_center=True, accumulate=True, seed=11),
    Case(size=SMALL, degree=1, stored=3, filter2d="mip", hostile=True, filter3d=True, accumulate=True, seed=12),
    Case(size=LARGE, count=400, degree=3, features=17, seed=13),
    Case(size=LARGE, count=400, degree=3, opaque=2.0, near=1.0, seed=14),
    Case(size=LARGE, count=400, degree=2, near=1.2, opaque=-3.0, seed=15, **PLAIN),
    Case(size=LARGE, count=400, degree=1, filter2d="mip", hostile=True, filter3d=True, off_center=True, seed=16),
    MANY_ROWS,
)
every_case = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(scope="module")
def cpu() -> Iterator[Twin]:
    """The portable instruction set: the same rounding on every machine."""
    try:
        native = cpu_library()
    except NativeLibraryError as error:
        pytest.skip(str(error))
    twin = Twin(native, cuda=False)
    before = native.lib.splat_cpu_isa()
    for name in (b"baseline", b"neon"):
        native.lib.splat_cpu_set_isa(name)
    yield twin
    native.lib.splat_cpu_set_isa(before)


@pytest.fixture(scope="module")
def cuda() -> Iterator[Twin]:
    twin = Twin.open(host_library("plain"), cuda=True)
    yield twin
    twin.seed(0)


@pytest.fixture(autouse=True)
def plain_order(cuda: Twin) -> None:
    cuda.seed(0)


@every_case
def test_project(cuda: Twin, cpu: Twin, case: Case) -> None:
    scene = build(case)
    actual, expected = (View(twin, scene).project().out.projected for twin in (cuda, cpu))
    drawn = expected["depth_keys"] != 0xFFFFFFFF
    assert ((actual["depth_keys"] != 0xFFFFFFFF) == drawn).all()
    assert (actual["rect_tiles"] == expected["rect_tiles"]).all()
    ulps = np.abs(actual["depth_keys"].astype(np.int64) - expected["depth_keys"].astype(np.int64))
    assert (ulps <= 4).all()
    # Nearly singular footprints lose digits in the determinant: they are judged by the picture.
    for column in range(14):
        close(actual["records"][drawn, column], expected["records"][drawn, column], f"record column {column}", 1e-4)
    if case.count >= 60 and case.size[0] > 1:
        assert drawn.sum() > case.count / 4, "too few splats in view to test anything"


@every_case
def test_bin(cuda: Twin, cpu: Twin, case: Case) -> None:
    theirs, ours = binned(cuda, cpu, build(case))
    same_bins(theirs, ours)


def test_a_tile_holds_several_chunks(cuda: Twin, cpu: Twin) -> None:
    tile_begin = binned(cuda, cpu, build(MANY_ROWS))[1].out.bins["tile_begin"]
    assert np.diff(tile_begin.astype(np.int64)).max() > 3 * 256


@every_case
def test_blend_and_its_statistics(cuda: Twin, cpu: Twin, case: Case) -> None:
    theirs, ours = (view.blend().forward_stats() for view in binned(cuda, cpu, build(case)))
    assert theirs.out.images.keys() == ours.out.images.keys()
    for name, expected in ours.out.images.items():
        if name == "top_id":
            assert (theirs.out.images[name] != expected).sum() == 0
        else:
            close(theirs.out.images[name], expected, name)
    for name, expected in ours.out.forward.items():
        close(theirs.out.forward[name], expected, name)


@every_case
def test_backward_and_its_statistics(cuda: Twin, cpu: Twin, case: Case) -> None:
    theirs, ours = (view.blend().blend_backward() for view in binned(cuda, cpu, build(case)))
    theirs, ours = theirs.backward_stats().project_backward(), ours.backward_stats().project_backward()
    assert theirs.out.backward.keys() == ours.out.backward.keys()
    for name, expected in ours.out.backward.items():
        for column in range(expected.shape[1]):
            close(theirs.out.backward[name][:, column], expected[:, column], f"{name} column {column}")
    assert theirs.out.grads.keys() == ours.out.grads.keys()
    for name, expected in ours.out.grads.items():
        close(theirs.out.grads[name], expected, f"gradient of {name}")


@pytest.mark.parametrize("case", CASES[4:16], ids=str)
def test_project_backward_from_the_same_slots(cuda: Twin, cpu: Twin, case: Case) -> None:
    theirs, ours = (view.blend() for view in binned(cuda, cpu, build(case)))
    ours.blend_backward().project_backward()
    # The arrays of the CPU's blend stand in for those of the other; project_backward reads nothing but the slots.
    address = int(cpu.ffi.cast("uintptr_t", ours.image_grads))
    theirs.image_grads = cuda.ffi.cast("splat_image_grads *", address)
    for name, actual in theirs.project_backward().out.grads.items():
        close(actual, ours.out.grads[name], f"gradient of {name}", 2e-5)


def test_rows_that_are_not_drawn_get_zero_gradients(cuda: Twin) -> None:
    scene = build(HOSTILE)
    drawn = draw(cuda, scene, capacity_for(scene, cuda))
    absent = drawn.bins["slot_count"] == 0
    assert absent.sum() >= 8
    for name in (*ROWS, "features", "mean2d", "color", "opacity"):
        assert (drawn.grads[name][absent] == 0).all(), name


@pytest.mark.parametrize("case", [HOSTILE, CASES[14], CASES[15]], ids=str)
def test_memory_off_alignment_gives_the_same_bits(cuda: Twin, case: Case) -> None:
    scene = build(case)
    capacity = capacity_for(scene, cuda)
    expected = defined_bytes(draw(cuda, scene, capacity))
    cuda.off_alignment = True
    try:
        found = defined_bytes(draw(cuda, helpers_cuda_exercise.moved_off_alignment(scene), capacity))
    finally:
        cuda.off_alignment = False
    for name, values in expected.items():
        assert found[name] == values, name


# --- schedules, overflow -------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [CASES[i] for i in (2, 6, 10, 12, 14, 15, 17)], ids=str)
def test_the_same_bits_under_every_schedule(cuda: Twin, case: Case) -> None:
    scene, runs = build(case), []
    capacity = capacity_for(scene, cuda)
    for seed in SEEDS:
        cuda.seed(seed)
        runs.append(defined_bytes(draw(cuda, scene, capacity)))
    for seed, run in zip(SEEDS[1:], runs[1:], strict=True):
        for name, expected in runs[0].items():
            assert run[name] == expected, f"{name} under schedule {seed}"


def test_overflow_draws_the_background_and_changes_nothing_then_a_replay_is_whole(cuda: Twin) -> None:
    scene = build(HOSTILE)
    needed = capacity_for(scene, cuda) - 7
    for capacity in (0, 1, needed - 1):
        view = View(cuda, scene).project().bin(capacity)
        assert (view.out.counts["overflow"], view.out.counts["slots"]) == (1, needed)
        images = view.blend().out.images
        assert (images["color"] == scene.background[:, None, None]).all()
        assert (images["final_T"] == 1).all() and (images["top_id"] == -1).all()
        for name in ("depth_expected", "depth_median", "features"):
            assert (images[name] == 0).all(), name
        grads = view.blend_backward().project_backward().out.grads
        close(grads.pop("background"), scene.cotangents["color"].sum(axis=(1, 2)), "gradient of background")
        for name, values in grads.items():
            assert (values == 0).all(), name
        state = AdamRows.start(scene.rows)
        before = [array.tobytes() for table in (state.param, state.m, state.v) for array in table.values()]
        view.project_backward_adam(state)
        state.apply(cuda, state.v, gate=view.counters)
        assert [array.tobytes() for table in (state.param, state.m, state.v) for array in table.values()] == before
    view.bin(needed).blend().forward_stats().blend_backward().backward_stats().project_backward()
    assert view.out.counts["overflow"] == 0
    assert defined_bytes(view.out) == defined_bytes(draw(cuda, scene, needed))


# --- Adam ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 5, 400, 5003])
@pytest.mark.parametrize("step", [1, 3000])
def test_adam(cuda: Twin, cpu: Twin, count: int, step: int) -> None:
    random = np.random.default_rng(count)
    start = [random.normal(size=count).astype(np.float32) for _ in range(4)]
    start[3] = start[3] ** 2
    if count > 4:
        start[1][:2], start[3][:2] = 0, 0
    gate = np.zeros(8, np.uint32)
    results = []
    for twin, gated in ((cpu, None), (cuda, None), (cuda, 0), (cuda, 1), (cuda, 2)):
        arrays = [off_alignment(array) if gated == 2 else array.copy() for array in start]
        gate[3] = gated == 1
        pointer = None if gated is None else twin.at(gate, "splat_counters *")
        adam(twin, count, *map(twin.at, arrays), 1e-2, 0.9, 0.999, 1e-15, step, gate=pointer)
        results.append(arrays)
    for name, expected, actual, open_gate, closed_gate, moved, before in zip("pgmv", *results, start, strict=True):
        close(actual, expected, name, 1e-6)
        assert (open_gate == actual).all() and (moved == actual).all()
        assert (closed_gate == before).all()


@pytest.mark.parametrize("case", [CASES[i] for i in (0, 1, 9, 11, 12, 14, 15)], ids=str)
def test_fused_adam_equals_gradients_and_adam(cuda: Twin, case: Case) -> None:
    results = []
    for fused in (False, True):
        scene = build(replace(case, accumulate=False))
        view = View(cuda, scene).project()
        view.bin(int(view.out.projected["rect_tiles"].sum()) + 3).blend().blend_backward()
        state = AdamRows.start(scene.rows)
        if fused:
            view.project_backward_adam(state)
        else:
            view.project_backward()
            state.apply(cuda, view.out.grads)
        results.append((state, view.out.grads))
    (plain, grads), (fused_state, fused_grads) = results
    for table in ("param", "m", "v"):
        for name in ROWS:
            actual, expected = getattr(fused_state, table)[name], getattr(plain, table)[name]
            broken = ~np.isfinite(expected)
            assert (np.isfinite(actual) == ~broken).all(), f"{table} {name}"
            close(np.where(broken, 0, actual), np.where(broken, 0, expected), f"{table} {name}", 1e-6)
    for name, expected in fused_grads.items():
        assert grads[name].tobytes() == expected.tobytes(), name


# --- loss, neighbours, order ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (17, 9), (33, 40), (70, 50), (129, 6)], ids=str)
@pytest.mark.parametrize("kind", ["none", "random", "black", "half"])
def test_photometric(cuda: Twin, cpu: Twin, size: tuple[int, int], kind: str) -> None:
    width, height = size
    random = np.random.default_rng(width)
    color = (random.random((3, height, width), dtype=np.float32) - np.float32(0.1)) * np.float32(1.2)
    target = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = {"none": None, "random": random.integers(0, 256, (height, width), dtype=np.uint8)}.get(kind)
    if kind in ("black", "half"):
        mask = np.zeros((height, width), np.uint8)
        mask[:, width // 2 :] = 255 * (kind == "half")
    for ssim_weight in (0.0, 0.2, 1.0):
        expected, expected_grad = photometric(cpu, color, target, mask, ssim_weight=ssim_weight)
        found = set()
        for seed in SEEDS[:3]:
            cuda.seed(seed)
            sums, grad = photometric(cuda, color, target, mask, ssim_weight=ssim_weight)
            np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-6)
            close(grad, expected_grad, "gradient")
            without, nothing = photometric(cuda, color, target, mask, ssim_weight=ssim_weight, grad=False)
            np.testing.assert_allclose(without, sums, rtol=1e-12)
            assert nothing is None
            found.add(sums.tobytes() + grad.tobytes())
        assert len(found) == 1, "depends on the schedule"


@pytest.mark.parametrize("count", [1, 2, 5, 60, 400, 3000])
@pytest.mark.parametrize("k", [1, 3, 16])
def test_knn(cuda: Twin, cpu: Twin, count: int, k: int) -> None:
    random = np.random.default_rng(count)
    points = random.normal(size=(count, 3)).astype(np.float32) * np.float32([1, 5, 0.1])
    points[: count // 3] *= np.float32(0.01)  # dense in one place
    points[count // 2 : count // 2 + 4] = points[-1]  # and some twins
    expected, found = knn(cpu, points, k), set()
    for seed in SEEDS[:3]:
        cuda.seed(seed)
        actual = knn(cuda, points, k)
        close(actual, expected, "mean squared distance", 1e-5)
        found.add(actual.tobytes())
    assert len(found) == 1, "depends on the schedule"


def test_knn_of_a_line_and_of_one_place(cuda: Twin, cpu: Twin) -> None:
    for count in (500, 17_000):
        line = np.zeros((count, 3), np.float32)
        line[:, 1] = np.arange(count)
        close(knn(cuda, line, 3), knn(cpu, line, 3), "a line", 1e-6)
    assert (knn(cuda, np.ones((300, 3), np.float32), 3) == 0).all()


@pytest.mark.parametrize("count", [1, 2, 5, 60, 3000])
def test_morton(cuda: Twin, count: int) -> None:
    torch = pytest.importorskip("torch")
    from splat.native.ops import _morton_order

    means = np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32)
    means[count // 2 :: 7] = means[0]
    if count > 50:
        means[11, 1], means[30, 0] = np.nan, np.inf
    expected = _morton_order(torch.from_numpy(means)).numpy()
    for seed in SEEDS[:3]:
        cuda.seed(seed)
        assert morton(cuda, means).tolist() == expected.tolist()


# --- sanitizers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "seed"), [("asan", 0), ("asan", 1), ("race", 0), ("race", 1)])
def test_no_finding_of_the_sanitizers_and_the_race_detector(variant: str, seed: int) -> None:
    environment = dict(sanitizer_environment() if variant == "asan" else os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    program = Path(helpers_cuda_exercise.__file__)
    command = [sys.executable, str(program), str(host_library(variant)), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr[-4000:]
