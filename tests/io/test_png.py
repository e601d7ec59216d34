"""PNG written by us, read by us and by OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splat.errors import UserError
from splat.io.names import unique_stems
from splat.io.png import png_bytes, read_png, write_png

PICTURES = {
    "rgb": np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8),
    "grey": np.random.default_rng(1).integers(0, 256, (4, 9), np.uint8),
    "depth": np.random.default_rng(2).integers(0, 65536, (6, 3), np.uint16),
    "pixel": np.array([[[1, 2, 3]]], np.uint8),
    "slice": np.random.default_rng(3).integers(0, 256, (8, 8, 3), np.uint8)[::2, 1:, ::-1],
}


@pytest.mark.parametrize("name", PICTURES)
def test_round_trip_and_opencv(tmp_path, name):
    pixels = PICTURES[name]
    path = write_png(tmp_path / "p.png", pixels)
    back = read_png(path)
    assert back.dtype == pixels.dtype and np.array_equal(back, pixels)
    seen = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(seen if pixels.ndim == 2 else seen[..., ::-1], pixels)


def test_what_is_no_picture_is_refused():
    for pixels in (np.zeros((2, 2, 4), np.uint8), np.zeros((2, 2, 3), np.uint16), np.zeros((0, 2), np.uint8)):
        with pytest.raises(ValueError, match="PNG needs"):
            png_bytes(pixels)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 200), change=st.binary(min_size=1, max_size=3), at=st.integers(0, 120))
def test_damaged_files_are_user_errors_or_pictures(tmp_path, cut, change, at):
    data = bytearray(png_bytes(PICTURES["rgb"]))
    data[at : at + len(change)] = change
    (tmp_path / "p.png").write_bytes(bytes(data[:cut]))
    try:
        assert read_png(tmp_path / "p.png").ndim in (2, 3)
    except UserError as error:
        assert "\n" not in str(error)


def test_stems_are_flat_and_never_meet():
    assert unique_stems(["a/1.jpg", "b/1.jpg", "c.d.png"]) == ["a__1", "b__1", "c.d"]
    assert unique_stems(["x.jpg", "x.png", "y.png"]) == ["x.jpg", "x.png", "y"]
