"""``scripts/antialias.py`` reproduces the specification's table, and its formulas are what the rasterizer draws."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import antialias


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = tmp_path_factory.mktemp("antialias") / "table.json"
    antialias.main(["--samples", "512", "--no-check", "--json", str(path)])
    return json.loads(path.read_text(encoding="utf8"))


def test_the_table_is_the_specification_s(result: dict) -> None:
    for row in result["table"]:
        assert row["peak"] == pytest.approx(row["peak_spec"], abs=0.015)
        for name, (mean, largest) in row["errors"].items():
            said_mean, said_largest = row["spec"][name]
            # An undilated splat of 0.1 px hits few pixel centres: its mean needs many samples.
            noise = 0.5 if name == "none" and row["minor_px"] == 0.1 else 0.1
            assert mean == pytest.approx(said_mean, rel=noise, abs=0.002), (row["minor_px"], row["aspect"], name)
            if said_largest is not None and noise < 0.5:
                assert largest == pytest.approx(said_largest, abs=0.02), (row["minor_px"], row["aspect"], name)


def test_energies_are_the_specification_s(result: dict) -> None:
    for method, said in antialias.ENERGY.items():
        for deviation, ratio in said.items():
            assert result["energy"][method][str(deviation)] == pytest.approx(ratio, rel=0.0102)


def test_the_analytic_energy_is_the_splat_s() -> None:
    for deviation in (0.05, 0.1, 0.3, 1.0, 3.0):
        assert antialias.energy("analytic", deviation, places=4) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("method", antialias.METHODS[1:])
def test_the_rasterizer_draws_these_formulas(method: str) -> None:
    found = [antialias.check(method, row, seed) for seed, row in enumerate(antialias.TABLE)]
    assert all(pixels > 0 for _, pixels in found)
    assert max(difference for difference, _ in found) < 1e-12
