"""``splat doctor``."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from splat.cli.parsing import Parser

HELP = """
usage: splat doctor [--strict]

Says what this machine can train with: native libraries, instruction set, threads, GPU, versions, optional extras.
For everything missing it gives the command that adds it.

  --strict   exit code 2 when something that training needs is missing
"""
GOOD, OPTIONAL, MISSING = "ok", "--", "!!"
_PACKAGES = ("torch", "numpy", "cv2", "cffi", "safetensors", "plyfile", "viser")
_DISTRIBUTIONS = {"cv2": "opencv-python-headless"}


@dataclass(frozen=True)
class Finding:
    """One line of the report. ``mark`` is ok, -- (optional and absent) or !! (needed and absent)."""

    mark: str
    name: str
    text: str
    fix: str = ""


def run(argv: Sequence[str]) -> int:
    parser = Parser("doctor")
    parser.add_argument("--strict", action="store_true")
    args = parser.parse(argv)
    findings = examine()
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        print(f"{finding.mark}  {finding.name:<{width}}  {finding.text}")
        if finding.fix:
            print(f"    {'':<{width}}  fix: {finding.fix}")
    missing = [finding.name for finding in findings if finding.mark == MISSING]
    print(f"\ncannot train here yet; missing: {', '.join(missing)}" if missing else "\nready to train")
    return 2 if missing and args.strict else 0


def examine() -> list[Finding]:
    """Every check in turn; one that fails unexpectedly reports itself instead of ending the report."""
    findings: list[Finding] = []
    checks: tuple[Callable[[], list[Finding]], ...] = (
        _system, _packages, _cpu_library, _cuda_library, _gpu, _tools, _extras,
    )  # fmt: skip
    for check in checks:
        try:
            findings += check()
        except Exception as error:
            findings.append(
                Finding(MISSING, check.__name__.strip("_"), f"check failed: {type(error).__name__}: {error}")
            )
    return findings


def _system() -> list[Finding]:
    from splat.cli.main import version

    python = Finding(GOOD, "python", f"{platform.python_version()} ({sys.executable})")
    machine = f"{platform.system()} {platform.machine()}, {len(_cores())} cores, {_memory_text()}"
    return [Finding(GOOD, "splat", version()), python, Finding(GOOD, "machine", machine)]


def _cores() -> set[int]:
    """Cores this process may use, which a container can limit."""
    try:
        return os.sched_getaffinity(0)
    except AttributeError:
        return set(range(os.cpu_count() or 1))


def _memory_text() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return "memory unknown"
    return f"{total / 2**30:.1f} GiB memory"


def _packages() -> list[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    findings = []
    for module in _PACKAGES:
        name = _DISTRIBUTIONS.get(module, module)
        if importlib.util.find_spec(module) is None:
            findings.append(Finding(MISSING, name, "not installed", f"pip install {name}"))
            continue
        try:
            findings.append(Finding(GOOD, name, version(name)))
        except PackageNotFoundError:
            findings.append(Finding(GOOD, name, "present, of unknown version"))
    return findings


def _cpu_library() -> list[Finding]:
    from splat.errors import UserError

    try:
        from splat.native import library, ops

        path = library.cpu_library().path
        facts = ", ".join(f"{key} {value}" for key, value in ops.info().items() if key != "path")
    except (UserError, ImportError, OSError) as error:
        return [Finding(MISSING, "native CPU core", str(error), "pip install . (in the source tree)")]
    return [Finding(GOOD, "native CPU core", f"{path} ({facts})")]


def _cuda_library() -> list[Finding]:
    """The library, and then whether it can work here; each reason with its own remedy."""
    from splat.native import cuda
    from splat.native.library import NativeLibraryError, cuda_library

    name = "native CUDA core"
    reason = cuda.absent()
    try:
        where = f"{cuda_library().path} (code for {cuda.architectures()})"
    except NativeLibraryError:
        return [Finding(OPTIONAL, name, reason[0], reason[1])]
    if reason is not None:
        return [Finding(OPTIONAL, name, f"{where}: {reason[0]}", reason[1])]
    count, lines = cuda_library().lib.splat_cuda_device_count(), []
    for index in range(count):
        try:
            lines.append(Finding(GOOD, name, f"{where}: {cuda.device_info(index)}"))
        except NativeLibraryError as error:
            lines.append(Finding(OPTIONAL, name, f"{where}: {error}", cuda.remedy(str(error))))
    return lines


def _gpu() -> list[Finding]:
    import torch

    seen = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            seen.append(f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, compute {facts.major}.{facts.minor}")
        return [Finding(GOOD, "GPU", "; ".join(seen) + f" (torch built for CUDA {torch.version.cuda})")]
    driver = _first_line(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])
    if driver is None:
        return [Finding(OPTIONAL, "GPU", "none found (no nvidia-smi); training runs on the CPU: --preset cpu")]
    if torch.version.cuda is None:
        fix = "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu128"
        return [Finding(OPTIONAL, "GPU", f"{driver}, but this torch was built without CUDA", fix)]
    return [Finding(OPTIONAL, "GPU", f"{driver}, but torch (CUDA {torch.version.cuda}) cannot use it",
                    "update the NVIDIA driver, or install a torch for an older CUDA")]  # fmt: skip


def _tools() -> list[Finding]:
    compiler = next(
        (name for name in (os.environ.get("CXX"), "c++", "g++", "clang++") if name and shutil.which(name)), None
    )
    nvcc = shutil.which("nvcc")
    return [
        Finding(GOOD, "C++ compiler", _first_line([compiler, "--version"]) or compiler)
        if compiler
        else Finding(OPTIONAL, "C++ compiler", "none on PATH (only needed to build from source)",
                     "apt-get install g++, dnf install gcc-c++, or xcode-select --install"),
        Finding(GOOD, "nvcc", f"{nvcc} ({_last_line([nvcc, '--version'])})")
        if nvcc
        else Finding(OPTIONAL, "nvcc", "none on PATH (only needed to build CUDA code)"),
    ]  # fmt: skip


def _extras() -> list[Finding]:
    findings = []
    wanted = {
        "pycolmap": ("poses for photos and videos (splat sfm)", "pip install pycolmap"),
        "gsplat": ("a second rasterizer on GPUs (--rasterizer gsplat)", "pip install gsplat"),
    }
    for module, (purpose, fix) in wanted.items():
        present = importlib.util.find_spec(module) is not None
        findings.append(Finding(GOOD, module, purpose) if present else
                        Finding(OPTIONAL, module, f"absent: {purpose}", fix))  # fmt: skip
    from splat.metrics import lpips_metric

    absent = lpips_metric().absent
    findings.append(
        Finding(GOOD, "LPIPS", "weights found") if absent is None else
        Finding(OPTIONAL, "LPIPS", f"absent: {absent}", "pip install lpips && python -c "
                "\"import lpips; lpips.LPIPS(net='vgg')\" (downloads 530 MB of weights once)")
    )  # fmt: skip
    return findings


def _first_line(command: list[str]) -> str | None:
    lines = _lines(command)
    return lines[0] if lines else None


def _last_line(command: list[str]) -> str | None:
    lines = _lines(command)
    return lines[-1] if lines else None


def _lines(command: list[str]) -> list[str]:
    """Output of a tool; none when it is absent, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.strip().splitlines() if done.returncode == 0 else []
