"""The footprints of the EWA family by themselves: bounds by brute force, the cut, float32, finite numbers only.

``footprint_check.cpp`` includes the footprints' headers, so that part needs a C++ compiler but no native library.
Derivatives are in ``test_duals.py``.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from splat.geometry.camera import Camera
from splat.model.render_inputs import RenderInputs
from splat.native import ops
from splat.render.registry import rasterizer
from splat.render.types import CameraBatch, RenderOptions

SOURCE = Path(__file__).with_name("footprint_check.cpp")
FLAGS = ["-std=c++17", "-O2", "-ffp-contract=off", "-fno-math-errno", "-Wno-psabi"]
FOOTPRINTS = ("gaussian", "analytic", "gef")
SPLATS = 250
FIELDS = ("means", "quats", "log_scales", "logit_opacities", "sh0")


@pytest.fixture(scope="session")
def footprint_check(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled check; the tests skip by name where nothing can compile it."""
    names = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    compiler = next((path for name in names if name and (path := shutil.which(name))), None)
    if compiler is None:
        pytest.skip("no C++ compiler (c++, g++ or clang++) to build tests/native/footprint_check.cpp with")
    program = tmp_path_factory.mktemp("footprints") / "footprint_check"
    built = subprocess.run(
        [compiler, *FLAGS, str(SOURCE), "-o", str(program)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return program


@pytest.fixture(scope="session")
def found(footprint_check: Path) -> dict[str, dict]:
    """What the check prints for every footprint."""
    return {
        name: json.loads(
            subprocess.run([footprint_check, name, str(SPLATS), "7"], capture_output=True, check=True).stdout
        )
        for name in FOOTPRINTS
    }


footprints = pytest.mark.parametrize("name", FOOTPRINTS)


@footprints
def test_no_visible_pixel_lies_outside_a_bound(name: str, found: dict[str, dict]) -> None:
    it = found[name]
    assert it["drawn"] >= SPLATS / 3 and it["visible"] > 20_000, "splats and pixels to speak of"
    assert it["outside_box"] == it["outside_tiles"] == it["outside_blocks"] == 0
    assert it["more_than_boxed"] == 0, "the memory for a splat's tiles is that of its box"


@footprints
def test_bounds_are_tight(name: str, found: dict[str, dict]) -> None:
    it = found[name]
    assert it["tiles_walked"] <= 1.12 * it["tiles_hit"] < 0.8 * it["tiles_boxed"]
    assert it["blocks_kept"] <= 1.15 * it["blocks_hit"]


@footprints
def test_exactly_what_passes_the_cut_is_valid(name: str, found: dict[str, dict]) -> None:
    assert found[name]["wrong_cut"] == 0


@footprints
def test_alpha_is_the_plain_formula_s(name: str, found: dict[str, dict]) -> None:
    assert found[name]["formula"] < 1e-9
    assert found[name]["float32"] < {"gaussian": 1e-4, "analytic": 5e-6, "gef": 1e-3}[name]


@footprints
def test_extreme_ellipses_leave_finite_sums_and_gradients(name: str, found: dict[str, dict]) -> None:
    assert found[name]["extremes"] > 2000 and found[name]["infinite"] == 0


def extreme_rows(dtype: torch.dtype, *, shapes: bool) -> RenderInputs:
    """Every mix of extreme scales, rotations, places, opacities and shapes, thinned to 1500 rows."""
    scales = [
        (-40, -40, -40),
        (-9, -9, -9),
        (-3, -3, -3),
        (-1, -1, -1.0),
        (3, -30, -3),
        (0, -9, -40),
        (9, 9, 9),
        (40, -40, 0),
    ]
    quats = [(1, 0, 0, 0), (math.sqrt(0.5), 0, 0, math.sqrt(0.5)), (1, 0, 0, 1e-6), (0.3, -0.5, 0.7, 0.2), (0, 0, 0, 0)]
    places = [(0, 0, 4.0), (1e-7, 0, 4.0), (0.3, -0.2, 4.0), (0.4, 0.3, 0.21), (0, 0, 1e4)]
    logits, powers = (-80.0, -5.4, 0.0, 5.0, 80.0), (-1e4, -20.0, -3.0, 0.0, 3.0, 20.0, 1e4) if shapes else (0.0,)
    mixes = list(itertools.product(scales, quats, places, logits, powers))
    random = torch.Generator().manual_seed(0)
    picked = [mixes[i] for i in torch.randperm(len(mixes), generator=random)[:1500].tolist()]
    scale, quat, place, logit, power = (torch.tensor(column, dtype=dtype) for column in zip(*picked, strict=True))
    n = len(picked)
    color = torch.randn(n, 3, generator=random).to(dtype)
    return RenderInputs(
        means=place, quats=quat, log_scales=scale, logit_opacities=logit, sh0=color,
        sh_rest=torch.zeros(n, 0, 3, dtype=dtype), kind="gef" if shapes else "gaussian",
        shape=(power,) if shapes else (),
    )  # fmt: skip


@pytest.fixture(params=[*str(ops.info()["isas"]).split(), "float64"])
def dtype(request: pytest.FixtureRequest):
    """Float32 by every instruction set of this machine, and float64."""
    before = str(ops.info()["isa"])
    if request.param != "float64":
        ops.set_isa(request.param)
    yield torch.float64 if request.param == "float64" else torch.float32
    ops.set_isa(before)


@pytest.mark.parametrize("filter2d", ["analytic", "classic", "mip"])
def test_extreme_rows_leave_finite_pictures_and_gradients(filter2d: str, dtype: torch.dtype) -> None:
    """A few at a time: the first opaque one would hide the rest."""
    every = extreme_rows(dtype, shapes=filter2d != "analytic")
    K = torch.tensor([[30.0, 0, 16.5], [0, 30.0, 16.5], [0, 0, 1]], dtype=torch.float64).numpy()  # a pixel's centre
    camera = CameraBatch.of(Camera("", torch.eye(4).numpy().astype(float), K, 33, 33), dtype=dtype)
    options = RenderOptions(sh_degree=0, filter2d=filter2d, near=0.2)
    touched = 0
    for rows in torch.arange(every.count).split(50):
        tables = {name: getattr(every, name)[rows].requires_grad_() for name in FIELDS}
        shape = tuple(table[rows].requires_grad_() for table in every.shape)
        inputs = RenderInputs(**tables, sh_rest=every.sh_rest[rows], kind=every.kind, shape=shape)
        output = rasterizer("native").render(inputs, camera, options)
        assert output.color.isfinite().all() and output.alpha.isfinite().all()
        output.color.square().sum().backward()
        for name, table in [*tables.items(), *(("shapes", table) for table in shape)]:
            assert table.grad.isfinite().all(), (name, rows[~table.grad.reshape(len(rows), -1).isfinite().all(1)])
        touched += int((tables["log_scales"].grad != 0).any(1).sum())
    assert touched > 100, "too few were seen"
