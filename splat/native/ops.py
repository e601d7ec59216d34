"""Small native operations on torch tensors: Adam, nearest neighbours, the photometric loss, thread control.

Every function checks dtype, device and layout once, here, and passes plain pointers on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from splat.native.backend import DTYPES, backend_of
from splat.native.library import cpu_library

MAX_NEIGHBOURS = 16
"""kMaxMean of cuda/cpu/knn.cpp."""
MORTON_BITS = 21
"""Bits per axis of a Morton code, as in cuda/gpu/morton.cu."""
MAX_GRID_CHANNELS = 1024
"""Of splat_cpu_grid_sort."""


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
            raise ValueError(
                f"{name} is {tuple(tensor.shape)} {tensor.dtype}, param {tuple(param.shape)} {param.dtype}"
            )
        if tensor.device != param.device:
            raise ValueError(f"{name} is on {tensor.device}, param on {param.device}")
    backend = backend_of(param.device)
    code, pointers = backend.dtype_code(param.dtype), [backend.pointer(tensor) for tensor in (param, grad, m, v)]
    if not backend.is_cuda:
        status = backend.lib.splat_cpu_adam(code, count, *pointers, lr, beta1, beta2, eps, step)
    elif count:
        with backend.on(param.device):
            status = backend.lib.splat_cuda_adam(
                count, *pointers, lr, beta1, beta2, eps, step, backend.ffi.NULL, backend.stream(param.device)
            )
    else:
        return
    backend.check(status, "adam")


def knn_mean_sq_dist(points: Tensor, k: int = 3) -> Tensor:  # [N,3] -> [N]
    """Mean of the squared distances to the ``k`` nearest other points; 0 for a lone point. On the device of ``points``.

    Raises:
        ValueError: for another shape, non-finite coordinates, or a ``k`` that is not 1 to 16.
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points must be [N,3], got {tuple(points.shape)}")
    if not 1 <= k <= MAX_NEIGHBOURS:
        raise ValueError(f"k must be 1 to {MAX_NEIGHBOURS}, got {k}")
    if not torch.isfinite(points).all():
        raise ValueError("points must be finite")
    points = points.detach().to(dtype=torch.float32).contiguous()
    count, backend = points.shape[0], backend_of(points.device)
    out = torch.empty(count, device=points.device)
    addresses = backend.pointer(points, "float *"), k, backend.pointer(out, "float *")
    if not backend.is_cuda:
        backend.check(backend.lib.splat_cpu_knn(count, *addresses), "knn")
    elif count:
        with backend.on(points.device):
            scratch, _kept = backend.scratch(backend.lib.splat_cuda_knn_scratch(count), points.device)
            backend.check(backend.lib.splat_cuda_knn(count, *addresses, scratch, backend.stream(points.device)), "knn")
    return out


def morton_order(means: Tensor) -> Tensor:  # [N,3] -> [N] int64
    """Rows in Morton order of their means, so that neighbours in space are neighbours in memory."""
    if means.ndim != 2 or means.shape[1] != 3:
        raise ValueError(f"means must be [N,3], got {tuple(means.shape)}")
    means = means.detach().to(dtype=torch.float32).contiguous()
    count, backend = means.shape[0], backend_of(means.device)
    if not backend.is_cuda or not count:
        return _morton_order(means)
    order = torch.empty(count, dtype=torch.int64, device=means.device)
    with backend.on(means.device):
        scratch, _kept = backend.scratch(backend.lib.splat_cuda_sort_scratch(count), means.device)
        status = backend.lib.splat_cuda_morton(
            count, backend.pointer(means, "float *"), backend.pointer(order, "int64_t *"), scratch,
            backend.stream(means.device),
        )  # fmt: skip
    backend.check(status, "morton")
    return order


