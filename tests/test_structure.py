"""The shape of the house: who may import whom, where third-party packages live, what stays light and short."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = (
    {"errors"},
    {"geometry"},
    {"native"},
    {"scene", "model"},
    {"render", "losses", "metrics", "io", "live"},
    {"densify", "compress", "edit", "optim"},
    {"train", "evaluate", "report"},
    {"config"},
    {"cli"},
)
"""Bottom first. A part sees the layers below its own, never beside or above, lazily or not.

``native`` stands below ``scene`` and ``model`` because start rows need nearest neighbours."""
VIEWER_SEES = {"errors", "geometry", "model", "scene", "live", "render", "io", "edit"}
SEES_VIEWER = {"cli"}
HOMES = {
    "PIL": ("splat.io",),
    "accelerate": ("splat.edit.prior",),
    "cffi": ("splat.native",),
    "cv2": ("splat.scene",),
    "diffusers": ("splat.edit.prior",),
    "gsplat": ("splat.render.gsplat_rasterizer",),
    "lpips": ("splat.metrics.lpips",),
    "matplotlib": (),
    "mitsuba": (),
    "peft": ("splat.edit.prior",),
    "plyfile": ("splat.io",),
    "pycolmap": ("splat.scene",),
    "rich": ("splat.viewer",),
    "safetensors": ("splat.io",),
    "transformers": ("splat.edit.prior",),
    "tyro": ("splat.cli", "splat.config"),
    "viser": ("splat.viewer",),
    "zstandard": ("splat.io",),
}
"""Third-party package -> the modules (with what is inside them) that may import it."""
FREE = {"numpy", "torch", "tomli"}
HEAVY = ("torch", "cv2", "numpy", "plyfile", "viser", "gsplat", "tyro", "pycolmap", "cffi", "safetensors")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}
"""Exceptions by name, each with its reason; one that is no longer needed fails."""

NO_FUNCTION = re.compile(r"^(inline )?(template <.*> ?)?(namespace|extern|struct|class|enum|typedef)\b(?!.*\))")
"""A line of C++ in column 0 that opens something else."""


@dataclass(frozen=True)
class Module:
    name: str
    """Dotted, as it is imported."""
    tree: ast.Module
    is_package: bool


@dataclass(frozen=True)
class Import:
    """One imported name at one place."""

    source: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def read_modules() -> list[Module]:
    """Every module of the package; ``viewer/`` is installed as ``splat.viewer``."""
    modules = []
    for folder, package in (("splat", "splat"), ("viewer", "splat.viewer")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join((package, *(parts[:-1] if is_package else parts)))
            modules.append(Module(name, ast.parse(path.read_text(encoding="utf8"), str(path)), is_package))
    return modules


def imports_of(module: Module) -> Iterator[Import]:
    """Everything it imports at any depth: plainly, lazily, for type checkers, or by a name in a string."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module.name, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            for alias in node.names:
                yield Import(module.name, f"{base}.{alias.name}", node.lineno)
        elif isinstance(node, ast.Call) and node.args and _called(node) in ("import_module", "__import__"):
            start = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            if isinstance(start, ast.Constant) and isinstance(start.value, str):
                yield Import(module.name, start.value.rstrip("."), node.lineno)


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    parts = module.name.split(".")
    parts = parts[: len(parts) - node.level + module.is_package]
    return ".".join((*parts, node.module) if node.module else parts)


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def part_of(dotted: str) -> str | None:
    """``splat.io.ply`` -> ``io``; None for what is not ours, "" for ``splat`` itself."""
    first, *rest = dotted.split(".")
    if first != "splat":
        return None
    return rest[0] if rest else ""


def layer_of(part: str) -> int:
    return next(level for level, parts in enumerate(LAYERS) if part in parts)


def breaks_direction(found: Import) -> bool:
    source, target = part_of(found.source), part_of(found.target)
    if target is None or source == target or found.target == "splat.__version__":  # below everything
        return False
    if target == "":  # a bare ``import splat`` says nothing of what is used
        return True
    if source == "viewer":
        return target not in VIEWER_SEES
    if target == "viewer":
        return source not in SEES_VIEWER
    if source == "":
        return True
    return layer_of(target) >= layer_of(source)


def breaks_home(found: Import) -> bool:
    package = found.target.split(".")[0]
    homes = HOMES.get(package)
    return homes is not None and not any(f"{found.source}.".startswith(f"{home}.") for home in homes)


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    return read_modules()


@pytest.fixture(scope="module")
def imports(modules: list[Module]) -> list[Import]:
    return [found for module in modules for found in imports_of(module)]


def test_every_part_has_a_place(modules: list[Module]) -> None:
    known = set().union(*LAYERS) | {"viewer", ""}
    assert {part_of(module.name) for module in modules} <= known


def test_imports_point_down_only(imports: list[Import]) -> None:
    assert len(imports) > 200
    assert [str(found) for found in imports if breaks_direction(found)] == []


def test_third_party_packages_stay_at_home(imports: list[Import]) -> None:
    assert [str(found) for found in imports if breaks_home(found)] == []


