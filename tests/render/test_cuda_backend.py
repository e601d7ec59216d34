"""The CUDA backend through the public API: on a GPU where there is one, and on kernels built for the host everywhere.
Kernel by kernel it is compared in ``tests/native/test_cuda_parity.py``."""

from __future__ import annotations

from collections.abc import Iterator

import helpers_gpu
import pytest
import torch
from helpers_native import host_library
from helpers_parity import CASES

from splat.native import cuda
from splat.native.backend import emulated_cuda
from splat.native.library import open_library


def why_no_gpu() -> str | None:
    reason = cuda.absent()
    if reason is not None:
        return reason[0]
    return None if torch.cuda.is_available() else "torch sees no GPU"


@pytest.fixture(params=["host", "cuda"])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where tensors must lie for the CUDA functions to be called."""
    if request.param == "cuda":
        reason = why_no_gpu()
        if reason is not None:
            pytest.skip(f"no GPU for the CUDA backend: {reason}")
        yield "cuda"
        return
    with emulated_cuda(open_library(host_library("plain"))):
        yield "cpu"


@pytest.mark.parametrize("case", (*CASES, *helpers_gpu.FOOTPRINT_CASES), ids=str)
def test_pictures_gradients_and_statistics_equal_the_reference(case, device: str) -> None:
    helpers_gpu.check_case(case, device)


@pytest.mark.parametrize("check", helpers_gpu.CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_python_layer(check, device: str) -> None:
    check(device)


def test_a_small_training_ends_alike_on_both_backends(device: str) -> None:
    if device == "cuda":
        helpers_gpu.check_training(device, steps=200, count=2000, size=(160, 120))
    else:
        helpers_gpu.check_training(device, steps=6, count=40, size=(24, 20))


def test_two_hundred_steps_on_the_kernels_built_for_the_host() -> None:
    with emulated_cuda(open_library(host_library("plain"))):
        helpers_gpu.check_training("cpu", steps=200, count=300, size=(40, 32))


@pytest.mark.skipif(why_no_gpu() is not None, reason=f"no GPU for the CUDA backend: {why_no_gpu()}")
def test_a_stream_of_ones_own() -> None:
    helpers_gpu.check_streams()
