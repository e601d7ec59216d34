"""Everything there is to check on a machine with an NVIDIA GPU: builds or loads the library, parity, sanitizer, speed.

    python scripts/gpu_check.py --json gpu_check.json
    python scripts/gpu_check.py --library DIR          a prebuilt libsplat_cuda (and libsplat_cpu) carried here

Run it from a source tree. Torch and numpy are all it needs; cffi and pytest are used where they are.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "gpu_check"
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "scripts")]
SANITIZED = ("memcheck", "racecheck", "initcheck", "synccheck")
SANITIZED_CHECKS = (
    "parity 33x40-n60-sh2-mip-hostile",
    "parity 64x48-n200-sh2-analytic",
    "parity gef-64x48",
    "parity convex6-64x48",
)


def build_library(build: Path) -> Path:
    """Both libraries by CMake, or the CUDA one by nvcc alone where there is no CMake; the folder they are in."""
    if shutil.which("cmake"):
        generator = ["-G", "Ninja"] if shutil.which("ninja") else []
        run(["cmake", "-S", str(ROOT / "cuda"), "-B", str(build), *generator, "-DSPLAT_CUDA_REQUIRED=ON"])
        run(["cmake", "--build", str(build), "--parallel", str(os.cpu_count() or 2)])
        shutil.copy2(build / "cuda" / "libsplat_cuda.so", build / "libsplat_cuda.so")
        return build
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not Path(nvcc).exists():
        raise SystemExit("neither cmake nor nvcc is here: build elsewhere and give --library")
    build.mkdir(parents=True, exist_ok=True)
    sources = sorted(map(str, (ROOT / "cuda" / "gpu").glob("*.cu")))
    flags = ["-std=c++17", "-O3", "-arch=native", "--expt-relaxed-constexpr", "-DSPLAT_ISA=cuda", "-cudart", "static"]
    flags += ["-Xcompiler=-fPIC"]
    unfused = [source for source in sources if Path(source).name == "bin.cu"]  # as in cuda/gpu/CMakeLists.txt
    objects = str(build / "bin.o")
    run([nvcc, *flags, "--fmad=false", "-c", *unfused, "-o", objects])
    rest = [source for source in sources if source not in unfused]
    run([nvcc, *flags, "-shared", "-t", "0", *rest, objects, "-o", str(build / "libsplat_cuda.so")])
    return build


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-4000:]}")


def parity_checks() -> list[tuple[str, Callable[[], Any]]]:
    """Name and action of every check; an action raises when it fails."""
    import helpers_gpu
    from helpers_parity import CASES
    from helpers_render import Case

    larger = (
        Case(size=(160, 120), count=600, degree=3, filter2d="mip", filter3d=True, seed=31),
        Case(size=(255, 97), count=300, degree=2, hostile=True, opaque=2.0, views=2, seed=32),
        Case(size=(160, 120), count=600, degree=1, filter2d="analytic", seed=33),
        Case(size=(160, 120), count=600, degree=1, kind="gef", filter2d="aa", opaque=2.0, seed=34),
        Case(size=(160, 120), count=300, degree=1, kind="convex", vertices=8, opaque=2.0, seed=35),
    )
    checks: list[tuple[str, Callable[[], Any]]] = [
        (f"parity {case}", lambda case=case: helpers_gpu.check_case(case, "cuda"))
        for case in (*CASES, *helpers_gpu.FOOTPRINT_CASES, *larger)
    ]
    for check in helpers_gpu.CHECKS:
        checks.append((check.__name__.removeprefix("check_"), lambda check=check: check("cuda")))
    checks.append(("streams", helpers_gpu.check_streams))
    checks.append(("training", lambda: helpers_gpu.check_training("cuda", steps=200, count=2000, size=(160, 120))))
    return checks


def run_checks(only: list[str]) -> list[dict[str, Any]]:
    """One line each, printed as they go."""
    found = []
    for name, action in parity_checks():
        if only and not any(word in name for word in only):
            continue
        began = time.perf_counter()
        try:
            value = action()
            verdict, text = "ok", "" if value is None else str(value)
        except Exception as error:
            verdict, text = "FAILED", f"{type(error).__name__}: {error}".splitlines()[0]
        secs = time.perf_counter() - began
        print(f"{verdict:<7} {name} ({secs:.2f} s) {text}", flush=True)
        found.append({"check": name, "verdict": verdict, "text": text, "seconds": secs})
    return found


def sanitize(library: Path) -> list[dict[str, Any]]:
    """A small scene under each tool of compute-sanitizer."""
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(tool).exists():
        print("skipped compute-sanitizer (not installed here)")
        return [{"check": "compute-sanitizer", "verdict": "absent", "text": "not installed here"}]
    found = []
    # Torch's allocator would hide reads beyond a tensor inside its large blocks.
    environment = {**os.environ, "SPLAT_LIBRARIES": str(library), "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    for name in SANITIZED:
        command = [tool, "--tool", name, "--error-exitcode", "9", "--kernel-regex", "kns=splat"]
        command += [sys.executable, __file__, "--library", str(library), "--only", *SANITIZED_CHECKS]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=480, env=environment, check=False)
            text = [line for line in done.stdout.splitlines() if "=========" in line]
            verdict = "ok" if done.returncode == 0 else "FAILED"
            last = "; ".join(text[:6] if done.returncode else text[-1:])
        except subprocess.TimeoutExpired:
            verdict, last = "absent", "took longer than 480 s"
        print(f"{verdict:<7} compute-sanitizer {name} {last}", flush=True)
        found.append({"check": f"compute-sanitizer {name}", "verdict": verdict, "text": last})
    return found


def benchmarks(args: argparse.Namespace) -> dict[str, Any]:
    import bench_gpu

    results = bench_gpu.run(args.splats, args.sizes, args.repeat)
    if args.capture is not None:
        results["training"] = [bench_gpu.compare_training(args.capture, args.steps, args.max_splats)]
    print(bench_gpu.table(results))
    return results


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", type=Path, help="folder with a prebuilt libsplat_cuda.so")
    parser.add_argument("--only", nargs="*", default=[], help="run checks whose names contain one of these words only")
    parser.add_argument("--no-bench", action="store_true")
    parser.add_argument("--no-sanitizer", action="store_true")
    parser.add_argument("--splats", type=int, nargs="*", default=[300_000, 1_000_000, 3_000_000])
    parser.add_argument("--sizes", nargs="*", default=["720p", "1080p"])
    parser.add_argument("--repeat", type=int, default=30)
    parser.add_argument("--capture", type=Path, help="also train this capture by ours and by gsplat")
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--max-splats", type=int, default=500_000)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> int:
    args = arguments()
    began = time.perf_counter()
    library = (args.library or build_library(BUILD)).resolve()
    os.environ["SPLAT_LIBRARIES"] = str(library)
    built_secs = time.perf_counter() - began
    from ctypes_ffi import stand_in

    stand_in()
    import torch

    from splat.native import cuda

    reason = cuda.absent()
    if reason is None and not torch.cuda.is_available():
        reason = f"torch {torch.__version__} sees no GPU", "install a build of torch with CUDA"
    if reason is not None:
        print(f"the library loads from {library}, but: {reason[0]}\nfix: {reason[1]}")
        return 3
    print(f"{cuda.device_info(0)}; code for {cuda.architectures()}; library ready after {built_secs:.1f} s")
    report: dict[str, Any] = {"device": cuda.device_info(0), "torch": torch.__version__, "build_secs": built_secs}
    report["checks"] = run_checks(args.only)
    if not args.only:
        report["checks"] += [] if args.no_sanitizer else sanitize(library)
        report["benchmarks"] = None if args.no_bench else benchmarks(args)
    failed = [check["check"] for check in report["checks"] if check["verdict"] == "FAILED"]
    print(f"{len(failed)} of {len(report['checks'])} checks failed" + (f": {', '.join(failed)}" if failed else ""))
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf8")
    return 1 if failed or not report["checks"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
