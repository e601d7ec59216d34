"""The smooth convex footprint: gradients against dual numbers, hulls, resolutions, bounds, broken rows.

``convex_check.cpp`` includes the kernels' headers, so this needs a C++ compiler but no native library.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [Path(__file__).with_name("convex_check.cpp"), ROOT / "cuda/cpu/bin.cpp", ROOT / "cuda/cpu/pool.cpp"]
FLAGS = ["-std=c++17", "-O1", "-ffp-contract=off", "-fno-math-errno", "-pthread"]
SPLATS = 10
DERIVATIVES, RESOLUTIONS, BOUNDS, BROKEN, HULLS = range(5)
CASES = {
    "six": {"vertices": 6, "degree": 1, "focal": 60, "seed": 1},
    "triangles": {"vertices": 3, "degree": 0, "focal": 60, "seed": 3},
    "eight-sh3": {"vertices": 8, "degree": 3, "focal": 60, "seed": 4},
    "five-no_reference": {"vertices": 5, "degree": 0, "focal": 0, "seed": 5},
    "six-opaque": {"vertices": 6, "degree": 2, "focal": 60, "opaque": 5, "seed": 6},
    "published": {"vertices": 6, "degree": 1, "focal": 60, "published": 1, "seed": 2},
    "published-no_reference": {"vertices": 4, "degree": 0, "focal": 0, "published": 1, "seed": 7},
}
cases = pytest.mark.parametrize("name", CASES)
Check = Callable[..., dict]


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Runs the compiled check; the tests skip by name where nothing can compile it."""
    names = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    compiler = next((path for name in names if name and (path := shutil.which(name))), None)
    if compiler is None:
        pytest.skip("no C++ compiler (c++, g++ or clang++) to build tests/native/convex_check.cpp with")
    program = tmp_path_factory.mktemp("convex") / "convex_check"
    built = subprocess.run(
        [compiler, *FLAGS, *map(str, SOURCES), "-o", str(program)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    known: dict[tuple, dict] = {}

    def run(what: int, **settings: int) -> dict:
        key = (what, *settings.items())
        if key not in known:
            words = [f"{name}={value}" for name, value in {"what": what, **settings}.items()]
            known[key] = json.loads(subprocess.run([program, *words], capture_output=True, check=True).stdout)
        return known[key]

    return run


# --- gradients -----------------------------------------------------------------------------------------------------


@cases
def test_the_scene_holds_what_it_claims(name: str, check: Check) -> None:
    case, found = CASES[name], check(DERIVATIVES, **CASES[name])
    assert 6 <= found["drawn"] <= 9, "one convex is behind the camera, one has a vertex there"
    assert found["most_edges"] >= min(case["vertices"], 5)
    assert found["opaque"] >= 2 or not case.get("opaque")
    vertices, rest = case["vertices"], (case["degree"] + 1) ** 2 - 1
    size = {"means": 3, "vertices": 3 * vertices, "log_deltas": 1, "log_sigmas": 1, "logit_opacities": 1}
    size |= {"sh0": 3, "sh_rest": 3 * rest, "features": 2, "centers": 2}
    size = {group: SPLATS * count for group, count in size.items()} | {"background": 3, "camera": 12}
    counted = [row[0] for row in found["rows"]]
    assert {group: counted.count(group) for group in size} == size
    assert {row[2] for row in found["rows"]} == {found["loss"]}, "dual numbers take the branches of float64"


@cases
def test_backward_equals_dual_numbers(name: str, check: Check) -> None:
    """Also for ``centers``, the statistic of moving a footprint as a whole."""
    rows = check(DERIVATIVES, **CASES[name])["rows"]
    for group in dict.fromkeys(row[0] for row in rows):
        pairs = [row[3:] for row in rows if row[0] == group]
        size = math.sqrt(sum(forward**2 for forward, _ in pairs) / len(pairs))
        assert size > 0, f"nothing depends on {group}: the case tests nothing"
        for index, (forward, backward) in enumerate(pairs):
            assert backward == pytest.approx(forward, rel=1e-10, abs=1e-10 * size), f"{group}[{index}]"


def test_pixel_gradients_equal_dual_numbers(check: Check) -> None:
    """Of ln alpha at one pixel, by moving the footprint: what the statistics of absolute gradients add up."""
    assert check(DERIVATIVES, **CASES["six"])["pixel_gradient_error"] < 1e-10


def test_published_gradients_differ_where_they_should(check: Check) -> None:
    case = CASES["published"]
    published = check(DERIVATIVES, **case)["rows"]
    true = check(DERIVATIVES, **(case | {"published": 0}))["rows"]
    same = {row[0] for row, other in zip(published, true, strict=True) if row[4] == other[4]}
    differ = {row[0] for row, other in zip(published, true, strict=True) if row[4] != other[4]}
    assert differ == {"means", "vertices", "camera"}
    assert {"log_deltas", "log_sigmas", "logit_opacities", "sh0", "sh_rest", "features", "background"} <= same


# --- hulls ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("double", [0, 1])
def test_hulls_have_the_edges_they_should(double: int, check: Check) -> None:
    """No edge: not drawn."""
    assert check(HULLS, double=double) == {
        "triangle": 3,
        "square with its centre": 4,
        "square, every corner twice": 4,
        "square with midpoints": 4,
        "octagon": 8,
        "tilted square": 4,
        "line": 0,
        "vertical line": 0,
        "point": 0,
        "needle": 0,
        "speck": 0,
        "vertex before the near plane": 3,
        "vertex behind the near plane": 0,
        "vertex within reach": 3,
        "vertex out of reach": 0,
        "opacity above 1/255": 3,
        "opacity below 1/255": 0,
    }


# --- resolution ----------------------------------------------------------------------------------------------------


def test_the_picture_does_not_depend_on_the_resolution(check: Check) -> None:
    found = check(RESOLUTIONS, seed=1)
    assert found["reference"]["seen"] > 10_000
    assert found["reference"]["worst"] <= 1e-6
    assert found["published"]["worst"] > 0.5, "without a reference focal length it does, as published"


def test_published_sharpness_follows_the_published_trend(check: Check) -> None:
    assert check(RESOLUTIONS, seed=1)["trend"] == pytest.approx([0.673, 0.947, 1.000], abs=5e-4)


# --- bounds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("double", [0, 1])
def test_bounds_lose_no_pixel(double: int, check: Check) -> None:
    found = check(BOUNDS, seed=1, double=double)
    assert found["drawn"] > 600 and found["pixels"] > 1_000_000
    assert 100 < found["skirted"] < found["convexes"] - 100, "both kinds of cut"
    lost = ("outside_box", "outside_tiles", "unreached", "wrong_cut", "more_than_rectangle")
    assert {name: found[name] for name in lost} == dict.fromkeys(lost, 0)


def test_bounds_are_tight(check: Check) -> None:
    found = check(BOUNDS, seed=1, double=1)
    assert found["loosest"] < 1.06, "of the box by the corners; worst are needles, which float32 hardly knows"
    assert found["attained"] > 0.99, "how far the footprint reaches in its box"
    assert found["pointless"] < 0.1 * found["tiles"], "tiles without a pixel"
    assert found["tiles"] < 0.75 * found["rect_tiles"]
    assert found["skirt"] == pytest.approx(4.5, rel=1e-3), "four breadths beyond the edge of a soft rectangle"


# --- rows that nobody should make -------------------------------------------------------------------------------------


@pytest.mark.parametrize("packs", [0, 1])
@pytest.mark.parametrize("seed", [1, 2])
def test_broken_rows_stay_finite(seed: int, packs: int, check: Check) -> None:
    """Duplicate, collinear and collapsed vertices, behind the camera, of sizes e^-40 to e^40, NaN and infinity."""
    found = check(BROKEN, seed=seed, packs=packs)
    assert found["drawn"] > 300 and found["hidden"] > 300
    assert (found["bad_records"], found["bad_pixels"], found["bad_gradients"]) == (0, 0, 0)
