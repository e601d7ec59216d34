"""Finds and loads the native libraries. The only place that does; there is no silent slow path.

The functions and structs are those of ``cuda/include/splat.h``, installed beside the library and read here by
cffi, so that a signature stands in one place.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from splat.errors import UserError

ABI_VERSION = 2
BUILD_CUDA = (
    "build it with 'pip install .' in the source tree where nvcc is on PATH, or with "
    "'SPLAT_CUDA_WHEELS=1 pip install .' (fetches NVIDIA's compiler from PyPI)"
)


class NativeLibraryError(UserError):
    """No native library could be loaded; the message says what was tried and how to mend it."""

    exit_code = 3


@dataclass(frozen=True)
class NativeLibrary:
    """A loaded library with the declarations it was loaded by."""

    ffi: Any
    lib: Any
    path: Path


def _file_name(stem: str) -> str:
    if sys.platform == "win32":
        return f"{stem}.dll"
    return f"lib{stem}.dylib" if sys.platform == "darwin" else f"lib{stem}.so"


def _folders() -> list[Path]:
    """Where a library may lie: the folder named by SPLAT_LIBRARIES (a prebuilt one that was carried here), beside
    this module, in an editable install's build tree, in a source build."""
    here = Path(__file__).resolve().parent
    source = here.parents[1]
    folders = [Path(os.environ["SPLAT_LIBRARIES"])] if os.environ.get("SPLAT_LIBRARIES") else []
    folders.append(here)
    # An editable install leaves the library in site-packages while this file runs from the source tree.
    folders += [Path(entry) / "splat" / "native" for entry in sys.path if entry]
    if (source / "cuda").is_dir():
        for build in sorted((source / "build").glob("*")):
            folders += [build, build / "cuda"]
    return list(dict.fromkeys(folders))


def _declarations(header: str) -> str:
    """The header as cffi likes it: no preprocessor, no linkage."""
    lines = [line for line in header.splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"/\*.*?\*/", "", "\n".join(lines), flags=re.DOTALL)
    return text.replace('extern "C" {', "").replace("SPLAT_API", "").rstrip().removesuffix("}")


def _header_for(library: Path) -> Path | None:
    """The declarations: installed beside the library or beside this module, or those of a source tree."""
    here = Path(__file__).resolve().parent
    for folder in (library.parent, here, here.parents[1] / "cuda" / "include"):
        if (folder / "splat.h").is_file():
            return folder / "splat.h"
    return None


@cache
def cpu_library() -> NativeLibrary:
    """The CPU core.

    Raises:
        NativeLibraryError: when it is missing, cannot be loaded, or is of another version than this package.
    """
    return _found(
        "splat_cpu",
        "the native core cannot be loaded; build it with 'pip install .' in the source tree (needs a C++ compiler: "
        "'apt-get install g++', 'dnf install gcc-c++' or 'xcode-select --install')",
    )


@cache
def cuda_library() -> NativeLibrary:
    """The CUDA core. It loads on a machine without GPU and driver; ``splat.native.cuda.absent`` asks for those.

    Raises:
        NativeLibraryError: when it is missing, cannot be loaded, or is of another version than this package.
    """
    return _found("splat_cuda", f"the CUDA library is not built; {BUILD_CUDA}")


def open_library(path: Path) -> NativeLibrary:
    """The library in this very file; NativeLibraryError with what stands in the way."""
    from cffi import FFI

    if not path.is_file():
        raise NativeLibraryError(f"{path}: not there")
    header = _header_for(path)
    if header is None:
        raise NativeLibraryError(f"{path}: no splat.h beside it")
    ffi = FFI()
    ffi.cdef(_declarations(header.read_text(encoding="utf8")))
    try:
        lib = ffi.dlopen(str(path))
        version = lib.splat_abi_version()
    except (OSError, AttributeError) as error:
        raise NativeLibraryError(f"{path}: {error}") from error
    if version != ABI_VERSION:
        raise NativeLibraryError(f"{path}: version {version}, this package needs {ABI_VERSION}")
    return NativeLibrary(ffi, lib, path)


def _found(stem: str, advice: str) -> NativeLibrary:
    """The first that can be opened; the error names every place that was tried."""
    tried = []
    for folder in _folders():
        try:
            return open_library(folder / _file_name(stem))
        except NativeLibraryError as error:
            tried.append(str(error))
    raise NativeLibraryError(f"{advice}. Tried: " + "; ".join(tried))