_SPREAD = (
    (32, 0x1F00000000FFFF), (16, 0x1F0000FF0000FF), (8, 0x100F00F00F00F00F), (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
)  # fmt: skip


def _morton_order(means: Tensor) -> Tensor:  # [N,3] -> [N]
    """The same in torch; rows that are not finite come first."""
    if not means.shape[0]:
        return torch.zeros(0, dtype=torch.int64, device=means.device)
    finite = torch.isfinite(means).all(dim=1)
    inside = torch.where(finite[:, None], means, means[finite][:1] if finite.any() else torch.zeros(1, 3))
    low, high = inside.amin(0), inside.amax(0)
    cells = (inside - low) / (high - low).amax().clamp_min(torch.finfo(torch.float32).tiny)
    cells = (cells.double() * (2**MORTON_BITS - 1)).long().clamp(0, 2**MORTON_BITS - 1)
    for shift, mask in _SPREAD:  # two zero bits between every two
        cells = (cells | cells << shift) & mask
    code = cells[:, 0] | cells[:, 1] << 1 | cells[:, 2] << 2
    return torch.sort(torch.where(finite, code, -1), stable=True).indices


def photometric(
    color: Tensor, target: Tensor, mask: Tensor | None, *, l1_weights: Tensor | None = None, ssim_weight: float,
    grad: Tensor | None, scratch: Tensor,
) -> tuple[float, float, float] | tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Planar ``color [3,H,W]`` against uint8 ``target [H,W,3]``: (total, l1, ssim); fills ``grad [3,H,W]``.

    ``l1_weights [H,W]`` (dtype of ``color``) are factors on the L1 within ``total``; ``l1`` itself is without them.
    On CUDA the three are tensors (0-dim, float64, on the device): nothing waits for them.
    """
    for name, tensor in (("target", target), ("mask", mask), ("l1_weights", l1_weights), ("grad", grad)):
        if tensor is not None and tensor.device != color.device:
            raise ValueError(f"{name} is on {tensor.device}, the picture on {color.device}")
    backend = backend_of(color.device)
    _, height, width = color.shape
    code = backend.dtype_code(color.dtype)
    truth = backend.pointer(target, "uint8_t *"), backend.pointer(mask, "uint8_t *"), backend.pointer(l1_weights)
    pictures = width, height, backend.pointer(color), *truth
    if not backend.is_cuda:
        sums = backend.ffi.new("double[3]")
        status = backend.lib.splat_cpu_photometric(
            code, *pictures, ssim_weight, backend.pointer(grad), backend.pointer(scratch), sums
        )
        backend.check(status, "photometric")
        return sums[0], sums[1], sums[2]
    needed = 9 * height * width
    scratch = scratch if scratch.numel() >= needed else color.new_empty(needed)
    found = torch.empty(3, dtype=torch.float64, device=color.device)
    with backend.on(color.device):
        status = backend.lib.splat_cuda_photometric(
            *pictures, ssim_weight, backend.pointer(grad), backend.pointer(scratch), backend.pointer(found, "double *"),
            backend.stream(color.device),
        )  # fmt: skip
    backend.check(status, "photometric")
    total, l1, ssim = found.unbind()
    return total, l1, ssim


def grid_sort(
    features: Tensor, height: int, width: int, *, seed: int, first_radius: float, last_radius: float = 1.0,
    shrink: float = 0.95, stop_gain: float = 1e-4, least_turns: int = 4, most_turns: int = 64, rounds: int = 4,
) -> tuple[Tensor, tuple[float, float]]:  # fmt: skip
    """Order in which neighbours on an ``height x width`` grid (circular in x) have like ``features [H*W,C]``, and the
    sums of squared distances to the blurred grid before and after.

    ``order[y*W+x]`` is the row to put into cell (x, y). What the numbers mean is in ``splat.h``. On the CPU, wherever
    ``features`` are; ``order`` comes back to their device.

    Raises:
        ValueError: for another shape or dtype, numbers that are not finite, or settings out of range.
    """
    if features.ndim != 2 or features.shape[0] != height * width or not 1 <= features.shape[1] <= MAX_GRID_CHANNELS:
        raise ValueError(f"features must be [{height}*{width},1..{MAX_GRID_CHANNELS}], got {tuple(features.shape)}")
    if not (1 <= last_radius and first_radius <= 1e6 and 0 < shrink < 1 and rounds >= 1 and least_turns >= 0):
        raise ValueError("a radius below 1 or above 1e6, a shrink not in (0,1), or less than one round")
    if not torch.isfinite(features).all():
        raise ValueError("features must be finite")
    table = features.detach().cpu().contiguous()
    if table.dtype not in DTYPES:
        raise ValueError(f"features are {table.dtype}, must be one of {sorted(map(str, DTYPES))}")
    native = cpu_library()
    order, distances = torch.empty(height * width, dtype=torch.int32), native.ffi.new("double[2]")
    grid = native.ffi.new("splat_grid *", {
        "features": native.ffi.cast("void *", table.data_ptr()), "height": height, "width": width,
        "channels": table.shape[1], "dtype": DTYPES[table.dtype], "seed": seed % 2**64, "first_radius": first_radius,
        "last_radius": last_radius, "shrink": shrink, "stop_gain": stop_gain, "least_turns": least_turns,
        "most_turns": most_turns, "rounds": rounds,
    })  # fmt: skip
    status = native.lib.splat_cpu_grid_sort(grid, native.ffi.cast("int32_t *", order.data_ptr()), distances)
    if status != 0:
        raise RuntimeError(f"native grid sort: status {status}")
    return order.long().to(features.device), (distances[0], distances[1])