def test_every_third_party_package_has_a_home(imports: list[Import]) -> None:
    outside = {found.target.split(".")[0] for found in imports if part_of(found.target) is None}
    assert outside - set(sys.stdlib_module_names) - set(HOMES) - FREE == set()


@pytest.mark.parametrize(
    ("source", "code", "broken"),
    [
        ("splat.model.start", "from splat.native import ops", False),
        ("splat.native.ops", "from splat.model import start", True),
        ("splat.render.native_view", "from splat.losses.photometric import x", True),
        ("splat.io.ply", "def f():\n    from splat.train import trainer", True),
        ("splat.io.ply", "import importlib\nimportlib.import_module('splat.cli.main')", True),
        ("splat.cli.main", "import importlib\nimportlib.import_module(f'splat.cli.commands.{1}')", False),
        ("splat.geometry.rng", "from ..train.trainer import Trainer", True),
        ("splat.geometry.rng", "from .camera import Camera", False),
        ("splat.train.trainer", "from splat import evaluate", True),
        ("splat.viewer.serving.app", "from splat.live import mailbox", False),
        ("splat.viewer.serving.app", "from splat.train import trainer", True),
        ("splat.train.trainer", "import splat.viewer.serving.app", True),
        ("splat.cli.commands.train", "import splat.viewer.serving.app", False),
        ("splat.errors", "import splat.geometry", True),
    ],
)
def test_the_direction_rule(source: str, code: str, broken: bool) -> None:
    found = list(imports_of(Module(source, ast.parse(code), is_package=False)))
    assert any(map(breaks_direction, found)) == broken


@pytest.mark.parametrize(
    ("source", "code", "broken"),
    [
        ("splat.io.ply", "import plyfile", False),
        ("splat.scene.point_ply", "def f():\n    from plyfile import PlyData", True),
        ("splat.render.gsplat_rasterizer", "from gsplat import rasterization", False),
        ("splat.render.registry", "import gsplat", True),
    ],
)
def test_the_home_rule(source: str, code: str, broken: bool) -> None:
    found = list(imports_of(Module(source, ast.parse(code), is_package=False)))
    assert any(map(breaks_home, found)) == broken


@pytest.mark.parametrize(
    "code", ["import splat", "import splat.cli.main", "import splat.cli.main as m; m.main(['--help'])"]
)
def test_the_first_import_is_light(code: str) -> None:
    check = f"import sys\n{code}\nprint('HEAVY', *(name for name in {HEAVY!r} if name in sys.modules))"
    out = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "HEAVY"


# --- sizes -----------------------------------------------------------------------------------------------------


def _sources(*suffixes: str) -> list[Path]:
    folders = ("splat", "viewer", "cuda", "scripts", "scenes", "tests")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in suffixes)


def test_files_are_short() -> None:
    sources = _sources(".py", ".h", ".cpp", ".cu", ".cuh", ".js", ".ts", ".css", ".html")
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf8").splitlines()) for path in sources}
    assert len(lengths) > 100
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES and name not in LONG_FILES} == {}
    assert [name for name in LONG_FILES if lengths.get(name, 0) <= MAX_FILE_LINES] == [], "no longer exceptions"


def _python_functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.end_lineno - node.lineno + 1


def _native_functions(path: Path) -> Iterator[tuple[str, int]]:
    """Functions at namespace scope, told by the layout: they begin in column 0 and end with a brace there."""
    begin, head, opened = 0, "", False
    for number, line in enumerate(path.read_text(encoding="utf8").splitlines(), start=1):
        if begin and "(" not in head:
            head += line  # the name stands below ``template <...>``
        if not begin and line[:1].isalpha() and not NO_FUNCTION.search(line):
            begin, head, opened = number, line, False
        opened = opened or "{" in line
        if begin and line.startswith("}") and "(" in head:
            yield head.split("(")[0].split()[-1], number - begin + 1
            begin = 0
        elif begin and ((line.endswith(";") and not (opened and "(" in head)) or (line == head and line.endswith("}"))):
            begin = 0  # a declaration, or all on one line
    assert begin == 0, f"{path}: no end of {head}"


def test_functions_are_short() -> None:
    lengths: dict[str, int] = {}
    for suffixes, functions in (((".py",), _python_functions), ((".h", ".cpp", ".cu", ".cuh"), _native_functions)):
        for path in _sources(*suffixes):
            for name, length in functions(path):
                key = f"{path.relative_to(ROOT).as_posix()}:{name}"
                lengths[key] = max(lengths.get(key, 0), length)
    assert len(lengths) > 500 and {"cuda/math/sh.h:sh_basis", "cuda/cpu/bin.cpp:bin"} <= set(lengths)
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES and name not in LONG_FUNCTIONS} == {}
    assert [name for name in LONG_FUNCTIONS if lengths.get(name, 0) <= MAX_FUNCTION_LINES] == [], "no longer exceptions"


def test_test_files_have_names_of_their_own() -> None:
    """Without packages pytest tells test modules apart by their names alone."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert {name for name in names if names.count(name) > 1} == set()
