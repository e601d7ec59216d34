"""Builds the CUDA kernels for the host (``tests/native/cuda_host.h``), once per content, and finds the sanitizers.

Objects are kept in a folder of the user's temporary directory, named by a hash of everything they are made from.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOST = ROOT / "tests" / "native" / "cuda_host"
HEADER = ROOT / "tests" / "native" / "cuda_host.h"
KERNELS = ROOT / "cuda" / "gpu"
COMMON = [
    "-std=c++17", "-O1", "-g1", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-Wno-psabi",
    "-DSPLAT_HOST_CUDA", "-DSPLAT_ISA=cuda", "-I", str(KERNELS), "-include", str(HEADER),
]  # fmt: skip
UNDEFINED = [
    "-fsanitize=address,alignment,bounds,shift,integer-divide-by-zero,float-cast-overflow,signed-integer-overflow",
    "-fno-sanitize-recover=all",
]
"""What can go wrong in a kernel; all of UBSan takes twice as long to compile."""
KEPT_DAYS = 7
VARIANTS: dict[str, tuple[list[str], list[str]]] = {
    "plain": ([], []),
    "asan": (UNDEFINED, UNDEFINED),
    "race": (["-DSPLAT_HOST_RACE=1"], ["-DSPLAT_HOST_RACE=1", "-fsanitize=thread"]),
}
"""Flags of the runtime and of the kernels; "race" puts our own detector behind ThreadSanitizer's calls."""


@cache
def gcc() -> str:
    """A g++; the tests skip by name where there is none, or where the harness does not run."""
    names = [os.environ.get("CXX", ""), "g++", "c++"]
    for path in filter(None, (shutil.which(name) for name in names if name)):
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
        if "Free Software Foundation" in version:
            return path
    pytest.skip("no g++ to build the CUDA kernels for the host with")


def host_library(variant: str) -> Path:
    """libsplat_cuda for the host: every ``cuda/gpu/*.cu``."""
    return _library(tuple(sorted(KERNELS.glob("*.cu"))), variant)


def planted_library(variant: str) -> Path:
    """The harness's own kernels, ``tests/native/cuda_host/planted.cu``."""
    return _library((HOST / "planted.cu",), variant)


@cache
def _library(kernels: tuple[Path, ...], variant: str) -> Path:
    runtime_flags, kernel_flags = VARIANTS[variant]
    runtime = [HOST / "runtime.cpp", HOST / "cudart.cpp"] + ([HOST / "race.cpp"] if variant == "race" else [])
    jobs = [(path, COMMON + runtime_flags) for path in runtime] + [(path, COMMON + kernel_flags) for path in kernels]
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        objects = list(pool.map(lambda job: _object(*job), jobs))
    name = hashlib.sha256("\n".join(map(str, objects)).encode()).hexdigest()[:16]
    library = _folder() / f"libsplat_cuda_host_{variant}_{name}.so"
    if not library.is_file():
        flags = UNDEFINED if variant == "asan" else []
        _into(library, [gcc(), "-shared", *flags, *map(str, objects), "-ldl", "-o"])
    return library


def _object(source: Path, flags: list[str]) -> Path:
    """The compiled source; its name holds a hash of the source, every header and the flags."""
    found = hashlib.sha256("\n".join([gcc(), *flags]).encode())
    headers = [*KERNELS.glob("*.h"), *KERNELS.glob("*.cuh"), *(ROOT / "cuda/math").glob("*.h"), *HOST.glob("*.h")]
    headers += [ROOT / "cuda/include/splat.h", HEADER, *(ROOT / "cuda/cpu").glob("*.h")]
    for path in [source, *sorted(headers)]:
        found.update(path.read_bytes())
    target = _folder() / f"{source.stem}_{found.hexdigest()[:16]}.o"
    if not target.is_file():
        _into(target, [gcc(), *flags, "-x", "c++", "-c", str(source), "-o"])
    return target


def _into(target: Path, command: list[str]) -> None:
    """Run the command for a file beside the target, then rename: sessions that run together do not meet."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        done = subprocess.run([*command, str(made)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stderr[-6000:]}"
        made.replace(target)


@cache
def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"splat-cuda-host-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    assert folder.stat().st_uid == os.getuid(), f"{folder} belongs to somebody else"
    for old in folder.glob("*.*o"):  # objects and libraries of sources that are gone
        if time.time() - old.stat().st_mtime > KEPT_DAYS * 86400:
            old.unlink(missing_ok=True)
    return folder


def sanitizer_environment() -> dict[str, str]:
    """Environment for a Python that loads the "asan" library; skips where libasan is not there."""
    libraries = []
    for name in ("libasan.so", "libubsan.so"):
        command = [gcc(), f"-print-file-name={name}"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        if not os.path.isabs(found):
            pytest.skip(f"this g++ has no {name}")
        libraries.append(found)
    options = "detect_leaks=0:abort_on_error=0:exitcode=77:detect_stack_use_after_return=0"
    return {
        **os.environ, "LD_PRELOAD": " ".join(libraries), "ASAN_OPTIONS": options, "PYTHONMALLOC": "malloc",
        "UBSAN_OPTIONS": "print_stacktrace=1", "OPENBLAS_NUM_THREADS": "1",
    }  # fmt: skip
