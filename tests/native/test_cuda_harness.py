"""The harness that runs CUDA kernels on the host: correct ones pass under every schedule, planted faults are found."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers_native import planted_library, sanitizer_environment

SEEDS = (0, 1, 2, 3, 4, 5, 6, 7)
VARIANTS = ("plain", "race")
RUN_ONE = """
import ctypes, sys
import numpy as np
library, name, seed = sys.argv[1:]
lib = ctypes.CDLL(library)
lib.splat_host_cuda_seed(ctypes.c_uint64(int(seed)))
values, out = np.arange(1, 65, dtype=np.int32), np.zeros(64, np.int32)
code = getattr(lib, "planted_" + name)(values.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p))
print(code, *out)
"""


class Library:
    """The planted kernels on numpy arrays."""

    def __init__(self, path: Path) -> None:
        self.lib = ctypes.CDLL(str(path))

    def seed(self, seed: int) -> None:
        self.lib.splat_host_cuda_seed(ctypes.c_uint64(seed))

    def call(self, name: str, *arguments: np.ndarray | int) -> int:
        given = [a.ctypes.data_as(ctypes.c_void_p) if isinstance(a, np.ndarray) else a for a in arguments]
        return getattr(self.lib, f"planted_{name}")(*given)


@pytest.fixture(scope="module", params=VARIANTS)
def library(request: pytest.FixtureRequest) -> Library:
    return Library(planted_library(request.param))


@pytest.fixture(scope="module")
def plain() -> Library:
    return Library(planted_library("plain"))


@pytest.fixture(params=SEEDS)
def seed(request: pytest.FixtureRequest) -> int:
    return request.param


def test_block_reduction(library: Library, seed: int) -> None:
    values = np.random.default_rng(1).normal(size=(3, 256)).astype(np.float32)
    sums = np.full(3, np.nan, np.float32)
    library.seed(seed)
    assert library.call("block_sum", values, sums, 3, 256) == 0
    np.testing.assert_allclose(sums, values.sum(axis=1), rtol=1e-5)


def test_block_reduction_gives_the_same_bits_under_every_schedule(plain: Library) -> None:
    values, found = np.random.default_rng(2).normal(size=(5, 512)).astype(np.float32), set()
    for seed in SEEDS:
        sums = np.full(5, np.nan, np.float32)
        plain.seed(seed)
        plain.call("block_sum", values, sums, 5, 512)
        found.add(sums.tobytes())
    assert len(found) == 1


def test_ballot_compaction(library: Library, seed: int) -> None:
    values = np.random.default_rng(3).integers(-9, 10, 700, dtype=np.int32)
    out, kept = np.full(768, -1, np.int32), np.zeros(3, np.int32)
    library.seed(seed)
    assert library.call("compact", values, out, kept, len(values)) == 0
    for block in range(3):
        part = values[block * 256 : (block + 1) * 256]
        assert kept[block] == (part > 0).sum()
        assert out[block * 256 : block * 256 + kept[block]].tolist() == part[part > 0].tolist()


def test_scan_in_dynamic_shared_memory(library: Library, seed: int) -> None:
    values = np.random.default_rng(4).integers(-9, 10, 256, dtype=np.int32)
    out = np.zeros_like(values)
    library.seed(seed)
    assert library.call("scan", values, out, 256, 1) == 0
    assert out.tolist() == values.cumsum().tolist()


def test_blocks_hand_over_through_a_fence_and_an_atomic(library: Library, seed: int) -> None:
    values = np.random.default_rng(5).integers(-9, 10, 32 * 40, dtype=np.int32)
    partial, done, total = np.zeros(40, np.int32), np.zeros(1, np.uint32), np.zeros(1, np.int32)
    library.seed(seed)
    assert library.call("last_block_sum", values, partial, done, total, 40) == 0
    assert total[0] == values.sum()


def test_warp_intrinsics(library: Library, seed: int) -> None:
    out = np.full((64, 16), -1, np.int32)
    library.seed(seed)
    assert library.call("intrinsics", out) == 0
    lane = np.arange(64) % 32
    part, first = lane % 8, lane - lane % 8
    expected = [
        np.full(64, 5), np.where(lane < 3, lane, lane - 3), np.where(lane > 28, lane, lane + 3), lane ^ 9,
        first + 5, np.where(part < 3, lane, lane - 3), np.where(part > 4, lane, lane + 3),
        np.full(64, sum(1 << i for i in range(0, 32, 3))), np.ones(64), np.ones(64), np.full(64, -496),
        np.array([0x11111111 << int(i % 4) & 0xFFFFFFFF for i in lane], np.uint32).view(np.int32),
        lane ^ 1, np.full(64, 8), np.zeros(64), np.ones(64),
    ]  # fmt: skip
    for column, values in enumerate(expected):
        assert out[:, column].tolist() == np.asarray(values, np.int64).tolist(), f"column {column}"


def test_a_quarter_of_a_million_threads_take_seconds(plain: Library) -> None:
    values = np.ones((256, 1024), np.float32)
    sums = np.zeros(256, np.float32)
    plain.seed(1)
    start = time.perf_counter()
    assert plain.call("block_sum", values, sums, 256, 1024) == 0
    assert time.perf_counter() - start < 10
    assert (sums == 1024).all()


@pytest.mark.parametrize(("name", "error"), [("too_many_threads", 9), ("no_blocks", 9), ("too_much_shared", 9)])
def test_launches_a_device_refuses_are_refused(plain: Library, name: str, error: int) -> None:
    values, out = np.ones(64, np.int32), np.zeros(64, np.int32)
    assert plain.call(name, values, out) == error
    assert not out.any()
    assert plain.call("allowed_shared", values, out) == 0
    assert out.tolist() == list(range(1, 65))


# --- planted faults ------------------------------------------------------------------------------------------


def run_one(variant: str, name: str, seed: int = 0) -> subprocess.CompletedProcess[str]:
    """The kernel in a process of its own, since a finding ends the process."""
    environment = sanitizer_environment() if variant == "asan" else None
    command = [sys.executable, "-c", RUN_ONE, str(planted_library(variant)), name, str(seed)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("name", ["no_barrier", "blocks_meet", "no_wait"])
def test_a_missing_barrier_shows_as_a_difference_between_schedules(plain: Library, name: str) -> None:
    values, found = np.arange(1, 65, dtype=np.int32), set()
    for seed in SEEDS:
        out = np.zeros(64, np.int32)
        plain.seed(seed)
        assert plain.call(name, values, out) == 0
        found.add(out.tobytes())
    assert len(found) > 1


def test_a_scan_with_one_barrier_left_out_differs_between_schedules(plain: Library) -> None:
    values, found = np.arange(1, 257, dtype=np.int32), set()
    for seed in SEEDS:
        out = np.zeros(256, np.int32)
        plain.seed(seed)
        plain.call("scan", values, out, 256, 0)
        found.add(out.tobytes())
    assert len(found) > 1


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("no_barrier", r"race in kernel no_barrier, block \(0, 0, 0\), thread \d+: read of mirror, byte \d+ against"),
        ("no_warp_barrier", "race in kernel no_warp_barrier.*mirror"),
        ("lost_update", "race in kernel lost_update.* of sum, byte 0 against the write by thread 0 of this block"),
        ("blocks_meet", "race in kernel blocks_meet.* global memory .* of another block"),
        ("no_wait", "uninitialised shared memory in kernel no_wait.*row, byte"),
        ("unset_shared", r"uninitialised shared memory in kernel unset_shared.* thread 63: read of row, byte 252"),
    ],
)
def test_the_race_detector_names(name: str, finding: str) -> None:
    done = run_one("race", name)
    # In the plain order, thread 63 - i may not have stored yet: then the read is one of uninitialised memory.
    alternative = "uninitialised shared memory.*mirror"
    assert done.returncode == -6
    found = re.search(finding, done.stderr) or (name.startswith("no_") and re.search(alternative, done.stderr))
    assert found, done.stderr


def test_uninitialised_shared_memory_is_nan(plain: Library) -> None:
    out = np.zeros(64, np.float32)
    plain.call("unset_shared", out, out)
    assert np.isnan(out[63]) and (out[:63] == 1).all()


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("off_by_one", "heap-buffer-overflow"),
        ("shared_off_by_one", "heap-buffer-overflow"),
        ("static_off_by_one", "heap-buffer-overflow|out of bounds"),
        ("misaligned", "misaligned address"),
    ],
)
def test_the_sanitizers_find(name: str, finding: str) -> None:
    done = run_one("asan", name)
    assert done.returncode != 0
    assert re.search(finding, done.stderr), done.stderr


def test_the_sanitizers_pass_a_correct_kernel() -> None:
    done = run_one("asan", "allowed_shared", 3)
    assert (done.returncode, done.stdout.split()[:4]) == (0, ["0", "1", "3", "6"]), done.stderr


@pytest.mark.parametrize("variant", ["plain", "asan", "race"])
@pytest.mark.parametrize(
    ("name", "findings"),
    [
        ("early_return", ["divergent barrier in kernel early_return, block (0, 0, 0)",
                          "thread (0, 0, 0) waits at __syncthreads", "thread (40, 0, 0) has returned"]),
        ("two_barriers", ["divergent barrier in kernel two_barriers", "waits at __syncthreads, line"]),
        ("missing_lane", ["divergent warp intrinsic in kernel missing_lane", "thread (5, 0, 0) waits at __syncthreads",
                          "waits at __shfl_sync(0xffffffff)"]),
        ("much_shared", ["more static and dynamic shared memory than a launch may have, in kernel much_shared"]),
        ("wrong_mask", ["whose mask leaves it out in kernel wrong_mask, block (0, 0, 0), thread (8, 0, 0)"]),
    ],
)  # fmt: skip
def test_what_a_device_hangs_on_or_refuses_is_named(variant: str, name: str, findings: list[str]) -> None:
    done = run_one(variant, name)
    assert done.returncode != 0
    for finding in findings:
        assert finding in done.stderr
