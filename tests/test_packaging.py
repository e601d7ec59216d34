"""What is installed, and what a wheel holds, is what the source tree has: no file left behind, none too many."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = {"win32": "splat_cpu.dll", "darwin": "libsplat_cpu.dylib"}.get(sys.platform, "libsplat_cpu.so")
HEADER = "splat/native/splat.h"
MAPPED = {"splat": "splat", "viewer": "splat/viewer", "configs": "splat/configs"}
"""Source folder -> its place in the wheel."""
FOR_READERS = ("splat/viewer/README.md", "splat/viewer/screenshots/")
"""Places that ``wheel.exclude`` leaves out: pages of the repository."""

# Run with -I, so that neither the working directory nor PYTHONPATH can stand in for an installation.
INSTALLED = """
import importlib.metadata, importlib.util, json, sys
from pathlib import Path
try:
    distribution = importlib.metadata.distribution("splat")
except importlib.metadata.PackageNotFoundError:
    print("null"), sys.exit()
origins = {}
for name in json.loads(sys.argv[1]):
    spec = importlib.util.find_spec(name)
    origins[name] = spec.origin if spec else None
from splat.config.presets import preset_folder
from splat.native.library import cpu_library, _header_for
library = cpu_library().path
print(json.dumps({
    "origins": origins,
    "presets": str(preset_folder()),
    "library": str(library),
    "header": str(_header_for(library)),
    "files": [str(file) for file in distribution.files or []],
    "scripts": [entry.value for entry in distribution.entry_points if entry.name == "splat"],
    "version": distribution.version,
}))
"""


def source_files() -> dict[str, Path]:
    """Place in the wheel -> file of the source tree, for everything the package is made of."""
    files = {}
    for folder, place in MAPPED.items():
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".so", ".dylib", ".dll"):
                files[f"{place}/{path.relative_to(ROOT / folder).as_posix()}"] = path
    return {place: path for place, path in files.items() if not place.startswith(FOR_READERS)}


def module_name(place: str) -> str:
    return place.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@pytest.fixture(scope="module")
def installed() -> dict:
    """What this Python finds of an installed splat; skips when only the source tree is in use."""
    names = [module_name(place) for place in source_files() if place.endswith(".py")]
    command = [sys.executable, "-I", "-c", INSTALLED, json.dumps(names)]
    run = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    if found is None:
        pytest.skip("splat is not installed in this Python (pip install . or pip install -e .)")
    return found


def test_the_source_tree_is_complete() -> None:
    """So that the comparisons below compare something."""
    places = source_files()
    assert {"splat/errors.py", "splat/cli/main.py", "splat/configs/default.toml"} <= set(places)
    assert len(places) > 80


def test_every_module_is_installed_as_it_is_here(installed: dict) -> None:
    for place, source in source_files().items():
        if not place.endswith(".py"):
            continue
        origin = installed["origins"][module_name(place)]
        assert origin, f"{place} is not installed; install again (pip install . or pip install -e .)"
        assert Path(origin).read_bytes() == source.read_bytes(), f"{origin} differs from {source}; install again"


def test_no_module_is_installed_that_is_gone_here(installed: dict) -> None:
    modules = {file for file in installed["files"] if file.startswith("splat/") and file.endswith(".py")}
    assert modules - set(source_files()) == set()


def test_every_preset_is_installed(installed: dict) -> None:
    here = {path.name: path.read_bytes() for path in (ROOT / "configs").glob("*.toml")}
    assert {path.name: path.read_bytes() for path in Path(installed["presets"]).glob("*.toml")} == here


def test_the_native_library_and_its_header_are_installed(installed: dict) -> None:
    for name in (LIBRARY, "splat.h"):
        assert any(file.endswith(f"splat/native/{name}") for file in installed["files"]), name
    assert Path(installed["library"]).name == LIBRARY
    assert Path(installed["header"]).read_bytes() == (ROOT / "cuda/include/splat.h").read_bytes()


def test_the_command_is_installed(installed: dict) -> None:
    assert installed["scripts"] == ["splat.cli.main:entry"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the source tree; nothing is left behind in it."""
    if importlib.util.find_spec("scikit_build_core") is None:
        pytest.skip("scikit-build-core is not installed, so no wheel can be built offline")
    if not any(map(shutil.which, ("c++", "g++", "clang++"))) or not shutil.which("cmake"):
        pytest.skip("building a wheel needs a C++ compiler and cmake")
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command += ["--config-settings", "cmake.define.SPLAT_CUDA=OFF"]  # tests/native/test_cuda_library.py builds it
    command += ["--config-settings", f"build-dir={out / 'build'}", "-w", str(out), str(ROOT)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
def test_one_wheel_serves_every_python(wheel: Path) -> None:
    assert re.fullmatch(r"splat-\d+\.\d+\.\d+-py3-none-(?!any)\w+\.whl", wheel.name), wheel.name
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/WHEEL"))
        text = archive.read(name).decode()
    assert "Root-Is-Purelib: false" in text and re.search(r"^Tag: py3-none-\w+$", text, re.MULTILINE)


@pytest.mark.slow
def test_the_wheel_holds_what_the_source_tree_has(wheel: Path) -> None:
    files = source_files()
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        ours = {name for name in names if ".dist-info/" not in name}
        assert ours == set(files) | {f"splat/native/{LIBRARY}", HEADER}
        for place, source in files.items():
            assert archive.read(place) == source.read_bytes(), place
        assert archive.read(HEADER) == (ROOT / "cuda/include/splat.h").read_bytes()
        assert any(name.endswith("LICENSE") for name in names - ours)
        (entry,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "splat=splat.cli.main:entry" in archive.read(entry).decode().replace(" ", "")


@pytest.mark.slow
def test_the_library_of_the_wheel_loads(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from splat.native import ops\n"
        "from splat.config.presets import preset_names\n"
        "print(ops.info()['path']), print(*preset_names())"
    )
    command = [sys.executable, "-I", "-c", code, str(tmp_path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout.splitlines()
    assert Path(out[0]) == tmp_path / "splat" / "native" / LIBRARY
    assert out[1].split() == sorted(path.stem for path in (ROOT / "configs").glob("*.toml"))
