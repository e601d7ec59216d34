"""Training stays honest after edits by hand; ``scripts/edit_honesty.py`` at a small size."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from splat.io.png import read_png

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import edit_honesty


@pytest.mark.slow
@pytest.mark.parametrize("densifier", ["budget", "mcmc", "adaptive"])
def test_what_was_moved_stays_what_was_deleted_stays_away_and_the_background_keeps_its_quality(tmp_path, densifier):
    edit_honesty.main(
        ["--out", str(tmp_path), "--before", "300", "--after", "200", "--max-splats", "10000", "--size", "200",
         "--densifier", densifier]
    )  # fmt: skip
    found = json.loads((tmp_path / "honesty.json").read_text())
    assert found["shift"] == 0 and found["largest_change"] == 0
    assert found["psnr_change"] >= -0.1 and found["psnr_against_control"] >= -0.2
    (_, first, _), *_, (_, last, _) = found["region"]["edited"]
    there = found["region"]["control"][-1][1]
    assert first == 0 and there > 200 and last <= 0.02 * there
    picture = read_png(tmp_path / "honesty.png")
    assert picture.shape[1] == 5 * 200
