"""Finds and loads the native libraries. The only place that does; there is no silent slow path.

The functions and structs are those of ``cuda/include/splat.h``, installed beside the library and read here by
cffi, so that a signature stands in one place.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from splat.errors import UserError

ABI_VERSION = 1


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
    """Where a library may lie: beside this module, in an editable install's build tree, in a source build."""
    here = Path(__file__).resolve().parent
    source = here.parents[1]
    folders = [here]
    # An editable install leaves the library in site-packages while this file runs from the source tree.
    folders += [Path(entry) / "splat" / "native" for entry in sys.path if entry]
    folders += sorted((source / "build").glob("*")) if (source / "cuda").is_dir() else []
    return list(dict.fromkeys(folders))


def _declarations(header: str) -> str:
    """The header as cffi likes it: no preprocessor, no linkage."""
    lines = [line for line in header.splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"/\*.*?\*/", "", "\n".join(lines), flags=re.DOTALL)
    return text.replace('extern "C" {', "").replace("SPLAT_API", "").rstrip().removesuffix("}")


def _header_for(library: Path) -> Path | None:
    source = Path(__file__).resolve().parents[2] / "cuda" / "include"
    for folder in (library.parent, source):
        if (folder / "splat.h").is_file():
            return folder / "splat.h"
    return None


@cache
def cpu_library() -> NativeLibrary:
    """The CPU core.

    Raises:
        NativeLibraryError: when it is missing, cannot be loaded, or is of another version than this package.
    """
    from cffi import FFI

    name, tried = _file_name("splat_cpu"), []
    for folder in _folders():
        path = folder / name
        if not path.is_file():
            tried.append(f"{path}: not there")
            continue
        header = _header_for(path)
        if header is None:
            tried.append(f"{path}: no splat.h beside it")
            continue
        ffi = FFI()
        ffi.cdef(_declarations(header.read_text(encoding="utf8")))
        try:
            lib = ffi.dlopen(str(path))
        except OSError as error:
            tried.append(f"{path}: {error}")
            continue
        if lib.splat_abi_version() != ABI_VERSION:
            tried.append(f"{path}: version {lib.splat_abi_version()}, this package needs {ABI_VERSION}")
            continue
        return NativeLibrary(ffi, lib, path)
    raise NativeLibraryError(
        "the native core cannot be loaded; build it with 'pip install .' in the source tree (needs a C++ compiler: "
        "'apt-get install g++', 'dnf install gcc-c++' or 'xcode-select --install'). Tried: " + "; ".join(tried)
    )
