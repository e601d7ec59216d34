"""The float64 backward kernels against dual numbers run through the very same forward templates.

``dual_check.cpp`` includes the kernels' headers, so this needs a C++ compiler but no native library.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [Path(__file__).with_name("dual_check.cpp"), ROOT / "cuda/cpu/bin.cpp", ROOT / "cuda/cpu/pool.cpp"]
FLAGS = ["-std=c++17", "-O1", "-ffp-contract=off", "-fno-math-errno", "-pthread"]
SPLATS = 11
GROUPS = (
    "means", "quats", "log_scales", "logit_opacities", "sh0", "sh_rest", "features", "background", "camera", "shapes"
)  # fmt: skip
TAILS = {"means": 3, "quats": 4, "log_scales": 3, "logit_opacities": 1, "sh0": 3, "features": 2}
ROUNDING = 2e-7
"""Of a central difference: some 1e3 double roundings of a loss of size 1e2, over twice the step of 1e-6."""
CLASSIC = {"dilation": 0.3, "compensate": 0}
AA = {"dilation": 0.3, "compensate": 1}
MIP = {"dilation": 0.1, "compensate": 1}
ANALYTIC = {"footprint": 1, "dilation": 0, "compensate": 0}
GEF = {"footprint": 2}
CASES = {
    "classic-sh0": {**CLASSIC, "degree": 0, "seed": 1},
    "classic-sh3-off_center": {**CLASSIC, "degree": 3, "off_center": 1, "seed": 2},
    "classic-sh1-filter3d": {**CLASSIC, "degree": 1, "filter3d": 1, "seed": 3},
    "classic-sh2-wide": {**CLASSIC, "degree": 2, "wide": 1, "seed": 4},
    "classic-sh1-opaque": {**CLASSIC, "degree": 1, "opaque": 5, "seed": 5},
    "aa-sh3": {**AA, "degree": 3, "seed": 6},
    "aa-sh2-filter3d-off_center-wide": {**AA, "degree": 2, "filter3d": 1, "off_center": 1, "wide": 1, "seed": 7},
    "mip-sh1-off_center": {**MIP, "degree": 1, "off_center": 1, "seed": 8},
    "mip-sh3-filter3d-wide": {**MIP, "degree": 3, "filter3d": 1, "wide": 1, "seed": 9},
    "mip-sh0-filter3d-opaque-wide": {**MIP, "degree": 0, "filter3d": 1, "opaque": 12, "wide": 1, "seed": 10},
    "analytic-sh1": {**ANALYTIC, "degree": 1, "seed": 1},
    "analytic-sh2-wide-opaque": {**ANALYTIC, "degree": 2, "wide": 1, "opaque": 5, "seed": 5},
    "analytic-sh1-filter3d-off_center": {**ANALYTIC, "degree": 1, "filter3d": 1, "off_center": 1, "seed": 3},
    "analytic-sh0-frontal": {**ANALYTIC, "degree": 0, "frontal": 1, "seed": 4},
    "analytic-sh0-frontal-sub_pixel": {**ANALYTIC, "degree": 0, "frontal": 1, "smaller": 0.9, "seed": 2},
    "gef-classic-sh1-opaque": {**GEF, **CLASSIC, "degree": 1, "opaque": 5, "seed": 5},
    "gef-aa-sh2-wide": {**GEF, **AA, "degree": 2, "wide": 1, "seed": 2},
    "gef-mip-sh0-filter3d-off_center": {**GEF, **MIP, "degree": 0, "filter3d": 1, "off_center": 1, "seed": 9},
    "gef-mip-sh0-frontal": {**GEF, **MIP, "degree": 0, "frontal": 1, "seed": 3},
}


@pytest.fixture(scope="session")
def dual_check(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled check; the tests skip by name where nothing can compile it."""
    names = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    compiler = next((path for name in names if name and (path := shutil.which(name))), None)
    if compiler is None:
        pytest.skip("no C++ compiler (c++, g++ or clang++) to build tests/native/dual_check.cpp with")
    program = tmp_path_factory.mktemp("dual") / "dual_check"
    built = subprocess.run(
        [compiler, *FLAGS, *map(str, SOURCES), "-o", str(program)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return program


@pytest.fixture(scope="session")
def derivatives(dual_check: Path):
    """What the check prints for a case, run once."""
    known: dict[str, dict] = {}

    def of(name: str) -> dict:
        if name not in known:
            words = [f"{key}={value}" for key, value in CASES[name].items()]
            known[name] = json.loads(subprocess.run([dual_check, *words], capture_output=True, check=True).stdout)
        return known[name]

    return of


cases = pytest.mark.parametrize("name", CASES)


@cases
def test_the_scene_holds_what_it_claims(name: str, derivatives) -> None:
    case, found = CASES[name], derivatives(name)
    assert found["drawn"] >= 8 and found["instances"] >= 1.5 * found["drawn"], "splats in view, over several tiles"
    assert found["dark"] >= 1 and found["crossed"] >= 20
    if case.get("wide"):
        assert found["clamped"] >= 3
    if case.get("frontal"):
        assert found["round"] >= 2, "ellipses without axes"
    if case.get("opaque"):
        assert found["opaque"] >= 3 and found["stopped"] >= 10
    size = {group: SPLATS * tail for group, tail in TAILS.items()}
    size |= {"sh_rest": SPLATS * 3 * ((case["degree"] + 1) ** 2 - 1), "background": 3, "camera": 12}
    size["shapes"] = SPLATS if case.get("footprint") == 2 else 0
    for group in GROUPS:
        assert sum(row[0] == group for row in found["rows"]) == size[group]


@cases
def test_dual_numbers_take_the_same_branches_as_float64(name: str, derivatives) -> None:
    found = derivatives(name)
    assert {row[2] for row in found["rows"]} == {found["loss"]}


@cases
def test_backward_equals_dual_numbers(name: str, derivatives) -> None:
    for group in GROUPS:
        rows = [row for row in derivatives(name)["rows"] if row[0] == group]
        size = _rms([forward for _, _, _, forward, _, _ in rows])
        assert size > 0 or not rows, f"nothing depends on {group}: the case tests nothing"
        for _, index, _, forward, backward, _ in rows:
            assert backward == pytest.approx(forward, rel=1e-10, abs=1e-10 * size), f"{group}[{index}]"


@cases
def test_dual_numbers_equal_finite_differences(name: str, derivatives) -> None:
    """So that an error in the dual numbers themselves cannot hide one in the kernels."""
    rows = derivatives(name)["rows"]
    smooth = [row for row in rows if row[5] is not None]
    assert len(smooth) >= 0.95 * len(rows), "nearly every difference meets a jump of the picture"
    for group in GROUPS:
        pairs = [(forward, slope) for word, _, _, forward, _, slope in smooth if word == group]
        size = _rms([forward for forward, _ in pairs])
        for forward, slope in pairs:
            assert slope == pytest.approx(forward, rel=1e-5, abs=1e-5 * size + ROUNDING), group


def _rms(values: list[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values)) if values else 0.0
