"""Which library serves the tensors of a device, and how its calls are made: pointers, streams, errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splat.native.library import NativeLibrary, cpu_library, cuda_library

DTYPES = {torch.float32: 0, torch.float64: 1}
REASONS = {1: "an argument is out of range", 2: "more than 2^31 splat-tile pairs in one view"}


@dataclass(frozen=True, eq=False)
class Backend:
    """A library with the device its pointers belong to."""

    native: NativeLibrary
    is_cuda: bool
    """It has the ``splat_cuda_*`` functions: float32 only, calls that return before the work is done."""
    device_type: str
    """Where its tensors live: ``cuda``, or ``cpu`` (for the CUDA functions too, when they are emulated by tests)."""

    @property
    def lib(self) -> Any:
        return self.native.lib

    @property
    def ffi(self) -> Any:
        return self.native.ffi

    def pointer(self, tensor: Tensor | None, ctype: str = "void *") -> Any:
        """The address of a contiguous tensor of this backend's device; NULL for None."""
        if tensor is None:
            return self.ffi.NULL
        if tensor.device.type != self.device_type or not tensor.is_contiguous():
            kind, found = self.device_type.upper(), f"{tensor.device}, strides {tensor.stride()}"
            raise ValueError(f"expected a contiguous {kind} tensor, got {found}")
        return self.ffi.cast(ctype, tensor.data_ptr())

    def dtype_code(self, dtype: torch.dtype) -> int:
        if dtype not in DTYPES or (self.is_cuda and dtype != torch.float32):
            known = "torch.float32 (the CUDA backend has no other)" if self.is_cuda else sorted(map(str, DTYPES))
            raise ValueError(f"dtype {dtype} is not supported; use one of {known}")
        return DTYPES[dtype]

    def check(self, status: int, operation: str) -> int:
        """Turn a negative or non-zero status into an exception; pass counts through."""
        if status < 0:
            status = -status
        elif operation == "bin" or status == 0:
            return status
        reason = REASONS.get(status, f"status {status}")
        if self.is_cuda and status == 3:
            reason = self.ffi.string(self.lib.splat_cuda_error()).decode()
        raise RuntimeError(f"native {operation}: {reason}")

    def stream(self, device: torch.device) -> Any:
        """Torch's current stream on ``device`` as the library takes it."""
        if self.device_type != "cuda":
            return self.ffi.NULL
        return self.ffi.cast("void *", torch.cuda.current_stream(device).cuda_stream)

    def on(self, device: torch.device) -> AbstractContextManager[Any]:
        """Makes ``device`` the current one, where there are several."""
        if self.device_type != "cuda" or device.index in (None, torch.cuda.current_device()):
            return nullcontext()
        return torch.cuda.device(device)

    def scratch(self, size: int, device: torch.device) -> tuple[Any, Tensor]:
        """A ``splat_scratch`` and the tensor it points into, to be kept until the call was made."""
        memory = torch.empty(max(int(size), 1), dtype=torch.uint8, device=device)
        return self.ffi.new("splat_scratch *", {"memory": self.pointer(memory), "bytes": int(size)})[0], memory


_opened: dict[str, Backend] = {}
_emulated: list[Backend | None] = []


def backend_of(device: torch.device | str) -> Backend:
    """The backend for tensors on ``device``; NativeLibraryError when its library is missing, ValueError for a device
    that no backend serves."""
    kind = torch.device(device).type
    if kind == "cpu" and _emulated and _emulated[-1] is not None:
        return _emulated[-1]
    if kind not in _opened:
        if kind not in ("cpu", "cuda"):
            raise ValueError(f"the native core works on CPU and CUDA tensors, not on '{kind}'")
        _opened[kind] = Backend(cpu_library() if kind == "cpu" else cuda_library(), kind == "cuda", kind)
    return _opened[kind]


@contextmanager
def emulated_cuda(native: NativeLibrary | None) -> Iterator[None]:
    """Lets a build of the CUDA functions that runs on the CPU serve CPU tensors in this block; with None, the CPU
    library serves them again. For tests."""
    _emulated.append(None if native is None else Backend(native, is_cuda=True, device_type="cpu"))
    try:
        yield
    finally:
        _emulated.pop()
