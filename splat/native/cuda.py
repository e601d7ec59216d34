"""What the CUDA library says about this machine."""

from __future__ import annotations

from splat.native.library import BUILD_CUDA, NativeLibraryError, cuda_library


def absent() -> tuple[str, str] | None:
    """Why the CUDA backend cannot be used here and what mends it, in a line each; None when it can."""
    try:
        native = cuda_library()
    except NativeLibraryError as error:
        what, _, _ = str(error).partition("; ")
        return what if "not built" in what else str(error), BUILD_CUDA
    if native.lib.splat_cuda_device_count() >= 0:
        return None
    reason = native.ffi.string(native.lib.splat_cuda_error()).decode()
    return reason, remedy(reason)


def architectures() -> str:
    """Compute capabilities the library has code for, such as ``75 80 90 ptx90``."""
    native = cuda_library()
    return native.ffi.string(native.lib.splat_cuda_architectures()).decode()


def device_info(index: int) -> str:
    """One line about a GPU; NativeLibraryError when it cannot be used."""
    native = cuda_library()
    text = native.lib.splat_cuda_device_info(index)
    if text == native.ffi.NULL:
        raise NativeLibraryError(native.ffi.string(native.lib.splat_cuda_error()).decode())
    return native.ffi.string(text).decode()


def remedy(reason: str) -> str:
    """What to do about a text of splat_cuda_error()."""
    if reason.startswith("no driver"):
        return "install the NVIDIA driver (in a container: run it with GPU access, such as 'docker run --gpus all')"
    if reason.startswith("driver too old"):
        return "update the NVIDIA driver, or rebuild with an older CUDA toolkit: 'pip install .'"
    if reason.startswith("wrong compute capability"):
        return "rebuild on this machine: 'pip install --force-reinstall --no-deps .' compiles for the GPUs it finds"
    if reason.startswith("no GPU"):
        return "unset CUDA_VISIBLE_DEVICES, or check that nvidia-smi lists a GPU"
    return "nvidia-smi shows whether the GPU and its driver work; a restart of the machine helps after a driver update"
