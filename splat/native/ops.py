"""Small native operations on torch tensors: Adam, nearest neighbours, the photometric loss, thread control.

Every function checks dtype, device and layout once, here, and passes plain pointers on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from splat.native.library import cpu_library

DTYPES = {torch.float32: 0, torch.float64: 1}
MAX_NEIGHBOURS = 16
"""kMaxNeighbours of cuda/cpu/knn.cpp."""


def pointer(tensor: Tensor | None, ctype: str = "void *"):  # -> a cffi object
    """The address of a contiguous CPU tensor; NULL for None."""
    ffi = cpu_library().ffi
    if tensor is None:
        return ffi.NULL
    if tensor.device.type != "cpu" or not tensor.is_contiguous():
        raise ValueError(f"expected a contiguous CPU tensor, got {tensor.device}, strides {tensor.stride()}")
    return ffi.cast(ctype, tensor.data_ptr())


def dtype_code(dtype: torch.dtype) -> int:
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype} is not supported; use one of {sorted(map(str, DTYPES))}")
    return DTYPES[dtype]


def check(status: int, operation: str) -> int:
    """Turn a negative or non-zero status into an exception; pass counts through."""
    if status < 0:
        status = -status
    elif operation == "bin" or status == 0:
        return status
    reason = {1: "an argument is out of range", 2: "more than 2^31 splat-tile pairs in one view"}
    raise RuntimeError(f"native {operation}: {reason.get(status, f'status {status}')}")


def info() -> dict[str, str | int]:
    """Path, instruction set in use, those available, threads."""
    native = cpu_library()
    ffi, lib = native.ffi, native.lib
    return {
        "path": str(native.path),
        "abi": lib.splat_abi_version(),
        "isa": ffi.string(lib.splat_cpu_isa()).decode(),
        "isas": ffi.string(lib.splat_cpu_isas()).decode(),
        "threads": lib.splat_cpu_threads(),
    }


def set_threads(count: int) -> None:
    """Threads of the native pool; 0 = one per processor this process may use. Results do not depend on it."""
    cpu_library().lib.splat_cpu_set_threads(count)


def set_isa(name: str) -> None:
    """Choose an instruction set by name (for tests and benchmarks).

    Raises:
        ValueError: when this machine or build does not have it.
    """
    if cpu_library().lib.splat_cpu_set_isa(name.encode()) != 0:
        raise ValueError(f"instruction set {name!r} is not available; use one of: {info()['isas']}")


def keep_memory() -> None:
    """Let the process's allocator keep large freed buffers: a training step takes the same ones again and again."""
    cpu_library().lib.splat_cpu_keep_memory()


def adam_step(
    param: Tensor, grad: Tensor, m: Tensor, v: Tensor, *, lr: float, beta1: float, beta2: float, eps: float, step: int
) -> None:
    """One Adam step in place on ``param``, ``m``, ``v`` (Kingma and Ba 2015, algorithm 1); ``step`` counts from 1."""
    count = param.numel()
    for name, tensor in (("grad", grad), ("m", m), ("v", v)):
        if tensor.numel() != count or tensor.dtype != param.dtype:
            shapes = f"{tuple(tensor.shape)} {tensor.dtype}, param {tuple(param.shape)} {param.dtype}"
            raise ValueError(f"{name} is {shapes}")
    check(
        cpu_library().lib.splat_cpu_adam(
            dtype_code(param.dtype), count, pointer(param), pointer(grad), pointer(m), pointer(v), lr, beta1, beta2,
            eps, step,
        ),
        "adam",
    )


def knn_mean_sq_dist(points: Tensor, k: int = 3) -> Tensor:  # [N,3] -> [N]
    """Mean of the squared distances to the ``k`` nearest other points; 0 for a lone point.

    Raises:
        ValueError: for another shape, non-finite coordinates, or a ``k`` that is not 1 to 16.
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points must be [N,3], got {tuple(points.shape)}")
    if not 1 <= k <= MAX_NEIGHBOURS:
        raise ValueError(f"k must be 1 to {MAX_NEIGHBOURS}, got {k}")
    if not torch.isfinite(points).all():
        raise ValueError("points must be finite")
    points = points.detach().to(device="cpu", dtype=torch.float32).contiguous()
    out = torch.empty(points.shape[0])
    lib = cpu_library().lib
    check(lib.splat_cpu_knn(points.shape[0], pointer(points, "float *"), k, pointer(out, "float *")), "knn")
    return out


def photometric(
    color: Tensor, target: Tensor, mask: Tensor | None, *, ssim_weight: float, grad: Tensor | None, scratch: Tensor
) -> tuple[float, float, float]:
    """Planar ``color [3,H,W]`` against uint8 ``target [H,W,3]``: (total, l1, ssim); fills ``grad [3,H,W]``."""
    native = cpu_library()
    _, height, width = color.shape
    sums = native.ffi.new("double[3]")
    check(
        native.lib.splat_cpu_photometric(
            dtype_code(color.dtype), width, height, pointer(color), pointer(target, "uint8_t *"),
            pointer(mask, "uint8_t *"), ssim_weight, pointer(grad), pointer(scratch), sums,
        ),
        "photometric",
    )
    return sums[0], sums[1], sums[2]
