"""A fixed scene drawn and trained, against numbers stored once: a change of the arithmetic cannot slip in.

The numbers are float64's; ``scripts/make_golden.py`` is the only thing that writes them.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from splat.native import ops

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "make_golden.py"
PATHS = ((torch.float64, None), *((torch.float32, isa) for isa in ops.info()["isas"].split()))
PICTURE_TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5}
"""Of the picture's range, beside half a step of what is stored."""
LOSS_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
FLIPS, FLIP = 9, 0.02
"""Float32 may decide a few fragments at alpha = 1/255 otherwise, and so move a few values a little."""


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_golden", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_golden"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


make_golden = _script()


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    isa = ops.info()["isa"]
    yield
    ops.set_isa(isa)


@pytest.fixture(params=PATHS, ids=lambda path: path[1] or "float64")
def today(request: pytest.FixtureRequest):
    """(precision, what today's code computes)."""
    dtype, isa = request.param
    if isa:
        ops.set_isa(isa)
    return dtype, make_golden.compute(dtype)


def test_the_picture_is_the_stored_one(today) -> None:
    dtype, found = today
    stored = make_golden.read()
    for name, top in make_golden.RANGE.items():
        mine, theirs = getattr(found, name), getattr(stored, name)
        assert mine.shape == theirs.shape
        error = np.abs(mine - theirs) / top - 0.5 / 65535
        far = error > PICTURE_TOLERANCE[dtype]
        assert far.sum() <= (FLIPS if dtype == torch.float32 else 0), f"{name}: {far.sum()} values"
        assert error.max() <= FLIP


def test_ten_steps_have_the_stored_losses(today) -> None:
    dtype, found = today
    np.testing.assert_allclose(found.losses, make_golden.read().losses, rtol=LOSS_TOLERANCE[dtype])


def test_the_stored_numbers_are_worth_comparing_with() -> None:
    stored = make_golden.read()
    assert stored.color.shape == (make_golden.HEIGHT, make_golden.WIDTH, 3)
    assert stored.color.std() > 0.1 and (stored.depth_expected > 0.5).mean() > 0.4
    assert len(stored.losses) == make_golden.STEPS and (np.diff(stored.losses) < 0).all()
    assert stored.losses[-1] < 0.5 * stored.losses[0]
    (file,) = make_golden.FOLDER.iterdir()
    assert file.stat().st_size < 20_000


def test_what_is_written_is_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = make_golden.compute()
    monkeypatch.setattr(make_golden, "FOLDER", tmp_path)
    make_golden.write(golden)
    again = make_golden.read()
    for name, top in make_golden.RANGE.items():
        np.testing.assert_allclose(getattr(again, name), getattr(golden, name), rtol=0, atol=0.51 / 65535 * top)
    assert (again.losses == golden.losses).all()


def test_a_small_change_of_the_arithmetic_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One part in ten thousand on the scales, as a slightly wrong formula would give."""
    plain = make_golden.scene

    def off(dtype: torch.dtype) -> dict[str, torch.Tensor]:
        return plain(dtype) | {"log_scales": plain(dtype)["log_scales"] + 1e-4}

    stored = make_golden.read()
    monkeypatch.setattr(make_golden, "scene", off)
    moved = make_golden.compute()
    error = np.abs(moved.color - stored.color) / make_golden.RANGE["color"] - 0.5 / 65535
    assert (error > PICTURE_TOLERANCE[torch.float32]).sum() > FLIPS
    assert np.abs(moved.losses / stored.losses - 1).max() > LOSS_TOLERANCE[torch.float32]
