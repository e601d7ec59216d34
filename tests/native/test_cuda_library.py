"""libsplat_cuda as a file: it loads without a driver and says so; its build never harms that of the CPU core."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from splat.cli.commands import doctor
from splat.native import cuda, library
from splat.native.backend import backend_of

ROOT = Path(__file__).resolve().parents[2]
GPU = ROOT / "cuda" / "gpu"
NAME = library._file_name("splat_cuda")


def nvcc() -> str:
    found = os.environ.get("CUDACXX") or shutil.which("nvcc")
    if not found:
        pytest.skip("no nvcc on PATH")
    return found


@pytest.fixture(scope="module")
def device_only() -> Path:
    """A library of device.cu alone, which holds everything about drivers and devices; made once per content."""
    sources = [GPU / "device.cu", GPU / "device.h", ROOT / "cuda/include/splat.h"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"splat-cuda-device-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if not (folder / NAME).is_file():
        made = folder / f"{os.getpid()}.so"
        command = [nvcc(), "-std=c++17", "-arch=sm_80", "-DSPLAT_ISA=cuda", '-DSPLAT_CUDA_ARCHITECTURES="80 ptx80"']
        command += ["-cudart", "static", "-shared", "-Xcompiler=-fPIC,-fvisibility=hidden", str(sources[0]), "-o"]
        subprocess.run([*command, str(made)], check=True, capture_output=True)
        made.replace(folder / NAME)
    return folder


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch):
    """Makes the package look for its CUDA library in one folder, afresh."""

    def folder(path: Path) -> None:
        monkeypatch.setattr(library, "_folders", lambda: [path])
        library.cuda_library.cache_clear()

    yield folder
    library.cuda_library.cache_clear()


def has_driver() -> bool:
    return any(Path(path).exists() for path in ("/dev/nvidia0", "/proc/driver/nvidia/version", "/dev/dxg"))


def test_it_loads_and_says_what_is_missing(device_only: Path, use) -> None:
    use(device_only)
    native = library.cuda_library()
    count = native.lib.splat_cuda_device_count()
    if has_driver():
        assert count >= -1
        return
    assert count == -1
    text = native.ffi.string(native.lib.splat_cuda_error()).decode()
    assert re.fullmatch(r"no driver: this machine has no NVIDIA driver .*install \d+ or newer", text)
    assert native.lib.splat_cuda_device_info(0) == native.ffi.NULL
    assert cuda.architectures() == "80 ptx80"
    reason, fix = cuda.absent()
    assert reason == text and "driver" in fix
    with pytest.raises(library.NativeLibraryError):
        cuda.device_info(0)


@pytest.mark.skipif(has_driver(), reason="this machine has an NVIDIA driver")
def test_doctor_says_that_the_driver_is_missing(device_only: Path, use) -> None:
    use(device_only)
    (finding,) = doctor._cuda_library()
    assert finding.mark == doctor.OPTIONAL and "no driver" in finding.text and "code for 80 ptx80" in finding.text
    assert str(device_only / NAME) in finding.text and "install the NVIDIA driver" in finding.fix


def test_doctor_says_how_to_build_what_is_not_built(tmp_path: Path, use) -> None:
    use(tmp_path)
    (finding,) = doctor._cuda_library()
    assert finding.mark == doctor.OPTIONAL and finding.text == "the CUDA library is not built"
    assert "nvcc" in finding.fix and "SPLAT_CUDA_WHEELS=1 pip install ." in finding.fix


@pytest.mark.parametrize(("reason", "fix"), [
    ("no driver: this machine has no NVIDIA driver", "install the NVIDIA driver"),
    ("driver too old: it serves CUDA 12.2, this library was built with 13.0", "update the NVIDIA driver"),
    ("wrong compute capability: GPU 0 is 6.1, this library has code for 80", "rebuild on this machine"),
    ("no GPU: the NVIDIA driver is there but shows no device", "CUDA_VISIBLE_DEVICES"),
    ("the GPU cannot be used: unknown error (cudaErrorUnknown)", "nvidia-smi"),
])  # fmt: skip
def test_every_reason_has_its_remedy(reason: str, fix: str) -> None:
    assert fix in cuda.remedy(reason)


def test_the_native_rasterizer_gives_the_reason(tmp_path: Path, use) -> None:
    from splat.render.native_rasterizer import NativeRasterizer
    from splat.render.registry import empty_inputs
    from splat.render.types import RenderOptions

    use(tmp_path)
    text = NativeRasterizer().supports(empty_inputs(torch.device("cuda")), RenderOptions(), torch.device("cuda"))
    assert text.startswith("the CUDA library is not built (fix: ") and "\n" not in text


def test_a_carried_library_is_taken_first(device_only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLAT_LIBRARIES", str(device_only))
    assert library._folders()[0] == device_only


def test_other_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="not on 'meta'"):
        backend_of("meta")


@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files")
def test_it_is_linked_to_no_driver(device_only: Path) -> None:
    tool = shutil.which("ldd")
    if tool is None:
        pytest.skip("no ldd here")
    linked = subprocess.run([tool, str(device_only / NAME)], capture_output=True, text=True, check=True).stdout
    assert "libc.so" in linked and "libcuda" not in linked


def configured(build: Path, *settings: str) -> subprocess.CompletedProcess:
    """Configure the whole project; skips without the tools."""
    if not shutil.which("cmake") or not shutil.which("ninja"):
        pytest.skip("needs cmake and ninja")
    command = ["cmake", "-S", str(ROOT / "cuda"), "-B", str(build), "-G", "Ninja", *settings]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def built(build: Path, target: str) -> subprocess.CompletedProcess:
    command = ["cmake", "--build", str(build), "--target", target]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_nvcc_that_fails_is_told_and_forgiven_unless_required(tmp_path: Path) -> None:
    broken = tmp_path / "nvcc"
    broken.write_text("#!/bin/sh\necho 'fatal error: this compiler is broken' >&2\nexit 1\n")
    broken.chmod(0o755)
    assert configured(tmp_path / "build", f"-DSPLAT_NVCC={broken}").returncode == 0
    done = built(tmp_path / "build", "splat_cuda")
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.sub(r"\s+", " ", done.stdout + done.stderr)
    assert "the CUDA library was not built" in said and "the CPU library is not affected" in said
    assert not list((tmp_path / "build").rglob(NAME))
    assert configured(tmp_path / "build", f"-DSPLAT_NVCC={broken}", "-DSPLAT_CUDA_REQUIRED=ON").returncode == 0
    assert built(tmp_path / "build", "splat_cuda").returncode != 0


def test_switched_off_or_without_nvcc_only_the_cpu_core_is_built(tmp_path: Path) -> None:
    assert configured(tmp_path / "off", "-DSPLAT_CUDA=OFF").returncode == 0
    assert built(tmp_path / "off", "splat_cuda").returncode != 0, "there is still such a target"


@pytest.mark.slow
def test_the_whole_library_builds_without_a_warning(tmp_path: Path) -> None:
    """Portable code, warnings as errors; every function of the header is there, and nothing else is visible."""
    nvcc()
    assert configured(tmp_path, "-DSPLAT_CUDA_REQUIRED=ON", "-DSPLAT_CUDA_STRICT=ON").returncode == 0
    done = built(tmp_path, "splat_cuda")
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    native = library.open_library(tmp_path / "cuda" / NAME)
    header = (ROOT / "cuda/include/splat.h").read_text(encoding="utf8")
    ours = header.split("the CUDA backend:")[1]
    wanted = set(re.findall(r"SPLAT_API [\w *]+\b(splat_cuda_\w+)\(", ours))
    wanted |= {"splat_cuda_error", "splat_abi_version", "splat_forward_stat_stride", "splat_backward_slot_stride"}
    wanted |= {"splat_footprints", "splat_footprint", "splat_record_reals", "splat_footprint_sums"}
    for name in wanted:
        getattr(native.lib, name)
    command = ["nm", "-D", "--defined-only", str(native.path)]
    visible = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert {line.split()[-1] for line in visible.splitlines()} == wanted
    assert native.path.stat().st_size < 20 * 2**20
